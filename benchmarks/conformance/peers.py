"""The apps of the conformance run: the same two routes behind each guard, as strict as its own documentation can make it.

The source of each ``make`` function is printed on the page. So each stands alone, and begins at its ``def``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_keycloak_middleware import (
    KeycloakConfiguration,
    ServicePrincipal,
    get_service_principal,
    setup_keycloak_middleware,
)
from keycloak_guard import KeycloakAuthConfig, TokenValidator
from keycloak_guard import Principal as GuardPrincipal
from keycloak_guard.config import DEFAULT_REQUIRED_CLAIMS
from keycloak_guard.contrib.fastapi import KeycloakAuth

from benchmarks.conformance.page import GUARD, MIDDLEWARE, PYJWT
from s2s_fastapi.testing.attack import TrustedIssuer

AUDIENCE: Final = "orders-api"
CALLER: Final = "shop"

_ONE_REALM: Final = "It accepts tokens of one realm."
_BOUND: Final = "It has nothing for tokens that are bound to a key or to a certificate (RFC 9449, RFC 8705)."
_REVOKED: Final = "It checks tokens on its own, and has nothing for revocations."
_TYP: Final = "It compares the claim `typ`, and has no option for the header `typ`."
_TYPE: Final = "It has no option for the kind of a token, neither for the header `typ` nor for the claim."


@dataclass(frozen=True)
class Peer:
    """One guard of somebody else."""

    name: str
    make: Callable[[TrustedIssuer], FastAPI]
    packages: tuple[str, ...]
    documentation: str
    not_claimed: Mapping[str, str]
    """Kinds, entries or single cases for which it has no feature, with the reason."""
    remarks: tuple[str, ...] = ()
    """What a reader must know to judge the results."""


def fastapi_keycloak_middleware(trusted: TrustedIssuer) -> FastAPI:
    async def service(claims: dict[str, Any]) -> ServicePrincipal | None:
        return ServicePrincipal(client_id=claims["azp"]) if claims["azp"] == CALLER else None

    app = FastAPI()
    setup_keycloak_middleware(
        app,
        keycloak_configuration=KeycloakConfiguration(
            url=trusted.url,
            realm=trusted.realm,
            client_id=AUDIENCE,
            required_claims=["sub", "azp"],
            validation_options={
                "algs": ["RS256"],
                "expected_type": "JWS",
                "check_claims": {
                    "iss": trusted.issuer,
                    "aud": AUDIENCE,
                    "exp": None,
                    "iat": None,
                    "typ": "Bearer",
                },
            },
        ),
        exclude_patterns=["/health"],
        service_detector=lambda claims: "client_id" in claims and "sid" not in claims,
        service_mapper=service,
    )

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/orders/{number}")
    async def order(number: str, caller: Annotated[ServicePrincipal, Depends(get_service_principal)]) -> str:
        return number

    return app


def keycloak_guard(trusted: TrustedIssuer) -> FastAPI:
    auth = KeycloakAuth(
        TokenValidator(
            KeycloakAuthConfig(
                issuer=trusted.issuer,
                audience=AUDIENCE,
                algorithms=("RS256",),
                required_claims=(*DEFAULT_REQUIRED_CLAIMS, "azp"),
                bare_client_roles=False,
            )
        )
    )

    async def service(principal: Annotated[GuardPrincipal, Depends(auth)]) -> GuardPrincipal:
        if not principal.is_service or principal.client_id != CALLER:
            raise HTTPException(403, "Not allowed")
        return principal

    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/orders/{number}")
    async def order(number: str, caller: Annotated[GuardPrincipal, Depends(service)]) -> str:
        return number

    return app


def pyjwt_by_hand(trusted: TrustedIssuer) -> FastAPI:
    keys = jwt.PyJWKClient(trusted.jwks_url)
    bearer = HTTPBearer()

    def claims(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
        try:
            return jwt.decode(
                credentials.credentials,
                keys.get_signing_key_from_jwt(credentials.credentials),
                algorithms=["RS256"],
                audience=AUDIENCE,
                issuer=trusted.issuer,
                leeway=30,
                options={
                    "require": ["exp", "iat", "iss", "aud", "sub"],
                    "strict_aud": True,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.PyJWTError:
            raise HTTPException(401, "Invalid token", {"WWW-Authenticate": "Bearer"}) from None

    app = FastAPI()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.get("/orders/{number}")
    async def order(number: str, caller: Annotated[dict[str, Any], Depends(claims)]) -> str:
        return number

    return app


_EVERYWHERE: Final = {
    "key-of-a-further-realm-for-our-issuer": _ONE_REALM,
    "key-of-a-further-realm-under-our-kid": _ONE_REALM,
    "cached-after-its-revocation": _REVOKED,
    "binding": _BOUND,
    "proof": _BOUND,
}
_NO_CALLERS: Final = "It verifies a JWT, and knows neither callers nor users nor roles."

PEERS: Final = (
    Peer(
        name=MIDDLEWARE,
        make=fastapi_keycloak_middleware,
        packages=("fastapi-keycloak-middleware", "python-keycloak", "jwcrypto"),
        documentation="https://fastapi-keycloak-middleware.readthedocs.io/en/latest/",
        not_claimed={
            **_EVERYWHERE,
            **dict.fromkeys(("typ-of-another-jwt", "typ-of-nothing", "typ-missing"), _TYP),
        },
        remarks=(
            "jwcrypto compares `nbf` with the time only if no claims are asked for. Issuer and audience matter more, so they are asked for here.",
            "It answers a caller that its `service_mapper` does not know with 401. The cases expect 403.",
        ),
    ),
    Peer(
        name=GUARD,
        make=keycloak_guard,
        packages=("keycloak-guard", "PyJWT"),
        documentation="https://github.com/Dinakar2329/keycloak-guard",
        remarks=(
            "The package tells services from users and names the client (`is_service`, `client_id`). The two comparisons with them are ours.",
        ),
        not_claimed={
            **_EVERYWHERE,
            "type": _TYPE,
            "user-named-like-a-service": (
                "Its documentation recommends a role that only services have. The users of the suite have all roles of the caller, so this "
                "cannot be shown."
            ),
        },
    ),
    Peer(
        name=PYJWT,
        make=pyjwt_by_hand,
        packages=("PyJWT",),
        documentation="https://pyjwt.readthedocs.io/en/stable/",
        remarks=(
            "This is what people write by hand with PyJWT's documented options. PyJWT itself does not promise more than RFC 7519.",
            "`strict_aud` refuses each token with a list of audiences. Keycloak writes a list if a token has several, so leave it out there: here no result differs.",
        ),
        not_claimed={
            **_EVERYWHERE,
            "type": _TYPE,
            **dict.fromkeys(("caller", "user", "roles"), _NO_CALLERS),
        },
    ),
)

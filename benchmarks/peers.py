"""The same route behind what others wrote, each as its own documentation shows it, and behind what people write by hand.

None of them keeps verified tokens, so a repeated token costs them what a new one does. None is asked who may call, only whether the
token is good: ours does more.
"""

from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi_keycloak_middleware import KeycloakConfiguration, get_auth_context, setup_keycloak_middleware
from fastapi_keycloak_middleware.schemas.auth_context import AuthContext
from keycloak_guard import KeycloakAuthConfig, TokenValidator
from keycloak_guard import Principal as GuardPrincipal
from keycloak_guard.contrib.fastapi import KeycloakAuth

from benchmarks import rows
from benchmarks.realm import REALM, RECEIVER
from s2s_fastapi.testing import EmbeddedIssuer

Claims = dict[str, Any]


def fastapi_keycloak_middleware(issuer: EmbeddedIssuer) -> FastAPI:
    app = FastAPI()
    setup_keycloak_middleware(
        app,
        keycloak_configuration=KeycloakConfiguration(url=issuer.url, realm=REALM, client_id=RECEIVER),
        service_detector=lambda claims: "client_id" in claims,
    )

    @app.get("/")
    async def route(caller: Annotated[AuthContext, Depends(get_auth_context)]) -> str:
        return "ok"

    return app


def keycloak_guard(issuer: EmbeddedIssuer) -> FastAPI:
    app = FastAPI()
    auth = KeycloakAuth(TokenValidator(KeycloakAuthConfig(issuer=issuer.issuer(REALM), audience=RECEIVER)))

    @app.get("/")
    async def route(caller: Annotated[GuardPrincipal, Depends(auth)]) -> str:
        return "ok"

    return app


def _claims(keys: jwt.PyJWKClient, issuer: str, token: str) -> Claims:
    try:
        key = keys.get_signing_key_from_jwt(token).key
        return jwt.decode(token, key, algorithms=["RS256"], audience=RECEIVER, issuer=issuer)
    except jwt.PyJWTError:
        raise HTTPException(401, "Invalid token", {"WWW-Authenticate": "Bearer"}) from None


def _by_hand(issuer: EmbeddedIssuer, *, asynchronous: bool) -> FastAPI:
    app = FastAPI()
    keys = jwt.PyJWKClient(f"{issuer.issuer(REALM)}/protocol/openid-connect/certs", cache_keys=True)
    expected = issuer.issuer(REALM)
    bearer = HTTPBearer()

    def caller_sync(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> Claims:
        return _claims(keys, expected, credentials.credentials)

    async def caller_async(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> Claims:
        return _claims(keys, expected, credentials.credentials)

    @app.get("/")
    async def route(caller: Annotated[Claims, Depends(caller_async if asynchronous else caller_sync)]) -> str:
        return "ok"

    return app


def apps(issuer: EmbeddedIssuer) -> dict[str, Any]:
    """Return the peers' apps by row; all see one token again and again."""
    return {
        rows.MIDDLEWARE_PEER: fastapi_keycloak_middleware(issuer),
        rows.GUARD_PEER: keycloak_guard(issuer),
        rows.PYJWT_ASYNC: _by_hand(issuer, asynchronous=True),
        rows.PYJWT_SYNC: _by_hand(issuer, asynchronous=False),
    }

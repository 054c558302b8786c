"""The commonest mistakes in a realm, each with what the operator reads and the step that mends it.

The proof is the same on paper and on a server: the refused token's sentence says what to do, and once that is done the next token is
accepted.
"""

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from example_app.realm import claims_of
from s2s_fastapi import (
    Principal,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
)
from s2s_fastapi.decision import Reason
from s2s_fastapi.telemetry import DecisionLog
from tests.console import CALLER, FRONT_END, REALM_ROLE, RECEIVER, ROLE, SCOPE, Console
from tests.realm import SigningKey, b64

LIGHTWEIGHT = "client.use.lightweight.access.token.enabled"
VERSIONS = frozenset({"26.7.3", "26.0.8"})
UNSIGNED = frozenset(
    {Reason.ALGORITHM_NOT_ALLOWED, Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE, Reason.MALFORMED_TOKEN}
)


class Receiver(logging.Handler):
    """A guarded app and what its operator reads."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.time, **settings: Any) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        logger = logging.getLogger(f"tests.diagnosis.{id(self)}")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        app = FastAPI(openapi_url=None)
        app.add_middleware(
            ServiceAuthMiddleware,
            settings=console.settings(**settings),
            transport=console.transport(),
            observer=DecisionLog(logger),
            clock=clock,
        )
        _add_routes(app)
        self._client = TestClient(app, raise_server_exceptions=False)

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def send(self, token: str, method: str = "GET", path: str = "/tickets") -> Any:
        self.records.clear()
        return self._client.request(method, path, headers={"Authorization": f"Bearer {token}"})

    def accepts(self, token: str, method: str = "GET", path: str = "/tickets") -> None:
        response = self.send(token, method, path)
        assert response.status_code == 200, [record.getMessage() for record in self.records]
        assert response.json() == CALLER
        assert self.records == []

    def refuses(self, token: str, reason: Reason, method: str = "GET", path: str = "/tickets") -> dict[str, Any]:
        """Return the fields of the one record, after seeing that the caller was told the fixed sentence and no more."""
        response = self.send(token, method, path)
        (record,) = self.records
        fields = vars(record)
        assert (fields["reason"], fields["method"], fields["route"]) == (str(reason), method, path), fields["cure"]
        assert (response.status_code, response.json()) == (reason.status, {"detail": reason.detail})
        error = f', error="{reason.error}"' if reason.error else ""
        scope = f', scope="{SCOPE}"' if reason is Reason.SCOPE_MISSING else ""
        description = f', error_description="{reason.detail}"' if reason is Reason.EXPIRED else ""
        challenge = f'Bearer realm="{RECEIVER}"{error}{description}{scope}' if reason.status < 500 else None
        assert response.headers.get("WWW-Authenticate") == challenge
        everything = f"{record.getMessage()} {fields}"
        assert not any(part in everything for part in token.split("."))
        assert record.getMessage().isprintable()
        verified = reason not in UNSIGNED and reason.status < 500
        claims = claims_of(token) if verified else {}
        assert (fields["client_id"], fields["token_id"]) == (claims.get("azp", ""), claims.get("jti", ""))
        if not verified:
            unbelieved = claims_of(token)
            assert not any(
                str(unbelieved[name]) in everything for name in ("jti", "azp", "sub", "sid") if name in unbelieved
            )
        return fields


def _add_routes(app: FastAPI) -> None:
    @app.get("/tickets")
    async def read(caller: Annotated[Principal, Depends(require_caller(CALLER))]) -> str:
        return caller.client_id

    @app.post("/tickets")
    async def write(caller: Annotated[Principal, Depends(require_scope(SCOPE))]) -> str:
        return caller.client_id

    @app.delete("/tickets")
    async def clear(caller: Annotated[Principal, Depends(require_role(ROLE))]) -> str:
        return caller.client_id

    @app.get("/audit")
    async def audit(caller: Annotated[Principal, Depends(require_realm_role(REALM_ROLE))]) -> str:
        return caller.client_id

    @app.get("/only")
    async def only(caller: Annotated[Principal, Depends(require_audience(RECEIVER, only=True))]) -> str:
        return caller.client_id


def prove(mistake: "Mistake", console: Console) -> None:
    """Prove that the mistake is told for what it is, and that what the sentence says to do mends it."""
    Receiver(console).accepts(service_token(console), *mistake.to)

    mistake.wrong(console)
    fields = Receiver(console).refuses(mistake.send(console), mistake.reason, *mistake.to)
    missing = [words for words in mistake.words if words not in fields["cure"]]
    assert missing == [], fields["cure"]

    mistake.cure(console)
    Receiver(console).accepts(mistake.send_instead(console), *mistake.to)


Step = Callable[[Console], Any]


def nothing(console: Console) -> None:
    """Leave the realm as it is: what is wrong is what the caller does."""


def both(first: Step, second: Step) -> Step:
    """Do the one, then the other."""

    def do(console: Console) -> None:
        first(console)
        second(console)

    return do


def without_role(console: Console) -> None:
    console.give_role(on=False)


def service_token(console: Console) -> str:
    return str(console.service()["access_token"])


@dataclass(frozen=True)
class Mistake:
    """What somebody forgot or chose, the refusal it leads to, and the step the operator reads."""

    name: str
    reason: Reason
    words: tuple[str, ...]
    """The decisive words of the sentence."""
    wrong: Step = nothing
    cure: Step = nothing
    send: Callable[[Console], str] = service_token
    send_instead: Callable[[Console], str] = service_token
    to: tuple[str, str] = ("GET", "/tickets")
    real: frozenset[str] = VERSIONS
    """The servers it can be made on."""
    on_paper: bool = True

    def __str__(self) -> str:
        return self.name


def _no_audience_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")


def _audience_scope(console: Console) -> None:
    console.assign(CALLER, "crm-audience")


def _optional(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.assign(CALLER, "crm-audience", optional=True)


def _to_the_receiver(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.assign(RECEIVER, "crm-audience")


def _dropped(console: Console) -> None:
    console.map_role("crm-audience")
    console.give_role(on=False)


def _by_role_without_roles_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.unassign(CALLER, "roles")


def _by_role_without_full_scope(console: Console) -> None:
    console.unassign(CALLER, "crm-audience")
    console.client(CALLER, fullScopeAllowed=False)


def _algorithm(name: str) -> Step:
    return lambda console: console.client(CALLER, attributes={"access.token.signed.response.alg": name})


def _lightweight(console: Console) -> None:
    console.client(CALLER, attributes={LIGHTWEIGHT: "true"})


def _not_lightweight(console: Console) -> None:
    console.client(CALLER, attributes={LIGHTWEIGHT: "false"})


def _use_refresh(value: str) -> Step:
    return lambda console: console.client(CALLER, attributes={"client_credentials.use_refresh_token": value})


def _with_dpop(console: Console) -> str:
    """Return a token that is bound to a key of the caller's (RFC 9449 section 5)."""
    key = SigningKey("ES256")
    url = f"{console.settings().issuer}/protocol/openid-connect/token"
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": key.private.as_dict(private=False)}
    proof = {"jti": str(uuid.uuid4()), "htm": "POST", "htu": url, "iat": int(time.time())}
    signing_input = f"{b64(head)}.{b64(proof)}"
    return str(console.service(DPoP=f"{signing_input}.{key.sign(signing_input)}")["access_token"])


_STEPS = (
    f"expected {RECEIVER}: Keycloak needs (A) the client {CALLER} with service accounts on",
    f"(C) a client scope with an Audience mapper for {RECEIVER}, (D) that scope assigned to {CALLER}",
)
MISTAKES = [
    Mistake(
        "the audience scope is not assigned",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS),
        # The role would bring the audience by itself: in the plain case there is none.
        both(without_role, _no_audience_scope),
        _audience_scope,
    ),
    Mistake(
        "the audience scope is optional and was not asked for",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS, "as default, or as optional and asked for"),
        both(without_role, _optional),
        send_instead=lambda console: str(console.service("crm-audience")["access_token"]),
    ),
    Mistake(
        "the audience scope is assigned to the receiver",
        Reason.WRONG_AUDIENCE,
        (f"token of {CALLER} has no aud", *_STEPS),
        both(without_role, _to_the_receiver),
        _audience_scope,
    ),
    Mistake(
        "the audience scope dropped out: it has role mappings, and the account has none of the roles",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud, expected {RECEIVER}",
            f"a scope with role mappings is left out if the service account of {CALLER} has none of the roles",
        ),
        _dropped,
        lambda console: console.give_role(),
    ),
    Mistake(
        "the audience should come by role, and the client scope roles is not assigned",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud",
            "by Audience Resolve, a role of crm-api-gateway",
            "and the client scope roles",
        ),
        _by_role_without_roles_scope,
        lambda console: console.assign(CALLER, "roles"),
    ),
    Mistake(
        "the audience should come by role, and the role is not in the scope of the client",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud",
            "by Audience Resolve, a role of crm-api-gateway",
            f"in the scope of {CALLER}",
        ),
        _by_role_without_full_scope,
        lambda console: console.client(CALLER, fullScopeAllowed=True),
    ),
    Mistake(
        "the service_account scope is missing after an import with users",
        Reason.UNKNOWN_KIND,
        (
            f"token of {CALLER} has neither client_id nor sid",
            f"assign the client scope service_account (and basic) to client {CALLER}",
            "a realm imported with a users entry",
        ),
        lambda console: console.unassign(CALLER, "service_account"),
        lambda console: console.assign(CALLER, "service_account"),
        real=frozenset({"26.7.3"}),
    ),
    Mistake(
        "the tokens are lightweight",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {CALLER} has no aud, expected {RECEIVER}: it is a lightweight token",
            f"switch off “Always use lightweight access token” ({LIGHTWEIGHT}) of client {CALLER}",
        ),
        _lightweight,
        _not_lightweight,
        real=frozenset({"26.7.3"}),
    ),
    Mistake(
        "refresh tokens are on for client credentials",
        Reason.UNKNOWN_KIND,
        (
            f"token of {CALLER} has both client_id and sid",
            "switch off “Use refresh tokens for client credentials grant” (client_credentials.use_refresh_token)",
        ),
        _use_refresh("true"),
        _use_refresh("false"),
    ),
    Mistake(
        "the user's token is sent on",
        Reason.NOT_A_SERVICE,
        (
            f"token of {FRONT_END} belongs to a user, expected a service",
            "the calling service must ask for a token of its own (client_credentials)",
        ),
        send=lambda console: str(console.user()["access_token"]),
    ),
    Mistake(
        "a user's token without the audience is sent on",
        Reason.WRONG_AUDIENCE,
        (
            f"token of {FRONT_END} has no aud, expected {RECEIVER}: it is a user's token",
            "must ask for a token of its own (client_credentials)",
        ),
        lambda console: console.unassign(FRONT_END, "crm-audience"),
        send=lambda console: str(console.user()["access_token"]),
    ),
    Mistake(
        "the ID token is sent",
        Reason.WRONG_TYPE,
        (f"token of {CALLER} has typ ID, expected Bearer: send access_token of Keycloak's answer, not id_token",),
        send=lambda console: str(console.service("openid")["id_token"]),
        send_instead=lambda console: str(console.service("openid")["access_token"]),
    ),
    Mistake(
        "the refresh token is sent",
        Reason.ALGORITHM_NOT_ALLOWED,
        ("not signed with an asymmetric algorithm: send the access token, not the refresh token",),
        send=lambda console: str(console.user()["refresh_token"]),
    ),
    Mistake(
        "the client signs with HS512",
        Reason.ALGORITHM_NOT_ALLOWED,
        (
            "not signed with an asymmetric algorithm",
            "choose RS256 as “Access token signature algorithm” (access.token.signed.response.alg)",
        ),
        _algorithm("HS512"),
        _algorithm("RS256"),
    ),
    Mistake(
        "the tokens live longer than a day",
        Reason.LIFETIME_TOO_LONG,
        (
            f"token of {CALLER} lives 25.0 h, longer than 24 h",
            "shorten Access Token Lifespan of the client (Advanced) or the realm (Realm settings, Tokens)",
        ),
        lambda console: console.lifespan(25 * 3600),
        lambda console: console.lifespan(300),
    ),
    Mistake(
        "the scope is not assigned",
        Reason.SCOPE_MISSING,
        (f"token of {CALLER} lacks scope {SCOPE}: assign the client scope {SCOPE} to {CALLER}",),
        lambda console: console.unassign(CALLER, SCOPE),
        lambda console: console.assign(CALLER, SCOPE),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the scope is assigned and not included in the token",
        Reason.SCOPE_MISSING,
        (f"token of {CALLER} lacks scope {SCOPE}", "with “Include in token scope” on"),
        lambda console: console.scope_attribute(SCOPE, "include.in.token.scope", "false"),
        lambda console: console.scope_attribute(SCOPE, "include.in.token.scope", "true"),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the scope dropped out: it has role mappings, and the account has none of the roles",
        Reason.SCOPE_MISSING,
        (f"token of {CALLER} lacks scope {SCOPE}", "is left out if the account has none of the roles"),
        both(lambda console: console.map_role(SCOPE), without_role),
        lambda console: console.give_role(),
        to=("POST", "/tickets"),
    ),
    Mistake(
        "the role is not on the service account",
        Reason.ROLE_MISSING,
        (
            f"token of {CALLER} lacks role of client {RECEIVER}: {ROLE}",
            f"give it to the service account of {CALLER}",
        ),
        lambda console: console.give_role(on=False),
        lambda console: console.give_role(),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the role is on the account and the client scope roles is not assigned",
        Reason.ROLE_MISSING,
        (f"lacks role of client {RECEIVER}: {ROLE}", f"see that the client scope roles is assigned to {CALLER}"),
        lambda console: console.unassign(CALLER, "roles"),
        lambda console: console.assign(CALLER, "roles"),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the role is on the account and not in the scope of the client",
        Reason.ROLE_MISSING,
        (f"lacks role of client {RECEIVER}: {ROLE}", f"where Full scope allowed is off for {CALLER}"),
        lambda console: console.client(CALLER, fullScopeAllowed=False),
        lambda console: console.client(CALLER, fullScopeAllowed=True),
        to=("DELETE", "/tickets"),
    ),
    Mistake(
        "the realm role is not on the service account",
        Reason.ROLE_MISSING,
        (f"token of {CALLER} lacks realm role {REALM_ROLE}: give it to the service account of {CALLER}",),
        lambda console: console.give_realm_role(on=False),
        lambda console: console.give_realm_role(),
        to=("GET", "/audit"),
    ),
    Mistake(
        "the token is for account as well, by its default roles",
        Reason.AUDIENCE_NOT_ONLY,
        (f"token of {CALLER} is also for account", f"switch Full scope allowed off for the client {CALLER}"),
        lambda console: console.give_default_roles(),
        lambda console: console.client(CALLER, fullScopeAllowed=False),
        to=("GET", "/only"),
    ),
    Mistake(
        "the token is bound by DPoP",
        Reason.SENDER_CONSTRAINED,
        (
            f"token of {CALLER} is bound to a key and was sent as a bearer token",
            f"switch off DPoP bound tokens (dpop.bound.access.tokens) for the client {CALLER}, and ask for its token without a DPoP proof",
        ),
        lambda console: console.client(CALLER, attributes={"dpop.bound.access.tokens": "true"}),
        lambda console: console.client(CALLER, attributes={"dpop.bound.access.tokens": "false"}),
        send=_with_dpop,
        real=frozenset({"26.7.3"}),
        on_paper=False,
    ),
]

"""Attacks beside the token: lines 36, 37, 39 and 40 of the list. Code that fails, state that is put there, proofs nobody asked for."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_service
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.requirement.request_state import SCOPE_KEY
from tests.attacks.receiver.stack import FORGER, KEYS, NOW, Stack, claims, signed, stack, token
from tests.kit.realm import Realm, SigningKey, b64, settings

IAT = int(NOW())


# 36: code of the user's own that fails


class Failing:
    """An observer that cannot bear some decisions."""

    def __init__(self, error: Exception, when: Callable[[Decision], bool]) -> None:
        self._error = error
        self._when = when

    def decided(self, decision: Decision) -> None:
        if self._when(decision):
            raise self._error


ERRORS = [KeyError("x"), RuntimeError("x"), PermissionError("x"), ValueError("x"), AssertionError("x"), TimeoutError()]


def app_with(realm: Realm, **options: Any) -> TestClient:
    app = FastAPI(openapi_url=None)
    app.get("/x", dependencies=[Depends(require_service())])(lambda: "ok")
    app.add_middleware(
        ServiceAuthMiddleware, settings=settings(), transport=realm.transport, **{"clock": NOW, **options}
    )
    return TestClient(app, raise_server_exceptions=False)


def sent(client: TestClient, text: str) -> Any:
    return client.get("/x", headers={"Authorization": f"Bearer {text}"})


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_an_observer_that_fails_is_a_500_and_lets_nobody_in(error: Exception) -> None:
    realm = Realm()
    good, bad = token(realm), token(realm, aud="billing")
    for when in (lambda decision: True, lambda decision: decision.reason is Reason.ALLOWED):
        client = app_with(realm, observer=Failing(error, when))
        assert sent(client, good).status_code == 500
    refused = app_with(realm, observer=Failing(error, lambda decision: decision.outcome == "refused"))
    assert sent(refused, good).status_code == 200
    assert sent(refused, bad).status_code == 500
    assert refused.get("/x").status_code == 500
    assert sent(refused, good).status_code == 200


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_dependency_that_fails_is_a_500_and_not_a_401(error: Exception) -> None:
    attacked = stack("RS256")

    async def on_principal(caller: Annotated[Principal, Depends(require_service())]) -> str:
        raise error

    attacked.app.get("/y", dependencies=[Depends(on_principal)])(lambda: "ok")
    with pytest.raises(type(error)):  # the server answers 500: nothing of ours catches it
        attacked.bearer(token(attacked.realm), path="/y")
    attacked.refuses(token(attacked.realm, aud="billing"), Reason.WRONG_AUDIENCE, path="/y")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_clock_that_fails_is_a_500_and_lets_nobody_in(error: Exception) -> None:
    realm, broken = Realm(), [False]

    def clock() -> float:
        if broken[0]:
            raise error
        return NOW()

    client = app_with(realm, clock=clock)
    good, new = token(realm), token(realm)
    assert sent(client, good).status_code == 200
    broken[0] = True
    assert sent(client, good).status_code == 500  # though it was verified before
    assert sent(client, new).status_code == 500
    broken[0] = False
    assert sent(client, new).status_code == 200


@pytest.mark.parametrize("error", [*ERRORS, httpx.ConnectError("x"), OSError("x"), UnicodeError("x")], ids=repr)
def test_a_transport_that_fails_is_a_503_and_lets_nobody_in(error: Exception) -> None:
    realm = Realm()

    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    realm.answer = fail
    attacked = Stack(realm)
    attacked.shows_nothing(attacked.bearer(token(realm)), Reason.KEYS_UNAVAILABLE)
    attacked.shows_nothing(attacked.bearer(realm.sign(claims(realm), key=FORGER["RS256"])), Reason.KEYS_UNAVAILABLE)


# 37: state that somebody else put there


class Around:
    """An ASGI layer outside of ours that puts things into the scope, as a careless or hostile one would."""

    def __init__(self, app: ASGIApp, put: dict[str, Any]) -> None:
        self._app = app
        self._put = put

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, **self._put}, receive, send)


def asked(app: ASGIApp, path: str, headers: Iterable[tuple[str, str]] = ()) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://crm.test") as client:
            return await client.get(path, headers=list(headers))

    return asyncio.run(ask())


FORGED = Principal(
    client_id="root", kind="service", issuer="x", issued_at=1, expires_at=2**40, scopes=frozenset({"admin"})
)
PUT: dict[str, dict[str, Any]] = {
    "our own key": {SCOPE_KEY: FORGED},
    "our own key, as text": {SCOPE_KEY: "root"},
    "user and auth": {"user": FORGED, "auth": AuthCredentials(["admin", "authenticated"])},
    "another user": {"user": SimpleUser("root"), "auth": AuthCredentials(["admin"])},
    "state": {"state": {SCOPE_KEY: FORGED, "user": FORGED, "auth": AuthCredentials(["admin"])}},
    "extensions": {"extensions": {SCOPE_KEY: FORGED}},
}


def open_and_closed() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/open")
    @app.get("/closed")
    async def who(request: Request) -> dict[str, Any]:
        return {
            "name": request.user.display_name,
            "known": request.user.is_authenticated,
            "scopes": list(request.auth.scopes),
            "ours": SCOPE_KEY in request.scope,
        }

    return app


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_what_stands_in_the_scope_before_us_is_overwritten_or_removed(put: dict[str, Any]) -> None:
    attacked = Stack(Realm(), app=open_and_closed(), public_paths=["/open"])
    around = Around(attacked.guarded, put)
    nobody = {"name": "", "known": False, "scopes": [], "ours": False}
    assert asked(around, "/open").json() == nobody
    attacked.shows_nothing(asked(around, "/closed"), Reason.NO_CREDENTIALS)
    attacked.shows_nothing(asked(around, "/x"), Reason.NO_CREDENTIALS)
    service = [("Authorization", f"Bearer {token(attacked.realm)}")]
    known = {"name": "chat-app-service", "known": True, "scopes": ["email", "profile"], "ours": True}
    assert asked(around, "/closed", service).json() == known
    assert asked(around, "/open", service).json() == nobody


@pytest.mark.parametrize(
    "name",
    [
        *("X-Caller", "X-User", "X-Forwarded-User", "X-Remote-User", "Remote-User", "X-Client-Id", "X-Authenticated-Client"),
        *("X-Forwarded-Authorization", "X-Original-Authorization", "X-Auth-Token", "X-Access-Token", "Proxy-Authorization"),
        *("X-Amzn-Oidc-Data", "X-Goog-Iap-Jwt-Assertion", "Cf-Access-Jwt-Assertion", "X-Ms-Client-Principal", "X-Userinfo"),
        *("Cookie", "S2s-Fastapi-Authenticated", "s2s_fastapi.authenticated", "Authorization-Bearer", "X-Api-Key"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["chat-app-service", "a good token"])
def test_no_other_header_says_who_is_calling(name: str, value: str) -> None:
    attacked = stack("RS256")
    if value == "a good token":
        value = f"Bearer {token(attacked.realm)}"
    raw = [(name.lower().encode(), value.encode())]
    attacked.shows_nothing(attacked.send(headers=raw), Reason.NO_CREDENTIALS)
    other = token(attacked.realm, azp="billing", client_id="billing")
    assert attacked.send(f"Bearer {other}", headers=raw).json() == {"client_id": "billing"}


# 39: a token is judged here, and nobody is asked about it


def test_keycloak_is_asked_for_its_keys_and_about_no_token() -> None:
    attacked = stack("RS256")
    for changes in ({}, {"aud": "billing"}, {"iss": "x"}, {"exp": IAT - 100, "iat": IAT - 400}, {"jti": None}):
        attacked.bearer(token(attacked.realm, **changes))
    attacked.bearer(token(attacked.realm, active=False))
    page = "/realms/corp"
    assert attacked.realm.requests == [f"{page}/protocol/openid-connect/certs", page]


@pytest.mark.parametrize("active", [True, "true", 1, False])
def test_what_an_introspection_says_within_a_token_is_neither_believed_nor_needed(active: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm, active=active), token(attacked.realm, active=True, exp=IAT - 31, iat=IAT - 331), Reason.EXPIRED)  # fmt: skip


# 40: tokens that are bound to somebody


PROOF_KEY = KEYS["ES256"]
PROOF = {"htm": "GET", "htu": "http://crm.test/x", "jti": "1", "iat": IAT}


def proof(**changes: Any) -> str:
    """Return a DPoP proof (RFC 9449), or a bad one."""
    head = {"alg": "ES256", "typ": "dpop+jwt", "jwk": PROOF_KEY.private.as_dict(private=False), **changes}
    return signed(head, PROOF, lambda text: b"\1" * 64)


def _confirmed(realm: Realm, cnf: Any) -> str:
    return realm.sign({**claims(realm), "cnf": cnf})


CONFIRMATIONS: list[Any] = [
    {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
    {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"},
    {"jkt": "a", "x5t#S256": "b"},
    {"kid": "k"},
    pytest.param({"jwk": PROOF_KEY.jwk}, id="jwk"),
    {"jku": "https://evil.example/keys.json"},
    {"of-the-future": 1},
    {"jkt": None},
    *({}, [], "", "jkt", 0, 1, False, True, None),
]


@pytest.mark.parametrize("cnf", CONFIRMATIONS, ids=lambda cnf: repr(cnf)[:40])
@pytest.mark.parametrize("headers", ["nothing", "a proof", "a certificate"])
def test_a_token_that_is_bound_to_a_key_is_no_bearer_token_whatever_comes_with_it(cnf: Any, headers: str) -> None:
    attacked = stack("RS256")
    bound = _confirmed(attacked.realm, cnf)
    attacked.holds(token(attacked.realm), bound, Reason.SENDER_CONSTRAINED)
    beside = {
        "nothing": [],
        "a proof": [(b"dpop", proof().encode())],
        "a certificate": [
            (b"x-client-cert", b"MIIB"),
            (b"ssl-client-verify", b"SUCCESS"),
            (b"x-ssl-client-sha1", b"a"),
        ],
    }[headers]
    attacked.shows_nothing(attacked.send(f"Bearer {bound}", headers=beside), Reason.SENDER_CONSTRAINED)


def test_a_dpop_token_without_its_confirmation_is_no_bearer_token_either() -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), token(attacked.realm, typ="DPoP"), Reason.WRONG_TYPE)


@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "MAC", "PoP", "HOBA", "Mutual"])
def test_a_token_under_a_scheme_that_binds_it_is_no_credential_here(scheme: str) -> None:
    attacked = stack("RS256")
    bound = _confirmed(attacked.realm, {"jkt": "a"})
    for text in (bound, token(attacked.realm)):
        response = attacked.send(f"{scheme} {text}", headers=[(b"dpop", proof().encode())])
        attacked.shows_nothing(response, Reason.NO_CREDENTIALS)


PROOFS: dict[str, dict[str, Any]] = {
    "as it should be": {},
    "with its private part": {"jwk": PROOF_KEY.private.as_dict(private=True)},
    "alg none": {"alg": "none"},
    "alg HS256": {"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}},
    "with the kid of the realm": {"kid": KEYS["RS256"].kid, "alg": "RS256"},
}


@pytest.mark.parametrize("changes", PROOFS.values(), ids=PROOFS)
def test_a_proof_is_no_token_and_beside_a_token_it_is_not_read(changes: dict[str, Any]) -> None:
    attacked = stack("RS256")
    good, text = token(attacked.realm), proof(**changes)
    attacked.holds(good, text, Reason.UNSUPPORTED_HEADER)
    two = [(b"dpop", text.encode()), (b"dpop", b"rubbish")]
    assert attacked.send(f"Bearer {good}", headers=two).status_code == 200


def test_a_client_s_own_assertion_is_no_token_even_under_the_realm_s_kid() -> None:
    attacked = stack("RS256")
    service = SigningKey("ES256", kid=KEYS["RS256"].kid)
    assertion = attacked.realm.sign(claims(attacked.realm), key=service)
    attacked.holds(token(attacked.realm), assertion, Reason.UNKNOWN_KEY, outbound=1)
    renamed = f"{b64({'alg': 'RS256', 'typ': 'JWT', 'kid': service.kid})}.{assertion.partition('.')[2]}"
    attacked.holds(token(attacked.realm), renamed, Reason.INVALID_SIGNATURE)

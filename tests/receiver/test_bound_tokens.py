"""A bound token is accepted only with the proof of its own request: every row of the table of answers, on a cold and on a warm cache."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, Route, Router
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi import (
    ConfigurationError,
    CurrentPrincipal,
    OptionalPrincipal,
    Reason,
    ServiceAuthMiddleware,
    TokenVerifier,
    require_caller,
)
from s2s_fastapi.errors import ReplayStoreUnavailable
from s2s_fastapi.operations.relations import binding_problem
from s2s_fastapi.proof.algorithms import PROOF_ALGORITHMS
from s2s_fastapi.proof.replay import InProcessReplayStore
from s2s_fastapi.verifier.verdict import BoundVerdict
from tests.kit.declaring import receiver
from tests.kit.proving import PUBLIC_URL, Owner
from tests.kit.realm import Clock, Realm, settings
from tests.kit.realms import corp_and_partners, settings_of, transport_to
from tests.kit.receiving import App, Observed, Options

Pairs = list[tuple[str, str]]

ALGS = f'algs="{" ".join(PROOF_ALGORITHMS)}"'
REALM = 'realm="crm-api-gateway"'
BEARER = f"Bearer {REALM}"
BEARER_INVALID = f'Bearer {REALM}, error="invalid_token"'
DPOP = f"DPoP {REALM}, {ALGS}"
DPOP_INVALID = f'DPoP {REALM}, error="invalid_token", {ALGS}'
DPOP_PROOF = f'DPoP {REALM}, error="invalid_dpop_proof", {ALGS}'


def fields(response: Any) -> list[str]:
    """Return the challenges, one for each header field."""
    return [
        value.decode("latin-1") for name, value in response.headers.raw if name.decode().lower() == "www-authenticate"
    ]


@pytest.fixture
def owner(realm: Realm) -> Owner:
    return Owner(realm)


@pytest.fixture
def serve(make_app: App) -> Iterator[Callable[..., TestClient]]:
    """A client of an app with a few routes that accepts bound tokens."""
    running: list[TestClient] = []

    def start(**changes: Any) -> TestClient:
        app = make_app(**{"dpop": "accepted", "public_url": PUBLIC_URL, **changes})

        @app.api_route("/x", methods=["GET", "POST", "HEAD"])
        def x(caller: CurrentPrincipal) -> dict[str, str]:
            return {"client": caller.client_id, "binding": caller.binding}

        client = TestClient(app, raise_server_exceptions=False)
        client.__enter__()
        running.append(client)
        return client

    yield start
    for client in running:
        client.__exit__()


def bearer(token: str) -> Pairs:
    return [("Authorization", f"Bearer {token}")]


Row = tuple[Callable[[Owner, str], Pairs], str, list[str], list[str]]
"""What is sent, the reason, and the challenges of an app that accepts bound tokens, and of one that requires them."""

NO_BINDINGS: tuple[Any, ...] = (
    "text",
    [],
    {},
    {"jkt": ""},
    {"jkt": None},
    {"jkt": "a" * 42},
    {"jkt": "a" * 44},
    {"jkt": "a" * 42 + "="},
    {"jkt": "a" * 43 + "\n"},
)


def _bound_by(cnf: Any) -> Row:
    return (
        lambda owner, token: owner.headers(owner.token(cnf=cnf), "/x"),
        "sender_constrained",
        [DPOP_INVALID],
        [DPOP_INVALID],
    )


ROWS: dict[str, Row] = {
    "no credentials": (lambda owner, token: [], "no_credentials", [BEARER, DPOP], [DPOP]),
    "a proof and no token": (
        lambda owner, token: owner.headers(token, "/x")[1:],
        "no_credentials",
        [BEARER, DPOP],
        [DPOP],
    ),
    "another scheme": (
        lambda owner, token: [("Authorization", "Basic YTpi")],
        "no_credentials",
        [BEARER, DPOP],
        [DPOP],
    ),
    "no token after DPoP": (
        lambda owner, token: [("Authorization", "DPoP")],
        "invalid_request",
        [f'Bearer {REALM}, error="invalid_request"'],
        [f'DPoP {REALM}, error="invalid_request", {ALGS}'],
    ),
    "two words after DPoP": (
        lambda owner, token: [("Authorization", f"DPoP {token} {token}")],
        "invalid_request",
        [f'Bearer {REALM}, error="invalid_request"'],
        [f'DPoP {REALM}, error="invalid_request", {ALGS}'],
    ),
    "both schemes": (
        lambda owner, token: [*bearer(owner.realm.token()), *owner.headers(token, "/x")],
        "invalid_request",
        [f'Bearer {REALM}, error="invalid_request"'],
        [f'DPoP {REALM}, error="invalid_request", {ALGS}'],
    ),
    "bound, no proof": (
        lambda owner, token: owner.headers(token, "/x")[:1],
        "proof_missing",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, an empty proof": (
        lambda owner, token: [*owner.headers(token, "/x")[:1], ("DPoP", "")],
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, two proofs": (
        lambda owner, token: [*owner.headers(token, "/x"), ("DPoP", owner.proof(token, f"{PUBLIC_URL}/x"))],
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, the proof of a thief's key": (
        lambda owner, token: [*owner.headers(token, "/x")[:1], *Owner(owner.realm).headers(token, "/x")[1:]],
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, the proof of another token": (
        lambda owner, token: [*owner.headers(token, "/x")[:1], *owner.headers(owner.token(), "/x")[1:]],
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, the proof of another path": (
        lambda owner, token: owner.headers(token, "/y"),
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, the proof of another method": (
        lambda owner, token: owner.headers(token, "/x", "POST"),
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound, the proof of another host": (
        lambda owner, token: owner.headers(token, "/x", base="http://testserver"),
        "invalid_proof",
        [DPOP_PROOF],
        [DPOP_PROOF],
    ),
    "bound under Bearer": (
        lambda owner, token: bearer(token),
        "sender_constrained",
        [BEARER_INVALID, DPOP],
        [DPOP_INVALID],
    ),
    "bound under Bearer, with a good proof": (
        lambda owner, token: [*bearer(token), *owner.headers(token, "/x")[1:]],
        "sender_constrained",
        [BEARER_INVALID, DPOP],
        [DPOP_INVALID],
    ),
    "unbound under DPoP": (
        lambda owner, token: owner.headers(owner.realm.token(), "/x"),
        "not_bound",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "unbound under DPoP that says it is bound": (
        lambda owner, token: owner.headers(owner.token(cnf=None), "/x"),
        "not_bound",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "says it is bound, under Bearer": (
        lambda owner, token: bearer(owner.token(cnf=None)),
        "wrong_type",
        [BEARER_INVALID],
        [DPOP_INVALID],
    ),
    "bound to a certificate too": (
        lambda owner, token: owner.headers(
            owner.token(cnf={"jkt": owner.key.thumbprint, "x5t#S256": owner.key.thumbprint}), "/x"
        ),
        "sender_constrained",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "bound to a certificate": (
        lambda owner, token: owner.headers(owner.token(cnf={"x5t#S256": owner.key.thumbprint}), "/x"),
        "sender_constrained",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "bound to a whole key beside": (
        lambda owner, token: owner.headers(owner.token(cnf={"jkt": owner.key.thumbprint, "jwk": {}}), "/x"),
        "sender_constrained",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    **{f"a cnf that is no binding: {cnf}": _bound_by(cnf) for cnf in NO_BINDINGS},
    "a forged token": (
        lambda owner, token: owner.headers(token[:-6] + "AAAAAA", "/x"),
        "invalid_signature",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "bound, for another service": (
        lambda owner, token: owner.headers(owner.token(aud="other"), "/x"),
        "wrong_audience",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "bound, of another type": (
        lambda owner, token: owner.headers(owner.token(typ="ID"), "/x"),
        "wrong_type",
        [DPOP_INVALID],
        [DPOP_INVALID],
    ),
    "a user's": (
        lambda owner, token: owner.headers(owner.token(client_id=None, sid="s"), "/x"),
        "not_a_service",
        [f'DPoP {REALM}, error="insufficient_scope", {ALGS}'],
        [f'DPoP {REALM}, error="insufficient_scope", {ALGS}'],
    ),
}


@pytest.mark.parametrize("mode", ["accepted", "required"])
@pytest.mark.parametrize("row", ROWS)
def test_every_row_of_the_answers(
    row: str, mode: str, serve: Callable[..., TestClient], owner: Owner, observed: Observed
) -> None:
    made, reason, accepted, required = ROWS[row]
    client, token = serve(dpop=mode), owner.token()
    for _ in range(2):
        response = client.get("/x", headers=made(owner, token))
        assert observed.reasons[-1] == reason
        assert response.status_code == observed.decisions[-1].status
        assert fields(response) == (accepted if mode == "accepted" else required)
        # Only now is the cache warm: the token is good, and the same refusals must come again.
        assert client.get("/x", headers=owner.headers(token, "/x")).json()["binding"] == "dpop"


def test_an_unbound_token_is_accepted_beside_bound_ones_until_they_are_required(
    serve: Callable[..., TestClient], owner: Owner, realm: Realm, observed: Observed
) -> None:
    assert serve().get("/x", headers=bearer(realm.token())).json()["binding"] == ""
    response = serve(dpop="required").get("/x", headers=bearer(realm.token()))
    assert (response.status_code, fields(response), observed.reasons[-1]) == (
        401,
        [DPOP_INVALID],
        "bearer_not_accepted",
    )
    assert "KEYCLOAK_DPOP=true" in observed.decisions[-1].cure


def test_a_proof_beside_a_bearer_token_is_not_looked_at(
    serve: Callable[..., TestClient], owner: Owner, realm: Realm
) -> None:
    """RFC 9449 section 7.2 asks for one thing: that a bound token is not accepted as a bearer token."""
    token = realm.token()
    for proof in (owner.proof(token, f"{PUBLIC_URL}/x"), "garbage"):
        assert serve().get("/x", headers=[*bearer(token), ("DPoP", proof)]).json()["binding"] == ""


@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "DPOP"])
def test_the_scheme_is_compared_without_case(scheme: str, serve: Callable[..., TestClient], owner: Owner) -> None:
    token = owner.token()
    headers = [("Authorization", f"{scheme}   {token}"), *owner.headers(token, "/x")[1:]]
    assert serve().get("/x", headers=headers).status_code == 200


@pytest.mark.parametrize("typ", ["DPoP", "dpop", "Bearer"])
def test_cnf_decides_whatever_the_type_says(typ: str, serve: Callable[..., TestClient], owner: Owner) -> None:
    token = owner.token(typ=typ)
    client = serve()
    assert client.get("/x", headers=owner.headers(token, "/x")).json()["binding"] == "dpop"
    assert client.get("/x", headers=bearer(token)).status_code == 401


class TestWithoutDpop:
    @pytest.mark.parametrize("proof", [True, False])
    def test_nothing_has_changed(
        self, serve: Callable[..., TestClient], owner: Owner, observed: Observed, proof: bool
    ) -> None:
        client, token = serve(dpop=None, public_url=None), owner.token()
        response = client.get("/x", headers=owner.headers(token, "/x")[: 2 if proof else 1])
        assert (response.status_code, fields(response), observed.reasons) == (401, [BEARER], ["no_credentials"])
        assert observed.decisions[-1].cure == (
            "the request has a token under the scheme DPoP, and this service accepts none. Write"
            ' dpop="accepted" and public_url=... here, or KEYCLOAK_DPOP=false (or dpop=False) in the caller.'
            " A token that is bound to a certificate is sent under Bearer."
        )
        response = client.get("/x", headers=bearer(token))
        assert (fields(response), observed.reasons[-1]) == ([BEARER_INVALID], "sender_constrained")
        assert client.get("/x", headers=bearer(owner.realm.token())).status_code == 200


@pytest.mark.parametrize("mode", [None, "accepted", "required"])
@pytest.mark.parametrize("dpop", [True, False])
def test_the_commands_predict_the_reason_of_a_real_request(
    mode: Any, dpop: bool, serve: Callable[..., TestClient], owner: Owner, observed: Observed
) -> None:
    token = owner.token() if dpop else owner.realm.token()
    serve(dpop=mode).get("/x", headers=owner.headers(token, "/x") if dpop else bearer(token))

    predicted = binding_problem("chat", replace(receiver("crm"), dpop=mode or ""), binding="dpop" if dpop else "")
    assert observed.reasons[-1] == ("allowed" if predicted is None else str(predicted.reason))


class TestAThief:
    """Has seen a whole request, and with it a good token and a good proof."""

    def test_gets_nothing_on_any_cache(
        self, serve: Callable[..., TestClient], owner: Owner, observed: Observed
    ) -> None:
        client, token = serve(), owner.token()
        seen = owner.headers(token, "/x")
        assert client.get("/x", headers=seen).status_code == 200
        for stolen, reason in (
            (seen, "proof_replayed"),
            (seen[:1], "proof_missing"),
            (bearer(token), "sender_constrained"),
            ([*bearer(token), *seen[1:]], "sender_constrained"),
            ([("Authorization", f"bearer {token}")], "sender_constrained"),
        ):
            for _ in range(3):
                response = client.get("/x", headers=stolen)
                assert (response.status_code, observed.reasons[-1]) == (401, reason)
                assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200

    def test_is_first_with_the_token_and_still_gets_nothing(
        self, serve: Callable[..., TestClient], owner: Owner
    ) -> None:
        client, token = serve(), owner.token()
        for stolen in (owner.headers(token, "/x")[:1], bearer(token), owner.headers(token, "/y")) * 2:
            assert client.get("/x", headers=stolen).status_code == 401
        assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200

    def test_cannot_use_up_a_proof_before_its_owner(self, serve: Callable[..., TestClient], owner: Owner) -> None:
        """What is refused for anything else takes no place: the owner's own request still counts."""
        client, token = serve(), owner.token()
        seen = owner.headers(token, "/x")
        assert client.post("/x", headers=seen).status_code == 401
        assert client.get("/y", headers=seen).status_code == 401
        assert client.get("/x", headers=seen).status_code == 200

    @pytest.mark.parametrize(
        "lie",
        [
            {"Host": "evil.example"},
            {"X-Forwarded-Host": "evil.example"},
            {"X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"},
            {"X-Forwarded-Prefix": "/evil"},
            {"Forwarded": "host=evil.example;proto=http"},
            {"X-Original-URL": "/evil"},
            {"X-HTTP-Method-Override": "POST"},
        ],
        ids=str,
    )
    def test_changes_nothing_by_what_headers_say_of_the_url(
        self, lie: dict[str, str], serve: Callable[..., TestClient], owner: Owner
    ) -> None:
        client, token = serve(), owner.token()
        assert client.get("/x", headers=[*owner.headers(token, "/x"), *lie.items()]).status_code == 200
        for base, path, method in (
            ("https://evil.example", "/x", "GET"),
            ("http://evil.example", "/x", "GET"),
            (PUBLIC_URL, "/evil", "GET"),
            (PUBLIC_URL, "/evil/x", "GET"),
            (PUBLIC_URL, "/x", "POST"),
        ):
            stolen = [*owner.headers(token, path, method, base), *lie.items()]
            assert client.get("/x", headers=stolen).status_code == 401


class TestARememberedToken:
    def test_ends_with_its_key_its_life_and_the_realms_not_before(
        self, serve: Callable[..., TestClient], realm: Realm, observed: Observed
    ) -> None:
        clock = Clock()
        owner = Owner(realm, clock=clock)
        client = serve(clock=clock)
        token = owner.token(iat=int(clock.now), exp=int(clock.now) + 60)
        assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200
        clock.advance(89)
        assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200
        clock.advance(1)
        response = client.get("/x", headers=owner.headers(token, "/x"))
        assert (response.status_code, observed.reasons[-1]) == (401, "expired")
        assert fields(response) == [
            f'DPoP {REALM}, error="invalid_token", error_description="The access token expired.", {ALGS}'
        ]

    def test_never_lies_where_bearer_tokens_are_looked_up(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)
        app.get("/x")(lambda: None)
        with TestClient(app) as client:
            token = owner.token()
            assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200
            verifier = _middleware(app).verifier
            assert verifier is not None
            for credentials in (f"DPoP {token}", f"Bearer {token}"):
                assert credentials.encode() not in verifier.realms[0].tokens
                known = verifier.known(credentials.encode())
                assert known is None or (type(known) is BoundVerdict and not known.accepted)

    def test_is_by_itself_a_refusal(self, realm: Realm, owner: Owner) -> None:
        """So code that takes it for an acceptance lets nobody in."""
        made = TokenVerifier(settings(), transport=realm.transport, dpop="accepted", public_url=PUBLIC_URL)
        verifier = made.ready()
        credentials = f"DPoP {owner.token()}".encode()
        first, again = verifier.decide(credentials), verifier.known(credentials)
        assert first is again  # it is not verified twice
        assert isinstance(first, BoundVerdict)
        assert (first.accepted, first.principal, first.decision.reason) == (False, None, Reason.PROOF_MISSING)
        assert (first.owner.binding, first.decision.client_id) == ("dpop", "chat-app-service")


def _middleware(app: Any) -> ServiceAuthMiddleware:
    layer = app.middleware_stack
    while not isinstance(layer, ServiceAuthMiddleware):
        layer = layer.app
    return layer


class Store:
    """A store of the app's own, which does what a test says."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer
        self.asked: list[tuple[bytes, float]] = []

    async def first_use(self, key: bytes, seconds: float) -> bool:
        self.asked.append((key, seconds))
        found = self.answer()
        return await found if asyncio.iscoroutine(found) else found  # type: ignore[no-any-return]


def fails(error: BaseException) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


async def says_yes_at_last() -> bool:
    await asyncio.sleep(5)  # nobody waits for it
    return True


class TestTheStore:
    @pytest.mark.parametrize(
        ("answer", "wait"),
        [
            (fails(ReplayStoreUnavailable("no room", retry_after=7)), "7"),
            (fails(RuntimeError("password=hunter2")), "5"),
            (fails(OSError()), "5"),
            (fails(TimeoutError()), "5"),
            (lambda: None, "5"),
            (lambda: 1, "5"),
            (lambda: "True", "5"),
            (says_yes_at_last, "5"),
        ],
        ids=["unavailable", "broken", "unreachable", "slow", "None", "1", "text", "hangs"],
    )
    def test_that_cannot_tell_lets_nobody_in(
        self, answer: Callable[[], Any], wait: str, serve: Callable[..., TestClient], owner: Owner, observed: Observed
    ) -> None:
        client, token = serve(replay_store=Store(answer)), owner.token()
        response = client.get("/x", headers=owner.headers(token, "/x"))
        assert (response.status_code, fields(response), response.headers["retry-after"]) == (503, [], wait)
        assert response.json() == {"detail": "The service cannot check DPoP proofs at the moment."}
        assert observed.reasons == ["replay_store_unavailable"]
        assert "hunter2" not in observed.decisions[0].cure
        assert observed.decisions[0].client_id == "chat-app-service"

    def test_is_asked_last_and_with_a_key_of_its_own_for_each_proof(
        self, serve: Callable[..., TestClient], owner: Owner
    ) -> None:
        store = Store(lambda: True)
        client, token = serve(replay_store=store), owner.token()
        for headers in (owner.headers(token, "/y"), owner.headers(token, "/x")[:1], bearer(token)):
            assert client.get("/x", headers=headers).status_code == 401
        assert client.get("/x", headers=bearer(owner.realm.token())).status_code == 200
        assert store.asked == []
        for _ in range(2):
            assert client.get("/x", headers=owner.headers(token, "/x")).status_code == 200
        (first, seconds), (second, _) = store.asked
        assert first != second
        assert 40 < seconds <= 56

    def test_may_be_shared_by_apps_and_then_a_proof_counts_once_in_all(
        self, serve: Callable[..., TestClient], owner: Owner
    ) -> None:
        store = InProcessReplayStore()
        one, other = serve(replay_store=store), serve(replay_store=store)
        token = owner.token()
        seen = owner.headers(token, "/x")
        assert one.get("/x", headers=seen).status_code == 200
        assert other.get("/x", headers=seen).status_code == 401

    @pytest.mark.parametrize("store", [None, InProcessReplayStore()], ids=["the process's", "their own"])
    def test_may_be_shared_with_a_mounted_app_that_has_its_own_middleware(
        self, store: Any, make_app: App, owner: Owner
    ) -> None:
        below = make_app(dpop="accepted", public_url=f"{PUBLIC_URL}/in", replay_store=store)

        @below.get("/y")
        def y(caller: CurrentPrincipal) -> str:
            return caller.binding

        app = make_app(dpop="accepted", public_url=PUBLIC_URL, replay_store=store)
        app.mount("/in", below)
        token = owner.token()
        seen = owner.headers(token, "/in/y")
        with TestClient(app) as client:
            assert client.get("/in/y", headers=seen).json() == "dpop"
            assert client.get("/in/y", headers=seen).status_code == 401
            assert client.get("/in/y", headers=owner.headers(token, "/in/y")).json() == "dpop"

    def test_is_filled_by_no_caller_of_a_further_realm(self, make_app: App) -> None:
        """Whoever administers that realm may make up any number of clients, none of which may call anything."""
        corp, partners = corp_and_partners()
        app = make_app(
            settings=settings_of(corp, partners),
            transport=transport_to(corp, partners),
            dpop="accepted",
            public_url=PUBLIC_URL,
            replay_store=InProcessReplayStore(size=8),
        )
        app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: None)
        stranger, ours = Owner(partners), Owner(corp)
        with TestClient(app) as client:
            found = [
                client.get("/x", headers=stranger.headers(stranger.token(azp=name, client_id=name), "/x")).status_code
                for name in ("a", "b", "c", "d", "e")
            ]
            assert found == [403, 403, 503, 503, 503]
            assert client.get("/x", headers=ours.headers(ours.token(), "/x")).status_code == 200

    def test_one_caller_alone_cannot_fill_it(
        self, serve: Callable[..., TestClient], realm: Realm, observed: Observed
    ) -> None:
        """A client can make any number of keys, so it is counted by its name."""
        client = serve(replay_store=InProcessReplayStore(size=4))
        for allowed in (True, True, False):
            greedy = Owner(realm)
            response = client.get("/x", headers=greedy.headers(greedy.token(), "/x"))
            assert response.status_code == (200 if allowed else 503)
        other = Owner(realm)
        token = other.token(azp="billing", client_id="billing")
        assert client.get("/x", headers=other.headers(token, "/x")).status_code == 200


async def _private(request: Request) -> JSONResponse:
    return JSONResponse("private")


class _Rewrites:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].replace("/pub", "/private")}
        await self.app(scope, receive, send)


@pytest.mark.parametrize("root_path", ["", "/api"])
def test_a_token_that_is_asked_for_below_a_mount_needs_a_proof_of_the_url_that_was_called(
    root_path: str, make_app: App, owner: Owner
) -> None:
    app = make_app(dpop="accepted", public_url=PUBLIC_URL, public_paths=["/sub/pub"])
    below = [
        Route("/private", require_caller("chat-app-service").guard(_private)),
        Route("/pub", lambda request: JSONResponse("public")),
    ]
    app.mount("/sub", Router(routes=below, middleware=[Middleware(_Rewrites)]))
    token = owner.token()
    with TestClient(app, root_path=root_path) as client:
        assert client.get(f"{root_path}/sub/pub", headers=owner.headers(token, "/sub/pub")).json() == "private"
        assert client.get(f"{root_path}/sub/pub", headers=owner.headers(token, "/pub")).status_code == 401
        assert client.get(f"{root_path}/sub/pub").status_code == 401


class TestTheStart:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"dpop": "accepted", "public_url": None}, 'dpop="accepted" needs the URL'),
            ({"dpop": "required", "public_url": None}, 'dpop="required" needs the URL'),
            ({"dpop": "accepted", "public_url": []}, "empty list"),
            ({"dpop": True}, 'dpop= takes "accepted"'),
            ({"dpop": "Required"}, 'dpop= takes "accepted"'),
            ({"dpop": ""}, 'dpop= takes "accepted"'),
            ({"dpop": ["accepted"]}, 'dpop= takes "accepted"'),
            ({"dpop": None, "replay_store": InProcessReplayStore()}, "only with dpop="),
            ({"replay_store": {}}, "replay_store= takes an object"),
            ({"public_url": "http://crm.example.com"}, "write https"),
            ({"public_url": "https://crm.example.com?x"}, "public_url= takes"),
            ({"public_url": "https://a:b@crm.example.com"}, "public_url= takes"),
            ({"public_url": [PUBLIC_URL, "crm"]}, "public_url= takes"),
            ({"public_url": b"https://crm.example.com"}, "public_url= takes"),
            ({"public_url": "https://a^b.example"}, "not the name of a host"),
            ({"public_url": [PUBLIC_URL, "https://[fe80::1%25eth0]"]}, "an address with a zone"),
        ],
        ids=lambda value: re.sub(r" object at 0x\w+", "", str(value)),  # the same in every process
    )
    def test_a_wrong_option_stops_it(self, changes: dict[str, Any], said: str, make_app: App) -> None:
        app = make_app(**{"dpop": "accepted", "public_url": PUBLIC_URL, **changes})
        app.get("/x")(lambda: None)
        with pytest.raises(ConfigurationError, match=said.replace("(", r"\(")), TestClient(app):
            pass

    @pytest.mark.parametrize(
        ("changes", "warned", "said"),
        [
            ({"dpop": "accepted"}, False, "remembered in this process only"),
            ({"dpop": "required"}, True, "remembered in this process only"),
            ({"dpop": "required", "replay_store": Store(lambda: True)}, False, "remembered in Store"),
        ],
        ids=["accepted", "required", "required and shared"],
    )
    def test_says_where_proofs_are_remembered(
        self, changes: dict[str, Any], warned: bool, said: str, make_app: App, caplog: pytest.LogCaptureFixture
    ) -> None:
        app = make_app(public_url=PUBLIC_URL, **changes)
        app.get("/x")(lambda: None)
        with caplog.at_level(logging.INFO, "s2s_fastapi"), TestClient(app):
            pass
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
        assert any(said in each and PUBLIC_URL in each for each in told)
        assert (
            any("replay_store" in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
            is warned
        )


async def asks_by_hand(request: Request, caller: OptionalPrincipal) -> None:
    await require_caller("billing")(request)


class TestBehindTheRoute:
    def test_a_requirement_is_asked_and_answers_under_the_same_scheme(
        self, make_app: App, owner: Owner, observed: Observed
    ) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)
        app.get("/x", dependencies=[Depends(require_caller("billing"))])(lambda: None)
        with TestClient(app) as client:
            token = owner.token()
            response = client.get("/x", headers=owner.headers(token, "/x"))
            assert (response.status_code, fields(response)) == (
                403,
                [f'DPoP {REALM}, error="insufficient_scope", {ALGS}'],
            )
            assert (observed.reasons, observed.decisions[0].binding) == (["caller_not_allowed"], "dpop")
            response = client.get("/x", headers=bearer(owner.realm.token()))
            assert fields(response) == [f'Bearer {REALM}, error="insufficient_scope"']

    @pytest.mark.parametrize(
        "handler", ["FastAPI's", "one that keeps the headers", "one that drops them", "one that merges them"]
    )
    def test_both_challenges_arrive_whatever_handler_answers(self, handler: str, make_app: App) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL, optional_paths=["/x"])
        app.get("/x")(asks_by_hand)

        async def answer(request: Request, error: Exception) -> JSONResponse:
            assert isinstance(error, HTTPException)
            if handler == "one that drops them":
                return JSONResponse({}, error.status_code)
            if handler == "one that merges them":
                response = JSONResponse({}, error.status_code)
                response.headers.update(error.headers or {})
                return response
            return JSONResponse({}, error.status_code, error.headers)

        if handler != "FastAPI's":
            app.add_exception_handler(HTTPException, answer)
        with TestClient(app) as client:
            assert fields(client.get("/x")) == [BEARER, DPOP] or handler == "one that merges them"
            assert sorted(fields(client.get("/x"))) == sorted([BEARER, DPOP])

    def test_a_challenge_of_the_app_itself_stays_alone(self, make_app: App) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL, optional_paths=["/x"])
        app.get("/x")(asks_by_hand)

        async def answer(request: Request, error: Exception) -> JSONResponse:
            return JSONResponse({}, 401, {"WWW-Authenticate": "Custom"})

        app.add_exception_handler(HTTPException, answer)
        with TestClient(app) as client:
            assert fields(client.get("/x")) == ["Custom"]

    def test_a_plain_starlette_app_and_a_guard(self, owner: Owner, options: Options) -> None:
        def x(request: Request) -> JSONResponse:
            return JSONResponse(request.user.binding)

        app = Starlette(
            routes=[
                Route("/x", require_caller("chat-app-service").guard(x)),
                Route("/y", require_caller("a").guard(x)),
            ],
            middleware=[Middleware(ServiceAuthMiddleware, **options(dpop="accepted", public_url=PUBLIC_URL))],
        )
        with TestClient(app) as client:
            token = owner.token()
            assert client.get("/x", headers=owner.headers(token, "/x")).json() == "dpop"
            response = client.get("/y", headers=owner.headers(token, "/y"))
            assert (response.status_code, fields(response)) == (
                403,
                [f'DPoP {REALM}, error="insufficient_scope", {ALGS}'],
            )
            assert fields(client.get("/x")) == [BEARER, DPOP]

    def test_a_public_path_asks_for_no_proof(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="required", public_url=PUBLIC_URL, public_paths=["/health"])
        app.get("/health")(lambda: "ok")
        with TestClient(app) as client:
            assert client.get("/health").json() == "ok"
            assert client.get("/health", headers=owner.headers(owner.token(), "/x")).json() == "ok"


class TestAnOptionalPath:
    @pytest.fixture
    def asked(self, make_app: App) -> Iterator[TestClient]:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL, optional_paths=["/x"])

        @app.get("/x")
        def x(caller: OptionalPrincipal) -> str | None:
            return None if caller is None else caller.binding

        with TestClient(app) as client:
            yield client

    def test_a_proof_alone_is_not_nothing(self, asked: TestClient, owner: Owner) -> None:
        token = owner.token()
        assert asked.get("/x").json() is None
        assert asked.get("/x", headers=owner.headers(token, "/x")).json() == "dpop"
        for stripped in (owner.headers(token, "/x")[1:], owner.headers(token, "/x")[:1], [("DPoP", "")]):
            assert asked.get("/x", headers=stripped).status_code == 401

    def test_a_shared_cache_keeps_callers_apart_by_authorization_alone(self, asked: TestClient, owner: Owner) -> None:
        """A proof without a token is refused, so the answer to no credentials may serve it too: it holds nothing of anybody."""
        token = owner.token()
        for headers in ([], owner.headers(token, "/x"), owner.headers(token, "/x")[1:]):
            assert asked.get("/x", headers=headers).headers["vary"] == "Authorization"
        assert asked.get("/x", headers=owner.headers(token, "/x")).headers["cache-control"] == "private"


class TestAWebSocket:
    @pytest.fixture
    def asked(self, make_app: App) -> Iterator[TestClient]:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)

        @app.websocket("/ws")
        async def ws(websocket: WebSocket, caller: CurrentPrincipal) -> None:
            await websocket.accept()
            await websocket.send_text(caller.binding)
            await websocket.close()

        with TestClient(app) as client:
            yield client

    @pytest.mark.parametrize("base", [PUBLIC_URL, "wss://crm.example.com"])
    def test_is_a_get_request(self, base: str, asked: TestClient, owner: Owner) -> None:
        token = owner.token()
        headers = dict(owner.headers(token, "/ws", base=base))
        with asked.websocket_connect("/ws", headers=headers) as socket:
            assert socket.receive_text() == "dpop"
        for stolen in (headers, {"Authorization": headers["Authorization"]}, dict(bearer(token))):
            with pytest.raises(WebSocketDenialResponse) as refused, asked.websocket_connect("/ws", headers=stolen):
                pass
            assert refused.value.status_code == 401

    def test_is_denied_with_every_challenge(self, asked: TestClient) -> None:
        with pytest.raises(WebSocketDenialResponse) as refused, asked.websocket_connect("/ws"):
            pass
        assert fields(refused.value) == [BEARER, DPOP]


END = 1_801_440_000.0
"""2027-02-01, 00:00 UTC."""


class TestObserveMode:
    def test_opens_the_scheme_and_nothing_else_of_a_binding(
        self, serve: Callable[..., TestClient], owner: Owner, realm: Realm, observed: Observed
    ) -> None:
        clock = Clock()
        client = serve(dpop="required", insecure_observe_until="2027-02-01", clock=clock)
        life: dict[str, Any] = {"iat": int(clock.now), "exp": int(clock.now) + 300}
        mine = Owner(realm, clock=clock)
        token = mine.token(**life)
        assert client.get("/x", headers=bearer(realm.token(**life))).json()["binding"] == ""
        assert (observed.reasons, observed.decisions[0].observed) == (["bearer_not_accepted"], True)
        assert client.get("/x", headers=mine.headers(token, "/x")).status_code == 200
        for headers, reason in (
            (mine.headers(token, "/x")[:1], "proof_missing"),
            (mine.headers(token, "/y"), "invalid_proof"),
            (bearer(token), "sender_constrained"),
            (mine.headers(realm.token(**life), "/x"), "not_bound"),
        ):
            assert client.get("/x", headers=headers).status_code == 401
            assert (observed.reasons[-1], observed.decisions[-1].observed) == (reason, False)
        clock.advance(40 * 24 * 3600)
        life = {"iat": int(clock.now), "exp": int(clock.now) + 300}
        assert client.get("/x", headers=bearer(realm.token(**life))).status_code == 401

    def test_a_bound_token_for_another_service_is_observed_only_with_its_proof(
        self, serve: Callable[..., TestClient], realm: Realm, observed: Observed
    ) -> None:
        clock = Clock(END - 100)
        client = serve(insecure_observe_until="2027-02-01", clock=clock)
        mine = Owner(realm, clock=clock)
        token = mine.token(iat=int(clock.now), exp=int(clock.now) + 300, aud="other")
        for _ in range(2):
            assert client.get("/x", headers=mine.headers(token, "/x")).json()["binding"] == "dpop"
            assert (observed.reasons[-1], observed.decisions[-1].observed) == ("wrong_audience", True)
            assert client.get("/x", headers=mine.headers(token, "/x")[:1]).status_code == 401
            assert observed.reasons[-1] == "proof_missing"
        # The token is remembered, lives on after the day, and is refused all the same.
        clock.advance(END - clock.now)
        assert client.get("/x", headers=mine.headers(token, "/x")).status_code == 401
        assert (observed.reasons[-1], observed.decisions[-1].observed) == ("wrong_audience", False)


class TestSeveralRealms:
    def test_each_one_decides_about_its_own_tokens(self, observed: Observed) -> None:
        corp, partners = corp_and_partners()
        app = FastAPI(openapi_url=None)
        app.add_middleware(
            ServiceAuthMiddleware,
            settings_of(corp, partners),
            dpop="accepted",
            public_url=PUBLIC_URL,
            transport=transport_to(corp, partners),
            observer=observed,
        )

        @app.get("/x", dependencies=[Depends(require_caller("chat-app-service", realm="partners"))])
        def x(caller: CurrentPrincipal) -> str:
            return f"{caller.realm} {caller.binding}"

        app.get("/y", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: None)

        with TestClient(app) as client:
            owner = Owner(partners)
            token = owner.token()
            for _ in range(2):
                assert client.get("/x", headers=owner.headers(token, "/x")).json() == "partners dpop"
                assert client.get("/x", headers=owner.headers(token, "/x")[:1]).status_code == 401
            home = Owner(corp)
            response = client.get("/x", headers=home.headers(home.token(), "/x"))
            assert (response.status_code, observed.reasons[-1]) == (403, "other_realm")
            response = client.get("/y", headers=owner.headers(token, "/y"))
            assert (response.status_code, observed.reasons[-1]) == (403, "other_realm")
            assert fields(response) == [f'DPoP {REALM}, error="insufficient_scope", {ALGS}']


class TestTheUrl:
    """Right apps, in front of which the world is arranged in another way. None of their callers is refused."""

    def ask(self, app: Any, owner: Owner, path: str, url: str, method: str = "GET", **options: Any) -> Any:
        token = owner.token()
        headers = [("Authorization", f"DPoP {token}"), ("DPoP", owner.proof(token, url, method))]
        with TestClient(app, **options) as client:
            return client.request(method, path, headers=headers)

    @pytest.mark.parametrize(
        "case",
        [
            (PUBLIC_URL, {}, "/x", "https://crm.example.com/x"),
            (f"{PUBLIC_URL}/", {}, "/x", "https://crm.example.com/x"),
            (PUBLIC_URL, {}, "/x", "HTTPS://CRM.example.com:443/x"),
            (PUBLIC_URL, {}, "/x?a=b", "https://crm.example.com/x?c=d#e"),
            (PUBLIC_URL, {}, "/x", "https://crm.example.com/%78"),
            (f"{PUBLIC_URL}:8443", {}, "/x", "https://crm.example.com:8443/x"),
            ("https://xn--bcher-kva.example", {}, "/x", "https://bücher.example/x"),
            ("http://[::1]:8000", {}, "/x", "http://[0:0:0:0:0:0:0:1]:8000/x"),
            ("http://localhost:8000", {}, "/x", "http://localhost:8000/x"),
            (PUBLIC_URL, {}, "/a%2Fb", "https://crm.example.com/a%2fb"),
            (PUBLIC_URL, {}, "/a%20b/%C3%A9~", "https://crm.example.com/a%20b/%c3%a9%7E"),
            (f"{PUBLIC_URL}/api", {}, "/x", "https://crm.example.com/api/x"),
            (f"{PUBLIC_URL}/api/", {}, "/x", "https://crm.example.com/api/x"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/x", "https://crm.example.com/api/x"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/api/x", "https://crm.example.com/api/x"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/api/api/x", "https://crm.example.com/api/api/x"),
            (f"{PUBLIC_URL}/api", {}, "/api/x", "https://crm.example.com/api/x"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/", "https://crm.example.com/api"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/", "https://crm.example.com/api/"),
            (PUBLIC_URL, {}, "/", "https://crm.example.com"),
            (["https://other.example", PUBLIC_URL], {}, "/x", "https://crm.example.com/x"),
            (["https://other.example", PUBLIC_URL], {}, "/x", "https://other.example/x"),
        ],
        ids=str,
    )
    def test_is_the_public_url_and_the_path_behind_the_root_path(
        self, case: tuple[Any, dict[str, Any], str, str], make_app: App, owner: Owner
    ) -> None:
        public_url, server, path, url = case
        app = make_app(dpop="accepted", public_url=public_url)
        app.get("/{rest:path}")(lambda rest: "here")
        assert self.ask(app, owner, path, url, **server).json() == "here"

    @pytest.mark.parametrize(
        "case",
        [
            (PUBLIC_URL, {}, "/a%2Fb", "https://crm.example.com/a/b"),
            (PUBLIC_URL, {}, "/a/b", "https://crm.example.com/a%2Fb"),
            (PUBLIC_URL, {}, "/x", "https://crm.example.com/x/"),
            (PUBLIC_URL, {}, "/x/", "https://crm.example.com/x"),
            (PUBLIC_URL, {}, "/X", "https://crm.example.com/x"),
            (PUBLIC_URL, {}, "/x", "http://crm.example.com/x"),
            (PUBLIC_URL, {}, "/x", "https://crm.example.com:8443/x"),
            (PUBLIC_URL, {}, "/x", "https://crm.example.com.evil.example/x"),
            (PUBLIC_URL, {}, "/x", "/x"),
            (f"{PUBLIC_URL}/api", {}, "/x", "https://crm.example.com/x"),
            (f"{PUBLIC_URL}/api", {}, "/apix", "https://crm.example.com/apix"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/api/x", "https://crm.example.com/api/api/x"),
            (f"{PUBLIC_URL}/api", {"root_path": "/api"}, "/api/api/x", "https://crm.example.com/api/x"),
            (["https://other.example", f"{PUBLIC_URL}/api"], {}, "/x", "https://other.example/api/x"),
        ],
        ids=str,
    )
    def test_is_no_other_one(self, case: tuple[Any, dict[str, Any], str, str], make_app: App, owner: Owner) -> None:
        public_url, server, path, url = case
        app = make_app(dpop="accepted", public_url=public_url)
        app.get("/{rest:path}")(lambda rest: "here")
        assert self.ask(app, owner, path, url, **server).status_code == 401

    def test_of_a_mounted_app_is_below_its_mount(self, make_app: App, owner: Owner) -> None:
        inner = make_app(dpop="accepted", public_url=f"{PUBLIC_URL}/inner")
        inner.get("/x")(lambda: "here")
        app = Starlette(routes=[Mount("/inner", inner)])
        assert self.ask(app, owner, "/inner/x", f"{PUBLIC_URL}/inner/x").json() == "here"
        assert self.ask(app, owner, "/inner/x", f"{PUBLIC_URL}/x").status_code == 401

    def test_of_a_mount_below_the_middleware_has_the_whole_path(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)
        inner = FastAPI(openapi_url=None)
        inner.get("/x")(lambda: "here")
        app.mount("/inner", inner)
        assert self.ask(app, owner, "/inner/x", f"{PUBLIC_URL}/inner/x").json() == "here"

    @pytest.mark.parametrize("root", ["/api", "/inner"])
    @pytest.mark.parametrize("outside", [True, False])
    def test_knows_the_root_path_of_the_app_itself(
        self, outside: bool, root: str, owner: Owner, options: Options
    ) -> None:
        app = FastAPI(openapi_url=None)
        app.root_path = root
        app.get("/x")(lambda: "here")
        made = options(dpop="accepted", public_url=f"{PUBLIC_URL}/api")
        served: Any = app
        if outside:
            served = ServiceAuthMiddleware(app, **made)
        else:
            app.add_middleware(ServiceAuthMiddleware, **made)
        for path in ("/x", f"{root}/x"):
            assert self.ask(served, owner, path, f"{PUBLIC_URL}/api/x").json() == "here"

    def test_is_asked_with_the_method_on_the_wire(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)
        app.api_route("/x", methods=["GET", "HEAD"])(lambda: "here")
        assert self.ask(app, owner, "/x", f"{PUBLIC_URL}/x", "HEAD").status_code == 200

    def test_cors_stands_outside_as_ever(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="accepted", public_url=PUBLIC_URL)
        app.get("/x")(lambda: "here")
        app.add_middleware(
            CORSMiddleware, allow_origins=["https://ui.example.com"], allow_headers=["Authorization", "DPoP"]
        )
        with TestClient(app) as client:
            preflight = {
                "Origin": "https://ui.example.com",
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization,dpop",
            }
            assert client.options("/x", headers=preflight).status_code == 200
        assert self.ask(app, owner, "/x", f"{PUBLIC_URL}/x").json() == "here"

    def test_of_a_protected_resource_is_below_the_resource(self, make_app: App, owner: Owner) -> None:
        app = make_app(dpop="accepted", public_url=[f"{PUBLIC_URL}/mcp", "https://old.example/mcp"], resource=True)
        app.get("/mcp")(lambda: "here")
        for url in (f"{PUBLIC_URL}/mcp", "https://old.example/mcp"):
            token = owner.token(aud=f"{PUBLIC_URL}/mcp")
            headers = [("Authorization", f"DPoP {token}"), ("DPoP", owner.proof(token, url))]
            with TestClient(app) as client:
                assert client.get("/mcp", headers=headers).json() == "here"
                document = client.get("/.well-known/oauth-protected-resource/mcp").json()
                assert document["resource"] == f"{PUBLIC_URL}/mcp"
                assert document["dpop_signing_alg_values_supported"] == [*PROOF_ALGORITHMS]
                assert "dpop_bound_access_tokens_required" not in document
        app = make_app(dpop="required", public_url=f"{PUBLIC_URL}/mcp", resource=True)
        with TestClient(app) as client:
            document = client.get("/.well-known/oauth-protected-resource/mcp").json()
            assert document["dpop_bound_access_tokens_required"] is True

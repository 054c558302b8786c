"""What a receiver counts and measures: exact names, units, attributes and values, and each request once whatever becomes of it."""

import asyncio
import gc
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import AuthorizationError, ServiceAuthMiddleware, require_caller, require_scope
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import metrics
from s2s_fastapi.telemetry.metrics import decided
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from tests.kit.realm import DECIDING, Clock, Decide, Realm, SigningKey, settings, token_verifier
from tests.kit.realms import corp_and_partners, settings_of, transport_to
from tests.kit.tracing import Measured, Point, until

DAY = 1_798_675_200  # 2026-12-31 00:00 UTC
DECISIONS = "s2s_fastapi.decisions"
LOOKUPS = "s2s_fastapi.verified_tokens.lookups"
VERIFICATION = "s2s_fastapi.verification.duration"
FETCH = "s2s_fastapi.keys.fetch.duration"
AGE = "s2s_fastapi.keys.age"
CALLER = "chat-app-service"
ALLOWED = {(CALLER, "allowed", "allowed"): 1}


@pytest.fixture(autouse=True)
def nobody_is_named_yet() -> Iterator[None]:
    """Callers have names for as long as the process lives: those of other tests leave no place for ours, nor ours for theirs."""

    def forget() -> None:
        metrics._callers.clear()
        metrics._labels.cache_clear()

    forget()
    yield
    forget()


@pytest.fixture(params=DECIDING)
def decide(request: pytest.FixtureRequest) -> Decide:
    return DECIDING[request.param]


@pytest.fixture
def client(realm: Realm) -> TestClient:
    return client_of(protected(realm))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def client_of(app: Any) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


async def broken() -> AsyncIterator[bytes]:
    yield b"one"
    raise RuntimeError("in the middle of it")


async def several() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"one"


def fails() -> None:
    raise RuntimeError("after the answer")


def protected(realm: Realm, **options: Any) -> FastAPI:
    """Return an app that ends its requests in every way there is."""
    app = FastAPI(openapi_url=None, dependencies=options.pop("dependencies", None))
    given = {"settings": settings(), "transport": realm.transport, "warm_up": False, **options}
    app.add_middleware(ServiceAuthMiddleware, **given)
    only_billing = Depends(require_caller("billing"))

    @app.api_route("/x", methods=["GET", "HEAD", "POST"])
    async def x() -> str:
        return "x"

    @app.get("/billing", dependencies=[only_billing])
    async def billing() -> None: ...

    @app.get("/twice", dependencies=[Depends(require_scope("email")), Depends(require_caller(CALLER))])
    async def twice(caller: Annotated[Any, Depends(require_scope("profile"))]) -> None: ...

    @app.get("/raises")
    async def raises() -> None:
        raise RuntimeError("in the route")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: None)
        return "x"

    @app.get("/background/fails")
    async def background_fails(tasks: BackgroundTasks) -> str:
        tasks.add_task(fails)
        return "x"

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        return StreamingResponse(several())

    @app.get("/streams/breaks")
    async def breaks() -> StreamingResponse:
        return StreamingResponse(broken())

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("x")
        await websocket.close()

    @app.websocket("/ws/raises")
    async def ws_raises(websocket: WebSocket) -> None:
        raise RuntimeError("before the handshake")

    @app.websocket("/ws/billing", dependencies=[only_billing])
    async def ws_billing(websocket: WebSocket) -> None: ...

    return app


def connect(client: TestClient, path: str, headers: dict[str, str]) -> None:
    """Try a handshake, and take what comes of it."""
    try:
        with client.websocket_connect(path, headers=headers) as socket:
            socket.receive()
    except Exception:  # noqa: BLE001 - the denial, or what the app raised: what is counted is looked at
        return


# Decisions


def test_a_decision_is_counted_with_outcome_reason_and_caller(
    realm: Realm, metrics_read: Measured, client: TestClient
) -> None:
    client.get("/x", headers=bearer(realm.token()))

    attributes = {"outcome": "allowed", "reason": "allowed", "caller": CALLER, "issuer": realm.issuer}
    assert metrics_read(DECISIONS) == [
        Point(DECISIONS, "{decision}", {f"s2s_fastapi.{name}": value for name, value in attributes.items()}, 1)
    ]


def test_callers_of_two_realms_are_two_series_and_take_no_places_of_each_other(metrics_read: Measured) -> None:
    corp, partners = corp_and_partners()
    verifier = TokenVerifier(settings_of(corp, partners), transport=transport_to(corp, partners))
    for number in range(201):
        verifier.decide(partners.token(azp=f"c{number}", client_id=f"c{number}"))
    verifier.decide(corp.token())
    counted = [point for point in metrics_read(DECISIONS) if point.attributes["s2s_fastapi.caller"] != "_OTHER"]
    issuers = [point.attributes["s2s_fastapi.issuer"] for point in counted]
    assert {issuer: issuers.count(issuer) for issuer in issuers} == {partners.issuer: 200, corp.issuer: 1}


def test_decisions_that_are_alike_are_one_series(realm: Realm, metrics_read: Measured, client: TestClient) -> None:
    headers = bearer(realm.token())
    for _ in range(3):
        client.get("/x", headers=headers)
    client.get("/x", headers=bearer(realm.token()))

    assert metrics_read.told(DECISIONS) == {(CALLER, "allowed", "allowed"): 4}


UNSIGNED: dict[str, Callable[[Realm], dict[str, str]]] = {
    "no_credentials": lambda _: {},
    "invalid_request": lambda _: {"Authorization": "Bearer two words"},
    "malformed_token": lambda _: bearer("word"),
    "unsupported_header": lambda _: bearer("eyJhbGciOiJub25lIn0.e30."),
    "invalid_signature": lambda realm: bearer(
        realm.token(key=SigningKey("RS256", kid=realm.key.kid), client_id="forged", azp="forged")
    ),
}


@pytest.mark.parametrize("reason", UNSIGNED)
def test_whoever_has_shown_no_signed_token_has_no_name(
    realm: Realm, metrics_read: Measured, client: TestClient, reason: str
) -> None:
    client.get("/x", headers=UNSIGNED[reason](realm))

    assert metrics_read.told(DECISIONS) == {("_OTHER", "refused", reason): 1}


SIGNED: dict[str, Callable[[Realm], str]] = {
    "wrong_audience": lambda realm: realm.token(aud="billing"),
    "expired": lambda realm: realm.token(iat=999_900, exp=1_000_000),
    "wrong_type": lambda realm: realm.token(typ="ID"),
    "not_a_service": lambda realm: realm.user_token(azp=CALLER),
}


@pytest.mark.parametrize("reason", SIGNED)
def test_a_refusal_of_a_signed_token_names_its_caller(
    realm: Realm, metrics_read: Measured, client: TestClient, reason: str
) -> None:
    client.get("/x", headers=bearer(SIGNED[reason](realm)))

    assert metrics_read.told(DECISIONS) == {(CALLER, "refused", reason): 1}


def test_a_refusal_by_a_requirement_is_counted_and_no_acceptance_beside_it(
    realm: Realm, metrics_read: Measured, client: TestClient
) -> None:
    assert client.get("/billing", headers=bearer(realm.token())).status_code == 403

    assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "caller_not_allowed"): 1}


def test_a_refusal_by_a_guard_is_counted_and_no_acceptance_beside_it(realm: Realm, metrics_read: Measured) -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = Starlette(routes=[Route("/billing", require_caller("billing").guard(endpoint))])
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, warm_up=False)
    client_of(app).get("/billing", headers=bearer(realm.token()))

    assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "caller_not_allowed"): 1}


def test_keys_that_are_not_there_are_a_failure_of_nobody(
    realm: Realm, metrics_read: Measured, client: TestClient
) -> None:
    realm.answer = lambda _: httpx.Response(500)
    assert client.get("/x", headers=bearer(realm.token())).status_code == 503

    assert metrics_read.told(DECISIONS) == {("_OTHER", "failed", "keys_unavailable"): 1}


def test_an_app_that_could_not_start_is_a_failure_of_nobody(realm: Realm, metrics_read: Measured) -> None:
    given = KeycloakSettings(url="http://keycloak.test", realm="corp")
    assert client_of(protected(realm, settings=given)).get("/x", headers=bearer(realm.token())).status_code == 500

    assert metrics_read.told(DECISIONS) == {("_OTHER", "failed", "not_started"): 1}


@pytest.mark.parametrize(
    ("path", "claims", "counted"),
    [
        ("/ws", {}, (CALLER, "allowed", "allowed")),
        ("/ws/raises", {}, (CALLER, "allowed", "allowed")),
        ("/nothing/here", {}, (CALLER, "allowed", "allowed")),
        ("/ws", {"aud": "billing"}, (CALLER, "refused", "wrong_audience")),
        ("/ws/billing", {}, (CALLER, "refused", "caller_not_allowed")),
    ],
)
def test_a_handshake_is_counted_once(
    realm: Realm, metrics_read: Measured, path: str, claims: dict[str, Any], counted: tuple[str, ...]
) -> None:
    connect(client_of(protected(realm)), path, bearer(realm.token(**claims)))

    assert metrics_read.told(DECISIONS) == {counted: 1}


def test_a_handshake_without_a_token_is_counted_once(metrics_read: Measured, client: TestClient) -> None:
    connect(client, "/ws", {})

    assert metrics_read.told(DECISIONS) == {("_OTHER", "refused", "no_credentials"): 1}


def test_a_public_path_is_no_decision(realm: Realm, metrics_read: Measured) -> None:
    client_of(protected(realm, public_paths=["/x"])).get("/x", headers=bearer(realm.token()))

    assert metrics_read(DECISIONS) == []


class TestOutsideOfAnyApp:
    def test_an_accepted_token_is_counted(self, realm: Realm, metrics_read: Measured, decide: Decide) -> None:
        verifier, token = token_verifier(realm), realm.token()
        for _ in range(2):
            decide(verifier, token)

        assert metrics_read.told(DECISIONS) == {(CALLER, "allowed", "allowed"): 2}

    def test_a_refused_token_is_counted(self, realm: Realm, metrics_read: Measured, decide: Decide) -> None:
        decide(token_verifier(realm), realm.token(aud="billing"))

        assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "wrong_audience"): 1}

    def test_what_is_no_token_is_counted(self, realm: Realm, metrics_read: Measured, decide: Decide) -> None:
        decide(token_verifier(realm), "")

        assert metrics_read.told(DECISIONS) == {("_OTHER", "refused", "malformed_token"): 1}

    def test_keys_that_are_not_there_are_counted(self, realm: Realm, metrics_read: Measured, decide: Decide) -> None:
        realm.answer = lambda _: httpx.Response(500)
        decide(token_verifier(realm), realm.token())

        assert metrics_read.told(DECISIONS) == {("_OTHER", "failed", "keys_unavailable"): 1}

    def test_a_token_that_raises_is_counted_once(self, realm: Realm, metrics_read: Measured) -> None:
        with pytest.raises(AuthenticationError):
            token_verifier(realm).verify(realm.token(aud="billing"))

        assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "wrong_audience"): 1}


class TestObserveMode:
    @pytest.fixture
    def observing(self, realm: Realm) -> TestClient:
        return client_of(protected(realm, clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31"))

    @pytest.mark.parametrize(
        ("path", "claims", "reason"),
        [
            ("/x", {"aud": "billing"}, "wrong_audience"),
            ("/billing", {}, "caller_not_allowed"),
            ("/twice", {"scope": ""}, "scope_missing"),
        ],
    )
    def test_a_refusal_that_is_only_recorded_is_counted_once_as_observed(
        self,
        *,
        realm: Realm,
        metrics_read: Measured,
        observing: TestClient,
        path: str,
        claims: dict[str, Any],
        reason: str,
    ) -> None:
        token = realm.token(iat=DAY - 3600, exp=DAY, **claims)
        assert observing.get(path, headers=bearer(token)).status_code == 200

        assert metrics_read.told(DECISIONS) == {(CALLER, "observed", reason): 1}

    def test_each_reason_of_a_request_is_counted(
        self, realm: Realm, metrics_read: Measured, observing: TestClient
    ) -> None:
        observing.get("/billing", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY, aud="billing")))

        assert metrics_read.told(DECISIONS) == {
            (CALLER, "observed", "wrong_audience"): 1,
            (CALLER, "observed", "caller_not_allowed"): 1,
        }

    def test_an_acceptance_stays_one(self, realm: Realm, metrics_read: Measured, observing: TestClient) -> None:
        observing.get("/x", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY)))

        assert metrics_read.told(DECISIONS) == ALLOWED


# Once

ONCE = [
    ("GET", "/x", 200),
    ("HEAD", "/x", 200),
    ("POST", "/x", 200),
    ("DELETE", "/x", 405),
    ("GET", "/x/", 307),
    ("GET", "/nothing/here", 404),
    ("GET", "/twice", 200),
    ("GET", "/raises", 500),
    ("GET", "/teapot", 418),
    ("GET", "/background", 200),
    ("GET", "/background/fails", 200),
    ("GET", "/streams", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ONCE)
def test_a_request_that_was_let_in_is_counted_once_however_it_ends(
    realm: Realm, metrics_read: Measured, method: str, path: str, status: int
) -> None:
    response = client_of(protected(realm)).request(method, path, headers=bearer(realm.token()))

    assert response.status_code == status
    assert metrics_read.told(DECISIONS) == ALLOWED


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in ONCE])
def test_a_request_that_was_refused_at_the_door_is_counted_once_wherever_it_goes(
    metrics_read: Measured, client: TestClient, method: str, path: str
) -> None:
    client.request(method, path)

    assert metrics_read.told(DECISIONS) == {("_OTHER", "refused", "no_credentials"): 1}


def test_a_stream_that_breaks_is_counted_once(realm: Realm, metrics_read: Measured) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        TestClient(protected(realm)).get("/streams/breaks", headers=bearer(realm.token()))

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_a_requirement_for_the_whole_app_and_one_for_the_route_count_one_request(
    realm: Realm, metrics_read: Measured
) -> None:
    app = protected(realm, dependencies=[Depends(require_scope("email"))])
    client_of(app).get("/twice", headers=bearer(realm.token()))

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_a_refusal_that_the_apps_own_handler_answers_is_counted_once_and_as_a_refusal(
    realm: Realm, metrics_read: Measured
) -> None:
    app = protected(realm)

    @app.exception_handler(AuthorizationError)
    async def mine(request: Request, error: AuthorizationError) -> JSONResponse:
        return JSONResponse({"mine": True}, 200)

    assert client_of(app).get("/billing", headers=bearer(realm.token())).status_code == 200
    assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "caller_not_allowed"): 1}


def scope_of(token: str) -> dict[str, Any]:
    headers = [(b"authorization", f"Bearer {token}".encode())]
    return {"type": "http", "method": "GET", "path": "/x", "raw_path": b"/x", "query_string": b"", "headers": headers}


def behind(realm: Realm, app: Any) -> ServiceAuthMiddleware:
    return ServiceAuthMiddleware(app, settings=settings(), transport=realm.transport, warm_up=False)


async def gone() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def swallow(message: Any) -> None: ...


def test_a_client_that_is_gone_before_the_answer_is_counted_once(realm: Realm, metrics_read: Measured) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.disconnect"

    asyncio.run(behind(realm, app)(scope_of(realm.token()), gone, swallow))

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_a_client_that_goes_away_during_the_answer_is_counted_once(realm: Realm, metrics_read: Measured) -> None:
    async def lost(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the connection is closed")

    app = behind(realm, StreamingResponse(several()))
    with pytest.raises(ClientDisconnect):
        asyncio.run(app({**scope_of(realm.token()), "asgi": {"spec_version": "2.4"}}, gone, lost))

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_a_client_that_is_gone_when_the_answer_begins_is_counted_once(realm: Realm, metrics_read: Measured) -> None:
    async def lost(message: Any) -> None:
        raise OSError("the connection is closed")

    with pytest.raises(OSError, match="closed"):
        asyncio.run(behind(realm, PlainTextResponse("x"))(scope_of(realm.token()), gone, lost))

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_a_refusal_that_nobody_waits_for_is_counted_once(realm: Realm, metrics_read: Measured) -> None:
    async def lost(message: Any) -> None:
        raise OSError("the connection is closed")

    with pytest.raises(OSError, match="closed"):
        asyncio.run(behind(realm, PlainTextResponse("x"))(scope_of(realm.token(aud="billing")), gone, lost))

    assert metrics_read.told(DECISIONS) == {(CALLER, "refused", "wrong_audience"): 1}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_request_that_is_cancelled_is_counted_once(realm: Realm, metrics_read: Measured, backend: str) -> None:
    async def cancelled() -> None:
        with anyio.CancelScope() as within:

            async def app(scope: Any, receive: Any, send: Any) -> None:
                within.cancel()
                await anyio.sleep_forever()

            await behind(realm, app)(scope_of(realm.token()), gone, swallow)

    anyio.run(cancelled, backend=backend)

    assert metrics_read.told(DECISIONS) == ALLOWED


def test_requests_at_the_same_time_are_counted_each(realm: Realm, metrics_read: Measured) -> None:
    app, token = behind(realm, PlainTextResponse("x")), realm.token()

    async def many() -> None:
        await asyncio.gather(*(app(scope_of(token), gone, swallow) for _ in range(50)))

    asyncio.run(many())

    assert metrics_read.told(DECISIONS) == {(CALLER, "allowed", "allowed"): 50}


# Whose names are told


def tell(client_id: str, reason: Reason = Reason.ALLOWED, *, observed: bool = False) -> None:
    decided(Decision(reason=reason, client_id=client_id, observed=observed))


def named(metrics_read: Measured) -> set[str]:
    return {caller for caller, _, _ in metrics_read.told(DECISIONS)} - {"_OTHER"}


def test_two_hundred_callers_that_were_let_in_are_named_and_the_next_is_another(metrics_read: Measured) -> None:
    for number in range(200):
        tell(f"caller-{number}")
    assert len(named(metrics_read)) == 200
    assert "_OTHER" not in {caller for caller, _, _ in metrics_read.told(DECISIONS)}

    tell("one-more")
    assert len(named(metrics_read)) == 200
    assert metrics_read.told(DECISIONS)["_OTHER", "allowed", "allowed"] == 1


def test_a_hundred_callers_that_were_only_refused_are_named_and_the_next_is_another(metrics_read: Measured) -> None:
    for number in range(100):
        tell(f"caller-{number}", Reason.WRONG_AUDIENCE)
    assert len(named(metrics_read)) == 100
    assert "_OTHER" not in {caller for caller, _, _ in metrics_read.told(DECISIONS)}

    tell("one-more", Reason.WRONG_AUDIENCE)
    assert len(named(metrics_read)) == 100
    assert metrics_read.told(DECISIONS)["_OTHER", "refused", "wrong_audience"] == 1


def test_a_flood_of_refused_callers_does_not_push_out_those_who_are_let_in(metrics_read: Measured) -> None:
    for number in range(1500):
        tell(f"flood-{number}", Reason.EXPIRED)
    for number in range(200):
        tell(f"caller-{number}")

    assert {f"caller-{number}" for number in range(200)} <= named(metrics_read)
    assert len(named(metrics_read)) == 300


def test_a_caller_that_was_let_in_keeps_its_name_when_a_flood_came_before_its_refusal(metrics_read: Measured) -> None:
    tell("known")
    for number in range(1500):
        tell(f"flood-{number}", Reason.EXPIRED)
    tell("known", Reason.SCOPE_MISSING)

    assert metrics_read.told(DECISIONS)["known", "refused", "scope_missing"] == 1


def test_a_caller_that_was_another_is_named_in_each_refusal_from_when_it_is_let_in(metrics_read: Measured) -> None:
    for number in range(100):
        tell(f"flood-{number}", Reason.EXPIRED)
    tell("mended", Reason.WRONG_AUDIENCE)
    tell("mended")
    tell("mended", Reason.WRONG_AUDIENCE)

    assert metrics_read.told(DECISIONS)["mended", "refused", "wrong_audience"] == 1


def test_a_caller_that_is_only_observed_has_a_place_among_those_who_are_let_in(metrics_read: Measured) -> None:
    for number in range(100):
        tell(f"flood-{number}", Reason.EXPIRED)
    tell("observed", Reason.SCOPE_MISSING, observed=True)

    assert metrics_read.told(DECISIONS)["observed", "observed", "scope_missing"] == 1


def test_a_name_of_a_clients_own_choice_is_printable_and_short(
    realm: Realm, metrics_read: Measured, client: TestClient
) -> None:
    value = "\r\n\x1b[31m\u202e" + "x" * 5000
    client.get("/x", headers=bearer(realm.token(client_id=value, azp=value)))

    (shown,) = named(metrics_read)
    assert shown.isprintable()
    assert len(shown) <= 256


# Tokens that are known


def test_a_token_is_a_miss_once_and_then_a_hit(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    verifier, token = token_verifier(realm), realm.token()
    for _ in range(3):
        decide(verifier, token)

    assert sorted(metrics_read(LOOKUPS), key=lambda point: point.value) == [
        Point(LOOKUPS, "{lookup}", {"s2s_fastapi.result": "miss"}, 1),
        Point(LOOKUPS, "{lookup}", {"s2s_fastapi.result": "hit"}, 2),
    ]


def test_a_token_of_a_request_is_a_miss_once_and_then_a_hit(
    realm: Realm, metrics_read: Measured, client: TestClient
) -> None:
    headers = bearer(realm.token())
    for _ in range(3):
        client.get("/x", headers=headers)

    assert metrics_read.told(LOOKUPS) == {("miss",): 1, ("hit",): 2}


def test_a_known_token_that_had_to_wait_for_keys_is_a_hit(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    monotonic = Clock(1000.0)
    verifier, token = token_verifier(realm, monotonic=monotonic), realm.token()
    decide(verifier, token)
    monotonic.advance(4000)
    decide(verifier, token)

    assert metrics_read.told(LOOKUPS) == {("miss",): 1, ("hit",): 1}


@pytest.mark.parametrize("token", [SIGNED["wrong_audience"], lambda _: "word"], ids=["signed", "word"])
def test_a_refused_token_is_a_miss_each_time(
    realm: Realm, metrics_read: Measured, decide: Decide, token: Callable[[Realm], str]
) -> None:
    verifier, refused = token_verifier(realm), token(realm)
    for _ in range(2):
        decide(verifier, refused)

    assert metrics_read.told(LOOKUPS) == {("miss",): 2}


def test_a_token_that_has_expired_since_is_no_hit(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    clock = Clock(DAY)
    verifier, token = token_verifier(realm, clock=clock), realm.token(iat=DAY, exp=DAY + 300)
    decide(verifier, token)
    clock.advance(3600)
    decide(verifier, token)

    assert metrics_read.told(LOOKUPS) == {("miss",): 2}


def test_where_nothing_is_remembered_all_are_misses(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    verifier, token = token_verifier(realm, cached_tokens=0), realm.token()
    for _ in range(2):
        decide(verifier, token)

    assert metrics_read.told(LOOKUPS) == {("miss",): 2}


def test_a_request_without_a_token_looks_up_nothing(metrics_read: Measured, client: TestClient) -> None:
    client.get("/x")

    assert metrics_read(LOOKUPS) == []


# Verification


@pytest.mark.parametrize(
    ("outcome", "claims"), [("allowed", {}), ("refused", {"aud": "billing"}), ("refused", {"typ": "ID"})]
)
def test_a_verification_is_measured_in_seconds_by_its_outcome(
    realm: Realm, metrics_read: Measured, decide: Decide, outcome: str, claims: dict[str, Any]
) -> None:
    began = time.perf_counter()
    decide(token_verifier(realm), realm.token(**claims))
    took = time.perf_counter() - began

    (point,) = metrics_read(VERIFICATION)
    assert (point.unit, point.attributes, point.value) == ("s", {"s2s_fastapi.outcome": outcome}, 1)
    assert 0 < point.sum <= took


def test_a_token_that_is_known_is_not_measured_again(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    verifier, token = token_verifier(realm), realm.token()
    for _ in range(3):
        decide(verifier, token)

    assert metrics_read.told(VERIFICATION) == {("allowed",): 1}


def test_the_wait_for_keys_is_a_part_of_the_verification(realm: Realm, metrics_read: Measured, decide: Decide) -> None:
    realm.answer = lambda _: time.sleep(0.05)
    decide(token_verifier(realm), realm.token())

    (point,) = metrics_read(VERIFICATION)
    assert point.sum >= 0.1  # two pages


def test_a_verification_without_keys_is_measured_as_failed(
    realm: Realm, metrics_read: Measured, decide: Decide
) -> None:
    realm.answer = lambda _: httpx.Response(500)
    decide(token_verifier(realm), realm.token())

    assert metrics_read.told(VERIFICATION) == {("failed",): 1}


def test_a_token_that_is_only_recorded_of_is_measured_as_observed(realm: Realm, metrics_read: Measured) -> None:
    app = protected(realm, clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31")
    client_of(app).get("/x", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY, aud="billing")))

    assert metrics_read.told(VERIFICATION) == {("observed",): 1}


# Keys


class OfItsOwnRealm:
    """What is measured of a realm that no other test asks for keys."""

    @pytest.fixture
    def realm(self) -> Realm:
        return Realm(uuid.uuid4().hex)

    def source(self, realm: Realm, clock: Callable[[], float] = time.monotonic) -> KeySource:
        channel = BackChannel(transport=realm.transport, timeout=3.0)
        return KeySource(Endpoints.of(settings(realm=realm.issuer.rpartition("/")[2])), channel, clock=clock)


class TestFetches(OfItsOwnRealm):
    def told(self, realm: Realm, metrics_read: Measured) -> dict[tuple[str, str], float]:
        """Return how many fetches there were by cause and outcome."""
        return {
            (point.attributes["s2s_fastapi.cause"], point.attributes["s2s_fastapi.outcome"]): point.value
            for point in metrics_read(FETCH)
            if point.attributes["s2s_fastapi.issuer"] == realm.issuer
        }

    def test_a_fetch_is_measured_in_seconds_with_outcome_cause_and_issuer(
        self, realm: Realm, metrics_read: Measured
    ) -> None:
        realm.answer = lambda _: time.sleep(0.02)
        self.source(realm).get()

        (point,) = [point for point in metrics_read(FETCH) if point.attributes["s2s_fastapi.issuer"] == realm.issuer]
        assert (point.unit, point.value) == ("s", 1)
        assert point.attributes == {
            "s2s_fastapi.outcome": "loaded",
            "s2s_fastapi.cause": "needed",
            "s2s_fastapi.issuer": realm.issuer,
        }
        assert 0.04 <= point.sum < 3

    def test_a_fetch_that_failed_is_one(self, realm: Realm, metrics_read: Measured) -> None:
        realm.answer = lambda _: httpx.Response(500)
        token_verifier_of(self.source(realm)).decide(realm.token())

        assert self.told(realm, metrics_read) == {("needed", "failed"): 1}

    def test_a_fetch_before_the_first_request_is_a_warm_up(self, realm: Realm, metrics_read: Measured) -> None:
        self.source(realm).start()

        assert until(lambda: self.told(realm, metrics_read)) == {("warm_up", "loaded"): 1}

    def test_a_renewal_before_anybody_waits_is_ahead(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)
        keys.get()
        clock.advance(500)
        keys.get()

        assert until(lambda: len(told := self.told(realm, metrics_read)) > 1 and told) == {
            ("needed", "loaded"): 1,
            ("ahead", "loaded"): 1,
        }

    def test_an_unknown_key_forces_a_fetch(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)
        keys.get()
        clock.advance(10)
        token_verifier_of(keys).decide(realm.token(key=SigningKey("ES256", kid="new")))

        assert self.told(realm, metrics_read) == {("needed", "loaded"): 1, ("forced", "loaded"): 1}

    def test_several_that_wait_for_one_fetch_are_one(self, realm: Realm, metrics_read: Measured) -> None:
        realm.answer = lambda _: time.sleep(0.02)
        keys = self.source(realm)

        async def many() -> None:
            await asyncio.gather(*(keys.aget() for _ in range(10)))

        asyncio.run(many())

        assert self.told(realm, metrics_read) == {("needed", "loaded"): 1}


def token_verifier_of(keys: KeySource) -> TokenVerifier:
    """Return a verifier of tokens with the keys of this source."""
    verifier = TokenVerifier(settings())
    verifier.ready().keys = keys
    return verifier


# Not only what is ours: connections of clients whose loop has ended are left to the collector by tests that went before.
COLLECTING = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class TestTheAgeOfKeys(OfItsOwnRealm):
    def ages(self, realm: Realm, metrics_read: Measured) -> list[Point]:
        return [point for point in metrics_read(AGE) if point.attributes["s2s_fastapi.issuer"] == realm.issuer]

    def test_is_in_seconds_since_they_were_asked_for(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)
        keys.get()
        clock.advance(42.5)

        assert self.ages(realm, metrics_read) == [Point(AGE, "s", {"s2s_fastapi.issuer": realm.issuer}, 42.5)]

    def test_is_not_recorded_before_there_are_any(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)

        assert self.ages(realm, metrics_read) == []
        assert keys.count == 0

    def test_is_not_recorded_where_the_first_fetch_failed(self, realm: Realm, metrics_read: Measured) -> None:
        realm.answer = lambda _: httpx.Response(500)
        keys = self.source(realm)
        token_verifier_of(keys).decide(realm.token())

        assert self.ages(realm, metrics_read) == []

    def test_goes_back_when_they_are_renewed(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)
        keys.get()
        clock.advance(700)
        keys.get()
        clock.advance(1)

        assert [point.value for point in self.ages(realm, metrics_read)] == [1.0]

    def test_grows_on_while_keycloak_does_not_answer(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        keys = self.source(realm, clock)
        keys.get()
        realm.answer = lambda _: httpx.Response(500)
        clock.advance(700)
        keys.get()
        clock.advance(100)

        assert [point.value for point in self.ages(realm, metrics_read)] == [800.0]

    def test_of_two_holders_of_one_realm_is_that_of_the_older(
        self, realm: Realm, metrics_read: Measured, clock: Clock
    ) -> None:
        older, younger = self.source(realm, clock), self.source(realm, clock)
        older.get()
        clock.advance(30)
        younger.get()
        clock.advance(12)

        assert [point.value for point in self.ages(realm, metrics_read)] == [42.0]

    def test_of_two_realms_is_recorded_of_each(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        another = Realm(f"{realm.issuer.rpartition('/')[2]}-too")
        holders = [self.source(realm, clock), self.source(another, clock)]
        holders[0].get()
        clock.advance(30)
        holders[1].get()

        told = [point.value for one in (realm, another) for point in self.ages(one, metrics_read)]
        assert told == [30.0, 0.0]

    @COLLECTING
    def test_is_gone_with_the_last_who_holds_them(self, realm: Realm, metrics_read: Measured, clock: Clock) -> None:
        holders = [self.source(realm, clock)]
        holders[0].get()
        assert self.ages(realm, metrics_read)

        holders.clear()
        until(lambda: gc.collect() is not None and not self.ages(realm, metrics_read))

    @COLLECTING
    def test_is_that_of_the_younger_when_the_older_holder_is_gone(
        self, realm: Realm, metrics_read: Measured, clock: Clock
    ) -> None:
        holders = [self.source(realm, clock), self.source(realm, clock)]
        holders[0].get()
        clock.advance(30)
        holders[1].get()

        del holders[0]
        until(lambda: gc.collect() is not None and [point.value for point in self.ages(realm, metrics_read)] == [0.0])

    def test_of_an_app_is_recorded_under_the_issuer_in_its_tokens(self, realm: Realm, metrics_read: Measured) -> None:
        name = realm.issuer.rpartition("/")[2]
        given = settings(realm=name, public_url="https://sso.example")
        app = protected(realm, settings=given)
        client_of(app).get("/x", headers=bearer(realm.token(iss=given.issuer)))

        told = {point.attributes["s2s_fastapi.issuer"] for point in metrics_read(AGE)}
        assert f"https://sso.example/realms/{name}" in told
        assert realm.issuer not in told

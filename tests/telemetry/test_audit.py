"""The audit trail: with ``audit=True`` each accepted call is one record that says who called what, when, with which token."""

import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_scope
from s2s_fastapi.decision import Decision
from s2s_fastapi.telemetry import DecisionLog
from tests.kit.realm import Clock, Realm, settings
from tests.kit.tracing import Traces, context_of

DAY = 1_798_675_200  # 2026-12-31 00:00 UTC
LOGGER = "s2s_fastapi.decisions"


class Trail:
    """What was written to the decisions' logger."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == LOGGER]

    @property
    def told(self) -> list[tuple[str, str]]:
        """Level and outcome of each record."""
        return [(record.levelname, vars(record)["outcome"]) for record in self.records]

    @property
    def one(self) -> dict[str, Any]:
        """The fields of the only record."""
        (record,) = self.records
        return vars(record)

    def level(self, level: int) -> None:
        self._caplog.set_level(level, logger=LOGGER)
        self._caplog.handler.setLevel(logging.NOTSET)  # it would keep back what other loggers say of the level


class Watching:
    """An observer of somebody's own."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)


@pytest.fixture
def trail(caplog: pytest.LogCaptureFixture) -> Trail:
    """The logger lets through what an audit trail needs, and no more."""
    trail = Trail(caplog)
    trail.level(logging.INFO)
    return trail


async def several() -> AsyncIterator[bytes]:
    for _ in range(3):
        yield b"one"


def protected(realm: Realm, **options: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    given = {"settings": settings(), "transport": realm.transport, "audit": True, "warm_up": False, **options}
    app.add_middleware(ServiceAuthMiddleware, **given)

    @app.post("/notifications")
    async def notify() -> str:
        return "x"

    @app.get("/tickets/{number}")
    async def ticket(number: int) -> str:
        return "x"

    @app.get("/billing", dependencies=[Depends(require_caller("billing"))])
    async def billing() -> None: ...

    @app.get("/twice", dependencies=[Depends(require_scope("email")), Depends(require_scope("profile"))])
    async def twice() -> None: ...

    @app.get("/raises")
    async def raises() -> None:
        raise RuntimeError("in the route")

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        tasks.add_task(lambda: None)
        return "x"

    @app.get("/traced")
    async def traced() -> PlainTextResponse:
        # Its end is not awaited: the answer starts inside, as it does for whoever makes the span in a middleware.
        span = trace.get_tracer("tests").start_span("of the route's own", context=context.Context())
        span.end()
        context.attach(trace.set_span_in_context(span))
        return PlainTextResponse("x")

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        return StreamingResponse(several())

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    return app


@pytest.fixture
def client(realm: Realm) -> TestClient:
    return client_of(protected(realm))


def client_of(app: Any) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# Accepted calls


def test_an_accepted_call_is_one_record_at_info(realm: Realm, trail: Trail, client: TestClient) -> None:
    client.post("/notifications", headers=bearer(realm.token()))

    assert trail.told == [("INFO", "allowed")]


def test_the_record_says_who_called_what_with_which_token(realm: Realm, trail: Trail, client: TestClient) -> None:
    client.post("/notifications", headers=bearer(realm.token(jti="trrtcc:1")))

    expected = {
        "outcome": "allowed",
        "reason": "allowed",
        "status": 200,
        "method": "POST",
        "route": "/notifications",
        "client_id": "chat-app-service",
        "token_id": "trrtcc:1",
        "kid": realm.key.kid,
        "issuer": realm.issuer,
        "cure": "",
        "suppressed": 0,
    }
    assert {name: trail.one[name] for name in expected} == expected


def test_the_record_says_when(realm: Realm, trail: Trail, client: TestClient) -> None:
    began = time.time()
    client.post("/notifications", headers=bearer(realm.token()))

    assert began - 1 <= trail.one["created"] <= time.time() + 1


def test_the_text_of_the_record_says_it_too(realm: Realm, traces: Traces, trail: Trail, client: TestClient) -> None:
    client.post("/notifications", headers=bearer(realm.token(jti="trrtcc:1")))

    text = trail.records[0].getMessage()
    assert text.startswith(
        "allowed 200: allowed method='POST' route='/notifications' client_id='chat-app-service' token_id='trrtcc:1' "
    )
    assert f"trace_id='{trail.one['trace_id']}'" in text


def test_the_fields_can_be_written_as_json(realm: Realm, trail: Trail, client: TestClient) -> None:
    client.post("/notifications", headers=bearer(realm.token()))

    ordinary = vars(logging.makeLogRecord({}))
    fields = {name: value for name, value in trail.one.items() if name not in ordinary}
    assert json.loads(json.dumps(fields)) == fields
    assert fields["client_id"] == "chat-app-service"


def test_the_route_is_recorded_as_declared(realm: Realm, trail: Trail, client: TestClient) -> None:
    client.get("/tickets/42", headers=bearer(realm.token()))

    assert trail.one["route"] == "/tickets/{number}"


def test_no_part_of_the_token_is_in_the_record(realm: Realm, trail: Trail, client: TestClient) -> None:
    token = realm.token()
    client.post("/notifications", headers=bearer(token))

    written = f"{trail.records[0].getMessage()} {vars(trail.records[0])}"
    assert not any(part in written for part in token.split("."))


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/twice", 200),
        ("/streams", 200),
        ("/background", 200),
        ("/raises", 500),
        ("/nothing/here", 404),
        ("/notifications", 405),
        ("/tickets/none", 422),
        ("/tickets/1/", 307),
    ],
)
def test_a_call_is_written_once_whatever_its_route_answers(
    realm: Realm, trail: Trail, client: TestClient, path: str, status: int
) -> None:
    assert client.get(path, headers=bearer(realm.token())).status_code == status

    assert trail.told == [("INFO", "allowed")]
    assert trail.one["status"] == 200


def test_a_websocket_is_written_once(realm: Realm, trail: Trail, client: TestClient) -> None:
    with client.websocket_connect("/ws", headers=bearer(realm.token())):
        pass

    assert trail.told == [("INFO", "allowed")]
    assert (trail.one["method"], trail.one["route"]) == ("WEBSOCKET", "/ws")


def test_a_call_of_starlette_is_written_once(realm: Realm, trail: Trail) -> None:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = Starlette(routes=[Route("/x", require_caller("chat-app-service").guard(endpoint))])
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, audit=True, warm_up=False)
    client_of(app).get("/x", headers=bearer(realm.token()))

    assert trail.told == [("INFO", "allowed")]
    assert trail.one["route"] == "/x"


def test_calls_with_one_token_are_written_each(realm: Realm, trail: Trail, client: TestClient) -> None:
    headers = bearer(realm.token(jti="trrtcc:1"))
    for _ in range(200):
        client.post("/notifications", headers=headers)

    assert trail.told == [("INFO", "allowed")] * 200
    assert {vars(record)["token_id"] for record in trail.records} == {"trrtcc:1"}
    assert {vars(record)["suppressed"] for record in trail.records} == {0}


@pytest.fixture
def counting(realm: Realm) -> TestClient:
    """The audit trail on a clock that stands still: a flood of refusals stays within one window however slow the machine is."""
    return client_of(protected(realm, audit=False, observer=DecisionLog(audit=True, clock=Clock())))


def test_a_flood_of_refusals_leaves_out_no_accepted_call(realm: Realm, trail: Trail, counting: TestClient) -> None:
    good, bad = bearer(realm.token()), bearer(realm.token(aud="billing"))
    for _ in range(100):
        counting.post("/notifications", headers=bad)
        counting.post("/notifications", headers=good)

    assert trail.told.count(("INFO", "allowed")) == 100
    assert trail.told.count(("WARNING", "refused")) == 20


def test_a_public_path_is_not_in_the_trail(realm: Realm, trail: Trail) -> None:
    client_of(protected(realm, public_paths=["/streams"])).get("/streams")

    assert trail.records == []


# Without it


@pytest.mark.parametrize("options", [{}, {"audit": False}])
def test_without_it_an_accepted_call_is_written_at_debug(realm: Realm, trail: Trail, options: dict[str, Any]) -> None:
    trail.level(logging.DEBUG)
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, warm_up=False, **options)
    client_of(app).get("/x", headers=bearer(realm.token()))

    assert trail.told == [("DEBUG", "allowed")]


def test_without_it_nothing_is_written_at_info(realm: Realm, trail: Trail) -> None:
    client_of(protected(realm, audit=False)).post("/notifications", headers=bearer(realm.token()))

    assert trail.records == []


# Refusals


@pytest.mark.parametrize("audit", [True, False])
@pytest.mark.parametrize(
    ("path", "claims", "reason"),
    [("/streams", {"aud": "billing"}, "wrong_audience"), ("/billing", {}, "caller_not_allowed")],
)
def test_a_refusal_is_a_warning_as_always(
    realm: Realm, trail: Trail, *, audit: bool, path: str, claims: dict[str, Any], reason: str
) -> None:
    client_of(protected(realm, audit=audit)).get(path, headers=bearer(realm.token(**claims)))

    assert trail.told == [("WARNING", "refused")]
    assert trail.one["reason"] == reason
    assert trail.one["cure"]


def test_a_flood_of_refusals_is_counted_as_always(trail: Trail, counting: TestClient) -> None:
    for _ in range(100):
        counting.post("/notifications")

    assert trail.told == [("WARNING", "refused")] * 20


@pytest.fixture
def observing(realm: Realm) -> TestClient:
    return client_of(protected(realm, clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31"))


def test_a_refusal_that_is_only_recorded_is_no_acceptance(realm: Realm, trail: Trail, observing: TestClient) -> None:
    observing.get("/streams", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY, aud="billing")))

    assert trail.told == [("WARNING", "observed")]


def test_no_call_that_was_let_in_and_only_observed_is_left_out(
    realm: Realm, trail: Trail, observing: TestClient
) -> None:
    for _ in range(100):
        observing.get("/billing", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY)))

    assert trail.told == [("WARNING", "observed")] * 100


def test_in_observe_mode_accepted_calls_are_written_too(realm: Realm, trail: Trail, observing: TestClient) -> None:
    observing.get("/streams", headers=bearer(realm.token(iat=DAY - 3600, exp=DAY)))

    assert trail.told == [("INFO", "allowed")]


# Beside the trace


@pytest.mark.parametrize(("path", "claims"), [("/streams", {}), ("/billing", {}), ("/streams", {"aud": "billing"})])
def test_the_record_has_the_trace_and_the_token_of_the_requests_span(
    realm: Realm, traces: Traces, trail: Trail, client: TestClient, *, path: str, claims: dict[str, Any]
) -> None:
    client.get(path, headers=bearer(realm.token(jti="trrtcc:1", **claims)))

    (span,) = traces.of_kind(SpanKind.SERVER)
    assert trail.one["trace_id"] == trace.format_trace_id(context_of(span).trace_id)
    assert trail.one["token_id"] == (span.attributes or {})["s2s_fastapi.token_id"] == "trrtcc:1"


def test_the_record_has_the_trace_that_the_caller_began(realm: Realm, trail: Trail, client: TestClient) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", **bearer(realm.token())}
    client.get("/streams", headers=headers)

    assert trail.one["trace_id"] == "a" * 32


def test_the_record_has_the_trace_of_the_request_where_the_route_begins_another(
    realm: Realm, traces: Traces, trail: Trail, client: TestClient
) -> None:
    client.get("/traced", headers=bearer(realm.token()))

    (span,) = traces.of_kind(SpanKind.SERVER)
    assert traces.named("of the route's own")[0].parent is None
    assert trail.one["trace_id"] == trace.format_trace_id(context_of(span).trace_id)


def test_the_record_of_a_websocket_has_its_trace(
    realm: Realm, traces: Traces, trail: Trail, client: TestClient
) -> None:
    with client.websocket_connect("/ws", headers=bearer(realm.token())):
        pass

    (span,) = traces.of_kind(SpanKind.SERVER)
    assert trail.one["trace_id"] == trace.format_trace_id(context_of(span).trace_id)


def test_where_nobody_traces_the_record_has_no_trace(realm: Realm, trail: Trail) -> None:
    app = Starlette()
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, audit=True, warm_up=False)
    client_of(app).get("/x", headers=bearer(realm.token()))

    assert trail.one["trace_id"] == ""
    assert "trace_id" not in trail.records[0].getMessage()


# At the start


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said about the trail, by the logger that says what is wrong with a start."""
    return [
        record.getMessage()
        for record in caplog.records
        if (record.name, record.levelno) == ("s2s_fastapi", logging.WARNING) and "audit" in record.getMessage()
    ]


@contextmanager
def taken_by(levels: list[int]) -> Iterator[None]:
    """Let the logger have handlers of these levels, and nobody above it listen."""
    logger = logging.getLogger(LOGGER)
    handlers = [logging.NullHandler(level) for level in levels]
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.propagate = True
        for handler in handlers:
            logger.removeHandler(handler)


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR, logging.INFO + 1])
def test_the_start_warns_where_the_logger_lets_no_acceptance_through(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    trail.level(level)
    with client_of(protected(realm)):
        pass

    (sentence,) = warnings(caplog)
    assert "audit=True" in sentence
    assert 'logging.getLogger("s2s_fastapi.decisions").setLevel("INFO")' in sentence


def test_it_warns_at_the_first_request_where_no_lifespan_comes_and_once(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    trail.level(logging.WARNING)
    client = client_of(protected(realm))
    for _ in range(2):
        client.get("/streams", headers=bearer(realm.token()))

    assert len(warnings(caplog)) == 1
    assert trail.records == []


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_the_start_does_not_warn_where_the_logger_lets_acceptances_through(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    trail.level(level)
    with client_of(protected(realm)):
        pass

    assert warnings(caplog) == []


@pytest.mark.parametrize("handlers", [[], [logging.WARNING], [logging.INFO + 1, logging.ERROR]], ids=str)
def test_the_start_warns_where_no_handler_takes_acceptances(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture, handlers: list[int]
) -> None:
    with taken_by(handlers), client_of(protected(realm)):
        pass

    (sentence,) = warnings(caplog)
    assert "no handler" in sentence
    assert "logging.basicConfig()" in sentence


@pytest.mark.parametrize("handlers", [[logging.INFO], [logging.ERROR, logging.NOTSET]], ids=str)
def test_the_start_does_not_warn_where_a_handler_takes_acceptances(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture, handlers: list[int]
) -> None:
    with taken_by(handlers), client_of(protected(realm)):
        pass

    assert warnings(caplog) == []


def test_without_a_trail_nobody_is_warned_of_the_level(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture
) -> None:
    trail.level(logging.WARNING)
    with client_of(protected(realm, audit=False)):
        pass

    assert warnings(caplog) == []


# Beside an observer


def test_an_observer_is_recorded_of_each_call_instead_of_the_logger(realm: Realm, trail: Trail) -> None:
    watching = Watching()
    client = client_of(protected(realm, observer=watching))
    client.get("/streams", headers=bearer(realm.token(jti="trrtcc:1")))
    client.get("/billing", headers=bearer(realm.token(jti="trrtcc:2")))

    assert [(decision.outcome, decision.token_id) for decision in watching.decisions] == [
        ("allowed", "trrtcc:1"),
        ("refused", "trrtcc:2"),
    ]
    assert trail.records == []


def test_an_observer_is_recorded_the_trace_of_the_request(realm: Realm, traces: Traces) -> None:
    watching = Watching()
    client_of(protected(realm, observer=watching)).get("/streams", headers=bearer(realm.token()))

    (span,), (decision,) = traces.of_kind(SpanKind.SERVER), watching.decisions
    assert decision.trace_id == trace.format_trace_id(context_of(span).trace_id)


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING])
def test_the_start_warns_of_a_trail_that_an_observer_takes_the_place_of(
    realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    trail.level(level)
    with client_of(protected(realm, observer=Watching())):
        pass

    (sentence,) = warnings(caplog)
    assert "observer=" in sentence


def test_an_observer_without_a_trail_warns_nobody(realm: Realm, trail: Trail, caplog: pytest.LogCaptureFixture) -> None:
    with client_of(protected(realm, observer=Watching(), audit=False)):
        pass

    assert warnings(caplog) == []

"""What the server's span of a request tells of the decision: who called with which token, or why not; and never the token."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI, WebSocket
from opentelemetry import context, trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_role, require_scope
from s2s_fastapi.settings import KeycloakSettings
from tests.kit.realm import Clock, Realm, SigningKey, settings
from tests.kit.tracing import Traces, context_of, until

DAY = 1_798_675_200  # 2026-12-31 00:00 UTC
FORGED = "of-the-forger"

Token = Callable[[Realm], str]


def ask(app: Any, path: str = "/x", *, kind: str = "http", method: str = "GET", **headers: str) -> int:
    """Send a request, or a handshake that can be denied, without a client that would log its URL; return the status."""
    sent: list[dict[str, Any]] = []
    path, _, query = path.partition("?")
    scope: dict[str, Any] = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": "ws" if kind == "websocket" else "http",
        "server": ("crm.test", 80),
        "client": ("10.0.0.1", 1),
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"crm.test"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "extensions": {"websocket.http.response": {}},
    }
    if kind == "http":
        scope["method"] = method
    else:
        scope["subprotocols"] = []
    first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}
    incoming = [first]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        return {"type": "websocket.disconnect", "code": 1000} if kind == "websocket" else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return 101 if sent[0]["type"] == "websocket.accept" else int(sent[0]["status"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def server(traces: Traces) -> ReadableSpan:
    """Return the only span of a server."""
    (span,) = traces.of_kind(SpanKind.SERVER)
    return span


def told(span: ReadableSpan) -> dict[str, Any]:
    """Return what a span tells in our names, without the name of the package in front."""
    ours = {name: value for name, value in (span.attributes or {}).items() if name.startswith("s2s_fastapi.")}
    return {name.removeprefix("s2s_fastapi."): value for name, value in ours.items()}


def everything(traces: Traces) -> str:
    """Return all text of all spans."""
    return "\n".join(
        str(
            (
                span.name,
                span.status.description,
                dict(span.attributes or {}),
                [event.attributes for event in span.events],
            )
        )
        for span in traces.spans
    )


def of_a_signed_token(realm: Realm, **changes: str) -> dict[str, str]:
    return {
        "outcome": "allowed",
        "reason": "allowed",
        "caller": "chat-app-service",
        "token_id": "trrtcc:1",
        "kid": realm.key.kid,
        "issuer": realm.issuer,
        **changes,
    }


def protected(realm: Realm, app: FastAPI | None = None, **options: Any) -> FastAPI:
    """Return an app with a route and a WebSocket for everybody, and with one of each for nobody."""
    app = app or FastAPI(openapi_url=None)
    given = {"settings": settings(), "transport": realm.transport, "warm_up": False, **options}
    app.add_middleware(ServiceAuthMiddleware, **given)

    @app.get("/x")
    async def x() -> str:
        return "x"

    @app.get("/billing", dependencies=[Depends(require_caller("billing"))])
    async def billing() -> None: ...

    @app.get("/tickets", dependencies=[Depends(require_scope("tickets"))])
    async def tickets() -> None: ...

    @app.get("/clerks", dependencies=[Depends(require_role("clerk"))])
    async def clerks() -> None: ...

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()

    @app.websocket("/ws/billing", dependencies=[Depends(require_caller("billing"))])
    async def ws_billing(websocket: WebSocket) -> None: ...

    return app


@pytest.fixture
def app(realm: Realm) -> FastAPI:
    return protected(realm)


# What both kinds of decisions lead to, on a route and, with /ws in front, in a handshake.
BOTH = [("/x", "allowed", "allowed"), ("/billing", "refused", "caller_not_allowed")]
EACH = [
    (kind, "/ws" + path.removeprefix("/x") if kind == "websocket" else path, {"outcome": outcome, "reason": reason})
    for kind in ("http", "websocket")
    for path, outcome, reason in BOTH
]


# Let in


def test_the_span_of_a_request_is_fastapis_and_there_is_no_second(realm: Realm, traces: Traces, app: FastAPI) -> None:
    ask(app, **bearer(realm.token()))

    scope = server(traces).instrumentation_scope
    assert scope is not None
    assert scope.name == "fastapi"


def test_an_accepted_request_records_who_called_with_which_token(realm: Realm, traces: Traces, app: FastAPI) -> None:
    assert ask(app, **bearer(realm.token(jti="trrtcc:1"))) == 200

    assert told(server(traces)) == of_a_signed_token(realm)


def test_a_token_that_is_known_is_recorded_like_a_new_one(realm: Realm, traces: Traces, app: FastAPI) -> None:
    token = realm.token(jti="trrtcc:1")
    ask(app, **bearer(token))
    traces.spans.clear()
    ask(app, **bearer(token))

    assert traces.names == []
    assert told(server(traces)) == of_a_signed_token(realm)


def test_two_callers_are_not_mixed_up(realm: Realm, traces: Traces, app: FastAPI) -> None:
    names = ["a", "b", "a"]
    tokens = {name: realm.token(client_id=name, azp=name) for name in "ab"}
    for name in names:
        ask(app, **bearer(tokens[name]))

    assert [told(span)["caller"] for span in traces.of_kind(SpanKind.SERVER)] == names


def test_the_decision_stands_in_the_span_whatever_the_route_answers(realm: Realm, traces: Traces, app: FastAPI) -> None:
    assert ask(app, "/nothing/here", **bearer(realm.token(jti="trrtcc:1"))) == 404

    assert told(server(traces)) == of_a_signed_token(realm)


def test_a_public_path_is_no_decision(realm: Realm, traces: Traces) -> None:
    assert ask(protected(realm, public_paths=["/x"]), **bearer(realm.token())) == 200

    assert told(server(traces)) == {}


@pytest.mark.parametrize("claim", ["client_id", "jti"])
def test_what_a_registered_client_chose_is_printable_and_short(
    realm: Realm, traces: Traces, app: FastAPI, claim: str
) -> None:
    value = "\r\n\x1b[31m\u202e" + "x" * 5000
    claims: dict[str, Any] = {claim: value, **({"azp": value} if claim == "client_id" else {})}
    ask(app, **bearer(realm.token(**claims)))

    assert set(told(server(traces))) == set(of_a_signed_token(realm))
    assert all(text.isprintable() and len(text) <= 256 for text in told(server(traces)).values())


def test_an_app_that_is_mounted_describes_the_one_span_there_is(realm: Realm, traces: Traces, app: FastAPI) -> None:
    outer = FastAPI(openapi_url=None)
    outer.mount("/crm", app)

    assert ask(outer, "/crm/x", **bearer(realm.token(jti="trrtcc:1"))) == 200
    assert told(server(traces)) == of_a_signed_token(realm)


# Refused

UNSIGNED: dict[str, tuple[dict[str, str], int, str]] = {
    "no header": ({}, 401, "no_credentials"),
    "another scheme": ({"authorization": "Basic dXNlcjpwYXNz"}, 401, "no_credentials"),
    "two words": ({"authorization": "Bearer two words"}, 400, "invalid_request"),
    "no token": (bearer("word"), 401, "malformed_token"),
    "alg none": (bearer("eyJhbGciOiJub25lIn0.e30."), 401, "unsupported_header"),
}


@pytest.mark.parametrize(("headers", "status", "reason"), UNSIGNED.values(), ids=UNSIGNED)
def test_a_request_without_a_readable_token_records_the_reason_alone(
    traces: Traces, app: FastAPI, headers: dict[str, str], status: int, reason: str
) -> None:
    assert ask(app, **headers) == status

    assert told(server(traces)) == {"outcome": "refused", "reason": reason}


@pytest.mark.parametrize("reason", ["invalid_signature", "unknown_key"])
def test_of_a_token_that_nobody_signed_only_the_kid_is_recorded_and_as_unverified(
    realm: Realm, traces: Traces, app: FastAPI, reason: str
) -> None:
    other = SigningKey("RS256", kid=realm.key.kid if reason == "invalid_signature" else "another")
    assert ask(app, **bearer(realm.token(key=other, jti=FORGED, client_id=FORGED, azp=FORGED, aud=[FORGED]))) == 401

    assert told(server(traces)) == {"outcome": "refused", "reason": reason, "unverified_kid": other.kid}
    assert FORGED not in everything(traces)


def test_a_kid_of_the_forgers_choice_is_printable_and_short(realm: Realm, traces: Traces, app: FastAPI) -> None:
    ask(app, **bearer(realm.token(key=SigningKey("ES256", kid=realm.key.kid), header={"kid": "\r\n\x1b[31m" * 30})))

    shown = told(server(traces)).get("unverified_kid", "")
    assert shown.isprintable()
    assert len(shown) <= 64


SIGNED: dict[str, tuple[Token, str]] = {
    "wrong audience": (lambda realm: realm.token(jti="trrtcc:1", aud="billing"), "wrong_audience"),
    "expired": (lambda realm: realm.token(jti="trrtcc:1", iat=999_900, exp=1_000_000), "expired"),
    "wrong type": (lambda realm: realm.token(jti="trrtcc:1", typ="ID"), "wrong_type"),
    "a user": (lambda realm: realm.user_token(jti="trrtcc:1", azp="chat-app-service"), "not_a_service"),
}


@pytest.mark.parametrize(("token", "reason"), SIGNED.values(), ids=SIGNED)
def test_a_token_refused_after_its_signature_held_records_who_brought_it(
    realm: Realm, traces: Traces, app: FastAPI, token: Token, reason: str
) -> None:
    assert ask(app, **bearer(token(realm))) in {401, 403}

    assert told(server(traces)) == of_a_signed_token(realm, outcome="refused", reason=reason)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("/billing", "caller_not_allowed"), ("/tickets", "scope_missing"), ("/clerks", "role_missing")],
)
def test_a_requirement_that_refuses_is_recorded_with_the_caller(
    realm: Realm, traces: Traces, app: FastAPI, path: str, reason: str
) -> None:
    assert ask(app, path, **bearer(realm.token(jti="trrtcc:1"))) == 403

    assert told(server(traces)) == of_a_signed_token(realm, outcome="refused", reason=reason)


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "400": ("/x", {"authorization": "Bearer two words"}),
    "401": ("/x", {"aud": "billing"}),
    "403": ("/billing", {}),
}


@pytest.mark.parametrize(("path", "broken"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_is_no_error_of_the_service(
    realm: Realm, traces: Traces, app: FastAPI, path: str, broken: dict[str, Any]
) -> None:
    ask(app, path, **(broken if "authorization" in broken else bearer(realm.token(**broken))))

    span = server(traces)
    assert told(span)["outcome"] == "refused"
    assert span.status.status_code is StatusCode.UNSET
    assert "error.type" not in (span.attributes or {})
    assert not span.events


def test_keys_that_are_not_there_are_a_failure_of_which_the_token_is_not_recorded(
    realm: Realm, traces: Traces, app: FastAPI
) -> None:
    realm.answer = lambda _: httpx.Response(500)
    assert ask(app, **bearer(realm.token(jti=FORGED, client_id=FORGED, azp=FORGED))) == 503

    assert told(server(traces)) == {"outcome": "failed", "reason": "keys_unavailable"}
    assert server(traces).status.status_code is StatusCode.ERROR
    assert FORGED not in everything(traces)


def test_an_app_that_could_not_start_records_so_in_the_span(realm: Realm, traces: Traces) -> None:
    app = protected(realm, settings=KeycloakSettings(url="http://keycloak.test", realm="corp"))
    assert ask(app, **bearer(realm.token())) == 500

    assert told(server(traces)) == {"outcome": "failed", "reason": "not_started"}
    assert server(traces).status.status_code is StatusCode.ERROR


# Observed


@pytest.mark.parametrize(
    ("path", "claims", "reason"),
    [
        ("/x", {"aud": "billing"}, "wrong_audience"),
        ("/x", {"client_id": None, "sid": "s"}, "not_a_service"),
        ("/billing", {}, "caller_not_allowed"),
        ("/tickets", {}, "scope_missing"),
    ],
)
def test_a_refusal_that_is_only_recorded_is_observed(
    realm: Realm, traces: Traces, path: str, claims: dict[str, Any], reason: str
) -> None:
    app = protected(realm, clock=Clock(DAY - 3600), insecure_observe_until="2026-12-31")
    token = realm.token(jti="trrtcc:1", iat=DAY - 3600, exp=DAY, **claims)
    assert ask(app, path, **bearer(token)) == 200

    assert told(server(traces)) == of_a_signed_token(realm, outcome="observed", reason=reason)


def test_the_same_token_is_refused_in_the_span_from_the_day_on(realm: Realm, traces: Traces) -> None:
    clock = Clock(DAY - 60)
    app = protected(realm, clock=clock, insecure_observe_until="2026-12-31")
    headers = bearer(realm.token(iat=DAY - 60, exp=DAY + 240, aud="billing"))
    ask(app, **headers)
    clock.advance(60)
    ask(app, **headers)

    assert [told(span)["outcome"] for span in traces.of_kind(SpanKind.SERVER)] == ["observed", "refused"]


# A token in the URL

IN_QUERY = ["access_token=@", "access%5Ftoken=@", "page=1&access_token=@", "page=1;access_token=@"]


def with_token(query: str, token: str) -> str:
    return f"/x?{query.replace('@', token)}"


def assert_hidden(traces: Traces, token: str) -> None:
    assert (server(traces).attributes or {})["url.query"] == "REDACTED"
    assert token not in everything(traces)
    assert token.rpartition(".")[2] not in everything(traces)


@pytest.mark.parametrize("query", IN_QUERY)
def test_a_token_in_the_query_alone_is_in_no_span(realm: Realm, traces: Traces, app: FastAPI, query: str) -> None:
    token = realm.token()
    assert ask(app, with_token(query, token)) == 401

    assert told(server(traces))["reason"] == "no_credentials"
    assert_hidden(traces, token)


@pytest.mark.parametrize("query", IN_QUERY)
def test_a_token_in_the_query_beside_the_header_is_in_no_span(
    realm: Realm, traces: Traces, app: FastAPI, query: str
) -> None:
    token = realm.token()
    assert ask(app, with_token(query, token), **bearer(token)) == 400

    assert told(server(traces))["reason"] == "invalid_request"
    assert_hidden(traces, token)


def test_a_token_in_the_query_of_a_handshake_is_in_no_span(realm: Realm, traces: Traces, app: FastAPI) -> None:
    token = realm.token()
    assert ask(app, f"/ws?access_token={token}", kind="websocket") == 401

    assert_hidden(traces, token)


def test_a_token_in_the_query_is_in_no_span_of_an_app_that_could_not_start(realm: Realm, traces: Traces) -> None:
    token = realm.token()
    app = protected(realm, settings=KeycloakSettings(url="http://keycloak.test", realm="corp"))
    assert ask(app, with_token(IN_QUERY[0], token)) == 500

    assert_hidden(traces, token)


@pytest.mark.parametrize(("claims", "status"), [({}, 200), ({"aud": "billing"}, 401)])
def test_a_query_without_a_token_stays_where_the_token_came_in_the_header(
    realm: Realm, traces: Traces, app: FastAPI, claims: dict[str, Any], status: int
) -> None:
    assert ask(app, "/x?page=2", **bearer(realm.token(**claims))) == status

    assert (server(traces).attributes or {})["url.query"] == "page=2"


def test_where_there_is_no_query_none_is_invented(traces: Traces, app: FastAPI) -> None:
    ask(app)

    assert "url.query" not in (server(traces).attributes or {})


@pytest.mark.parametrize("path", ["/x", "/billing"])
def test_a_token_in_the_header_is_in_no_span(realm: Realm, traces: Traces, app: FastAPI, path: str) -> None:
    token = realm.token()
    ask(app, path, **bearer(token))

    assert not any(part in everything(traces) for part in token.split("."))


# WebSockets


def test_a_handshake_that_is_accepted_is_recorded_in_its_span(realm: Realm, traces: Traces, app: FastAPI) -> None:
    assert ask(app, "/ws", kind="websocket", **bearer(realm.token(jti="trrtcc:1"))) == 101

    assert told(server(traces)) == of_a_signed_token(realm)


def test_a_handshake_that_is_refused_is_recorded_in_its_span(realm: Realm, traces: Traces, app: FastAPI) -> None:
    assert ask(app, "/ws", kind="websocket", **bearer(realm.token(jti="trrtcc:1", aud="billing"))) == 401

    assert told(server(traces)) == of_a_signed_token(realm, outcome="refused", reason="wrong_audience")
    assert server(traces).status.status_code is StatusCode.UNSET


def test_a_handshake_that_a_requirement_refuses_is_recorded_in_its_span(
    realm: Realm, traces: Traces, app: FastAPI
) -> None:
    assert ask(app, "/ws/billing", kind="websocket", **bearer(realm.token(jti="trrtcc:1"))) == 403

    assert told(server(traces)) == of_a_signed_token(realm, outcome="refused", reason="caller_not_allowed")


# Starlette


def starlette(realm: Realm) -> Starlette:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    app = Starlette(routes=[Route("/x", endpoint), Route("/billing", require_caller("billing").guard(endpoint))])
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, warm_up=False)
    return app


@pytest.mark.parametrize(("path", "status"), [("/x", 200), ("/billing", 403), ("/x?access_token=a", 400)])
def test_an_app_whose_requests_nobody_traces_answers_all_the_same(
    realm: Realm, traces: Traces, path: str, status: int
) -> None:
    assert ask(starlette(realm), path, **bearer(realm.token())) == status

    assert traces.of_kind(SpanKind.SERVER) == []


def test_a_verification_that_nobody_traces_is_a_trace_of_its_own(realm: Realm, traces: Traces) -> None:
    ask(starlette(realm), **bearer(realm.token()))

    assert traces.one("verify token").parent is None


@pytest.mark.parametrize(("path", "outcome", "reason"), BOTH)
def test_a_span_that_is_made_around_the_app_is_recorded_what_a_guard_decided(
    realm: Realm, traces: Traces, path: str, outcome: str, reason: str
) -> None:
    ask(OpenTelemetryMiddleware(starlette(realm)), path, **bearer(realm.token(jti="trrtcc:1")))

    assert told(server(traces)) == of_a_signed_token(realm, outcome=outcome, reason=reason)


# Spans that are not ours to describe


class Inside:
    """A layer of the app, inside of ours, that traces what is below it."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with trace.get_tracer("tests").start_as_current_span("inside"):
            await self.app(scope, receive, send)


@pytest.mark.parametrize(("kind", "path", "decided"), EACH)
def test_the_servers_span_is_described_and_none_that_the_app_made_below_it(
    realm: Realm, traces: Traces, kind: str, path: str, decided: dict[str, str]
) -> None:
    app = FastAPI(openapi_url=None)
    app.add_middleware(Inside)
    protected(realm, app)
    ask(app, path, kind=kind, **bearer(realm.token(jti="trrtcc:1")))

    assert told(server(traces)) == of_a_signed_token(realm, **decided)
    assert len(traces.named("inside")) == 1
    assert [span.name for span in traces.spans if "s2s_fastapi.outcome" in (span.attributes or {})] == [
        "fetch keys",
        "verify token",
        server(traces).name,
    ]


@pytest.mark.parametrize(("path", "status"), [("/x", 200), ("/billing", 403), ("/x?access_token=a", 400)])
def test_a_request_whose_trace_is_not_recorded_is_decided_all_the_same(
    realm: Realm, traces: Traces, path: str, status: int
) -> None:
    app = FastAPI(openapi_url=None, telemetry={"tracer_provider": TracerProvider(sampler=ALWAYS_OFF)})
    assert ask(protected(realm, app), path, **bearer(realm.token())) == status

    assert traces.of_kind(SpanKind.SERVER) == []


def test_a_span_around_a_request_that_is_not_recorded_is_not_described(realm: Realm, traces: Traces) -> None:
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=True, trace_flags=trace.TraceFlags(0)))
    attached = context.attach(trace.set_span_in_context(unsampled))
    try:
        assert ask(starlette(realm), **bearer(realm.token())) == 200
    finally:
        context.detach(attached)

    assert traces.of_kind(SpanKind.SERVER) == []


# OpenTelemetry's own instrumentation


@pytest.fixture
def instrumented(app: FastAPI) -> Iterator[FastAPI]:
    FastAPIInstrumentor.instrument_app(app)
    yield app
    FastAPIInstrumentor.uninstrument_app(app)


def test_an_instrumentation_makes_the_span_instead_and_there_is_no_second(
    realm: Realm, traces: Traces, instrumented: FastAPI
) -> None:
    ask(instrumented, **bearer(realm.token()))

    scope = server(traces).instrumentation_scope
    assert scope is not None
    assert scope.name == "opentelemetry.instrumentation.fastapi"


@pytest.mark.parametrize(("kind", "path", "decided"), EACH)
def test_the_span_of_an_instrumentation_is_recorded_what_was_decided(
    realm: Realm, traces: Traces, instrumented: FastAPI, *, kind: str, path: str, decided: dict[str, str]
) -> None:
    ask(instrumented, path, kind=kind, **bearer(realm.token(jti="trrtcc:1")))

    assert told(server(traces)) == of_a_signed_token(realm, **decided)


def test_a_token_that_is_refused_is_recorded_in_the_span_of_an_instrumentation(
    realm: Realm, traces: Traces, instrumented: FastAPI
) -> None:
    assert ask(instrumented, **bearer(realm.token(jti="trrtcc:1", aud="billing"))) == 401

    assert told(server(traces)) == of_a_signed_token(realm, outcome="refused", reason="wrong_audience")
    assert server(traces).status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("query", IN_QUERY)
def test_a_token_in_the_query_is_in_no_span_of_an_instrumentation(
    realm: Realm, traces: Traces, instrumented: FastAPI, *, kind: str, beside: bool, query: str
) -> None:
    token = realm.token()
    assert ask(instrumented, with_token(query, token), kind=kind, **(bearer(token) if beside else {})) in {400, 401}

    assert_hidden(traces, token)


def test_the_url_without_its_query_stays_in_the_span_of_an_instrumentation(
    realm: Realm, traces: Traces, instrumented: FastAPI
) -> None:
    ask(instrumented, "/x?access_token=a")

    assert (server(traces).attributes or {})["http.url"] == "http://crm.test/x?REDACTED"


# What comes in from outside


def test_nothing_of_the_baggage_of_a_request_is_in_any_span(realm: Realm, traces: Traces, app: FastAPI) -> None:
    spoofed = "customer=alice,s2s_fastapi.caller=admin,s2s_fastapi.outcome=refused"
    ask(app, baggage=spoofed, **bearer(realm.token(jti="trrtcc:1")))

    assert told(server(traces)) == of_a_signed_token(realm)
    assert "alice" not in everything(traces)
    assert "admin" not in everything(traces)


def test_a_traceparent_of_anybodys_choice_is_a_parent_and_says_nothing_of_the_caller(
    realm: Realm, traces: Traces, app: FastAPI
) -> None:
    of_another = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "s2s=admin"}
    ask(app, **of_another, **bearer(realm.token(jti="trrtcc:1")))

    parent = server(traces).parent
    assert parent is not None
    assert (parent.is_remote, trace.format_span_id(parent.span_id)) == (True, "b" * 16)
    assert told(server(traces)) == of_a_signed_token(realm)


def test_a_traceparent_lets_nobody_in(traces: Traces, app: FastAPI) -> None:
    assert ask(app, traceparent=f"00-{'a' * 32}-{'b' * 16}-01") == 401

    assert told(server(traces)) == {"outcome": "refused", "reason": "no_credentials"}


def test_a_malformed_traceparent_changes_nothing(realm: Realm, traces: Traces, app: FastAPI) -> None:
    assert ask(app, traceparent="00-zz", **bearer(realm.token(jti="trrtcc:1"))) == 200

    assert server(traces).parent is None
    assert told(server(traces)) == of_a_signed_token(realm)


def test_requests_of_one_trace_are_recorded_each_by_its_own_token(realm: Realm, traces: Traces, app: FastAPI) -> None:
    of_both = f"00-{'a' * 32}-{'b' * 16}-01"
    ask(app, traceparent=of_both, **bearer(realm.token(client_id="a", azp="a")))
    ask(app, traceparent=of_both, **bearer(realm.token(client_id="b", azp="b")))

    spans = traces.of_kind(SpanKind.SERVER)
    assert len({context_of(span).trace_id for span in spans}) == 1
    assert [told(span)["caller"] for span in spans] == ["a", "b"]


def test_a_renewal_that_a_request_set_off_is_no_part_of_what_its_span_records(realm: Realm, traces: Traces) -> None:
    ask(protected(realm, warm_up=True), **bearer(realm.token(jti="trrtcc:1")))
    until(lambda: traces.named("fetch keys"))

    assert told(server(traces)) == of_a_signed_token(realm)

"""What a request to another service carries of the trace it is a part of, and what is told of one that was refused."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import httpx2
import pytest
import trio
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.service_client import service_client
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering
from s2s_fastapi.testing.server import LoopbackServer
from s2s_fastapi.testing.wire import Request, Response
from tests.kit.other_clients import HTTP
from tests.kit.realm import Clock
from tests.kit.tracing import Measured, Traces, Tree, context_of, request

pytestmark = pytest.mark.usefixtures("source")

OK = Response(200)
REFUSED = Response(401, headers=(("WWW-Authenticate", 'Bearer realm="there", error="invalid_token"'),))
REQUESTED: Tree = ("request token", [("POST", [])])
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
LABELS = {"s2s_fastapi.client_id": "shop-api", "s2s_fastapi.audience": "notification-service"}


class Service:
    """Another service on a socket: it answers with what stands in `answers`, then with 200, and keeps what came."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Response] = []
        self.seen: list[Request] = []

    def answer(self, request: Request) -> Response:
        self.seen.append(request)
        return self.answers.pop(0) if self.answers else OK

    def redirect(self, url: str) -> None:
        """Send the next request to another place."""
        self.answers.append(Response(307, headers=(("Location", url),)))

    def values(self, name: str) -> list[list[str]]:
        """Return all values of a header, of each request."""
        return [[value for found, value in one.headers if found.lower() == name] for one in self.seen]

    @property
    def parents(self) -> list[str]:
        """Return the ids of the spans that the requests name as their parents."""
        return [value.split("-")[2] for values in self.values("traceparent") for value in values]


@contextmanager
def serving() -> Iterator[Service]:
    service = Service()
    with LoopbackServer(service.answer) as server:
        service.url = server.url
        yield service


@pytest.fixture
def there() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def elsewhere() -> Iterator[Service]:
    with serving() as service:
        yield service


@pytest.fixture
def auth(there: Service, shop_api: KeycloakSettings) -> ServiceTokenAuth:
    return ServiceTokenAuth(there.url, audience="notification-service", settings=shop_api)


class Way:
    """One of the clients that there are."""

    def __init__(self, package: Any, loop: str = "") -> None:
        self.package = package
        self._loop = loop

    def get(self, url: str, auth: ServiceTokenAuth, **headers: str) -> Any:
        return self.send(self.package.Request("GET", url, headers=headers), auth)

    def send(self, request: Any, auth: ServiceTokenAuth) -> Any:
        """Send a request with a client of its own."""
        if not self._loop:
            with self.package.Client(trust_env=False, auth=auth, follow_redirects=True) as client:
                return client.send(request)

        async def send() -> Any:
            async with self.package.AsyncClient(trust_env=False, auth=auth, follow_redirects=True) as client:
                return await client.send(request)

        return self._run(send)

    def get_as_service_client(self, url: str, settings: KeycloakSettings, **headers: str) -> Any:
        """Send it with what `service_client` makes."""
        made = service_client(
            url,
            audience="notification-service",
            settings=settings,
            client_class=self.package.AsyncClient,
            follow_redirects=True,
        )
        if not self._loop:
            with made as client:
                return client.get("/", headers=headers)

        async def get() -> Any:
            async with made as client:
                return await client.get("/", headers=headers)

        return self._run(get)

    def _run(self, main: Callable[[], Any]) -> Any:
        return trio.run(main) if self._loop == "trio" else asyncio.run(main())


WAYS = {
    "httpx": Way(httpx),
    "httpx-asyncio": Way(httpx, "asyncio"),
    "httpx-trio": Way(httpx, "trio"),
    "httpx2": Way(httpx2),
    "httpx2-asyncio": Way(httpx2, "asyncio"),
    "httpx2-trio": Way(httpx2, "trio"),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Way:
    return WAYS[request.param]


def span_id(span: Any) -> str:
    return trace.format_span_id(context_of(span).span_id)


def trace_id(span: Any) -> str:
    return trace.format_trace_id(context_of(span).trace_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# The trace goes with the request


def test_a_request_carries_the_trace_and_the_span_it_was_sent_in(
    there: Service, auth: ServiceTokenAuth, way: Way
) -> None:
    with request() as server:
        way.get(there.url, auth)

    ((carried,),) = there.values("traceparent")
    assert carried.split("-")[:3] == ["00", trace_id(server), span_id(server)]


def test_a_request_carries_the_innermost_span(there: Service, auth: ServiceTokenAuth, way: Way) -> None:
    with request(), request("step") as step:
        way.get(there.url, auth)

    assert there.parents == [span_id(step)]


def test_the_wait_for_the_token_is_not_what_the_request_is_a_part_of(
    there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
) -> None:
    with request() as server:
        way.get(there.url, auth)

    assert traces.below(server) == [("wait for token", [REQUESTED])]
    assert there.parents == [span_id(server)]


def test_where_there_is_no_trace_a_request_carries_none(there: Service, auth: ServiceTokenAuth, way: Way) -> None:
    way.get(there.url, auth)

    assert there.values("traceparent") == [[]]
    assert there.values("authorization") != [[]]


def test_a_trace_that_nobody_records_goes_with_the_request_all_the_same(
    there: Service, auth: ServiceTokenAuth, way: Way
) -> None:
    unsampled = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(0)))
    with trace.use_span(unsampled):
        way.get(there.url, auth)

    assert there.values("traceparent") == [[f"00-{1:032x}-{2:016x}-00"]]


def test_what_the_caller_wrote_is_left_alone(there: Service, auth: ServiceTokenAuth, way: Way) -> None:
    with request():
        way.get(there.url, auth, traceparent=GIVEN)

    assert there.values("traceparent") == [[GIVEN]]


def test_what_the_caller_wrote_in_another_case_is_left_alone(there: Service, auth: ServiceTokenAuth, way: Way) -> None:
    with request():
        way.get(there.url, auth, TraceParent=GIVEN)

    assert there.values("traceparent") == [[GIVEN]]


@pytest.fixture
def customer() -> Iterator[None]:
    """Let the request that is served carry baggage."""
    attached = context.attach(baggage.set_baggage("customer", "alice"))
    yield
    context.detach(attached)


def test_what_the_caller_wrote_gets_no_baggage_of_another_trace(
    there: Service, auth: ServiceTokenAuth, way: Way, customer: None
) -> None:
    with request():
        way.get(there.url, auth, traceparent=GIVEN)

    assert (there.values("traceparent"), there.values("baggage")) == ([[GIVEN]], [[]])


def test_baggage_goes_to_the_other_service(there: Service, auth: ServiceTokenAuth, way: Way, customer: None) -> None:
    with request():
        way.get(there.url, auth)

    assert there.values("baggage") == [["customer=alice"]]


def test_baggage_that_the_caller_wrote_does_not_keep_the_trace_back(
    there: Service, auth: ServiceTokenAuth, way: Way
) -> None:
    with request() as server:
        way.get(there.url, auth, baggage="customer=bob")

    assert there.parents == [span_id(server)]
    assert there.values("baggage") == [["customer=bob"]]


def test_baggage_that_the_caller_wrote_is_left_alone_however_often_it_is_sent(
    there: Service, auth: ServiceTokenAuth, way: Way, customer: None
) -> None:
    sent = way.package.Request("GET", there.url, headers={"baggage": "customer=bob"})
    for _ in range(2):
        with request():
            way.send(sent, auth)

    assert there.values("baggage") == [["customer=bob"]] * 2


def test_the_other_service_is_recorded_in_the_format_that_is_configured(
    there: Service, auth: ServiceTokenAuth, way: Way, another_format: None
) -> None:
    with request():
        way.get(there.url, auth)

    assert (there.values("x-b3-traceid"), there.values("traceparent")) == ([["1"]], [[]])


class TestTheSameRequestSentAgain:
    @pytest.fixture
    def sent(self, there: Service, auth: ServiceTokenAuth, way: Way) -> Any:
        """A request that was sent once, within a span that is over."""
        sent = way.package.Request("GET", there.url)
        with request("first"):
            way.send(sent, auth)
        return sent

    def test_carries_the_span_it_is_sent_in_now(
        self, there: Service, auth: ServiceTokenAuth, way: Way, sent: Any
    ) -> None:
        with request("second") as second:
            way.send(sent, auth)

        assert [len(values) for values in there.values("traceparent")] == [1, 1]
        assert there.parents[1] == span_id(second)

    def test_carries_none_where_there_is_no_trace_any_more(
        self, there: Service, auth: ServiceTokenAuth, way: Way, sent: Any
    ) -> None:
        way.send(sent, auth)

        assert there.values("traceparent")[1] == []


def test_what_the_caller_wrote_is_left_alone_also_when_it_is_sent_again(
    there: Service, auth: ServiceTokenAuth, way: Way
) -> None:
    sent = way.package.Request("GET", there.url, headers={"traceparent": GIVEN})
    for _ in range(2):
        with request():
            way.send(sent, auth)

    assert there.values("traceparent") == [[GIVEN], [GIVEN]]


# Redirects


def test_a_request_that_is_redirected_to_another_origin_carries_neither_token_nor_trace_there(
    there: Service, elsewhere: Service, shop_api: KeycloakSettings, way: Way
) -> None:
    there.redirect(elsewhere.url)
    with request() as server:
        way.get_as_service_client(there.url, shop_api)

    assert there.parents == [span_id(server)]
    assert (elsewhere.values("authorization"), elsewhere.values("traceparent")) == ([[]], [[]])


def test_baggage_does_not_go_to_another_origin(
    there: Service, elsewhere: Service, shop_api: KeycloakSettings, way: Way, customer: None
) -> None:
    there.redirect(elsewhere.url)
    with request():
        way.get_as_service_client(there.url, shop_api)

    assert there.values("baggage") == [["customer=alice"]]
    assert elsewhere.values("baggage") == [[]]


def test_a_request_that_is_redirected_within_the_origin_keeps_both(
    there: Service, shop_api: KeycloakSettings, way: Way
) -> None:
    there.redirect("/moved")
    with request() as server:
        way.get_as_service_client(there.url, shop_api)

    assert there.parents == [span_id(server)] * 2
    before, after = there.values("authorization")
    assert before == after != []


def test_what_the_caller_wrote_goes_along_with_a_redirect(
    there: Service, elsewhere: Service, shop_api: KeycloakSettings, way: Way
) -> None:
    there.redirect(elsewhere.url)
    with request():
        way.get_as_service_client(there.url, shop_api, traceparent=GIVEN)

    assert (there.values("traceparent"), elsewhere.values("traceparent")) == ([[GIVEN]], [[GIVEN]])


# A token that was refused


def refuse_once(there: Service, auth: ServiceTokenAuth, clock: Clock) -> None:
    """Let the service refuse the token that is there, at a time when it can be renewed."""
    auth.token()
    clock.advance(10)
    there.answers.append(REFUSED)


class TestARequestThatWasRefused:
    @pytest.fixture
    def server(self, there: Service, auth: ServiceTokenAuth, way: Way, traces: Traces, clock: Clock) -> trace.Span:
        """A request to a service that refuses the token which is there, and takes the next one."""
        refuse_once(there, auth, clock)
        traces.spans.clear()
        with request() as server:
            assert way.get(there.url, auth).status_code == 200
        return server

    def test_is_sent_once_more_with_another_token(self, there: Service, server: trace.Span) -> None:
        (first,), (second,) = there.values("authorization")
        assert first != second

    def test_carries_the_same_span_both_times(self, there: Service, server: trace.Span) -> None:
        assert [len(values) for values in there.values("traceparent")] == [1, 1]
        assert there.parents == [span_id(server)] * 2

    def test_shows_the_renewal_below_the_request_it_is_a_part_of(self, traces: Traces, server: trace.Span) -> None:
        assert traces.below(server) == [("wait for token", [REQUESTED])]

    def test_says_of_the_renewal_that_it_was_forced(self, traces: Traces, server: trace.Span) -> None:
        assert attributes(traces.one("request token"))["s2s_fastapi.cause"] == "forced"


def test_a_request_that_is_sent_once_more_is_counted(
    there: Service, auth: ServiceTokenAuth, clock: Clock, metrics_read: Measured, way: Way
) -> None:
    refuse_once(there, auth, clock)
    way.get(there.url, auth)

    (point,) = metrics_read("s2s_fastapi.resends")
    assert (point.attributes, point.unit, point.value) == (LABELS, "{request}", 1)


@pytest.mark.parametrize("client", HTTP)
def test_a_request_of_another_client_that_is_sent_once_more_is_counted(
    client: str, there: Service, auth: ServiceTokenAuth, clock: Clock, metrics_read: Measured
) -> None:
    refuse_once(there, auth, clock)

    assert HTTP[client](auth, there.url) == 200
    (point,) = metrics_read("s2s_fastapi.resends")
    assert (point.attributes, point.value) == (LABELS, 1)


def test_each_token_of_a_request_that_is_sent_once_more_is_measured_by_its_own_age(
    there: Service, auth: ServiceTokenAuth, clock: Clock, metrics_read: Measured, way: Way
) -> None:
    refuse_once(there, auth, clock)
    way.get(there.url, auth)

    assert [(point.value, point.sum) for point in metrics_read("s2s_fastapi.token.age")] == [(2, 10 + 0)]


def test_what_the_caller_wrote_stands_in_the_second_request_too(
    there: Service, auth: ServiceTokenAuth, clock: Clock, way: Way
) -> None:
    refuse_once(there, auth, clock)
    with request():
        way.get(there.url, auth, traceparent=GIVEN)

    assert there.values("traceparent") == [[GIVEN], [GIVEN]]


def test_a_second_refusal_is_not_counted_as_another_resend(
    there: Service, auth: ServiceTokenAuth, clock: Clock, metrics_read: Measured, way: Way
) -> None:
    refuse_once(there, auth, clock)
    there.answers.append(REFUSED)

    assert way.get(there.url, auth).status_code == 401
    assert [point.value for point in metrics_read("s2s_fastapi.resends")] == [1]
    assert len(there.seen) == 2


def test_a_request_that_was_let_in_is_no_resend(
    there: Service, auth: ServiceTokenAuth, metrics_read: Measured, way: Way
) -> None:
    way.get(there.url, auth)

    assert metrics_read("s2s_fastapi.resends") == []


def test_a_refusal_within_ten_seconds_of_the_last_load_is_no_resend(
    there: Service, auth: ServiceTokenAuth, metrics_read: Measured, traces: Traces, way: Way
) -> None:
    auth.token()
    there.answers.append(REFUSED)
    with request() as server:
        assert way.get(there.url, auth).status_code == 401

    assert metrics_read("s2s_fastapi.resends") == []
    assert traces.below(server) == [("wait for token", [])]


class TestARefusalWithoutAnotherToken:
    @pytest.fixture
    def refused(self, there: Service, auth: ServiceTokenAuth, clock: Clock, issuer: EmbeddedIssuer) -> None:
        """Let the service refuse the token that is there, and Keycloak give no other."""
        refuse_once(there, auth, clock)
        issuer.faults.add("token", answering(503), times=None)

    @pytest.fixture
    def server(self, there: Service, auth: ServiceTokenAuth, way: Way, traces: Traces, refused: None) -> trace.Span:
        traces.spans.clear()
        with request() as server:
            assert way.get(there.url, auth).status_code == 401
        return server

    def test_is_no_resend(self, there: Service, metrics_read: Measured, server: trace.Span) -> None:
        assert metrics_read("s2s_fastapi.resends") == []
        assert len(there.seen) == 1

    def test_shows_below_the_request_what_was_tried(self, traces: Traces, server: trace.Span) -> None:
        assert traces.below(server) == [("wait for token", [REQUESTED])]
        assert {span.status.status_code for span in traces.ours} == {StatusCode.ERROR}
        assert attributes(traces.one("request token"))["s2s_fastapi.cause"] == "forced"


# With an instrumentation of the client


@pytest.fixture
def instrumented() -> Iterator[None]:
    """Let httpx and httpx2 make spans of their own, and take that away again."""
    before = httpx.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request
    with ExitStack() as stack:
        for instrumentor in (HTTPXClientInstrumentor(), HTTPX2ClientInstrumentor()):
            stack.callback(instrumentor.uninstrument)
            instrumentor.instrument()
        assert httpx.HTTPTransport.handle_request is not before[0]
        yield
    assert (httpx.HTTPTransport.handle_request, httpx2.AsyncHTTPTransport.handle_async_request) == before


def calls(traces: Traces) -> list[ReadableSpan]:
    """Return the client spans that are not ours, in the order in which they ended."""
    ours = traces.ours
    return [span for span in traces.of_kind(SpanKind.CLIENT) if span not in ours]


@pytest.mark.usefixtures("instrumented")
class TestWithAnInstrumentation:
    def test_there_is_one_client_span_for_each_call(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
    ) -> None:
        auth.token()
        traces.spans.clear()
        with request() as server:
            way.get(there.url, auth)

        assert traces.below(server) == [("GET", [])]
        assert len(traces.of_kind(SpanKind.CLIENT)) == 1

    def test_the_request_carries_the_span_of_the_call_and_it_alone(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
    ) -> None:
        with request():
            way.get(there.url, auth)

        (call,) = calls(traces)
        assert [len(values) for values in there.values("traceparent")] == [1]
        assert there.parents == [span_id(call)]

    def test_the_token_is_waited_for_beside_the_call_and_not_within(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
    ) -> None:
        with request() as server:
            way.get(there.url, auth)

        assert traces.below(server) == [("wait for token", [REQUESTED]), ("GET", [])]

    def test_a_call_without_any_trace_begins_one(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
    ) -> None:
        way.get(there.url, auth)

        (call,) = calls(traces)
        assert call.parent is None
        assert there.parents == [span_id(call)]

    def test_a_request_that_is_sent_again_carries_the_span_of_the_call_that_it_is_now(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way
    ) -> None:
        sent = way.package.Request("GET", there.url)
        for _ in range(2):
            with request():
                way.send(sent, auth)

        assert there.parents == [span_id(call) for call in calls(traces)]
        assert len(set(there.parents)) == 2

    def test_each_sending_of_a_request_that_was_refused_is_a_call_of_its_own(
        self, there: Service, auth: ServiceTokenAuth, traces: Traces, clock: Clock, way: Way
    ) -> None:
        refuse_once(there, auth, clock)
        traces.spans.clear()
        with request() as server:
            way.get(there.url, auth)

        assert traces.below(server) == [("GET", []), ("wait for token", [REQUESTED]), ("GET", [])]
        assert there.parents == [span_id(call) for call in calls(traces)]
        assert len(set(there.parents)) == 2

    def test_each_origin_of_a_redirect_is_recorded_the_call_that_reached_it(
        self, there: Service, elsewhere: Service, shop_api: KeycloakSettings, traces: Traces, way: Way
    ) -> None:
        there.redirect(elsewhere.url)
        with request():
            way.get_as_service_client(there.url, shop_api)

        first, second = calls(traces)
        assert (there.parents, elsewhere.parents) == ([span_id(first)], [span_id(second)])
        assert elsewhere.values("authorization") == [[]]


CHANNELS: dict[str, Callable[[], BackChannel]] = {
    "our own": lambda: BackChannel(timeout=5.0),
    "httpx": lambda: BackChannel(transport=lambda: httpx.HTTPTransport(trust_env=False), timeout=5.0),
}


@pytest.fixture
def keycloak(issuer: EmbeddedIssuer) -> Iterator[LoopbackServer]:
    """The issuer on a socket: only there an instrumentation would see what is asked."""
    with LoopbackServer(issuer.answer) as server:
        yield server


@pytest.mark.usefixtures("instrumented")
class TestAnExchangeWithKeycloak:
    @pytest.fixture(params=CHANNELS)
    def server(
        self,
        request: pytest.FixtureRequest,
        keycloak: LoopbackServer,
        issuer: EmbeddedIssuer,
        traces: Traces,
    ) -> trace.Span:
        """A request for which a token was got over a transport that is instrumented."""
        settings = KeycloakSettings(
            url=keycloak.url,
            public_url=issuer.url,
            realm="techstore",
            client_id="shop-api",
            client_secret=issuer.values["SHOP_API_SECRET"],
        )
        with (
            using(TokenSource(channel=lambda _: CHANNELS[request.param]())),
            trace.get_tracer("tests").start_as_current_span("request") as server,
        ):
            ServiceTokenAuth(audience="notification-service", settings=settings).token()
        return server

    def test_has_one_span_and_that_is_ours(self, traces: Traces, server: trace.Span) -> None:
        assert traces.below(server) == [("wait for token", [REQUESTED])]
        assert traces.of_kind(SpanKind.CLIENT) == [traces.one("POST")] == traces.ours[:1]

    def test_records_keycloak_that_one(self, issuer: EmbeddedIssuer, traces: Traces, server: trace.Span) -> None:
        (exchange,) = issuer.requests("token")
        carried = [value for name, value in exchange.request.headers if name.lower() == "traceparent"]
        assert [value.split("-")[2] for value in carried] == [span_id(traces.one("POST"))]


def test_an_instrumentation_sees_the_calls_after_an_exchange_with_keycloak(
    there: Service, auth: ServiceTokenAuth, traces: Traces, way: Way, instrumented: None
) -> None:
    for _ in range(2):
        way.get(there.url, auth)

    assert (traces.names.count("POST"), len(calls(traces))) == (1, 2)

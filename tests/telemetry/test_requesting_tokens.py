"""The spans `wait for token`, `request token` and `POST`, and the metrics beside them: whose they are, and what they tell."""

import asyncio
import json
import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from s2s_fastapi import service_auth, service_lifespan
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.shared_token import SharedToken
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import arun, run
from s2s_fastapi.errors import S2SError, TokenRequestError
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import (
    Fault,
    answering,
    disconnecting,
    html,
    redirecting,
    refusing,
    rewritten,
    slow,
    with_members,
)
from tests.kit.realm import Clock
from tests.kit.reported import reported
from tests.kit.tracing import PATIENCE, Measured, Point, Traces, Tree, context_of, request, until

REQUESTED: Tree = ("request token", [("POST", [])])
NOTIFICATIONS = Wanted.of("notification-service", None)
LABELS = {"s2s_fastapi.client_id": "shop-api", "s2s_fastapi.audience": "notification-service"}
DURATION = "s2s_fastapi.token.request.duration"
AGE = "s2s_fastapi.token.age"

Ask = Callable[[SharedToken], GrantedToken]
Renew = Callable[[SharedToken, GrantedToken], GrantedToken]
WAYS = ("sync", "asyncio", "trio")
ASKING: dict[str, Ask] = {
    "sync": lambda shared: shared.get(),
    "asyncio": lambda shared: asyncio.run(shared.aget()),
    "trio": lambda shared: trio.run(shared.aget),
}
RENEWING: dict[str, Renew] = {
    "sync": lambda shared, seen: run(shared.renewing(seen)),
    "asyncio": lambda shared, seen: asyncio.run(arun(shared.renewing(seen))),
    "trio": lambda shared, seen: trio.run(arun, shared.renewing(seen)),
}


@pytest.fixture(params=WAYS)
def ask(request: pytest.FixtureRequest) -> Ask:
    return ASKING[request.param]


@pytest.fixture(params=WAYS)
def renew(request: pytest.FixtureRequest) -> Renew:
    return RENEWING[request.param]


@pytest.fixture
def shared(source: TokenSource, shop_api: KeycloakSettings) -> SharedToken:
    """The token with which the shop calls the notifications; nobody has asked for it yet."""
    return source.token(shop_api, NOTIFICATIONS)


def links(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def cause(traces: Traces) -> Any:
    return attributes(traces.one("request token"))["s2s_fastapi.cause"]


def refused(ask: Ask, shared: SharedToken) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        ask(shared)
    return caught.value


# A load that a request waits for


def test_the_request_that_needs_a_token_has_wait_load_and_exchange_below_it(
    shared: SharedToken, traces: Traces, ask: Ask
) -> None:
    with request() as server:
        ask(shared)

    assert traces.below(server) == [("wait for token", [REQUESTED])]


def test_the_wait_and_the_load_are_internal_and_the_exchange_is_a_client_span(
    shared: SharedToken, traces: Traces
) -> None:
    shared.get()

    kinds = {span.name: span.kind for span in traces.ours}
    assert kinds == {
        "wait for token": SpanKind.INTERNAL,
        "request token": SpanKind.INTERNAL,
        "POST": SpanKind.CLIENT,
    }


def test_a_load_in_the_foreground_has_no_link(shared: SharedToken, traces: Traces, ask: Ask) -> None:
    with request():
        ask(shared)

    assert not any(links(span) for span in traces.ours)


def test_without_any_trace_the_wait_is_a_root_and_has_nothing_to_link_to(
    shared: SharedToken, traces: Traces, ask: Ask
) -> None:
    ask(shared)

    wait = traces.one("wait for token")
    assert (wait.parent, links(wait)) == (None, [])
    assert traces.below(wait) == [REQUESTED]


def test_a_wait_records_for_whom_and_nothing_else(shared: SharedToken, traces: Traces, ask: Ask) -> None:
    ask(shared)

    assert attributes(traces.one("wait for token")) == LABELS


def test_a_load_records_what_was_asked_and_which_token_came(shared: SharedToken, traces: Traces, ask: Ask) -> None:
    token = ask(shared)

    assert attributes(traces.one("request token")) == {
        **LABELS,
        "s2s_fastapi.issuer": "http://keycloak.test/realms/techstore",
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "granted",
        "s2s_fastapi.token_id": token.token_id,
    }
    assert traces.one("request token").status.status_code is StatusCode.UNSET


def test_the_id_of_the_token_is_the_one_that_stands_in_it(shared: SharedToken, traces: Traces, ask: Ask) -> None:
    payload = ask(shared).value.split(".")[1]

    claims = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert attributes(traces.one("request token"))["s2s_fastapi.token_id"] == claims["jti"]


def test_scopes_are_recorded_in_one_order_whatever_order_they_were_written_in(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces
) -> None:
    asked = Wanted.of("notification-service", ["notifications:send", "notification-audience"])
    source.token(shop_api, asked).get()

    told = attributes(traces.one("request token"))
    assert told["s2s_fastapi.scope"] == "notification-audience notifications:send"


def test_several_audiences_are_recorded_in_one_order(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces
) -> None:
    refused(ASKING["sync"], source.token(shop_api, Wanted.of(["notification-service", "billing"], None)))

    for name in ("wait for token", "request token"):
        assert attributes(traces.one(name))["s2s_fastapi.audience"] == "billing notification-service"


def test_a_load_that_asks_for_nothing_in_particular_records_of_no_audience_and_no_scope(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces
) -> None:
    source.token(shop_api, Wanted()).get()

    told = attributes(traces.one("request token"))
    assert not {"s2s_fastapi.audience", "s2s_fastapi.scope"} & set(told)


def test_the_issuer_of_a_load_is_the_one_in_the_tokens(
    source: TokenSource, issuer: EmbeddedIssuer, traces: Traces
) -> None:
    settings = KeycloakSettings(
        url=issuer.url,
        public_url="https://sso.example",
        realm="techstore",
        client_id="shop-api",
        client_secret=issuer.values["SHOP_API_SECRET"],
    )
    source.token(settings, NOTIFICATIONS).get()

    assert attributes(traces.one("request token"))["s2s_fastapi.issuer"] == "https://sso.example/realms/techstore"


def test_an_exchange_is_recorded_with_the_names_of_the_conventions(shared: SharedToken, traces: Traces) -> None:
    shared.get()

    assert attributes(traces.one("POST")) == {
        "http.request.method": "POST",
        "url.full": "http://keycloak.test/realms/techstore/protocol/openid-connect/token",
        "server.address": "keycloak.test",
        "server.port": 80,
        "http.response.status_code": 200,
    }
    assert traces.one("POST").status.status_code is StatusCode.UNSET


def test_a_secret_that_was_rotated_meanwhile_is_a_second_exchange_of_the_same_load(
    source: TokenSource, issuer: EmbeddedIssuer, traces: Traces, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("the-secret-of-yesterday")

    def rotate(body: bytes) -> bytes:
        file.write_text(issuer.values["SHOP_API_SECRET"])
        return body

    issuer.faults.add("token", rewritten(rotate))
    settings = KeycloakSettings(url=issuer.url, realm="techstore", client_id="shop-api", client_secret_file=file)
    with request() as server:
        source.token(settings, NOTIFICATIONS).get()

    assert traces.below(server) == [("wait for token", [("request token", [("POST", []), ("POST", [])])])]
    assert [attributes(span)["http.response.status_code"] for span in traces.named("POST")] == [401, 200]
    assert attributes(traces.one("request token"))["s2s_fastapi.outcome"] == "granted"


# A token that is there


def test_a_token_that_is_fresh_has_no_span(shared: SharedToken, traces: Traces, ask: Ask) -> None:
    ask(shared)
    traces.spans.clear()
    with request() as server:
        ask(shared)

    assert traces.below(server) == []
    assert traces.ours == []


def counted(metrics_read: Measured) -> list[Point]:
    """Return all but the ages of keys, which grow by themselves, whosever they are."""
    return [point for point in metrics_read() if point.name != "s2s_fastapi.keys.age"]


def test_a_look_at_a_fresh_token_measures_nothing(shared: SharedToken, metrics_read: Measured) -> None:
    shared.get()
    before = counted(metrics_read)
    shared.peek()
    shared.get()

    assert counted(metrics_read) == before


# A load that another request began


class Gate(httpx.BaseTransport):
    """Holds back what is asked until it is opened."""

    def __init__(self, behind: httpx.BaseTransport) -> None:
        self.opened = threading.Event()
        self._background = behind

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert self.opened.wait(PATIENCE)
        return self._background.handle_request(request)


class TestTwoRequestsThatWaitForOneLoad:
    @pytest.fixture
    def waited(self, issuer: EmbeddedIssuer, shop_api: KeycloakSettings, traces: Traces, ask: Ask) -> list[list[Tree]]:
        """What is below each of the two."""
        gate = Gate(issuer.transport())
        source = TokenSource(channel=lambda _: BackChannel(transport=lambda: gate, timeout=PATIENCE))
        shared = source.token(shop_api, NOTIFICATIONS)

        def serve(name: str) -> None:
            with request(name):
                ask(shared)

        def waiting() -> int:
            single_flight = shared._value._single_flight
            return 0 if single_flight is None else len(single_flight._waiters)

        with ThreadPoolExecutor(2) as pool:
            served = [pool.submit(serve, name) for name in ("one", "other")]
            try:
                until(lambda: waiting() == 2)
            finally:
                gate.opened.set()
            for request_ in served:
                request_.result(PATIENCE)
        return [traces.below(traces.one(name)) for name in ("one", "other")]

    def test_show_the_load_in_the_trace_of_the_one_that_began_it(self, waited: list[list[Tree]]) -> None:
        assert waited.count([("wait for token", [REQUESTED])]) == 1

    def test_show_in_the_other_one_that_it_waited(self, waited: list[list[Tree]]) -> None:
        assert waited.count([("wait for token", [])]) == 1


# A load that nobody waits for


class TestARenewalAhead:
    @pytest.fixture
    def server(self, shared: SharedToken, traces: Traces, clock: Clock, ask: Ask) -> trace.Span:
        first = ask(shared)
        traces.spans.clear()
        clock.advance(250)
        with request() as server:
            assert ask(shared) is first
            until(lambda: traces.named("request token") and shared.peek() not in (None, first))
        return server

    def test_is_no_part_of_the_request_that_set_it_off(self, traces: Traces, server: trace.Span) -> None:
        assert traces.below(server) == []

    def test_is_the_root_of_its_own_trace_with_a_link_to_it(self, traces: Traces, server: trace.Span) -> None:
        load = traces.one("request token")
        assert load.parent is None
        assert context_of(load).trace_id != context_of(server).trace_id
        assert links(load) == [context_of(server).span_id]
        assert traces.below(load) == REQUESTED[1]

    def test_links_the_root_alone(self, traces: Traces, server: trace.Span) -> None:
        assert links(traces.one("POST")) == []

    def test_says_that_it_came_ahead(self, traces: Traces, server: trace.Span) -> None:
        assert cause(traces) == "ahead"

    def test_is_waited_for_by_nobody(self, traces: Traces, server: trace.Span) -> None:
        assert "wait for token" not in traces.names


def test_a_renewal_ahead_that_nobody_traces_has_nothing_to_link_to(
    shared: SharedToken, traces: Traces, clock: Clock
) -> None:
    shared.get()
    traces.spans.clear()
    clock.advance(250)
    shared.get()
    load = until(lambda: traces.named("request token"))[0]

    assert (load.parent, links(load)) == (None, [])


def test_a_renewal_ahead_that_fails_is_an_error_of_its_own_and_the_request_goes_on(
    shared: SharedToken, traces: Traces, clock: Clock, issuer: EmbeddedIssuer, ask: Ask
) -> None:
    token = ask(shared)
    traces.spans.clear()
    issuer.faults.add("token", answering(503), times=None)
    clock.advance(250)
    with request() as server:
        assert ask(shared) is token
        load = until(lambda: traces.named("request token"))[0]

    assert traces.below(server) == []
    assert load.status.status_code is StatusCode.ERROR


# Before the first request


class TestAWarmUp:
    @pytest.fixture(params=["asyncio", "trio"])
    def start(
        self, request: pytest.FixtureRequest, source: TokenSource, shop_api: KeycloakSettings, traces: Traces
    ) -> trace.Span:
        notifications = service_auth("http://notifications.test", audience="notification-service", settings=shop_api)
        anything = service_auth("http://anything.test", settings=shop_api)
        lifespan = service_lifespan(notifications, anything)

        async def live() -> None:
            async with lifespan(FastAPI()):
                pass

        with trace.get_tracer("tests").start_as_current_span("start") as start:
            asyncio.run(live()) if request.param == "asyncio" else trio.run(live)
        return start

    def test_is_no_part_of_what_began_it(self, traces: Traces, start: trace.Span) -> None:
        assert traces.below(start) == []

    def test_is_a_trace_of_its_own_for_each_token(self, traces: Traces, start: trace.Span) -> None:
        waits = traces.named("wait for token")
        assert [wait.parent for wait in waits] == [None, None]
        assert len({context_of(span).trace_id for span in [*waits, start]}) == 3
        assert [traces.below(wait) for wait in waits] == [[REQUESTED], [REQUESTED]]

    def test_is_linked_to_what_began_it(self, traces: Traces, start: trace.Span) -> None:
        assert [links(wait) for wait in traces.named("wait for token")] == [[context_of(start).span_id]] * 2

    def test_links_the_roots_alone(self, traces: Traces, start: trace.Span) -> None:
        assert not any(links(span) for span in traces.ours if span.parent is not None)

    def test_says_that_it_was_one(self, traces: Traces, start: trace.Span) -> None:
        causes = {attributes(span)["s2s_fastapi.cause"] for span in traces.named("request token")}
        assert causes == {"warm_up"}


def test_a_warm_up_without_any_trace_has_nothing_to_link_to(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces
) -> None:
    auth = ServiceTokenAuth("http://notifications.test", audience="notification-service", settings=shop_api)
    with TestClient(FastAPI(lifespan=service_lifespan(auth))):
        pass

    wait = traces.one("wait for token")
    assert (wait.parent, links(wait)) == (None, [])


def test_what_is_loaded_after_a_warm_up_is_none_itself(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces, clock: Clock
) -> None:
    auth = ServiceTokenAuth("http://notifications.test", audience="notification-service", settings=shop_api)

    async def live() -> trace.Span:
        async with service_lifespan(auth)(FastAPI()):
            traces.spans.clear()
            clock.advance(400)
            with request() as server:
                await auth.atoken()
        return server

    server = asyncio.run(live())
    assert traces.below(server) == [("wait for token", [REQUESTED])]
    assert cause(traces) == "needed"


# A load because the token was refused


class TestAForcedRenewal:
    @pytest.fixture
    def seen(self, shared: SharedToken, traces: Traces) -> GrantedToken:
        token = shared.get()
        traces.spans.clear()
        return token

    def test_is_a_part_of_the_request_that_was_refused(
        self, shared: SharedToken, traces: Traces, clock: Clock, seen: GrantedToken, renew: Renew
    ) -> None:
        clock.advance(10)
        with request() as server:
            renew(shared, seen)

        assert traces.below(server) == [("wait for token", [REQUESTED])]
        assert not any(links(span) for span in traces.ours)

    def test_says_that_it_was_forced_and_records_the_new_token(
        self, shared: SharedToken, traces: Traces, clock: Clock, seen: GrantedToken, renew: Renew
    ) -> None:
        clock.advance(10)
        token = renew(shared, seen)

        told = attributes(traces.one("request token"))
        assert told["s2s_fastapi.cause"] == "forced"
        assert told["s2s_fastapi.token_id"] == token.token_id != seen.token_id

    def test_within_ten_seconds_of_a_load_asks_nobody(
        self, shared: SharedToken, traces: Traces, clock: Clock, seen: GrantedToken, renew: Renew
    ) -> None:
        clock.advance(9)
        with request() as server:
            assert renew(shared, seen) is seen

        assert traces.below(server) == [("wait for token", [])]

    def test_that_another_one_came_before_asks_nobody(
        self, shared: SharedToken, traces: Traces, clock: Clock, seen: GrantedToken, renew: Renew
    ) -> None:
        clock.advance(10)
        another = run(shared.renewing(seen))
        traces.spans.clear()
        with request() as server:
            assert renew(shared, seen) is another

        assert traces.below(server) == [("wait for token", [])]


def test_a_token_with_too_little_left_is_renewed_within_the_request_that_needs_more(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="notification-service", settings=shop_api)
    auth.token()
    traces.spans.clear()
    clock.advance(30)
    with request() as server:
        auth.token(min_validity=280)

    assert traces.below(server) == [("wait for token", [REQUESTED])]


# No token


UNREACHABLE = "Keycloak gave shop-api no token: http://keycloak.test/realms/techstore/protocol/openid-connect/token: "
ANSWERED = (
    "Keycloak gave shop-api no token: http://keycloak.test/realms/techstore/protocol/openid-connect/token answered "
)

FAILURES: dict[str, tuple[Fault, str, str]] = {
    "the connection is closed": (disconnecting(), "token_request", f"{UNREACHABLE}the answer is not HTTP"),
    "no answer in time": (slow(60), "token_request", f"{UNREACHABLE}no complete answer within 0.2 s"),
    "no JSON": (html(200), "token_request", f"{UNREACHABLE}the answer is HTML"),
    "an empty answer": (answering(200), "token_request", f"{UNREACHABLE}the answer is empty"),
    "no token in it": (
        answering(200, '{"token_type": "Bearer"}'),
        "token_request",
        "Keycloak's answer cannot be used: it has no access_token",
    ),
    "a token of another type": (
        with_members(token_type="DPoP"),
        "token_request",
        "Keycloak's answer cannot be used: it has token_type DPoP",
    ),
    "a page of a proxy": (html(502), "502", f"{ANSWERED}502"),
    "a redirect": (redirecting("http://elsewhere.test"), "307", f"{ANSWERED}307"),
    "an error of RFC 6749": (refusing(400, "invalid_scope"), "invalid_scope", f"{ANSWERED}400 (invalid_scope)"),
    "invalid_client": (refusing(401, "invalid_client"), "invalid_client", f"{ANSWERED}401 (invalid_client)"),
    "an error of Keycloak's own": (refusing(400, "of_its_own"), "400", f"{ANSWERED}400 (of_its_own)"),
    "too many requests": (answering(429), "429", f"{ANSWERED}429"),
}


@pytest.fixture
def impatient(issuer: EmbeddedIssuer, shop_api: KeycloakSettings, clock: Clock) -> SharedToken:
    """A token that is asked for with a fifth of a second of patience."""
    source = TokenSource(channel=lambda _: BackChannel(transport=issuer.transport, timeout=0.2), clock=clock)
    return source.token(shop_api, NOTIFICATIONS)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_load_that_brought_nothing_is_an_error_with_a_name_and_the_sentence_of_the_log(
    impatient: SharedToken, issuer: EmbeddedIssuer, traces: Traces, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault, error_type, sentence = FAILURES[failure]
    issuer.faults.add("token", fault)
    refused(ASKING["sync"], impatient)

    load = traces.one("request token")
    assert attributes(load) == {
        **LABELS,
        "s2s_fastapi.issuer": "http://keycloak.test/realms/techstore",
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "failed",
        "error.type": error_type,
    }
    assert load.status.status_code is StatusCode.ERROR
    assert load.status.description is not None
    assert load.status.description.startswith(sentence)
    reported()
    assert load.status.description in [log.getMessage() for log in caplog.records if log.name == "s2s_fastapi.caller"]


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_leaves_an_exception_in_a_span(
    impatient: SharedToken, issuer: EmbeddedIssuer, traces: Traces, failure: str
) -> None:
    issuer.faults.add("token", FAILURES[failure][0])
    refused(ASKING["sync"], impatient)

    assert len(traces.ours) == 3
    assert not any(span.events for span in traces.ours)


def test_the_request_whose_token_did_not_come_shows_the_failure_on_each_level(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    issuer.faults.add("token", answering(503))
    with request() as server:
        refused(ask, shared)

    assert traces.below(server) == [("wait for token", [REQUESTED])]
    assert {span.name: attributes(span)["error.type"] for span in traces.ours} == {
        "wait for token": "token_request",
        "request token": "503",
        "POST": "503",
    }
    assert {span.status.status_code for span in traces.ours} == {StatusCode.ERROR}


def test_a_wait_in_vain_records_its_error_by_the_type_alone(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    issuer.faults.add("token", answering(503))
    refused(ask, shared)

    wait = traces.one("wait for token")
    assert attributes(wait) == {**LABELS, "error.type": "token_request"}
    assert wait.status.description is None


def test_an_answer_that_cannot_be_used_came_from_an_exchange_that_went_well(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces
) -> None:
    issuer.faults.add("token", html(200))
    refused(ASKING["sync"], shared)

    assert traces.one("POST").status.status_code is StatusCode.UNSET
    assert traces.one("request token").status.status_code is StatusCode.ERROR


EXCHANGES: dict[str, tuple[Fault, str, str | None]] = {
    "closed": (disconnecting(), "protocol", "the answer is not HTTP, or the connection was closed too early"),
    "slow": (slow(60), "timeout", "no complete answer within 0.2 s"),
    "status": (refusing(400, "invalid_scope", "of Keycloak's own words"), "400", None),
}


@pytest.mark.parametrize("failure", EXCHANGES)
def test_an_exchange_that_failed_says_how_in_our_own_words(
    impatient: SharedToken, issuer: EmbeddedIssuer, traces: Traces, failure: str
) -> None:
    fault, error_type, sentence = EXCHANGES[failure]
    issuer.faults.add("token", fault)
    refused(ASKING["sync"], impatient)

    post = traces.one("POST")
    assert attributes(post)["error.type"] == error_type
    assert (post.status.status_code, post.status.description) == (StatusCode.ERROR, sentence)


def test_an_audience_that_was_not_granted_has_a_name_of_its_own(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces, ask: Ask
) -> None:
    refused(ask, source.token(shop_api, Wanted.of("billing", None)))

    load = traces.one("request token")
    assert attributes(load)["error.type"] == "audience_not_granted"
    assert load.status.description is not None
    assert load.status.description.startswith(
        "token of shop-api has aud [notification-service], expected billing; it was not used."
    )


def test_a_token_that_was_not_used_is_not_recorded_by_its_id(
    source: TokenSource, shop_api: KeycloakSettings, traces: Traces
) -> None:
    refused(ASKING["sync"], source.token(shop_api, Wanted.of("billing", None)))

    assert "s2s_fastapi.token_id" not in attributes(traces.one("request token"))


@pytest.mark.parametrize(
    ("client_id", "error_type"), [("shop-api", "unauthorized_client"), ("nobody", "invalid_client")]
)
def test_credentials_that_keycloak_refused_are_called_as_keycloak_calls_them(
    source: TokenSource, issuer: EmbeddedIssuer, traces: Traces, client_id: str, error_type: str
) -> None:
    settings = KeycloakSettings(
        url=issuer.url, realm="techstore", client_id=client_id, client_secret="a-secret-that-is-wrong"
    )
    refused(ASKING["sync"], source.token(settings, NOTIFICATIONS))

    load = traces.one("request token")
    assert attributes(load)["error.type"] == error_type
    assert load.status.status_code is StatusCode.ERROR


def test_a_secret_that_cannot_be_read_is_a_failed_load_without_an_exchange(
    source: TokenSource, issuer: EmbeddedIssuer, traces: Traces, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text(issuer.values["SHOP_API_SECRET"])
    settings = KeycloakSettings(url=issuer.url, realm="techstore", client_id="shop-api", client_secret_file=file)
    shared = source.token(settings, NOTIFICATIONS)
    file.unlink()
    with request() as server, pytest.raises(S2SError):
        shared.get()

    assert traces.below(server) == [("wait for token", [("request token", [])])]
    assert attributes(traces.one("request token"))["error.type"] == "configuration"


def test_a_failure_that_is_remembered_is_a_wait_in_vain_without_a_load(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    issuer.faults.add("token", answering(503))
    refused(ask, shared)
    traces.spans.clear()
    with request() as server:
        refused(ask, shared)

    assert traces.below(server) == [("wait for token", [])]
    assert traces.one("wait for token").status.status_code is StatusCode.ERROR


# What is never in it


def told(traces: Traces) -> list[str]:
    """Return every text of every span."""
    return [
        str(text)
        for span in traces.spans
        for text in (span.name, span.status.description, *attributes(span), *attributes(span).values(), *span.events)
    ]


def test_a_granted_token_and_the_secret_stand_in_no_span(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    token = ask(shared)
    (exchange,) = issuer.requests("token")

    for secret in (
        issuer.values["SHOP_API_SECRET"],
        token.value,
        token.value.rpartition(".")[2],
        (exchange.request.header("authorization") or "").partition(" ")[2],
    ):
        assert secret
        assert not any(secret in text for text in told(traces))


def test_a_secret_that_keycloak_repeats_stands_in_no_span(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    secret = issuer.values["SHOP_API_SECRET"]
    issuer.faults.add("token", refusing(401, "invalid_client", f"no client has the secret {secret}"))
    refused(ask, shared)

    assert attributes(traces.one("request token"))["error.type"] == "invalid_client"
    assert not any(secret in text for text in told(traces))


def test_a_token_that_was_granted_for_somebody_else_stands_in_no_span(
    source: TokenSource, shop_api: KeycloakSettings, issuer: EmbeddedIssuer, traces: Traces
) -> None:
    seen: list[str] = []

    def see(body: bytes) -> bytes:
        seen.append(body.decode().partition('"access_token":"')[2].partition('"')[0])
        return body

    issuer.faults.add("token", rewritten(see))
    refused(ASKING["sync"], source.token(shop_api, Wanted.of("billing", None)))

    assert seen[0].startswith("eyJ")
    assert not any(part in text for part in seen[0].split(".") for text in told(traces))


# What Keycloak is told


@pytest.fixture
def customer() -> Iterator[None]:
    """Let the request carry baggage."""
    attached = context.attach(baggage.set_baggage("customer", "alice"))
    yield
    context.detach(attached)


def test_keycloak_is_recorded_the_span_of_the_exchange(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, ask: Ask
) -> None:
    with request() as server:
        ask(shared)

    (exchange,) = issuer.requests("token")
    there, post = context_of(server), context_of(traces.one("POST"))
    assert (exchange.request.header("traceparent") or "").split("-")[1:3] == [
        trace.format_trace_id(there.trace_id),
        trace.format_span_id(post.span_id),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_keycloak_is_recorded_nothing_else_of_the_request(
    shared: SharedToken, issuer: EmbeddedIssuer, customer: None, way: str
) -> None:
    with request():
        ASKING[way](shared)

    (exchange,) = issuer.requests("token")
    assert {name.lower() for name, _ in exchange.request.headers} == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "user-agent",
        "content-length",
        "content-type",
        "authorization",
        "traceparent",
    }


def test_keycloak_is_recorded_nothing_of_the_request_that_set_a_renewal_off(
    shared: SharedToken, issuer: EmbeddedIssuer, traces: Traces, clock: Clock, customer: None
) -> None:
    shared.get()
    clock.advance(250)
    with request() as server:
        shared.get()
        until(lambda: len(traces.named("request token")) == 2)

    carried = issuer.requests("token")[1].request
    assert trace.format_trace_id(context_of(server).trace_id) not in (carried.header("traceparent") or "")
    assert carried.header("baggage") is None


# Metrics


def test_a_token_that_was_granted_is_measured_once(
    shared: SharedToken, traces: Traces, metrics_read: Measured, ask: Ask
) -> None:
    ask(shared)

    (point,) = metrics_read(DURATION)
    assert point.attributes == {**LABELS, "s2s_fastapi.cause": "needed", "s2s_fastapi.outcome": "granted"}
    assert (point.unit, point.value) == ("s", 1)
    (load,) = traces.named("request token")
    assert point.sum >= ((load.end_time or 0) - (load.start_time or 0)) / 1e9 > 0


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_is_measured_under_the_name_that_it_has_in_the_trace(
    impatient: SharedToken, issuer: EmbeddedIssuer, metrics_read: Measured, failure: str
) -> None:
    fault, error_type, _ = FAILURES[failure]
    issuer.faults.add("token", fault)
    refused(ASKING["sync"], impatient)

    (point,) = metrics_read(DURATION)
    assert point.attributes == {
        **LABELS,
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "failed",
        "error.type": error_type,
    }
    assert point.value == 1


def test_an_audience_that_was_not_granted_is_measured_with_that_audience(
    source: TokenSource, shop_api: KeycloakSettings, metrics_read: Measured
) -> None:
    refused(ASKING["sync"], source.token(shop_api, Wanted.of("billing", None)))

    (point,) = metrics_read(DURATION)
    assert point.attributes == {
        "s2s_fastapi.client_id": "shop-api",
        "s2s_fastapi.audience": "billing",
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "failed",
        "error.type": "audience_not_granted",
    }


def test_a_failure_that_is_remembered_is_measured_once(
    shared: SharedToken, issuer: EmbeddedIssuer, metrics_read: Measured, ask: Ask
) -> None:
    issuer.faults.add("token", answering(503))
    for _ in range(3):
        refused(ask, shared)

    assert [point.value for point in metrics_read(DURATION)] == [1]


def by_cause(metrics_read: Measured) -> dict[tuple[Any, Any], float]:
    return {
        (point.attributes["s2s_fastapi.cause"], point.attributes["s2s_fastapi.outcome"]): point.value
        for point in metrics_read(DURATION)
    }


def test_a_renewal_ahead_is_measured_as_one(shared: SharedToken, metrics_read: Measured, clock: Clock) -> None:
    shared.get()
    clock.advance(250)
    shared.get()

    until(lambda: by_cause(metrics_read) == {("needed", "granted"): 1, ("ahead", "granted"): 1})


def test_a_renewal_ahead_that_failed_is_measured_as_one(
    shared: SharedToken, metrics_read: Measured, clock: Clock, issuer: EmbeddedIssuer
) -> None:
    shared.get()
    issuer.faults.add("token", answering(503))
    clock.advance(250)
    shared.get()

    until(lambda: by_cause(metrics_read) == {("needed", "granted"): 1, ("ahead", "failed"): 1})


def test_a_forced_renewal_is_measured_as_one(
    shared: SharedToken, metrics_read: Measured, clock: Clock, renew: Renew
) -> None:
    seen = shared.get()
    clock.advance(10)
    renew(shared, seen)

    assert by_cause(metrics_read) == {("needed", "granted"): 1, ("forced", "granted"): 1}


def test_a_forced_renewal_that_failed_is_measured_as_one(
    shared: SharedToken, metrics_read: Measured, clock: Clock, issuer: EmbeddedIssuer, renew: Renew
) -> None:
    seen = shared.get()
    clock.advance(10)
    issuer.faults.add("token", answering(503))
    with suppress(TokenRequestError):
        renew(shared, seen)

    assert by_cause(metrics_read) == {("needed", "granted"): 1, ("forced", "failed"): 1}


def test_audiences_without_an_end_are_measured_under_a_name_for_the_rest(
    source: TokenSource, shop_api: KeycloakSettings, metrics_read: Measured
) -> None:
    for number in range(210):
        with suppress(TokenRequestError):
            source.token(shop_api, Wanted.of(f"tenant-{number}", None)).get()

    named = {point.attributes["s2s_fastapi.audience"]: point.value for point in metrics_read(DURATION)}
    assert len(named) == 201
    assert named["tenant-199"] == 1
    assert named["_OTHER"] == 10


@pytest.mark.parametrize("fault", [None, answering(503)], ids=["granted", "failed"])
def test_a_warm_up_is_measured_as_one(
    source: TokenSource, shop_api: KeycloakSettings, issuer: EmbeddedIssuer, metrics_read: Measured, fault: Fault | None
) -> None:
    if fault is not None:
        issuer.faults.add("token", fault)
    auth = ServiceTokenAuth("http://notifications.test", audience="notification-service", settings=shop_api)
    with TestClient(FastAPI(lifespan=service_lifespan(auth))):
        pass

    assert by_cause(metrics_read) == {("warm_up", "granted" if fault is None else "failed"): 1}


class TestTheAgeOfATokenAtUse:
    @pytest.fixture
    def call(self, source: TokenSource, shop_api: KeycloakSettings) -> Iterator[Callable[[], httpx.Response]]:
        auth = ServiceTokenAuth("http://notifications.test", audience="notification-service", settings=shop_api)
        transport = httpx.MockTransport(lambda _: httpx.Response(204))
        with httpx.Client(transport=transport, auth=auth) as client:
            yield lambda: client.get("http://notifications.test/")

    def test_is_measured_with_each_request(
        self, call: Callable[[], httpx.Response], metrics_read: Measured, clock: Clock
    ) -> None:
        call()
        clock.advance(42)
        call()
        clock.advance(58)
        call()

        (point,) = metrics_read(AGE)
        assert point.attributes == LABELS
        assert (point.unit, point.value, point.sum) == ("s", 3, 0 + 42 + 100)

    def test_is_all_that_is_recorded_of_a_request_with_a_fresh_token(
        self, call: Callable[[], httpx.Response], metrics_read: Measured, traces: Traces
    ) -> None:
        call()
        traces.spans.clear()
        before = metrics_read()
        with request() as server:
            call()

        assert traces.below(server) == []
        changed = [point for point in metrics_read() if point not in before]
        assert [(point.name, point.value) for point in changed if point.name != "s2s_fastapi.keys.age"] == [(AGE, 2)]

    def test_counts_from_the_load_that_brought_the_token(
        self, call: Callable[[], httpx.Response], metrics_read: Measured, clock: Clock
    ) -> None:
        call()
        clock.advance(400)
        call()

        assert [(point.value, point.sum) for point in metrics_read(AGE)] == [(2, 0)]

    def test_is_not_measured_where_no_request_is_sent(
        self, source: TokenSource, shop_api: KeycloakSettings, metrics_read: Measured
    ) -> None:
        ServiceTokenAuth(audience="notification-service", settings=shop_api).token()

        assert metrics_read(AGE) == []

    def test_is_not_measured_where_there_was_no_token(
        self, call: Callable[[], httpx.Response], issuer: EmbeddedIssuer, metrics_read: Measured
    ) -> None:
        issuer.faults.add("token", answering(503))
        with pytest.raises(TokenRequestError):
            call()

        assert metrics_read(AGE) == []

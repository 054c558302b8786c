"""The spans `fetch keys` and `GET`: whose they are, and what they tell of a Keycloak that does not answer."""

import asyncio
from typing import Any

import httpx
import pytest
import trio
from fastapi import FastAPI
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.verifier.keys import KeySource
from tests.kit.realm import Clock, Realm, SigningKey, key_source, settings, token_verifier
from tests.kit.tracing import Traces, Tree, context_of, request, until

LOADED: Tree = ("fetch keys", [("GET", []), ("GET", [])])


def links(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("how", ["sync", "asyncio", "trio"])
def test_the_request_that_needs_the_keys_has_the_fetch_below_it(realm: Realm, traces: Traces, how: str) -> None:
    keys = key_source(realm)
    with request() as server:
        if how == "sync":
            keys.get()
        else:
            asyncio.run(keys.aget()) if how == "asyncio" else trio.run(keys.aget)

    assert traces.below(server) == [LOADED]
    assert traces.one("fetch keys").kind is SpanKind.INTERNAL
    assert not traces.one("fetch keys").links


def test_a_fetch_records_issuer_cause_and_outcome(realm: Realm, traces: Traces) -> None:
    key_source(realm).get()

    assert attributes(traces.one("fetch keys")) == {
        "s2s_fastapi.issuer": realm.issuer,
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "loaded",
    }


def test_the_issuer_of_a_fetch_is_the_one_in_the_tokens(realm: Realm, traces: Traces) -> None:
    given = settings(public_url="https://sso.example")
    KeySource.of(given, realm.transport).get()

    assert attributes(traces.one("fetch keys"))["s2s_fastapi.issuer"] == "https://sso.example/realms/corp"


def test_an_exchange_is_a_client_span_with_the_names_of_the_conventions(realm: Realm, traces: Traces) -> None:
    key_source(realm).get()

    certs, page = traces.named("GET")
    assert certs.kind is page.kind is SpanKind.CLIENT
    assert attributes(certs) == {
        "http.request.method": "GET",
        "url.full": f"{realm.issuer}/protocol/openid-connect/certs",
        "server.address": "keycloak.test",
        "server.port": 80,
        "http.response.status_code": 200,
    }
    assert attributes(page)["url.full"] == realm.issuer


@pytest.mark.parametrize(
    ("url", "port"),
    [("https://keycloak.test", 443), ("https://keycloak.test:8443", 8443), ("http://[::1]:8080", 8080)],
)
def test_the_port_of_an_exchange_is_the_one_that_is_meant(realm: Realm, traces: Traces, url: str, port: int) -> None:
    KeySource.of(settings(url=url), realm.transport).get()

    assert {attributes(span)["server.port"] for span in traces.named("GET")} == {port}


def test_keycloak_is_recorded_the_span_of_the_exchange_and_nothing_else_of_the_request(
    realm: Realm, traces: Traces
) -> None:
    seen: list[httpx.Headers] = []
    realm.answer = lambda request: seen.append(request.headers)
    attached = context.attach(baggage.set_baggage("customer", "alice"))
    try:
        with request():
            key_source(realm).get()
    finally:
        context.detach(attached)

    exchanges = {trace.format_span_id(context_of(span).span_id) for span in traces.named("GET")}
    assert {headers["traceparent"].split("-")[2] for headers in seen} == exchanges
    assert all("baggage" not in headers for headers in seen)


def test_of_what_others_wrote_into_a_trace_keycloak_is_recorded_the_ids_alone(realm: Realm, traces: Traces) -> None:
    seen: list[httpx.Headers] = []
    realm.answer = lambda request: seen.append(request.headers)
    state = trace.TraceState([("vendor", "v" * 200)])
    sent = trace.NonRecordingSpan(
        trace.SpanContext(0xA1, 0xB2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    )
    attached = context.attach(trace.set_span_in_context(sent))
    try:
        key_source(realm).get()
    finally:
        context.detach(attached)

    assert {headers["traceparent"].split("-")[1] for headers in seen} == {f"{0xA1:032x}"}
    assert all("tracestate" not in headers for headers in seen)


class TestARenewalBehind:
    @pytest.fixture
    def server(self, realm: Realm, traces: Traces, clock: Clock) -> trace.Span:
        keys = key_source(realm, clock)
        keys.get()
        traces.spans.clear()
        clock.advance(500)
        with request() as server:
            until(lambda: keys._keys.ready() and traces.named("fetch keys"))
        return server

    def test_is_no_part_of_the_request_that_caused_it(self, traces: Traces, server: trace.Span) -> None:
        assert traces.below(server) == []

    def test_is_the_root_of_its_own_trace_with_a_link_to_it(self, traces: Traces, server: trace.Span) -> None:
        fetch = traces.one("fetch keys")
        assert fetch.parent is None
        assert context_of(fetch).trace_id != context_of(server).trace_id
        assert links(fetch) == [context_of(server).span_id]
        assert traces.below(fetch) == LOADED[1]

    def test_links_the_root_alone(self, traces: Traces, server: trace.Span) -> None:
        assert not any(links(span) for span in traces.named("GET"))

    def test_says_that_it_came_ahead(self, traces: Traces, server: trace.Span) -> None:
        assert attributes(traces.one("fetch keys"))["s2s_fastapi.cause"] == "ahead"


def test_the_fetch_at_the_start_is_a_root_with_a_link_to_it(realm: Realm, traces: Traces) -> None:
    keys = key_source(realm)
    with request("start") as start:
        keys.start()
    fetch = until(lambda: traces.named("fetch keys"))[0]

    assert (fetch.parent, links(fetch)) == (None, [context_of(start).span_id])
    assert attributes(fetch)["s2s_fastapi.cause"] == "warm_up"


def test_an_app_that_starts_fetches_in_a_trace_of_its_own(realm: Realm, traces: Traces) -> None:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport)
    with request("start"), TestClient(app):
        fetch = until(lambda: traces.named("fetch keys"))[0]

    assert fetch.parent is None
    assert attributes(fetch)["s2s_fastapi.cause"] == "warm_up"


def test_a_fetch_without_any_trace_has_nothing_to_link_to(realm: Realm, traces: Traces) -> None:
    key_source(realm).start()
    fetch = until(lambda: traces.named("fetch keys"))[0]

    assert (fetch.parent, links(fetch)) == (None, [])


@pytest.mark.parametrize("how", ["sync", "asyncio", "trio"])
def test_an_unknown_kid_forces_a_fetch_within_the_verification(
    realm: Realm, traces: Traces, clock: Clock, how: str
) -> None:
    verifier = token_verifier(realm, monotonic=clock)
    verifier.decide(realm.token())
    clock.advance(10)
    traces.spans.clear()
    token = realm.token(key=SigningKey("ES256", kid="new"))
    with request() as server:
        if how == "sync":
            verifier.decide(token)
        else:
            asyncio.run(verifier.adecide(token)) if how == "asyncio" else trio.run(verifier.adecide, token)

    assert traces.below(server) == [("verify token", [LOADED])]
    assert attributes(traces.one("fetch keys"))["s2s_fastapi.cause"] == "forced"


def broken(error: type[httpx.TransportError]) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("of a library's own words", request=request)

    return answer


FAILURES = {
    "timeout": (broken(httpx.ReadTimeout), "timeout", "no complete answer within 3 s"),
    "connection": (broken(httpx.ConnectError), "connection", "cannot connect to http://keycloak.test: no reason given"),
    "broken": (broken(httpx.ReadError), "connection", "the connection broke: no reason given"),
    "protocol": (
        broken(httpx.RemoteProtocolError),
        "protocol",
        "the answer is not HTTP, or the connection was closed too early",
    ),
    "too large": (
        lambda _: httpx.Response(200, content=b" " * 300_000),
        "unusable_answer",
        "the answer is larger than 262144 bytes",
    ),
    "status": (lambda _: httpx.Response(503, content=b"of Keycloak's own words"), "503", None),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_exchange_that_failed_says_how_in_our_own_words(realm: Realm, traces: Traces, failure: str) -> None:
    realm.answer, error_type, sentence = FAILURES[failure]
    keys = key_source(realm)
    keys.start()
    fetch = until(lambda: traces.named("fetch keys"))[0]

    get = traces.one("GET")
    assert attributes(get)["error.type"] == error_type
    assert (get.status.status_code, get.status.description) == (StatusCode.ERROR, sentence)
    assert not get.events
    assert attributes(fetch)["s2s_fastapi.outcome"] == "failed"


def test_what_cannot_be_foreseen_is_recorded_by_its_type_alone(realm: Realm, traces: Traces) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError("hunter2")

    realm.answer = answer
    key_source(realm).start()
    until(lambda: traces.named("fetch keys"))

    assert attributes(traces.one("GET"))["error.type"] == "ZeroDivisionError"
    assert not any("hunter2" in (span.status.description or "") or span.events for span in traces.spans)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(302, headers={"Location": "https://elsewhere.example"}),
        httpx.Response(200, json={"keys": []}),
        httpx.Response(200, content=b"<html>"),
    ],
    ids=["a redirect", "no key", "no JSON"],
)
def test_an_answer_without_keys_is_a_failed_fetch_after_an_exchange_that_went_well(
    realm: Realm, traces: Traces, answer: httpx.Response
) -> None:
    realm.answer = lambda _: answer
    key_source(realm).start()
    fetch = until(lambda: traces.named("fetch keys"))[0]

    assert attributes(fetch)["error.type"] == "keys_unavailable"
    assert fetch.status.status_code is StatusCode.ERROR
    assert fetch.status.description.startswith("Keycloak's keys could not be loaded from")
    assert traces.one("GET").status.status_code is StatusCode.UNSET
    assert not fetch.events


def test_a_realm_page_that_fails_is_an_error_of_its_own_exchange_alone(realm: Realm, traces: Traces) -> None:
    realm.answer = lambda request: None if request.url.path.endswith("/certs") else httpx.Response(404)
    key_source(realm).get()

    certs, page = traces.named("GET")
    assert (certs.status.status_code, page.status.status_code) == (StatusCode.UNSET, StatusCode.ERROR)
    assert traces.one("fetch keys").status.status_code is StatusCode.UNSET


def test_keycloak_is_recorded_in_the_format_that_is_configured(realm: Realm, another_format: None) -> None:
    seen: list[httpx.Headers] = []
    realm.answer = lambda request: seen.append(request.headers)
    with request():
        KeySource(Endpoints.of(settings()), BackChannel(transport=realm.transport, timeout=3.0)).get()

    assert all(headers["x-b3-traceid"] == "1" and "traceparent" not in headers for headers in seen)

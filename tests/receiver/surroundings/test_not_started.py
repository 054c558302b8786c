"""An app that did not pass its check answers 500 to everybody, and whoever asks a thousand times makes it work no harder."""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.receiver.start import _CHECK_AGAIN
from tests.kit.realm import Clock
from tests.kit.receiving import Headers, Options
from tests.receiver.surroundings.servers import HYPERCORN, UVICORN, served


async def ok(request: Any) -> PlainTextResponse:
    return PlainTextResponse("in")


class Counting:
    """An app that counts how often its routes are read, and what ran."""

    def __init__(self) -> None:
        self.reads = 0
        self.ran = 0

    @property
    def routes(self) -> list[Any]:
        self.reads += 1
        return [Route("/x", ok)]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.ran += 1
        await PlainTextResponse("in")(scope, receive, send)


@pytest.fixture
def inner() -> Counting:
    return Counting()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_routes_are_read_once_a_second_however_many_ask(inner: Counting, options: Options, clock: Clock) -> None:
    there = TestClient(ServiceAuthMiddleware(inner, **options(users=True, clock=clock)))
    assert there.get("/x").status_code == 500
    first = inner.reads
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: there.get("/x").status_code, range(200))) == {500}
    assert inner.reads == first
    clock.advance(_CHECK_AGAIN)
    assert there.get("/x").status_code == 500
    assert inner.reads == 2 * first
    assert inner.ran == 0


def test_a_clock_that_is_put_back_does_not_keep_it_from_being_checked(
    inner: Counting, options: Options, clock: Clock
) -> None:
    there = TestClient(ServiceAuthMiddleware(inner, **options(users=True, clock=clock)))
    assert there.get("/x").status_code == 500
    first = inner.reads
    clock.advance(-3600)
    assert there.get("/x").status_code == 500
    assert inner.reads == 2 * first


def test_the_log_says_it_a_few_times_and_counts_the_rest(
    inner: Counting, options: Options, caplog: pytest.LogCaptureFixture
) -> None:
    there = TestClient(ServiceAuthMiddleware(inner, **options(users=True, observer=None)))
    with caplog.at_level(logging.DEBUG):
        for _ in range(200):
            assert there.get("/x").status_code == 500
    records = [record for record in caplog.records if record.name == "s2s_fastapi.decisions"]
    assert 1 <= len(records) <= 20
    assert {record.levelno for record in records} == {logging.ERROR}


def test_the_caller_is_told_nothing_of_it(inner: Counting, options: Options, service: Headers) -> None:
    there = TestClient(ServiceAuthMiddleware(inner, **options(users=True)))
    for headers in ({}, service()):
        answer = there.get("/x", headers=headers)
        assert (answer.status_code, answer.json()) == (500, {"detail": "Internal Server Error"})
        assert "WWW-Authenticate" not in answer.headers
    with pytest.raises(WebSocketDisconnect), there.websocket_connect("/x", headers=service()):
        pass


@pytest.mark.parametrize("server", [*UVICORN, HYPERCORN[0]])
def test_on_a_real_server_it_is_the_same(inner: Counting, options: Options, service: Headers, server: str) -> None:
    async def without_lifespan(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"  # an exception here is an app that knows no lifespan, to every server
        await guarded(scope, receive, send)

    guarded = ServiceAuthMiddleware(inner, **options(users=True))
    bearer = f"Authorization: {service()['Authorization']}".encode()
    with served(without_lifespan, server) as address:
        for headers in ([], [bearer]):
            said = address.say(b"/x", *headers)
            assert (said.status, said.body, said.challenge) == (500, b'{"detail":"Internal Server Error"}', None)
    assert inner.ran == 0

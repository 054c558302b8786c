"""What an attacker writes reaches the app unchanged, and an app starts and ends if it is asked to."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.asgi import AsgiSender, Outgoing

seen: list[Any] = []


async def note(scope: Any, receive: Any, send: Any) -> None:
    seen.append(scope)
    if scope["type"] == "http":
        seen.append(await receive())
        await send({"type": "http.response.start", "status": 204, "headers": [(b"X-A", b"1"), (b"x-a", b"2")]})
        await send({"type": "http.response.body", "body": b""})


def test_a_request_reaches_the_app_as_it_is_written() -> None:
    seen.clear()
    headers = (("Authorization", "Bearer a"), ("authorization", "Bearer \xfc"), ("Host", "x/health?"))
    with AsgiSender(note) as sender:
        answer = sender.send(
            Outgoing(method="DELETE", path="/a%2Fb/../c", query="q=%20", headers=headers, body=b"body")
        )

    scope, message = seen
    assert (scope["method"], scope["path"], scope["raw_path"]) == ("DELETE", "/a/b/../c", b"/a%2Fb/../c")
    assert scope["query_string"] == b"q=%20"
    assert scope["headers"] == [
        (b"authorization", b"Bearer a"),
        (b"authorization", b"Bearer \xfc"),
        (b"host", b"x/health?"),
    ]
    assert message == {"type": "http.request", "body": b"body", "more_body": False}
    assert (answer.status, answer.header("x-a")) == (204, "1, 2")


async def accept(scope: Any, receive: Any, send: Any) -> None:
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})


async def close(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.close", "code": 1008})


async def deny(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"www-authenticate", b"Bearer")]})
    await send({"type": "websocket.http.response.body", "body": b""})


@pytest.mark.parametrize(("app", "status", "opened"), [(accept, 101, True), (close, 403, False), (deny, 401, False)])
def test_a_websocket_is_opened_closed_or_denied(app: Any, status: int, opened: bool) -> None:
    with AsgiSender(app) as sender:
        answer = sender.send(Outgoing(method="WEBSOCKET", path="/live"))

    assert (answer.status, answer.opened) == (status, opened)


def test_an_app_that_answers_nothing_is_a_500() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    with AsgiSender(silent) as sender:
        assert sender.send(Outgoing(method="GET", path="/")).status == 500


def test_the_lifespan_of_an_app_runs_only_if_that_is_asked_for() -> None:
    async def noting(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "lifespan":
            seen.append((await receive())["type"])
            scope["state"]["pool"] = "open"
            await send({"type": "lifespan.startup.complete"})
            seen.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
        else:
            seen.append(scope["state"])

    for lifespan in (False, True):
        seen.clear()
        with AsgiSender(noting, lifespan=lifespan) as sender:
            sender.send(Outgoing(method="GET", path="/"))
        request = ["http", {"pool": "open"} if lifespan else {}]
        assert seen == (["lifespan", "lifespan.startup", *request, "lifespan.shutdown"] if lifespan else request)


def test_an_app_that_knows_no_lifespan_is_asked_all_the_same() -> None:
    async def knows_http(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await note(scope, receive, send)

    with AsgiSender(knows_http, lifespan=True) as sender:
        assert sender.send(Outgoing(method="GET", path="/")).status == 204


def test_an_app_whose_start_fails_is_not_asked() -> None:
    @asynccontextmanager
    async def failing(app: FastAPI) -> AsyncIterator[None]:
        if app.title:
            raise RuntimeError("no database")
        yield

    with (
        pytest.raises(ConfigurationError, match="its lifespan fails"),
        AsgiSender(FastAPI(lifespan=failing), lifespan=True),
    ):
        pytest.fail("it was asked")

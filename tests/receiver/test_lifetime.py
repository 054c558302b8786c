"""A WebSocket does not outlive its token, whether its app listens or only speaks."""

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi.receiver.lifetime import until_expiry

pytestmark = pytest.mark.anyio

EXPIRED = {"type": "websocket.close", "code": 1008, "reason": "The access token expired."}


class Wire:
    """The server's side of one WebSocket, with a clock of its own."""

    def __init__(self, *incoming: dict[str, Any]) -> None:
        self.now = 1000.0
        self.incoming = list(incoming)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.incoming:
            await anyio.sleep_forever()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    def bounded(self, expires_at: float) -> Any:
        return until_expiry(self.receive, self.send, expires_at, lambda: self.now)


TEXT = {"type": "websocket.receive", "text": "x"}
SEND = {"type": "websocket.send", "text": "x"}


async def test_an_app_that_listens_is_disconnected_when_the_token_expires() -> None:
    wire = Wire(TEXT)
    receive, _ = wire.bounded(1000.05)
    assert await receive() == TEXT
    began = time.monotonic()
    assert await receive() == {"type": "websocket.disconnect", "code": 1008, "reason": "The access token expired."}
    assert time.monotonic() - began >= 0.04
    assert wire.sent == [EXPIRED]


async def test_what_has_come_after_the_expiry_is_not_heard() -> None:
    wire = Wire(TEXT)
    receive, _ = wire.bounded(1001)
    wire.now = 1001.0
    with anyio.fail_after(1):
        while True:  # a message that is there already may be handed over at most once more
            message = await receive()
            if message["type"] == "websocket.disconnect":
                break
    assert wire.sent == [EXPIRED]


@pytest.mark.parametrize(("now", "open_"), [(1000.0, True), (1000.999, True), (1001.0, False), (2000.0, False)])
async def test_an_app_that_only_speaks_is_stopped_at_the_very_moment(now: float, open_: bool) -> None:
    wire = Wire()
    _, send = wire.bounded(1001)
    wire.now = now
    if open_:
        await send(SEND)
        assert wire.sent == [SEND]
        return
    for _ in range(2):
        with pytest.raises(OSError, match="its access token expired"):
            await send(SEND)
    assert wire.sent == [EXPIRED]


async def test_it_is_closed_once_by_whoever_comes_first() -> None:
    wire = Wire()
    receive, send = wire.bounded(1001)
    await send({"type": "websocket.close", "code": 4000})
    await send({"type": "websocket.close", "code": 4001})
    wire.now = 2000
    assert (await receive())["type"] == "websocket.disconnect"
    with pytest.raises(OSError, match="expired"):
        await send(SEND)
    assert wire.sent == [{"type": "websocket.close", "code": 4000}]


async def test_after_the_expiry_the_apps_own_close_is_kept_back() -> None:
    wire = Wire()
    receive, send = wire.bounded(999)
    await receive()
    await send({"type": "websocket.close", "code": 1000})
    assert wire.sent == [EXPIRED]


async def test_the_handshake_itself_passes() -> None:
    wire = Wire({"type": "websocket.connect"})
    receive, send = wire.bounded(1001)
    assert await receive() == {"type": "websocket.connect"}
    await send({"type": "websocket.accept"})
    assert wire.sent == [{"type": "websocket.accept"}]


class TestThroughTheWholeStack:
    def test_the_leeway_is_added_and_the_clock_is_the_middlewares(
        self, make_app: Callable[..., FastAPI], service: Any
    ) -> None:
        now = int(time.time())
        clock = [float(now)]
        app = make_app(clock=lambda: clock[0])

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            clock[0] = now + 329.9
            await websocket.send_text("still here")
            clock[0] = now + 330.0
            with pytest.raises(WebSocketDisconnect):
                await websocket.send_text("too late")

        with TestClient(app).websocket_connect("/ws", headers=service(iat=now, exp=now + 300)) as connected:
            assert connected.receive_text() == "still here"
            with pytest.raises(WebSocketDisconnect) as raised:
                connected.receive_text()
        assert (raised.value.code, raised.value.reason) == (1008, "The access token expired.")

    def test_an_app_in_a_loop_of_messages_ends(self, make_app: Callable[..., FastAPI], service: Any) -> None:
        now = int(time.time())
        ended: list[int] = []
        app = make_app(clock=lambda: time.time() + 329.8)

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.send_text(await websocket.receive_text())
            except WebSocketDisconnect as error:
                ended.append(error.code)

        with TestClient(app).websocket_connect("/ws", headers=service(iat=now, exp=now + 301)) as connected:
            connected.send_text("x")
            assert connected.receive_text() == "x"
            with pytest.raises(WebSocketDisconnect) as raised:
                connected.receive_text()
        assert raised.value.code == 1008
        assert ended == [1008]

    def test_an_http_answer_is_not_cut(self, make_app: Callable[..., FastAPI], service: Any) -> None:
        clock = [time.time()]
        app = make_app(clock=lambda: clock[0])

        @app.get("/x")
        async def route() -> str:
            clock[0] += 10_000
            return "whole"

        assert TestClient(app).get("/x", headers=service()).json() == "whole"

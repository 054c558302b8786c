"""A WebSocket does not outlive its token, whether its app listens or only speaks."""

import asyncio
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.receiver.middleware import middleware_of
from s2s_fastapi.receiver.websocket import until_expiry
from tests.kit.realm import Realm

pytestmark = pytest.mark.anyio

EXPIRED = {"type": "websocket.close", "code": 1008, "reason": "The access token expired."}


class Wire:
    """The server's side of one WebSocket, with a clock of its own."""

    def __init__(self, *incoming: dict[str, Any]) -> None:
        self.now = 1000.0
        self.incoming = [{"type": "websocket.connect"}, *incoming]
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        if not self.incoming:
            await anyio.sleep_forever()
        return self.incoming.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def run(
        self,
        app: Callable[[Any, Any], Any],
        *,
        expires_at: float,
        accept: bool = True,
        revoked: Callable[[], bool] = lambda: False,
    ) -> None:
        """Run an app that is given ``receive`` and ``send`` of an accepted WebSocket."""

        async def whole(scope: Any, receive: Any, send: Any) -> None:
            if accept:
                assert await receive() == {"type": "websocket.connect"}
                await send(ACCEPT)
            await app(receive, send)

        with anyio.fail_after(5):
            bounded = until_expiry(whole, expires_at, lambda: self.now, revoked=revoked)
            await bounded({"type": "websocket"}, self.receive, self.send)


ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.receive", "text": "x"}
SEND = {"type": "websocket.send", "text": "x"}
GONE = {"type": "websocket.disconnect", "code": 1001}


async def test_nothing_is_kept_of_the_messages_that_went_by() -> None:
    wire = Wire(*[TEXT] * 1000)

    async def app(receive: Any, send: Any) -> None:
        for _ in range(1000):
            assert await receive() == TEXT
        assert not receive.__self__._listening

    await wire.run(app, expires_at=1300.0)


async def test_an_app_that_listens_is_disconnected_when_the_token_expires() -> None:
    wire = Wire(TEXT)

    async def app(receive: Any, send: Any) -> None:
        assert await receive() == TEXT
        began = time.monotonic()
        assert await receive() == {"type": "websocket.disconnect", "code": 1008, "reason": "The access token expired."}
        assert time.monotonic() - began >= 0.04

    await wire.run(app, expires_at=1000.05)
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_a_server_that_tells_of_our_close_changes_nothing_for_the_app() -> None:
    wire = Wire()
    heard: list[dict[str, Any]] = []

    async def telling(message: Any) -> None:
        wire.sent.append(dict(message))
        if message["type"] == "websocket.close":
            told.set()

    async def receive() -> dict[str, Any]:
        if len(wire.incoming) == 1:
            return wire.incoming.pop()
        await told.wait()
        return {"type": "websocket.disconnect", "code": 1000}

    async def app(receive: Any, send: Any) -> None:
        heard.append(await receive())

    told = anyio.Event()
    wire.send, wire.receive = telling, receive  # type: ignore[method-assign]
    await wire.run(app, expires_at=1000.05)
    assert heard == [{**EXPIRED, "type": "websocket.disconnect"}]
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_an_app_that_listens_in_several_tasks_is_disconnected_in_each() -> None:
    wire = Wire()
    heard: list[dict[str, Any]] = []

    async def app(receive: Any, send: Any) -> None:
        async def listen() -> None:
            heard.append(await receive())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(listen)

    await wire.run(app, expires_at=1000.05)
    assert [message["type"] for message in heard] == ["websocket.disconnect"] * 3
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_an_app_that_neither_listens_nor_speaks_is_closed_and_goes_on_until_it_does() -> None:
    wire = Wire()
    closed_while_idle: list[bool] = []

    async def app(receive: Any, send: Any) -> None:
        await anyio.sleep(0.2)
        closed_while_idle.append(wire.sent == [ACCEPT, EXPIRED])
        with pytest.raises(OSError, match="its access token expired"):
            await send(SEND)
        assert (await receive())["type"] == "websocket.disconnect"

    await wire.run(app, expires_at=1000.05)
    assert closed_while_idle == [True]
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_what_has_come_after_the_expiry_is_not_heard() -> None:
    wire = Wire(TEXT)

    async def app(receive: Any, send: Any) -> None:
        wire.now = 1001.0
        assert (await receive())["type"] == "websocket.disconnect"

    await wire.run(app, expires_at=1001)
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_what_comes_while_the_clock_is_put_forward_is_not_heard() -> None:
    wire = Wire(TEXT)

    async def app(receive: Any, send: Any) -> None:
        coming = wire.incoming

        class Late(list[dict[str, Any]]):
            def pop(self, index: Any = -1) -> dict[str, Any]:
                wire.now = 1001.0
                return super().pop(index)

        wire.incoming = Late(coming)
        assert (await receive())["type"] == "websocket.disconnect"

    await wire.run(app, expires_at=1001)
    assert wire.sent == [ACCEPT, EXPIRED]


@pytest.mark.parametrize(("now", "open_"), [(1000.0, True), (1000.999, True), (1001.0, False), (2000.0, False)])
async def test_an_app_that_only_speaks_is_stopped_at_the_very_moment(now: float, open_: bool) -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        wire.now = now
        if open_:
            await send(SEND)
            return
        for _ in range(2):
            with pytest.raises(OSError, match="its access token expired"):
                await send(SEND)

    await wire.run(app, expires_at=1001)
    assert wire.sent == [ACCEPT, SEND if open_ else EXPIRED]


async def test_a_token_that_is_revoked_hears_and_says_nothing_more() -> None:
    wire = Wire(TEXT, TEXT)
    revoked: list[bool] = []

    async def app(receive: Any, send: Any) -> None:
        assert await receive() == TEXT
        await send(SEND)
        revoked.append(True)
        with pytest.raises(OSError, match="closed"):
            await send(SEND)
        assert (await receive())["type"] == "websocket.disconnect"

    await wire.run(app, expires_at=2000, revoked=lambda: bool(revoked))
    assert wire.sent == [ACCEPT, SEND, EXPIRED]


async def test_it_is_closed_once_by_whoever_comes_first() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 4000})
        await send({"type": "websocket.close", "code": 4001})
        wire.now = 2000
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(OSError, match="expired"):
            await send(SEND)

    await wire.run(app, expires_at=1001)
    assert wire.sent == [ACCEPT, {"type": "websocket.close", "code": 4000}]


async def test_after_the_expiry_the_apps_own_close_is_kept_back() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 1000})

    await wire.run(app, expires_at=1000.01)
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_the_handshake_itself_passes_and_is_closed_with_its_reason() -> None:
    wire = Wire()

    async def app(receive: Any, send: Any) -> None:
        assert await receive() == {"type": "websocket.connect"}
        await send(ACCEPT)
        assert (await receive())["type"] == "websocket.disconnect"

    await wire.run(app, expires_at=999, accept=False)
    assert wire.sent == [ACCEPT, EXPIRED]


async def test_a_denial_is_not_followed_by_a_close() -> None:
    wire = Wire()
    denial = [
        {"type": "websocket.http.response.start", "status": 404, "headers": []},
        {"type": "websocket.http.response.body", "body": b"no"},
    ]

    async def app(receive: Any, send: Any) -> None:
        await send(denial[0])
        await anyio.sleep(0.05)
        await send(denial[1])

    await wire.run(app, expires_at=999, accept=False)
    assert wire.sent == denial


async def test_a_client_that_went_away_is_told_as_the_server_tells_it_and_gets_no_close() -> None:
    wire = Wire(GONE)

    async def app(receive: Any, send: Any) -> None:
        assert await receive() == GONE
        await anyio.sleep(0.1)  # past the expiry

    await wire.run(app, expires_at=1000.05)
    assert wire.sent == [ACCEPT]


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("Unexpected ASGI message 'websocket.close'")])
async def test_a_server_that_cannot_send_the_close_hurts_nobody(error: Exception) -> None:
    wire = Wire()
    ended: list[bool] = []

    async def refusing(message: Any) -> None:
        if message["type"] == "websocket.close":
            raise error

    wire.send = refusing  # type: ignore[method-assign]

    async def app(receive: Any, send: Any) -> None:
        await anyio.sleep(0.1)
        ended.append(True)

    await wire.run(app, expires_at=1000.05)
    assert ended == [True]


@pytest.mark.parametrize(
    "error", [ValueError("x"), ExceptionGroup("several", [ValueError("x")]), KeyboardInterrupt(), SystemExit(3)]
)
async def test_an_error_of_the_app_stays_what_it_is(error: BaseException) -> None:
    async def app(receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        await Wire().run(app, expires_at=2000)
    assert raised.value is error


@pytest.mark.parametrize("error", [ValueError("x"), OSError("gone"), ExceptionGroup("several", [ValueError("x")])])
async def test_what_the_app_raised_is_not_lost_if_its_server_cancels_it_in_the_same_moment(error: Exception) -> None:
    async def app(receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.disconnect"
        scope.cancel()
        raise error

    with pytest.raises(type(error)) as raised, anyio.CancelScope() as scope:
        await Wire(GONE).run(app, expires_at=2000)
    assert repr(raised.value) == repr(error)  # trio copies groups that pass its scopes
    assert raised.value.__context__ is None


async def test_what_the_app_raises_because_it_is_cancelled_is_not_lost() -> None:
    async def app(receive: Any, send: Any) -> None:
        scope.cancel()
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"), anyio.CancelScope() as scope:
        await Wire(GONE).run(app, expires_at=2000)


async def test_what_the_app_raised_is_not_lost_if_the_close_fails_too() -> None:
    wire = Wire()

    async def refusing(message: Any) -> None:
        if message["type"] == "websocket.close":
            raise anyio.ClosedResourceError

    async def app(receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            raise ValueError

    wire.send = refusing  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"^$"):
        await wire.run(app, expires_at=1000.01)


def test_what_the_app_raised_is_not_lost_if_its_task_is_cancelled_in_the_same_moment() -> None:
    async def app(receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        asyncio.run(Wire().run(app, expires_at=2000))


async def test_an_app_that_returns_while_it_is_cancelled_is_cancelled() -> None:
    async def app(receive: Any, send: Any) -> None:
        scope.cancel()

    with anyio.CancelScope() as scope:
        await Wire().run(app, expires_at=2000)
    assert scope.cancelled_caught


async def test_a_server_that_cancels_the_app_is_heard_at_once() -> None:
    wire = Wire()
    ended: list[str] = []

    async def app(receive: Any, send: Any) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("ended")

    with anyio.move_on_after(0.05) as scope:
        await wire.run(app, expires_at=2000)
    assert scope.cancelled_caught
    assert ended == ["ended"]
    assert wire.sent == [ACCEPT]


def test_a_loop_that_cancels_the_task_is_heard_at_once() -> None:
    """As uvicorn does when its time for a graceful shutdown is over."""
    wire = Wire()
    ended: list[str] = []

    async def app(receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            ended.append("ended")

    async def run() -> None:
        task = asyncio.create_task(wire.run(app, expires_at=2000))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert ended == ["ended"]
    assert wire.sent == [ACCEPT]


async def test_an_app_that_ends_before_its_token_leaves_nothing_behind() -> None:
    async def app(receive: Any, send: Any) -> None:
        marker.set("set by the app")

    marker: ContextVar[str] = ContextVar("marker", default="")
    wire = Wire()
    await wire.run(app, expires_at=1e9)
    assert wire.sent == [ACCEPT]
    assert marker.get() == "set by the app"  # it ran where the server called it


async def test_an_app_that_listens_for_a_moment_at_a_time_misses_nothing() -> None:
    wire = Wire()
    heard: list[dict[str, Any]] = []

    async def app(receive: Any, send: Any) -> None:
        for _ in range(3):
            with anyio.move_on_after(0.01):
                heard.append(await receive())
        wire.incoming.append(TEXT)
        heard.append(await receive())
        heard.append(await receive())

    await wire.run(app, expires_at=1000.2)
    assert heard == [TEXT, {**EXPIRED, "type": "websocket.disconnect"}]


class TestTheClock:
    """On a clock of trio's own, which jumps over every sleep."""

    @staticmethod
    def closed_after(steps: Callable[[float], float], *, expires_at: float) -> float:
        """Return the seconds of monotonic time after which an idle WebSocket is closed; ``steps`` is what the clock then says."""

        async def run() -> float:
            began = trio.current_time()
            closed: list[float] = []
            over = trio.Event()

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await send(ACCEPT)
                await over.wait()

            async def receive() -> Any:
                await trio.sleep_forever()

            async def send(message: Any) -> None:
                if message["type"] == "websocket.close":
                    closed.append(trio.current_time() - began)
                    over.set()

            await until_expiry(app, expires_at, lambda: steps(trio.current_time() - began))({}, receive, send)
            return closed[0]

        return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))

    def test_that_runs_with_the_monotonic_one_ends_it_at_the_second(self) -> None:
        assert self.closed_after(lambda passed: 1000 + passed, expires_at=4600) == pytest.approx(3600)

    def test_a_client_that_does_not_take_the_close_is_left_after_ten_seconds(self) -> None:
        async def run() -> float:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                await send(ACCEPT)
                await trio.sleep(6)

            async def receive() -> Any:
                await trio.sleep_forever()

            async def send(message: Any) -> None:
                if message["type"] == "websocket.close":
                    await trio.sleep_forever()

            began = trio.current_time()
            await until_expiry(app, 1005, lambda: 1000 + trio.current_time() - began)({}, receive, send)
            return trio.current_time() - began

        assert trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0)) == pytest.approx(15)

    def test_that_is_put_forward_ends_it_within_half_a_minute(self) -> None:
        closed = self.closed_after(lambda passed: 1000 + passed + (9000 if passed > 100 else 0), expires_at=4600)
        assert 100 < closed <= 130

    @pytest.mark.parametrize("back", [0.0, 100_000.0])
    def test_that_stands_still_or_is_put_back_does_not_let_it_live_longer(self, back: float) -> None:
        closed = self.closed_after(lambda passed: 1000 - (back if passed > 100 else 0), expires_at=4600)
        assert closed == pytest.approx(3600)


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

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_what_an_endpoint_raises_after_the_client_left_reaches_the_test_client_each_time(
        self, make_app: Callable[..., FastAPI], service: Any, backend: Any
    ) -> None:
        app = make_app()

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            try:
                await websocket.receive_text()
            finally:
                raise LookupError

        headers = service()
        with TestClient(app, backend=backend) as connected:
            for _ in range(50):  # it was lost in most of them
                with pytest.raises(LookupError), connected.websocket_connect("/ws", headers=headers):
                    pass

    @pytest.mark.parametrize(("not_before", "stays"), [(0, True), (1, False)], ids=["issued then", "issued before"])
    def test_revoke_all_ends_what_was_issued_before(
        self, options: Callable[..., dict[str, Any]], service: Any, not_before: int, stays: bool
    ) -> None:
        now = int(time.time())

        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            assert app.keys is not None
            app.keys.not_before = now + not_before  # as the next fetch of the keys will have it
            with nullcontext() if stays else pytest.raises(WebSocketDisconnect):
                await websocket.send_text("still here")

        app = ServiceAuthMiddleware(Starlette(routes=[WebSocketRoute("/ws", socket)]), **options())
        with TestClient(app).websocket_connect("/ws", headers=service(iat=now)) as connected:
            if stays:
                assert connected.receive_text() == "still here"
                return
            with pytest.raises(WebSocketDisconnect) as raised:
                connected.receive_text()
        assert raised.value.code == 1008

    def test_revoke_all_is_felt_where_no_request_comes_in(
        self, make_app: Callable[..., FastAPI], service: Any, realm: Realm
    ) -> None:
        app = make_app()

        @app.websocket("/ws")
        async def socket(websocket: WebSocket) -> None:
            await websocket.accept()
            with suppress(WebSocketDisconnect):
                while True:
                    await websocket.send_text(await websocket.receive_text())

        now = int(time.time())
        with TestClient(app).websocket_connect("/ws", headers=service(iat=now)) as connected:
            connected.send_text("x")
            assert connected.receive_text() == "x"
            door = middleware_of(app)
            assert isinstance(door, ServiceAuthMiddleware)
            assert door.keys is not None
            realm.not_before, fetches = now + 1, realm.fetches
            door.keys._keys._clock = lambda: time.monotonic() + 500  # the keys are due to be renewed
            with pytest.raises(WebSocketDisconnect) as raised:  # noqa: PT012 - at a message after the keys have come
                for _ in range(500):
                    connected.send_text("x")
                    connected.receive_text()
                    time.sleep(0.01)
        assert raised.value.code == 1008
        assert realm.fetches == fetches + 1

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

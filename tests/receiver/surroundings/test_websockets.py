"""WebSockets on real servers: refused handshakes, with and without denial responses, and the end of a token."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from s2s_fastapi import require_caller
from tests.kit.receiving import App, Headers
from tests.receiver.surroundings.servers import WEBSOCKETS, Address, served

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of websockets' older half
    pytest.mark.filterwarnings("ignore::uvicorn.config.UvicornDeprecationWarning"),  # of the implementation on it
]


@pytest.fixture(params=WEBSOCKETS)
def server(request: Any) -> str:
    return str(request.param)


@contextmanager
def opened(address: Address, path: str = "/ws", **options: Any) -> Iterator[ClientConnection]:
    with connect(f"ws://{address}{path}", proxy=None, **options) as connected:
        yield connected


def answer(address: Address, path: str = "/ws", **options: Any) -> tuple[int, str | None, bytes]:
    with pytest.raises(InvalidStatus) as raised, opened(address, path, **options):
        pass
    response = raised.value.response
    return response.status_code, response.headers.get("WWW-Authenticate"), bytes(response.body or b"")


def last_of(connected: ClientConnection) -> ConnectionClosed:
    while True:
        try:
            connected.recv(5)
        except ConnectionClosed as closed:
            return closed


class TestARefusedHandshake:
    @pytest.fixture
    def ran(self) -> list[str]:
        return []

    @pytest.fixture
    def app(self, make_app: App, ran: list[str]) -> FastAPI:
        app = make_app(public_paths=["/page"])
        app.get("/page")(lambda: "page")

        async def endpoint(websocket: WebSocket) -> None:
            ran.append(websocket.url.path)
            await websocket.accept()
            await websocket.send_text("in")
            await websocket.close()

        app.websocket("/ws")(endpoint)
        app.websocket("/page")(endpoint)
        app.websocket("/guarded", dependencies=[Depends(require_caller("billing"))])(endpoint)
        return app

    def cases(self, service: Headers, user: Headers) -> list[tuple[str, dict[str, Any], int, str]]:
        token = service()["Authorization"].removeprefix("Bearer ")
        bearer = 'Bearer realm="crm-api-gateway"'

        def error(code: str) -> str:
            return f'{bearer}, error="{code}"'

        return [
            ("/ws", {}, 401, bearer),
            ("/page", {}, 401, bearer),
            (f"/ws?access_token={token}", {}, 401, bearer),
            ("/ws", {"subprotocols": ["bearer", token]}, 401, bearer),
            (f"/ws?access%5Ftoken={token}", {"additional_headers": service()}, 400, error("invalid_request")),
            ("/ws", {"additional_headers": {"Authorization": "Bearer x y"}}, 400, error("invalid_request")),
            ("/ws", {"additional_headers": {"Authorization": "Bearer x.y.z"}}, 401, error("invalid_token")),
            ("/ws", {"additional_headers": service(aud="other")}, 401, error("invalid_token")),
            ("/ws", {"additional_headers": user()}, 403, error("insufficient_scope")),
            ("/guarded", {"additional_headers": service()}, 403, error("insufficient_scope")),
        ]

    def test_is_answered_as_a_request_would_be(
        self, app: FastAPI, ran: list[str], server: str, service: Headers, user: Headers
    ) -> None:
        with served(app, server) as address:
            for path, options, status, challenge in self.cases(service, user):
                code, said, body = answer(address, path, **options)
                assert (code, said) == (status, challenge), path
                assert body.startswith(b'{"detail":"')
            assert ran == []
            with opened(address, additional_headers=service()) as connected:
                assert connected.recv(5) == "in"
        assert ran == ["/ws"]

    @pytest.mark.parametrize("extensions", [None, {}])
    def test_is_403_where_the_server_cannot_say_more(  # noqa: PLR0917 - fixtures
        self,
        app: FastAPI,
        ran: list[str],
        server: str,
        service: Headers,
        user: Headers,
        extensions: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def poorer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "extensions": extensions}, receive, send)

        with served(poorer, server) as address:
            for path, options, _, _ in self.cases(service, user):
                code, challenge, body = answer(address, path, **options)
                assert (code, challenge, body) == (403, None, b""), path
            with opened(address, additional_headers=service()) as connected:
                assert connected.recv(5) == "in"
        assert ran == ["/ws"]
        assert not [record for record in caplog.records if record.exc_info]


class Idle:
    """An app in each of the ways a WebSocket app may spend its time, and how it ended."""

    def __init__(self, app: FastAPI) -> None:
        self.ended: list[str] = []
        self.over = threading.Event()
        self.go_on = threading.Event()
        app.websocket("/listens")(self.listens)
        app.websocket("/speaks")(self.speaks)
        app.websocket("/waits")(self.waits)

    async def listens(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as error:
            self.end(f"disconnected {error.code}")

    async def speaks(self, websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_text("tick")
                await anyio.sleep(0.01)
        except WebSocketDisconnect:
            self.end("disconnected")

    async def waits(self, websocket: WebSocket) -> None:
        await websocket.accept()
        while not self.go_on.is_set():  # noqa: ASYNC110 - set by another thread
            await anyio.sleep(0.01)
        try:
            await websocket.send_text("much later")
        except WebSocketDisconnect:
            self.end("disconnected")

    def end(self, how: str) -> None:
        self.ended.append(how)
        self.over.set()


class TestAnOpenOne:
    @pytest.fixture
    def clock(self) -> list[float]:
        return [float(int(time.time()))]

    @pytest.fixture
    def app(self, make_app: App, clock: list[float]) -> FastAPI:
        return make_app(clock=lambda: clock[0])

    @pytest.mark.parametrize(
        ("path", "how"),
        [("/listens", "disconnected 1008"), ("/speaks", "disconnected"), ("/waits", "disconnected")],
    )
    def test_is_closed_when_its_token_expires_whatever_the_app_does(  # noqa: PLR0917 - fixtures
        self, app: FastAPI, clock: list[float], server: str, service: Headers, path: str, how: str
    ) -> None:
        idle, now = Idle(app), int(clock[0])
        headers = service(iat=now, exp=now + 300)
        with served(app, server) as address:
            clock[0] = now + 329.6
            with opened(address, path, additional_headers=headers) as connected:
                if path == "/speaks":
                    assert connected.recv(5) == "tick"
                    clock[0] = now + 330.0
                raised = last_of(connected)
            clock[0] = now + 330.0
            idle.go_on.set()
            assert idle.over.wait(5)
        assert raised.rcvd is not None
        assert (raised.rcvd.code, raised.rcvd.reason) == (1008, "The access token expired.")
        assert idle.ended == [how]

    @pytest.mark.parametrize("how", ["with a code", "without a word"])
    def test_whose_client_goes_away_tells_the_app_what_it_tells_an_app_without_us(
        self, app: FastAPI, server: str, service: Headers, how: str
    ) -> None:
        told = []
        for each in (FastAPI(), app):
            idle = Idle(each)
            with (
                served(each, server) as address,
                opened(address, "/listens", additional_headers=service()) as connected,
            ):
                connected.send("x")
                if how == "with a code":
                    connected.close(4321)
                else:
                    connected.socket.shutdown(socket.SHUT_RDWR)
                assert idle.over.wait(5)
            told.append(idle.ended)
        assert told[0] == told[1]
        assert len(told[1]) == 1

    def test_that_the_app_closes_is_closed_as_it_says(self, app: FastAPI, server: str, service: Headers) -> None:
        @app.websocket("/ends")
        async def ends(websocket: WebSocket) -> None:
            await websocket.accept(subprotocol="chat")
            await websocket.send_bytes(await websocket.receive_bytes())
            await websocket.close(4000, "enough")

        with (
            served(app, server) as address,
            opened(address, "/ends", additional_headers=service(), subprotocols=["chat"]) as connected,
        ):
            assert connected.subprotocol == "chat"
            connected.send(b"\x00\xff")
            assert connected.recv(5) == b"\x00\xff"
            with pytest.raises(ConnectionClosed) as raised:
                connected.recv(5)
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (4000, "enough")

    def test_whose_app_fails_is_closed_by_the_server(self, app: FastAPI, server: str, service: Headers) -> None:
        @app.websocket("/fails")
        async def fails(websocket: WebSocket) -> None:
            await websocket.accept()
            raise ValueError("of the app")

        raised_by_the_app: list[BaseException] = []

        async def around(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except BaseException as error:
                raised_by_the_app.append(error)
                raise

        with (
            served(around, server) as address,
            opened(address, "/fails", additional_headers=service()) as connected,
            pytest.raises(ConnectionClosed) as raised,
        ):
            connected.recv(5)
        assert raised.value.rcvd is None or raised.value.rcvd.code in {1006, 1011, 1000}
        assert [(type(error), str(error)) for error in raised_by_the_app] == [(ValueError, "of the app")]

    @pytest.mark.parametrize("server", WEBSOCKETS[:3])  # hypercorn waits for such clients, with and without us
    def test_does_not_keep_the_server_from_ending(self, app: FastAPI, server: str, service: Headers) -> None:
        idle = Idle(app)
        with served(app, server) as address:
            connected = connect(f"ws://{address}/listens", additional_headers=service(), proxy=None)
            connected.send("x")
        with connected:
            assert isinstance(last_of(connected), ConnectionClosed)
        assert idle.over.wait(5)

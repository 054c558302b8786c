"""What passes through on real servers is what would pass without us: streams, disconnects, tasks behind, other middleware."""

import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from s2s_fastapi import ServiceAuthMiddleware
from tests.kit.receiving import App, Headers, Options
from tests.receiver.surroundings.servers import SERVERS, Address, served


@pytest.fixture(params=SERVERS)
def server(request: Any) -> str:
    return str(request.param)


@pytest.fixture
def app(make_app: App) -> FastAPI:
    return make_app()


def chunk(payload: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(payload), payload)


def read_until(wire: Any, mark: bytes) -> bytes:
    got = b""
    while mark not in got:
        part = wire.recv(65_536)
        assert part, got
        got += part
    return got


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        if message["body"]:
            await send({"type": "http.response.body", "body": b"<" + message["body"] + b">", "more_body": True})
    await send({"type": "http.response.body"})


class TestStreams:
    def test_go_both_ways_at_once(self, app: FastAPI, server: str, service: Headers) -> None:
        app.mount("/echo", echo)  # Starlette's own streaming response hears the request's parts itself
        bearer = service()["Authorization"].encode()
        with served(app, server) as address, address.wire() as wire:
            wire.sendall(
                b"POST /echo/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: "
                + bearer
                + b"\r\n\r\n"
            )
            for number in range(5):  # each is answered before the next is sent: nobody waits for the whole body
                wire.sendall(chunk(b"part %d" % number))
                assert b"<part %d>" % number in read_until(wire, b">")
            wire.sendall(b"0\r\n\r\n")
            assert read_until(wire, b"0\r\n\r\n").endswith(b"0\r\n\r\n")

    def test_of_megabytes_arrive_whole(self, app: FastAPI, server: str, service: Headers) -> None:
        sizes: list[int] = []

        @app.post("/big")
        async def big(request: Request) -> StreamingResponse:
            sizes.append(len(await request.body()))
            return StreamingResponse(iter([b"x" * 100_000] * 30))

        with served(app, server) as address:
            answer = httpx.post(
                f"http://{address}/big",
                content=iter([b"y" * 100_000] * 30),
                headers=service(),
                trust_env=False,
                timeout=20,
            )
        assert (answer.status_code, len(answer.content), sizes) == (200, 3_000_000, [3_000_000])

    def test_of_a_body_that_nobody_reads_do_not_hold_a_refusal_back(self, app: FastAPI, server: str) -> None:
        """The connection is told no before the body is sent, and what is refused is not read into memory."""
        ran: list[bool] = []
        app.post("/big")(lambda: ran.append(True))
        with served(app, server) as address, address.wire() as wire:
            wire.sendall(b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
            assert read_until(wire, b"\r\n\r\n").startswith(b"HTTP/1.1 401")
        assert ran == []

    def test_of_a_client_that_waits_to_be_told_to_continue_are_refused_first(self, app: FastAPI, server: str) -> None:
        app.post("/big")(lambda: None)
        with served(app, server) as address, address.wire() as wire:
            wire.sendall(b"POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert b" 401" in read_until(wire, b"bearer access token")

    def test_of_files_are_sent_as_the_server_does_it(
        self, app: FastAPI, server: str, service: Headers, tmp_path: Any
    ) -> None:
        (tmp_path / "page").write_bytes(b"0123456789")
        app.get("/file")(lambda: FileResponse(tmp_path / "page"))
        with served(app, server) as address:
            answer = httpx.get(f"http://{address}/file", headers={**service(), "Range": "bytes=2-4"}, trust_env=False)
        assert (answer.status_code, answer.content, answer.headers["content-range"]) == (206, b"234", "bytes 2-4/10")


class TestAClientThatGoesAway:
    def test_is_noticed_by_the_app_that_waits(self, app: FastAPI, server: str, service: Headers) -> None:
        gone = threading.Event()

        @app.get("/wait")
        async def wait(request: Request) -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            gone.set()

        with served(app, server) as address:
            self.leave(address, service, b"/wait")
            assert gone.wait(5)

    def test_ends_an_answer_that_has_no_end(self, app: FastAPI, server: str, service: Headers) -> None:
        ended = threading.Event()

        @app.get("/endless")
        async def endless() -> StreamingResponse:
            async def out() -> AsyncIterator[bytes]:
                try:
                    while True:
                        yield b"x" * 1000
                        await anyio.sleep(0.005)
                finally:
                    ended.set()

            return StreamingResponse(out())

        with served(app, server) as address:
            self.leave(address, service, b"/endless")
            assert ended.wait(5)

    @staticmethod
    def leave(address: Address, service: Headers, path: bytes) -> None:
        with address.wire() as wire:
            bearer = service()["Authorization"].encode()
            wire.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nAuthorization: " + bearer + b"\r\n\r\n")
            time.sleep(0.1)


class TestWhatIsDoneBehind:
    def test_background_tasks_do_not_hold_the_answer_back(self, app: FastAPI, server: str, service: Headers) -> None:
        go_on, done = threading.Event(), threading.Event()

        def later() -> None:
            go_on.wait(10)
            done.set()

        @app.get("/x")
        async def route(background: BackgroundTasks) -> str:
            background.add_task(later)
            return "at once"

        with served(app, server) as address:
            said = address.say(b"/x", b"Authorization: " + service()["Authorization"].encode())
            assert (said.status, said.body, done.is_set()) == (200, b'"at once"', False)
            go_on.set()
            assert done.wait(5)


class TestOtherMiddleware:
    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
    def test_of_starlettes_base_sees_each_answer_and_breaks_none(
        self, options: Options, service: Headers, inside: bool
    ) -> None:
        statuses: list[int] = []

        async def dispatch(request: Request, call_next: Any) -> Any:
            answer = await call_next(request)
            statuses.append(answer.status_code)
            answer.headers["X-Seen"] = "1"
            return answer

        app = FastAPI(openapi_url=None)
        if inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        app.add_middleware(ServiceAuthMiddleware, **options())
        if not inside:
            app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)

        @app.get("/x")
        async def route() -> StreamingResponse:
            return StreamingResponse(iter([b"a", b"b"]))

        with served(app) as address:
            refused = address.say(b"/x")
            let_in = address.say(b"/x", b"Authorization: " + service()["Authorization"].encode())
        assert (refused.status, refused.challenge) == (401, 'Bearer realm="crm-api-gateway"')
        assert (let_in.status, let_in.body, let_in.headers["x-seen"]) == (200, b"ab", "1")
        assert statuses == ([200] if inside else [401, 200])

    @pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
    def test_that_compresses_leaves_challenge_and_body_readable(
        self, options: Options, service: Headers, inside: bool
    ) -> None:
        app = FastAPI(openapi_url=None)
        if inside:
            app.add_middleware(GZipMiddleware, minimum_size=1)
        app.add_middleware(ServiceAuthMiddleware, **options())
        if not inside:
            app.add_middleware(GZipMiddleware, minimum_size=1)
        app.get("/x")(lambda: "x" * 10_000)
        with (
            served(app) as address,
            httpx.Client(base_url=f"http://{address}", trust_env=False) as there,
        ):
            refused, let_in = there.get("/x"), there.get("/x", headers=service())
        assert refused.headers["WWW-Authenticate"] == 'Bearer realm="crm-api-gateway"'
        assert refused.json() == {"detail": "This service needs a bearer access token."}
        assert (let_in.json(), let_in.headers["content-encoding"]) == ("x" * 10_000, "gzip")

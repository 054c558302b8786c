"""What a real server makes of it: exit codes, sentences on stderr, handshakes and sockets."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect

from s2s_fastapi import require_caller
from tests.kit.realm import Realm
from tests.kit.receiving import App, Headers

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of websockets' older half
    pytest.mark.filterwarnings("ignore::uvicorn.config.UvicornDeprecationWarning"),  # of the implementation on it
]

PROGRAM = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
from s2s_fastapi import ServiceAuthMiddleware

@asynccontextmanager
async def lifespan(app):
    print("opened", flush=True)
    yield
    print("closed", flush=True)

app = FastAPI(lifespan=lifespan, openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, users=%s)

@app.get("/open")
async def route(): return "let in"
"""
CORP = {"KEYCLOAK_URL": "http://127.0.0.1:9", "KEYCLOAK_REALM": "corp", "KEYCLOAK_CLIENT_ID": "crm-api-gateway"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(directory: Path, users: bool, *options: str) -> dict[str, Any]:
    (directory / "service.py").write_text(PROGRAM % users)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYCLOAK_")}
    return {
        "args": [
            sys.executable,
            "-m",
            "uvicorn",
            "service:app",
            "--app-dir",
            str(directory),
            "--no-access-log",
            *options,
        ],
        "env": kept,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


@pytest.mark.parametrize("lifespan", ["auto", "on"])
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({}, "Set KEYCLOAK_URL and KEYCLOAK_REALM (or KEYCLOAK_ISSUER alone): it is unknown where Keycloak is."),
        (CORP, "Missing on: GET /open."),
    ],
    ids=["a setting", "an open route"],
)
def test_a_failed_check_ends_the_server_with_the_sentence_said_once(
    tmp_path: Path, lifespan: str, environment: dict[str, str], sentence: str
) -> None:
    given = command(tmp_path, True, "--lifespan", lifespan, "--port", str(free_port()))
    given["env"] |= environment
    process = subprocess.Popen(**given)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 3
    assert err.count(sentence) == 1
    assert "Traceback" not in err
    assert "Application startup failed. Exiting." in err
    assert "Uvicorn running" not in err
    assert out.split() == ["opened", "closed"]


def test_without_a_lifespan_the_server_runs_and_lets_nobody_in(tmp_path: Path) -> None:
    port = free_port()
    given = command(tmp_path, False, "--lifespan", "off", "--port", str(port))
    process = subprocess.Popen(**given)
    try:
        answers = [asked(port).status_code for _ in range(2)]
    finally:
        process.terminate()
        _, err = process.communicate(timeout=30)
    assert answers == [500, 500]
    assert "Set KEYCLOAK_URL and KEYCLOAK_REALM" in err
    assert "Traceback" not in err


def asked(port: int) -> httpx.Response:
    until = time.monotonic() + 30
    while True:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/open", trust_env=False)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextlib.contextmanager
def served(app: Any, **options: Any) -> Iterator[str]:
    """Serve an app from a thread of this process; give its address without the scheme."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def app(make_app: App) -> FastAPI:
    app = make_app(public_paths=["/healthz"])
    asked = [Depends(require_caller("chat-app-service"))]
    app.get("/healthz")(lambda: "ok")

    @app.post("/x", dependencies=asked)
    async def route(request: Request) -> StreamingResponse:
        body = await request.body()

        async def out() -> Any:
            for number in range(3):
                yield f"{number}{body.decode()}"

        return StreamingResponse(out())

    app.api_route("/page", methods=["GET", "HEAD"], dependencies=asked)(lambda: "page")

    @app.websocket("/ws", dependencies=asked)
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text(await websocket.receive_text())

    return app


class TestOverHttp:
    @pytest.mark.parametrize("lifespan", ["on", "off"])
    def test_answers_are_whole(self, app: FastAPI, service: Headers, lifespan: Any) -> None:
        with (
            served(app, lifespan=lifespan) as address,
            httpx.Client(base_url=f"http://{address}", trust_env=False) as there,
        ):
            assert there.get("/healthz").text == '"ok"'
            for _ in range(2):  # on one connection: what is refused leaves no bytes behind
                refused = there.post("/x", content=b"a" * 100_000)
                assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (
                    401,
                    'Bearer realm="crm-api-gateway"',
                )
                assert there.post("/x", content=b"a", headers=service()).text == "0a1a2a"
            assert there.head("/page").status_code == 401
            assert there.head("/page", headers=service()).headers["content-length"] == "6"
            assert there.post("/x", headers=service(azp="eve", client_id="eve")).status_code == 403

    def test_probes_work_behind_a_root_path_and_nothing_else_opens(self, app: FastAPI) -> None:
        with served(app, root_path="/api") as address:
            statuses = [
                httpx.get(f"http://{address}{path}", trust_env=False).status_code
                for path in ("/healthz", "/page", "/api/page", "/healthz/")
            ]
            raw = [
                status_of(address, line)
                for line in ("/%2e%2e/healthz", "//healthz", "/page?/healthz", "/page#/healthz")
            ]
        assert statuses == [200, 401, 401, 401]
        assert 200 not in raw

    @pytest.mark.parametrize("root_path", ["", "/api"])
    def test_the_document_about_a_resource_is_where_callers_look_for_it(self, make_app: App, root_path: str) -> None:
        url = "https://tools.example.com/api/mcp"
        path = "/.well-known/oauth-protected-resource/api/mcp"
        with (
            served(make_app(public_url=url, resource=True), root_path=root_path) as address,
            httpx.Client(base_url=f"http://{address}", trust_env=False) as there,
        ):
            answers = [there.request(method, path) for method in ("GET", "HEAD", "OPTIONS", "POST")]
            elsewhere = [there.get(f"{prefix}{path}{rest}") for prefix, rest in (("/api", ""), ("", "/"), ("/x", ""))]
            challenge = there.get("/mcp").headers["WWW-Authenticate"]
        assert [answer.status_code for answer in answers] == [200, 200, 204, 405]
        assert answers[0].json()["resource"] == url
        assert answers[1].headers["Content-Length"] == str(len(answers[0].content))
        assert [answer.status_code for answer in elsewhere] == [401] * 3
        assert f'resource_metadata="https://tools.example.com{path}"' in challenge

    def test_a_host_header_does_not_move_the_path(self, app: FastAPI) -> None:
        with served(app) as address:
            for host in ("x/healthz", "healthz", "x?/healthz"):
                assert status_of(address, "/page", host) in {400, 401}


def status_of(address: str, target: str, host: str = "x") -> int:
    """Return the status for a request line that no client would write."""
    server, _, port = address.partition(":")
    with socket.create_connection((server, int(port)), timeout=10) as wire:
        wire.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return int(wire.makefile("rb").readline().split()[1])


@pytest.mark.parametrize("ws", ["websockets", "websockets-sansio", "wsproto"])
class TestWebSockets:
    def test_are_denied_with_the_same_answer_as_http(self, app: FastAPI, service: Headers, ws: Any) -> None:
        cases: list[tuple[dict[str, str], int, str, str]] = [
            ({}, 401, 'Bearer realm="crm-api-gateway"', "This service needs a bearer access token."),
            (
                service(azp="eve", client_id="eve"),
                403,
                'Bearer realm="crm-api-gateway", error="insufficient_scope"',
                "This caller may not call this.",
            ),
        ]
        with served(app, ws=ws) as address:
            for headers, status, challenge, detail in cases:
                with (
                    pytest.raises(InvalidStatus) as raised,
                    connect(f"ws://{address}/ws", additional_headers=headers, proxy=None),
                ):
                    pass
                response = raised.value.response
                assert (response.status_code, response.headers["WWW-Authenticate"]) == (status, challenge)
                assert detail in (response.body or b"").decode()

    def test_are_closed_when_the_token_expires(self, make_app: App, service: Headers, ws: Any) -> None:
        clock = [time.time()]
        app = make_app(clock=lambda: clock[0])

        @app.websocket("/ws")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                await websocket.send_text(await websocket.receive_text())

        now = int(clock[0])
        with served(app, ws=ws) as address:
            clock[0] = now + 329.7
            headers = service(iat=now, exp=now + 300)
            with connect(f"ws://{address}/ws", additional_headers=headers, proxy=None) as connected:
                connected.send("x")
                assert connected.recv(5) == "x"
                with pytest.raises(ConnectionClosedError) as raised:
                    connected.recv(5)
        assert raised.value.rcvd is not None
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (1008, "The access token expired.")


def test_a_keycloak_that_is_down_lets_the_server_start_and_nobody_in(
    make_app: App, realm: Realm, service: Headers
) -> None:
    def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    realm.answer = down
    app = make_app(public_paths=["/healthz"])
    app.get("/healthz")(lambda: "ok")
    app.get("/x")(lambda: "x")
    with served(app, lifespan="on") as address:
        assert httpx.get(f"http://{address}/healthz", trust_env=False).status_code == 200
        refused = httpx.get(f"http://{address}/x", headers=service(), trust_env=False)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] in {"5", "6"}  # 5 s, up to a tenth more, rounded up

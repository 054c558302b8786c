"""What is wrong with a tool server is said when it starts, and nobody gets in meanwhile."""

import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from fastmcp import FastMCP
from fastmcp.server.auth import StaticTokenVerifier
from starlette.applications import Starlette
from starlette.testclient import TestClient

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_caller, require_service, require_user
from s2s_fastapi.mcp import servers, tool_server
from tests.mcp.conftest import Start
from tests.mcp.tools import LOOPBACK, Caller, Tools


@pytest.fixture
def ran(tools: Tools) -> list[str]:
    ran: list[str] = []

    def write(text: str) -> str:
        ran.append(text)
        return "written"

    tools.tool(write)
    return ran


def prompt() -> str:
    return "a prompt"


def data() -> str:
    return "data"


def test_without_a_middleware_nobody_gets_in(tools: Tools, ran: list[str], token_of: Any) -> None:
    with TestClient(tool_server(tools.server), LOOPBACK, raise_server_exceptions=False) as client:
        caller = Caller(client, token_of("agent"))

        refused = [caller.send("initialize"), caller.send("tools/call", name="write", arguments={"text": "x"})]

    assert [(each.status_code, each.text) for each in refused] == [(500, "Internal Server Error")] * 2
    assert ran == []


def test_the_exception_says_which_middleware_is_missing(tools: Tools, token_of: Any) -> None:
    with (
        TestClient(tool_server(tools.server), LOOPBACK) as client,
        pytest.raises(ConfigurationError, match=r"app\.add_middleware\(ServiceAuthMiddleware\)"),
    ):
        Caller(client, token_of("agent")).send("initialize")


def test_on_a_public_path_nobody_gets_in_either(start: Start, tools: Tools, token_of: Any) -> None:
    with pytest.raises(ConfigurationError, match="public_paths"):
        start(public_paths=["POST /mcp"])


@pytest.mark.parametrize("where", ["added", "around"])
def test_with_users_everything_must_say_who_may_use_it(
    tools: Tools, ran: list[str], options: Callable[..., dict[str, Any]], token_of: Any, where: str
) -> None:
    tools.prompt(prompt, require_caller("agent"))
    tools.resource("data://open", data)
    app: Any = tool_server(tools.server)
    missing = r"must say who may use it: .* Missing on: tool write, resource data://open\."
    if where == "added":
        app.add_middleware(ServiceAuthMiddleware, **options(users=True))
        with pytest.raises(ConfigurationError, match=missing), TestClient(app):
            pass
        return
    around = ServiceAuthMiddleware(app, **options(users=True))
    with TestClient(around, LOOPBACK) as client:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=missing):
                Caller(client, token_of("agent")).send("initialize")


def test_with_users_it_starts_if_everything_says_who(start: Start, tools: Tools, user_token: Any) -> None:
    tools.prompt(prompt, require_user())
    tools.resource("data://one", data, require_service() | require_user())

    ann = start(users=True)(user_token("ann")).open()

    assert ann.ask("resources/read", uri="data://one")["result"]["contents"][0]["text"] == "data"


def test_the_start_says_what_every_service_may_use(
    start: Start, tools: Tools, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    tools.prompt(prompt, require_caller("agent"))
    with caplog.at_level("INFO", "s2s_fastapi"):
        start()

    said = [record.getMessage() for record in caplog.records if "may use" in record.getMessage()]
    assert said == ["any service that the middleware accepts may use, since no requirement stands on it: tool write"]


def test_it_can_be_mounted_beside_other_routes(
    tools: Tools, ran: list[str], options: Callable[..., dict[str, Any]], token_of: Any
) -> None:
    served = tool_server(tools.server)
    app = FastAPI(lifespan=served.router.lifespan_context, openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, **options(public_paths=["/health"]))

    @app.get("/health")
    def health() -> str:
        return "ok"

    app.mount("/", served)
    with TestClient(app, LOOPBACK) as client:
        assert client.get("/health").status_code == 200
        assert Caller(client, token_of("agent")).open().call("write", text="x") == "written"


def test_another_route_of_the_server_is_a_route_like_any_other(
    tools: Tools, options: Callable[..., dict[str, Any]]
) -> None:
    async def admin(request: Any) -> Any:
        raise NotImplementedError

    tools.server.custom_route("/admin", methods=["GET"])(admin)
    app = tool_server(tools.server)
    app.add_middleware(ServiceAuthMiddleware, **options(users=True))

    with pytest.raises(ConfigurationError, match="Missing on: GET /admin"), TestClient(app):
        pass


@pytest.mark.parametrize("read", [lambda handlers: handlers["call"], lambda handlers: handlers.get("call")])
def test_however_mcp_1_reads_its_handlers_each_message_passes_the_guard(read: Callable[[Any], Any]) -> None:
    async def call_tool(request: Any) -> str:
        return "the tool ran"

    async def guard(message: Any, answer: Any) -> str:
        return f"the guard was asked about {message.method}"

    lowlevel = SimpleNamespace(request_handlers={"call": call_tool}, request_context=SimpleNamespace(request=None))
    servers.install_guard(lowlevel, guard)

    request = SimpleNamespace(method="tools/call", params=None)
    assert anyio.run(read(lowlevel.request_handlers), request) == "the guard was asked about tools/call"


def test_two_apps_of_one_server_ask_once() -> None:
    server = FastMCP("tools")
    first, second = tool_server(server), tool_server(server, server.http_app(path="/other"))

    assert [[getattr(route, "path", "") for route in app.routes] for app in (first, second)] == [["/mcp"], ["/other"]]
    assert [type(each).__name__ for each in server.middleware].count("Innermost") == 1


@pytest.mark.parametrize(
    ("server", "app", "said"),
    [
        (object, None, "takes a server of the official SDK"),
        (lambda: FastMCP("x"), Starlette, "the app of the transport streamable HTTP"),
        (
            lambda: FastMCP("x"),
            lambda: FastMCP("y").http_app(transport="sse"),
            "the app of the transport streamable HTTP",
        ),
        (lambda: FastMCP("x", auth=StaticTokenVerifier({})), None, "verifies tokens itself"),
    ],
    ids=["no server", "no tool server's app", "the transport SSE", "a verifier of its own"],
)
def test_what_is_no_tool_server_is_refused_when_it_is_written(server: Any, app: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        tool_server(server(), app and app())


def test_neither_sdk_is_imported_before_it_is_used() -> None:
    script = "import sys, s2s_fastapi.mcp; print([name for name in ('mcp', 'fastmcp') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"

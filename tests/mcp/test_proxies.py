"""A server that passes calls on to another one does not pass on its caller's token."""

from collections.abc import Callable
from typing import Any

import fastmcp.server
import pytest
from fastmcp import FastMCP
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.mcp import current_principal, current_request, tool_server
from tests.mcp.tools import LOOPBACK, Caller, Tools, served

# FastMCP 4, or FastMCP 3 under its name of then.
create_proxy: Any = getattr(fastmcp.server, "create_proxy", None) or getattr(FastMCP, "as_proxy", None)


def test_a_proxy_asks_the_other_server_without_the_token_of_its_caller(
    options: Callable[..., dict[str, Any]], token_of: Any
) -> None:
    seen: list[str | None] = []

    async def other(request: Any) -> Response:
        seen.extend(request.headers.get(name) for name in ("authorization", "dpop"))
        return Response(status_code=500)

    with served(Starlette(routes=[Route("/mcp", other, methods=["GET", "POST"])])) as url:
        server = FastMCP("tools")
        server.mount(create_proxy(f"{url}/mcp"), "other")
        app = tool_server(server)
        app.add_middleware(ServiceAuthMiddleware, **options())
        with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
            client.headers["DPoP"] = "proof"  # without a bound token nobody looks at it
            agent = Caller(client, token_of("agent")).open()
            agent.ask("tools/list")
            agent.ask("tools/call", name="other_x", arguments={})

    assert seen
    assert set(seen) == {None}


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_tool_does_not_see_the_token(
    tools: Tools, options: Callable[..., dict[str, Any]], token_of: Any, kind: Any
) -> None:
    seen: list[Any] = []

    def look() -> str:
        seen.append(dict(current_request().headers))
        return current_principal().client_id

    tools.tool(look)
    app = tool_server(tools.server)
    app.add_middleware(ServiceAuthMiddleware, **options())

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "headers": kind(scope["headers"])} if scope["type"] == "http" else scope, receive, send)

    with TestClient(outer, LOOPBACK) as client:
        assert Caller(client, token_of("agent")).open().call("look") == "agent"

    assert "authorization" not in seen[0]
    assert seen[0]["mcp-protocol-version"] == "2025-06-18"

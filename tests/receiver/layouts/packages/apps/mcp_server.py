"""A tool server of the official SDK, whose app is wrapped by our middleware as it is."""

from typing import Any

from mcp.server.mcpserver import MCPServer

from s2s_fastapi import ServiceAuthMiddleware
from tests.receiver.layouts.layout import FOR_SERVICES, TRUST, Ask
from tests.receiver.layouts.packages.apps.fastmcp_server import INITIALIZE

server = MCPServer("tools")


@server.tool()
def add(one: int, other: int) -> int:
    return one + other


served = server.streamable_http_app(stateless_http=True, json_response=True)
app: Any = ServiceAuthMiddleware(served, **TRUST)

ANSWERS = [
    (Ask("POST /mcp", {**INITIALIZE, "headers": {**INITIALIZE["headers"], "Host": "127.0.0.1:80"}}), FOR_SERVICES)
]

"""Story 4, the tool server, on the official SDK. Its URL is its audience: a token for anything else is refused."""

import os

from mcp.server.mcpserver import MCPServer

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server

PUBLIC_URL = os.environ.get("PUBLIC_URL", "https://tools.workshop.example/mcp")

tools = MCPServer("workshop tools")


@tools.tool()
@allowed(require_caller("assistant", "indexer") | require_user("assistant-ui"))
async def whoami() -> str:
    """Say who calls."""
    caller = current_principal()
    return f"{caller.kind} {caller.username or caller.client_id}"


@tools.tool()
@allowed(require_caller("assistant"))
async def publish(text: str) -> str:
    """Publish a text. Only the assistant may, as itself."""
    return f"published: {text}"


app = tool_server(tools)
app.add_middleware(ServiceAuthMiddleware, users=True, public_url=PUBLIC_URL, resource=True)

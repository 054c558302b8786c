"""Story 4, the tool server, on FastMCP: the same tools, each with its requirement as FastMCP's own ``auth=``."""

import os

from fastmcp import FastMCP

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server

PUBLIC_URL = os.environ.get("PUBLIC_URL", "https://tools.workshop.example/mcp")

tools = FastMCP("workshop tools")


@tools.tool(auth=allowed(require_caller("assistant", "indexer") | require_user("assistant-ui")))
async def whoami() -> str:
    """Say who calls."""
    caller = current_principal()
    return f"{caller.kind} {caller.username or caller.client_id}"


@tools.tool(auth=allowed(require_caller("assistant")))
async def publish(text: str) -> str:
    """Publish a text. Only the assistant may, as itself."""
    return f"published: {text}"


app = tool_server(tools)
app.add_middleware(ServiceAuthMiddleware, users=True, public_url=PUBLIC_URL, resource=True)

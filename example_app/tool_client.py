"""Story 4: clients of a tool server that already have a token. The browser log-in is not played."""

import json
from typing import Any

import anyio
import fastmcp
import httpx
import httpx2
import mcp
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp.client.streamable_http import streamable_http_client

__all__ = ["CLIENTS", "Session"]


def _official(url: str, token: str, tool: str, **arguments: str) -> tuple[list[str], str]:
    """Return the names of the tools that the token's owner sees, and what one of them answers: by the client of the official SDK."""

    async def ask() -> tuple[list[str], str]:
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            httpx2.AsyncClient(headers=headers, trust_env=False) as http,
            mcp.Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            listed = [each.name for each in (await client.list_tools()).tools]
            try:
                result: Any = await client.call_tool(tool, dict(arguments))
            except mcp.MCPError as error:
                return listed, str(error)
            return listed, str(result.content[0].text)

    return anyio.run(ask)


def _with_fastmcp(url: str, token: str, tool: str, **arguments: str) -> tuple[list[str], str]:
    """Do as `_official`, by the client of FastMCP."""

    async def ask() -> tuple[list[str], str]:
        async with fastmcp.Client(StreamableHttpTransport(f"{url}/mcp", auth=token)) as client:
            listed = [each.name for each in await client.list_tools()]
            try:
                result: Any = await client.call_tool(tool, dict(arguments))
            except (ToolError, mcp.MCPError) as error:
                return listed, str(error)
            return listed, str(result.content[0].text)

    return anyio.run(ask)


CLIENTS = {"official": _official, "fastmcp": _with_fastmcp}


class Session:
    """A session of protocol 2025-06-18, by hand: newer clients have none, so they cannot show what happens to a stolen one."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/mcp"
        self._id = ""

    def open(self, token: str) -> None:
        """Open a session as the owner of a token."""
        client = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "by hand", "version": "1"},
        }
        self._id = self._send(token, "initialize", **client).headers["mcp-session-id"]

    def call(self, token: str, tool: str) -> httpx.Response:
        """Call a tool in this session, as the owner of a token."""
        return self._send(token, "tools/call", name=tool, arguments={})

    def _send(self, token: str, method: str, **params: object) -> httpx.Response:
        headers = {
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "MCP-Protocol-Version": "2025-06-18",
        } | ({"Mcp-Session-Id": self._id} if self._id else {})
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return httpx.post(self._url, content=body, headers=headers, timeout=30, trust_env=False)

"""Tool servers of both SDKs that offer the same, and a client that speaks protocol 2025-06-18 by hand."""

import importlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import uvicorn
from fastmcp import FastMCP
from starlette.testclient import TestClient

from s2s_fastapi import Requirement
from s2s_fastapi.mcp import allowed

# mcp 2.x, or mcp 1.x under its name of then.
OFFICIAL: Any = (
    importlib.import_module("mcp.server.mcpserver").MCPServer
    if find_spec("mcp.server.mcpserver")
    else importlib.import_module("mcp.server.fastmcp").FastMCP
)
KINDS = ("official", "fastmcp")
LOOPBACK = "http://127.0.0.1:8000"
"""The official server answers no other host, unless it is told to."""


class Tools:
    """A server to which a test adds what it needs, in the way of its SDK."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.server: Any = OFFICIAL("tools") if kind == "official" else FastMCP("tools")

    def tool(self, function: Any, requirement: Requirement | None = None) -> None:
        self._add(self.server.tool, function, requirement)

    def prompt(self, function: Any, requirement: Requirement | None = None) -> None:
        self._add(self.server.prompt, function, requirement)

    def resource(self, uri: str, function: Any, requirement: Requirement | None = None) -> None:
        self._add(self.server.resource, function, requirement, uri)

    def _add(self, method: Any, function: Any, requirement: Requirement | None, *arguments: str) -> None:
        if requirement is None:
            method(*arguments)(function)
        elif self.kind == "official":
            method(*arguments)(allowed(requirement)(function))
        else:
            method(*arguments, auth=allowed(requirement))(function)


class Caller:
    """A client of a tool server, with one token and at most one session."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client = client
        self.token = token
        self.session = ""

    @property
    def headers(self) -> dict[str, str]:
        session = {"Mcp-Session-Id": self.session} if self.session else {}
        return {
            "Accept": "application/json, text/event-stream",
            "Authorization": f"Bearer {self.token}",
            "MCP-Protocol-Version": "2025-06-18",
            **session,
        }

    def send(self, method: str, *, notify: bool = False, **params: Any) -> Any:
        message = {"jsonrpc": "2.0", "method": method, "params": params, **({} if notify else {"id": 1})}
        return self.client.post("/mcp", json=message, headers=self.headers)

    def open(self) -> "Caller":
        """Open a session, so that what follows belongs to it."""
        asks: dict[str, Any] = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        opened = self.send("initialize", **asks)
        assert opened.status_code == 200, opened.text
        self.session = opened.headers["mcp-session-id"]
        self.send("notifications/initialized", notify=True)
        return self

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Return the JSON-RPC answer to a message."""
        answer = self.send(method, **params)
        assert answer.status_code == 200, answer.text
        return spoken(answer)[-1]

    def call(self, tool: str, **arguments: Any) -> Any:
        """Return the text of a tool's answer, or that of an error."""
        answer = self.ask("tools/call", name=tool, arguments=arguments)
        if "error" in answer:
            return answer["error"]["message"]
        return answer["result"]["content"][0]["text"]

    def stream(self) -> Any:
        return self.client.get("/mcp", headers=self.headers)

    def end(self) -> Any:
        return self.client.delete("/mcp", headers=self.headers)


def spoken(answer: Any) -> list[dict[str, Any]]:
    """Return the messages in an answer."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        lines = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
        return [json.loads(line) for line in lines if line]
    return [json.loads(answer.text)]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an app with uvicorn, and give its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 10
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)
        assert server.started
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)

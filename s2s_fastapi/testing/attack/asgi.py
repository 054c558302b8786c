"""Sends requests to an ASGI app exactly as an attacker writes them: no client changes a header, a path or a byte."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import unquote_to_bytes

__all__ = ["Answer", "AsgiSender", "Outgoing"]

_PATIENCE: Final = 10.0
"""Seconds after which an app that does not answer counts as one that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One request. The path and the query are as on the wire."""

    method: str
    """``WEBSOCKET`` opens a WebSocket."""
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer. ``opened`` is true if a WebSocket was accepted."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    opened: bool = False
    problem: str = ""
    """Why there is no answer."""

    def header(self, name: str) -> str:
        """Return all values of a header, joined."""
        return ", ".join(value for found, value in self.headers if found == name)


class AsgiSender:
    """Sends to one app, in an event loop of its own. ``owner`` is the app in the scope, if ``app`` is a part of it."""

    def __init__(self, app: Any, owner: Any = None) -> None:
        self._app = app
        self._owner = {} if owner is None else {"app": owner}
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.close()

    def send(self, request: Outgoing) -> Answer:
        """Return the app's answer. An exception of the app is a 500, as behind a server."""
        return self._runner.run(self._send(request))

    async def _send(self, request: Outgoing) -> Answer:
        exchange = _Exchange(request)
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._app(exchange.scope | self._owner, exchange.receive, exchange.send)
        except TimeoutError:
            return exchange.answer(f"no answer within {_PATIENCE:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever the app raises, a server answers 500
            return exchange.answer(type(error).__name__)
        return exchange.answer("")


class _Exchange:
    def __init__(self, request: Outgoing) -> None:
        self._request = request
        self._websocket = request.method == "WEBSOCKET"
        self._received = 0
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._opened = False
        self._over = asyncio.Event()

    @property
    def scope(self) -> dict[str, Any]:
        request = self._request
        names = {name.lower() for name, _ in request.headers}
        host = () if "host" in names else (("host", "testserver"),)
        scope: dict[str, Any] = {
            "type": "websocket" if self._websocket else "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws" if self._websocket else "http",
            "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
            "raw_path": request.path.encode("latin-1", "replace"),
            "root_path": "",
            "query_string": request.query.encode("latin-1", "replace"),
            "headers": list(_encoded((*host, *request.headers))),
            "client": ("127.0.0.1", 50000),
            "server": ("testserver", 80),
            "state": {},
        }
        if self._websocket:
            return scope | {"subprotocols": [], "extensions": {"websocket.http.response": {}}}
        return scope | {"method": request.method, "extensions": {}}

    async def receive(self) -> dict[str, Any]:
        self._received += 1
        if self._websocket:
            return (
                {"type": "websocket.connect"} if self._received == 1 else {"type": "websocket.disconnect", "code": 1000}
            )
        if self._received == 1:
            return {"type": "http.request", "body": self._request.body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Mapping[str, Any]) -> None:
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._status = message["status"]
            self._headers = tuple(
                (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in message.get("headers", ())
            )
        elif kind == "http.response.body" and not message.get("more_body"):
            self._over.set()
        elif kind == "websocket.accept":
            self._opened, self._status = True, 101
        elif kind == "websocket.close" and not self._opened and not self._status:
            self._status = 403  # what servers answer

    def answer(self, problem: str) -> Answer:
        return Answer(
            status=self._status or 500,
            headers=self._headers,
            opened=self._opened,
            problem="" if self._status else problem,
        )


def _encoded(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers)

"""Sends requests to an ASGI app exactly as an attacker writes them: no client changes a header, a path or a byte."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.parse import unquote_to_bytes, urlsplit

from s2s_fastapi.errors import ConfigurationError

__all__ = ["BASE_URL", "Answer", "AsgiSender", "Outgoing"]

BASE_URL: Final = "http://testserver"

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
    """What the app raised, or why there is no answer."""

    def header(self, name: str) -> str:
        """Return all values of a header, joined."""
        return ", ".join(value for found, value in self.headers if found == name)


class AsgiSender:
    """Sends to one app, in an event loop of its own.

    ``owner`` is the app in the scope, if ``app`` is a part of it. ``lifespan``: the app starts before the first request, and ends.
    ``base_url`` is where callers think that it is: its scheme and its host are in each request.
    """

    def __init__(self, app: Any, owner: Any = None, *, lifespan: bool = False, base_url: str = BASE_URL) -> None:
        self._app = app
        self._base = _Base.of(base_url)
        self._owner = {} if owner is None else {"app": owner}
        self._runner = asyncio.Runner()
        self._lifespan = _Lifespan(app) if lifespan else None

    def __enter__(self) -> Self:
        self._runner.__enter__()
        if self._lifespan is not None:
            try:
                self._runner.run(self._lifespan.begin())
            except BaseException:
                self._runner.close()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._lifespan is not None:
                self._runner.run(self._lifespan.end())
        finally:
            self._runner.close()

    def send(self, request: Outgoing) -> Answer:
        """Return the app's answer. An exception of the app is a 500, as behind a server."""
        return self._runner.run(self._send(request))

    async def _send(self, request: Outgoing) -> Answer:
        exchange = _Exchange(request, self._base)
        state = {"state": dict(self._lifespan.state)} if self._lifespan is not None else {}
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._app(exchange.scope | self._owner | state, exchange.receive, exchange.send)
        except TimeoutError:
            return exchange.answer(f"no answer within {_PATIENCE:.0f} s")
        except Exception as error:  # noqa: BLE001 - whatever the app raises, a server answers 500
            return exchange.answer(type(error).__name__)
        return exchange.answer("")


@dataclass(frozen=True, slots=True)
class _Base:
    secure: bool
    netloc: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Self:
        try:
            parts = urlsplit(url)
            secure, port = parts.scheme == "https", parts.port
        except ValueError:
            parts, secure, port = urlsplit(""), False, None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ConfigurationError(f"Write the base URL as https://api.example.com, not as {url!r}.")
        return cls(secure, parts.netloc, parts.hostname, port or (443 if secure else 80))


class _Lifespan:
    """The start and the end of an app (ASGI lifespan 2.0). An app that knows none goes on without."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._begun, self._ending = asyncio.Event(), asyncio.Event()
        self._asked = self._failed = False
        self.state: dict[str, Any] = {}
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start the app.

        Raises:
            ConfigurationError: Its start fails.
        """
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.create_task(self._app(scope, self._receive, self._send))
        begun = asyncio.create_task(self._begun.wait())
        await asyncio.wait((self._task, begun), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        over = self._task.done()
        error = self._task.exception() if over else None
        # An app that raises before it asks for a message knows no lifespan.
        if self._failed or (self._asked and error is not None) or not (over or self._begun.is_set()):
            self._task.cancel()
            raise ConfigurationError("The app does not start: its lifespan fails, or its start does not end.")

    async def end(self) -> None:
        """End the app."""
        self._ending.set()
        if self._task is not None:
            await asyncio.wait((self._task,), timeout=_PATIENCE)
            if not self._task.done():
                self._task.cancel()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "lifespan.startup"}
        await self._ending.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Mapping[str, Any]) -> None:
        if message["type"] in ("lifespan.startup.complete", "lifespan.startup.failed"):
            self._failed = message["type"] == "lifespan.startup.failed"
            self._begun.set()


class _Exchange:
    def __init__(self, request: Outgoing, base: "_Base") -> None:
        self._request = request
        self._base = base
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
        host = () if "host" in names else (("host", self._base.netloc),)
        scope: dict[str, Any] = {
            "type": "websocket" if self._websocket else "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": f"{'ws' if self._websocket else 'http'}{'s' if self._base.secure else ''}",
            "path": unquote_to_bytes(request.path).decode("utf-8", "replace"),
            "raw_path": request.path.encode("latin-1", "replace"),
            "root_path": "",
            "query_string": request.query.encode("latin-1", "replace"),
            "headers": list(_encoded((*host, *request.headers))),
            "client": ("127.0.0.1", 50000),
            "server": (self._base.host, self._base.port),
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
            problem=problem,
        )


def _encoded(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[bytes, bytes]]:
    return ((name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers)

"""Real servers, started from a thread of the test's own, and what is said to them byte by byte."""

import asyncio
import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import hypercorn.asyncio
import hypercorn.trio
import trio
import uvicorn
from hypercorn.config import Config

UVICORN = ("uvicorn on h11", "uvicorn on httptools")
HYPERCORN = ("hypercorn on asyncio", "hypercorn on trio")
SERVERS = (*UVICORN, *HYPERCORN)
WEBSOCKETS = ("websockets", "websockets-sansio", "wsproto", *HYPERCORN)
"""By the name of uvicorn's implementation, or of the server."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    port: int

    def __str__(self) -> str:
        return f"127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def wire(self) -> Iterator[socket.socket]:
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as wire:
            yield wire

    def say(self, target: bytes, *headers: bytes, method: bytes = b"GET", body: bytes = b"") -> "Said":
        """Send a request as it is written, and read its answer."""
        lines = [b"%s %s HTTP/1.1" % (method, target), *headers, b"Connection: close"]
        if not any(header.lower().startswith(b"host:") for header in headers):
            lines.insert(1, b"Host: service.test")
        with self.wire() as wire:
            wire.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            answer = http.client.HTTPResponse(wire, method=method.decode())
            try:
                answer.begin()
                return Said(answer.status, dict(answer.getheaders()), answer.read())
            except (http.client.HTTPException, ConnectionError):
                return Said(0, {}, b"")


@dataclass(frozen=True, slots=True)
class Said:
    """An answer; status 0 where the server hung up without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def challenge(self) -> str | None:
        return next((value for name, value in self.headers.items() if name.lower() == "www-authenticate"), None)


@contextlib.contextmanager
def served(app: Any, server: str = "uvicorn on h11", **options: Any) -> Iterator[Address]:
    """Serve an app until the block is left; ``options`` are uvicorn's, of which the others know ``root_path``."""
    with _started(app, server, options) as port:
        yield Address(port)


@contextlib.contextmanager
def _started(app: Any, server: str, options: dict[str, Any]) -> Iterator[int]:
    kind, _, detail = server.partition(" on ")
    if kind == "hypercorn":
        with _hypercorn(app, detail, options) as port:
            yield port
    else:
        given = {"http": detail} if detail else {"ws": kind}
        with _uvicorn(app, {**given, **options}) as port:
            yield port


@contextlib.contextmanager
def _uvicorn(app: Any, options: dict[str, Any]) -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            _wait(lambda: server.started or not thread.is_alive())
            yield int(listening.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(20)


@contextlib.contextmanager
def _hypercorn(app: Any, backend: str, options: dict[str, Any]) -> Iterator[int]:
    config = Config()
    config.errorlog = None
    config.graceful_timeout = 0.5
    config.root_path = options.get("root_path", "")
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = int(listening.getsockname()[1])
    config.bind = [f"fd://{listening.detach()}"]
    stop = threading.Event()

    async def until_stopped() -> None:
        while not stop.is_set():  # noqa: ASYNC110 - set by another thread
            await anyio.sleep(0.02)

    def run() -> None:
        if backend == "trio":
            trio.run(lambda: hypercorn.trio.serve(app, config, shutdown_trigger=until_stopped))
        else:
            asyncio.run(hypercorn.asyncio.serve(app, config, shutdown_trigger=until_stopped))

    with _thread(run, stop.set):
        _wait(lambda: _listens(port))
        yield port


@contextlib.contextmanager
def _thread(run: Callable[[], Any], stop: Callable[[], Any]) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop()
        thread.join(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not until() and time.monotonic() < end:
        time.sleep(0.01)

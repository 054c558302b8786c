"""A real redis-server on loopback, started by a test and ended by its process id; and servers that stand in its place and misbehave."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Self

import pytest

__all__ = ["Proxy", "RedisServer", "answering", "needs_redis"]

_PROGRAM: Final = shutil.which("redis-server") or shutil.which("valkey-server")
_SECONDS: Final = 20.0

needs_redis = pytest.mark.skipif(
    _PROGRAM is None and "CI" not in os.environ, reason="needs redis-server (Debian: apt-get install redis-server)"
)


class RedisServer:
    """One server. Its data, if it keeps any, is in `folder`, and is there again after the next start."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.options = options
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and return when it listens."""
        assert _PROGRAM is not None, "redis-server is not installed"
        always = "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""
        listens: tuple[str, ...] = () if "--tls-port" in self.options else ("--port", str(self.port))
        if "--cluster-enabled" in self.options:  # otherwise it is 10,000 more than the port, which may be too high
            listens += "--cluster-port", str(free_port())
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([_PROGRAM, *listens, *always, *self.options], stdout=log, stderr=log)
        until = time.monotonic() + _SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > until:
                raise AssertionError((self.folder / "log").read_text())
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Let it hang: the system still takes connections for it."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@asynccontextmanager
async def _serving(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve each connection, and give the URL. At the end the connections are closed, and those who serve them come to their end."""
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving[task] = writer
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            del serving[task]

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.close()
        await asyncio.sleep(0)  # a connection that was just taken is served by then
        tasks = list(serving)
        for writer in serving.values():
            writer.close()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[str]:
    """Serve what answers the commands of each connection with `answers`, then with the last one for ever; give its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = list(answers)
        while await _command(reader):
            writer.write(left.pop(0) if len(left) > 1 else left[0])

    async with _serving(serve) as url:
        yield url


async def _command(reader: asyncio.StreamReader) -> list[bytes]:
    """Read one command as RESP writes it; none at the end of the connection."""
    try:
        parts = int((await reader.readuntil(b"\r\n"))[1:])
        read = []
        for _ in range(parts):
            size = int((await reader.readuntil(b"\r\n"))[1:])
            read.append((await reader.readexactly(size + 2))[:-2])
    except (asyncio.IncompleteReadError, ConnectionError):
        return []
    return read


class Proxy:
    """Passes the bytes on between a client and a server, but for the answers that `lose` is asked about."""

    def __init__(self, port: int, lose: Callable[[bytes], str]) -> None:
        self.port = port
        self.lose = lose
        """Gets the command and says what becomes of its answer: `pass`, `keep` (the connection hangs) or `cut` (it ends)."""
        self.commands: list[list[bytes]] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Give the URL of the proxy."""
        async with _serving(self._serve) as url:
            yield url

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while command := await _command(reader):
                self.commands.append(command)
                back.write(b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(x), x) for x in command))
                answer = await there.readuntil(b"\r\n")
                if answer.startswith(b"$") and answer != b"$-1\r\n":
                    answer += await there.readexactly(int(answer[1:]) + 2)
                fate = self.lose(command[0])
                if fate == "cut":
                    return
                if fate == "pass":
                    writer.write(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            back.close()

"""A forward proxy that ends what runs through it, before or after the server has seen a request."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

__all__ = ["CuttingProxy"]

_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "proxy-connection", "content-length"})


class CuttingProxy:
    """Counts the requests that write, from 1, and ends the connection at one of them."""

    def __init__(self) -> None:
        """Make one that passes everything on."""
        self.at = 0
        """The write at which it cuts; 0 for none."""
        self.acted = True
        """Whether the server sees that write."""
        self.then: Callable[[], object] = lambda: None
        """What else happens there."""
        self.writes = 0
        self.url = ""

    @contextmanager
    def cutting(self, at: int, *, acted: bool, then: Callable[[], object]) -> Iterator[None]:
        """Cut at this write, counted from now."""
        self.writes, self.at, self.acted, self.then = 0, at, acted, then
        try:
            yield
        finally:
            self.at = 0

    @contextmanager
    def listening(self) -> Iterator["CuttingProxy"]:
        """Listen on a port of its own."""
        handler = type("Handler", (_Handler,), {"proxy": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[CuttingProxy]

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        writes = self.command != "GET" and "/admin/" in self.path
        self.proxy.writes += writes
        cut = writes and self.proxy.writes == self.proxy.at
        if cut and not self.proxy.acted:
            self._cut()
            return
        where = urlsplit(self.path)
        upstream = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            upstream.request(self.command, f"{where.path}?{where.query}".rstrip("?"), body, headers)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if cut:
            self._cut()
            return
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if answer.status != http.client.NO_CONTENT:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _pass_on  # noqa: N815 - the names that the base class looks for

    def _cut(self) -> None:
        self.proxy.then()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Write nothing."""

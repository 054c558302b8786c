"""The issuer on a socket that only this machine reaches."""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Self

from s2s_fastapi.testing.answers import FAILED, TOO_LARGE
from s2s_fastapi.testing.wire import Request, Response

__all__ = ["LoopbackServer"]

_log = logging.getLogger("s2s_fastapi.testing")

LOOPBACK: Final = "127.0.0.1"
_LARGEST_BODY: Final = 1_048_576
_IDLE_SECONDS: Final = 60.0


class LoopbackServer:
    """Answers HTTP/1.1 on 127.0.0.1, one daemon thread per connection.

    There is no way to bind it to another address: its keys and secrets are for development. The port is bound at once, connections are
    accepted inside of ``with``; leaving it ends them all.
    """

    def __init__(
        self, answer: Callable[[Request], Response], *, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        """Bind the port; 0 takes a free one. With ``tls`` it speaks https, and sees client certificates if the context asks for them.

        Raises:
            OSError: The port is taken.
        """
        self._server = _Server(answer, port, tls)
        self.port: int = self._server.server_address[1]
        self.url = f"{'http' if tls is None else 'https'}://{LOOPBACK}:{self.port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="embedded issuer", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, answer: Callable[[Request], Response], port: int, tls: ssl.SSLContext | None) -> None:
        self.answer = answer
        self.tls = tls
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        super().__init__((LOOPBACK, port), _Conversation)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Converse on a connection, on its thread. With TLS, the handshake comes first."""
        if self.tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(_IDLE_SECONDS)
        secured = self.tls.wrap_socket(request, server_side=True)
        with self._lock:
            self._open.add(secured)
        try:
            super().finish_request(secured, client_address)
        finally:
            self.shutdown_request(secured)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - its signature
        """Ignore clients that went away."""
        _log.debug("a connection to the embedded issuer ended early", exc_info=True)

    def close(self) -> None:
        """Close every connection: one that is kept alive would wait for a request that never comes."""
        self.stopped.set()
        self.server_close()
        with self._lock:
            still_open = tuple(self._open)
        for connection in still_open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement
    wbufsize = -1  # head and body in one packet
    server: _Server

    def _converse(self) -> None:
        body = self._body()
        if body is None:
            self.close_connection = True
            self._send(TOO_LARGE)
            return
        request = Request(
            method=self.command,
            path=self.requestline.split()[1],  # not self.path, in which http.server joins leading slashes
            headers=tuple(self.headers.items()),
            body=body,
            client=self.client_address[0],
            scheme="http" if self.server.tls is None else "https",
            certificate=self._certificate(),
        )
        try:
            response = self.server.answer(request)
        except Exception:  # noqa: BLE001 - a test that meets a bug of ours must see 500, not wait for its timeout
            _log.exception("the embedded issuer could not answer %r", request)
            response = FAILED
        self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _converse  # noqa: N815 - http.server's names

    def _certificate(self) -> bytes:
        secured = self.connection
        return (secured.getpeercert(binary_form=True) or b"") if isinstance(secured, ssl.SSLSocket) else b""

    def _body(self) -> bytes | None:
        """Return the body, or None if it is too large or its length is not known."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        length = self.headers.get("Content-Length", "0")
        if not length.isdigit() or int(length) > _LARGEST_BODY:
            return None
        return self.rfile.read(int(length))

    def _chunks(self) -> bytes | None:
        body = b""
        while True:
            try:
                size = int(self.rfile.readline(64).partition(b";")[0], 16)
            except ValueError:
                return None
            if size < 0 or len(body) + size > _LARGEST_BODY:
                return None
            body += self.rfile.read(size)
            self.rfile.readline(64)
            if not size:
                return body

    def _send(self, response: Response) -> None:
        delivery = response.delivery
        self._wait(delivery.delay)
        if delivery.disconnect == "before":
            self.close_connection = True
            return
        self.send_response_only(response.status)
        for name, value in response.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(response.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for number, piece in enumerate(response.pieces()):
            if number:
                self._wait(delivery.drip)
            self.wfile.write(piece)
            self.wfile.flush()
        if delivery.disconnect == "within":
            self.close_connection = True

    def _wait(self, seconds: float) -> None:
        if seconds and self.server.stopped.wait(seconds):
            raise ConnectionAbortedError("the server was stopped")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
        """Write nothing: `record` has all requests."""

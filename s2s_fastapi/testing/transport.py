"""The issuer behind an httpx client, without a socket."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from s2s_fastapi.testing.wire import Request, Response

__all__ = ["IssuerTransport"]


class IssuerTransport(httpx.BaseTransport):
    """A synchronous httpx transport that answers by itself. Safe to use from threads.

    Faults look as they do over a socket: the client's read timeout ends a delay, a closed connection is a protocol error.
    """

    def __init__(self, answer: Callable[[Request], Response], certificate: bytes = b"") -> None:
        """Take what answers, and the client certificate of the connection (DER), if there is one."""
        self._answer = answer
        self._certificate = certificate

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the issuer's answer.

        Raises:
            httpx.ReadTimeout: A fault delays the answer for longer than the client waits.
            httpx.RemoteProtocolError: A fault closes the connection.
        """
        response = self._answer(
            Request(
                method=request.method,
                path=request.url.raw_path.decode("ascii"),
                headers=tuple(request.headers.items()),
                body=request.read(),
                scheme=request.url.scheme,
                certificate=self._certificate,
            )
        )
        timeouts: dict[str, Any] = request.extensions.get("timeout") or {}
        body = _Body(response, request, timeouts.get("read"))
        body.wait(response.delivery.delay)
        if response.delivery.disconnect == "before":
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        headers = [*response.headers, ("Content-Length", str(response.length))]
        return httpx.Response(response.status, headers=headers, stream=body, request=request)


class _Body(httpx.SyncByteStream):
    def __init__(self, response: Response, request: httpx.Request, patience: float | None) -> None:
        self._response = response
        self._request = request
        self._patience = patience

    def __iter__(self) -> Iterator[bytes]:
        for number, piece in enumerate(self._response.pieces()):
            if number:
                self.wait(self._response.delivery.drip)
            yield piece
        if self._response.delivery.disconnect == "within":
            raise httpx.RemoteProtocolError(
                "peer closed connection without sending complete message body", request=self._request
            )

    def wait(self, seconds: float) -> None:
        """Wait, at most for the client's own timeout."""
        if self._patience is not None and seconds > self._patience:
            time.sleep(self._patience)
            raise httpx.ReadTimeout("timed out", request=self._request)
        if seconds:
            time.sleep(seconds)

"""Sockets with a deadline: no wait on them is longer than the time that is left of one request."""

import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

__all__ = ["Deadline", "DeadlineTransport"]


class Deadline:
    """The time at which one request must end."""

    def __init__(self, seconds: float) -> None:
        """Start the time now."""
        self.restart(seconds)

    def restart(self, seconds: float) -> None:
        """Start the time of the next request on the same connections."""
        self._end = time.monotonic() + seconds

    def left(self, at_most: float | None = None) -> float:
        """Return the seconds that are left, always more than 0.

        Raises:
            httpx.ReadTimeout: No time is left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpx.ReadTimeout("")
        return left if at_most is None else min(left, at_most)


class DeadlineTransport(httpx.BaseTransport):
    """HTTP over sockets that wait no longer than the time that is left of the request.

    - The timeouts of httpx start again with each byte: 0.5 s became 11.7 s with a server that sent byte by byte.
    - It uses httpcore itself: `httpx.HTTPTransport` takes no sockets of others, and builds a TLS context even for plain http.
    - `tls` is None for plain http. `proxy_tls` is for a proxy that speaks TLS, if it differs: a proxy gets no client certificate.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None,
        deadline: Deadline,
        proxy: httpx.Proxy | None = None,
        proxy_tls: ssl.SSLContext | None = None,
    ) -> None:
        network = _Network(deadline)
        self._pool: httpcore.ConnectionPool = (
            httpcore.ConnectionPool(ssl_context=tls, network_backend=network)
            if proxy is None
            else httpcore.HTTPProxy(
                proxy_url=str(proxy.url),
                proxy_auth=proxy.raw_auth,
                ssl_context=tls,
                proxy_ssl_context=(proxy_tls or tls) if proxy.url.scheme == "https" else None,
                network_backend=network,
            )
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; return the answer as soon as its headers have arrived.

        Raises:
            httpx.TransportError: There is no answer.
        """
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        asked = httpcore.Request(
            request.method,
            url,
            headers=request.headers.raw,
            content=request.stream,
            extensions=request.extensions,
        )
        with _errors_of_httpx():
            answer = self._pool.handle_request(asked)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer), extensions=answer.extensions)

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        with _errors_of_httpx():
            yield from self._answer.iter_stream()

    def close(self) -> None:
        with _errors_of_httpx():
            self._answer.close()


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    """Raise the error of httpx that has the same name as the error of httpcore."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
        kind: type[httpx.TransportError] = getattr(httpx, type(error).__name__)
        raise kind(str(error)) from error


class _Network(httpcore.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError from error
        # One address that never answers (IPv6 without a route) must not use up the time of the others.
        addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
        while True:
            seconds = self._deadline.left(timeout) / len(addresses)
            try:
                stream = self._inner.connect_tcp(addresses.pop(0), port, seconds, local_address, socket_options)
                return _Stream(stream, self._deadline)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if not addresses:
                    raise


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(
            self._inner.start_tls(ssl_context, server_hostname, self._deadline.left(timeout)), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()

"""The issuer as an ASGI application, under asyncio and trio."""

import ssl
from collections.abc import Callable
from urllib.parse import quote

import anyio
from starlette.types import Receive, Scope, Send

from s2s_fastapi.testing.wire import Request, Response

__all__ = ["IssuerApp"]


class IssuerApp:
    """An ASGI application that may be served or mounted. A fault that closes the connection is a `ConnectionResetError`."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or follow the server's lifespan."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            await _deliver(self._answer(await _request(scope, receive)), send)
        else:
            await send({"type": "websocket.close", "code": 1000})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _request(scope: Scope, receive: Receive) -> Request:
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    raw = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    path = raw.partition(b"?")[0].decode("latin-1").removeprefix(quote(scope.get("root_path", "")))
    query = scope.get("query_string", b"").decode("latin-1")
    return Request(
        method=scope["method"],
        path=f"{path}?{query}" if query else path,
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        body=body,
        client=(scope.get("client") or ("127.0.0.1", 0))[0],
        scheme=scope.get("scheme", "http"),
        certificate=_certificate(scope),
    )


def _certificate(scope: Scope) -> bytes:
    """Return the client certificate that a server with the ASGI TLS extension has verified (DER), or nothing."""
    tls = (scope.get("extensions") or {}).get("tls") or {}
    chain = () if tls.get("client_cert_error") else tls.get("client_cert_chain") or ()
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else b""


async def _deliver(response: Response, send: Send) -> None:
    await anyio.sleep(response.delivery.delay)
    if response.delivery.disconnect == "before":
        raise ConnectionResetError("a fault closes the connection")
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    headers.append((b"content-length", b"%d" % response.length))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    for number, piece in enumerate(response.pieces()):
        if number:
            await anyio.sleep(response.delivery.drip)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if response.delivery.disconnect == "within":
        raise ConnectionResetError("a fault closes the connection")
    await send({"type": "http.response.body", "body": b"", "more_body": False})

"""One request to an app in process, as a server would hand it over: new objects each time, so nothing is compared by identity."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Call = Callable[[], Awaitable[None]]
Credentials = Callable[[], Iterable[tuple[bytes, bytes]]]
HEADERS = (
    (b"host", b"crm-gateway:8000"),
    (b"accept", b"*/*"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"python-httpx/0.28.1"),
)


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def bearer(token: Callable[[], bytes]) -> Credentials:
    """Return the header with a token."""
    return lambda: ((b"authorization", b"Bearer " + token()),)


def request(app: Any, credentials: Credentials, *, query: bytes = b"", expected: int = 200) -> Call:
    """Return what sends one GET; every app gets the same request, the unguarded ones too.

    Raises:
        RuntimeError: When called: the app did not answer as expected.
    """
    status = 0

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    async def call() -> None:
        nonlocal status
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "scheme": "http",
            "query_string": query,
            "headers": [*HEADERS, *credentials()],
            "server": ("127.0.0.1", 8000),
            "client": ("127.0.0.1", 50000),
            "state": {},
        }
        status = 0
        await app(scope, _receive, send)
        if status != expected:
            raise RuntimeError(f"the benchmark's request was answered {status}, not {expected}")

    return call

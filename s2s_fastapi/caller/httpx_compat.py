"""The auth base class that both httpx and httpx2 accept."""

import importlib.util
import threading
from collections.abc import AsyncGenerator, Generator
from typing import TYPE_CHECKING, Any

import httpx

__all__ = ["HttpxAuth", "join_httpx2"]

if TYPE_CHECKING:
    import httpx2

    class HttpxAuth(httpx.Auth, httpx2.Auth):
        """An Auth of both, as far as types go."""

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            """Differ by its types from base to base, so say Any."""

        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            """Likewise."""

        def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            """Likewise."""

else:

    class HttpxAuth(httpx.Auth):
        """Accepted by both clients. `join_httpx2` adds ``httpx2.Auth`` to its bases when the first object is made."""


_joining = threading.Lock()


def join_httpx2() -> None:
    """Add ``httpx2.Auth`` to the bases once. Two bases from the start would fail under ``alias_httpx()``, where they are one class."""
    if (
        len(HttpxAuth.__bases__) > 1
        or httpx.Auth.__module__.startswith("httpx2")
        or importlib.util.find_spec("httpx2") is None
    ):
        return
    import httpx2  # noqa: PLC0415 - takes 11 to 25 ms, and is needed only if it is installed

    with _joining:
        if httpx2.Auth not in HttpxAuth.__mro__:
            HttpxAuth.__bases__ = (*HttpxAuth.__bases__, httpx2.Auth)

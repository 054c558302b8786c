"""What httpx and httpx2 do not say in public: an auth base class that both accept, and which proxies the environment names."""

import importlib
import importlib.util
from collections.abc import AsyncGenerator, Generator
from functools import cache
from typing import TYPE_CHECKING, Any, Self

import httpx

__all__ = ["HttpxAuth", "environment_proxies"]

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
        """An Auth of httpx. If httpx2 is installed, its objects are of a subclass that is an Auth of httpx2 too."""

        def __new__(cls, *_: object, **__: object) -> Self:
            """Return an object that is not initialised yet."""
            return object.__new__(_accepted_by_both(cls))


@cache
def _accepted_by_both(kind: type) -> type:
    """Return a subclass of `kind` and of ``httpx2.Auth``, made when the first object is made: httpx2 takes 11 to 25 ms to import.

    Under ``httpx2.alias_httpx()`` the two are one class, and `kind` itself is returned.
    """
    if httpx.Auth.__module__.startswith("httpx2") or importlib.util.find_spec("httpx2") is None:
        return kind
    import httpx2  # noqa: PLC0415 - see above

    if issubclass(kind, httpx2.Auth):
        return kind
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind, httpx2.Auth), names)


def environment_proxies(package: Any) -> dict[str, str | None]:
    """Return for patterns of URLs the proxies that the environment names, as `package` itself reads it; None for no proxy."""
    found: dict[str, str | None] = importlib.import_module(f"{package.__name__}._utils").get_environment_proxies()
    return found

"""Whether a server of this process serves an app to other machines: such an app never trusts a test issuer."""

import asyncio
import sys
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from types import CoroutineType, FrameType
from typing import Any, Final

from starlette.types import Scope

from s2s_fastapi.errors import ConfigurationError

__all__ = ["from_elsewhere", "refuse_served"]

_SERVER: Final = "uvicorn.server"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_DEEPEST: Final = 100


def refuse_served(apps: Collection[int], walk: Any) -> None:
    """Refuse if one of the objects with these ids is behind a running uvicorn that other machines may reach. `walk` finds what is behind.

    Raises:
        ConfigurationError: It is.
    """
    for server in _servers():
        elsewhere = sorted(address for address in _addresses(server) if not _loopback(address))
        loaded = getattr(
            server.config, "loaded_app", None
        )  # not there while uvicorn still imports the app: it may be this one
        if elsewhere and (loaded is None or not walk(loaded).isdisjoint(apps)):
            raise ConfigurationError(
                f"uvicorn serves this app on {', '.join(elsewhere)}, so it must not trust a test issuer: stop the server, or bind it to "
                "127.0.0.1."
            )


def from_elsewhere(scope: Scope) -> str:
    """Return the address at which a request came in from another machine; empty if it came from this one, or from no socket."""
    for end in ("server", "client"):
        host = str((scope.get(end) or ("",))[0])
        try:
            if not ip_address(host).is_loopback:
                return host
        except ValueError:
            if host.startswith("/"):  # a unix socket: a proxy may stand in front of it
                return host
    return ""


def _servers() -> Iterator[Any]:
    """Yield the uvicorn servers of this process. Each has a frame, on the stack of a thread or in a task of its event loop."""
    kind = getattr(sys.modules.get(_SERVER), "Server", None)
    if kind is None:
        return
    seen: set[int] = set()
    for top in sys._current_frames().values():  # noqa: SLF001 - documented for such purposes
        for value in _values_on(top):
            # By its type: `isinstance` would run the code of lazy objects.
            if issubclass(type(value), kind) and id(value) not in seen:
                seen.add(id(value))
                yield value


def _values_on(top: FrameType | None) -> Iterator[Any]:
    frame = top
    while frame is not None:
        for value in list(frame.f_locals.values()):
            # Not by get_loop(): it makes a loop in an unused runner, and fails in a closed one.
            loop: Any = vars(value).get("_loop") if type(value) is asyncio.Runner else value
            yield value
            yield from _values_in(value)
            if issubclass(type(loop), asyncio.AbstractEventLoop) and loop.is_running():
                for task in asyncio.all_tasks(loop):
                    yield from _values_in(task.get_coro())
        frame = frame.f_back


def _values_in(value: Any) -> Iterator[Any]:
    for _ in range(_DEEPEST):
        if type(value) is not CoroutineType:
            return
        if value.cr_frame is not None:
            yield from list(value.cr_frame.f_locals.values())
        value = value.cr_await


def _addresses(server: Any) -> set[str]:
    listening = [each for each in getattr(server, "servers", ()) if each.is_serving()]
    named = {str(_host(socket.getsockname())) for each in listening for socket in each.sockets}
    return named or {str(server.config.uds or server.config.host)}


def _host(name: Any) -> Any:
    return name[0] if isinstance(name, tuple) else name or "a unix socket"


def _loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address in _LOOPBACK

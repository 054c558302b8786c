"""Each app that calls other services calls as itself inside a block: which app is calling, and with which source of tokens."""

import threading
from contextvars import ContextVar
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.caller.token_source import IN_USE, TokenSource
from s2s_fastapi.errors import ConfigurationError

__all__ = ["CallingApp", "CallingLayer", "begin", "end", "name"]


class CallingApp:
    """One app that may call, and the source of its tokens."""

    def __init__(self, name: str, key: object, source: TokenSource) -> None:
        self.name = name
        self.key = key
        """Equal for two blocks on the same app."""
        self.source = source


_CALLING: Final[ContextVar[CallingApp | None]] = ContextVar("s2s_fastapi.testing.calling", default=None)
_lock: Final = threading.Lock()
_open: Final[list[CallingApp]] = []
_InUse: Final[Any] = type(IN_USE)
_before: TokenSource = IN_USE.source


class _Following(_InUse):  # type: ignore[misc] # its type is private
    """Gives each app its own source of tokens. Production's holder of the source has this class while a block is open."""

    __slots__ = ()

    @property
    def source(self) -> TokenSource:
        """The source of the app that is calling; outside of all apps, that of the only one."""
        calling = _CALLING.get()
        if calling is not None and calling in _open:
            return calling.source
        callers = {caller.key: caller for caller in list(_open)}  # the newest block of each app
        if len(callers) == 1:
            return next(iter(callers.values())).source
        if not callers:  # the last block ended on another thread just now
            return _original()
        raise ConfigurationError(
            f"Nobody knows which app is calling here: {', '.join(sorted(caller.name for caller in callers.values()))} trust the test "
            "issuer. Call from a request to one of them, or trust one app at a time."
        )

    @source.setter
    def source(self, value: TokenSource) -> None:
        _InUse.source.__set__(self, value)


def _original() -> TokenSource:
    source: TokenSource = _InUse.source.__get__(IN_USE)
    return source


def begin(caller: CallingApp) -> None:
    """Let an app take its tokens from its own source."""
    global _before  # noqa: PLW0603 - beside the list of open blocks
    with _lock:
        if not _open:
            _before = IN_USE.source
        _open.append(caller)
        IN_USE.__class__ = _Following


def name() -> str:
    """Return the name of the app that is running here; empty outside of all apps."""
    calling = _CALLING.get()
    return calling.name if calling is not None and calling in _open else ""


def end(caller: CallingApp) -> None:
    """Let the app take its tokens from where it did before."""
    with _lock:
        _open.remove(caller)
        if not _open:
            IN_USE.__class__ = _InUse
            IN_USE.source = _before  # somebody may have put a block's source there in the meantime


class CallingLayer:
    """The outermost layer of an app inside a block: whatever runs below it calls as this app, the lifespan included."""

    def __init__(self, app: ASGIApp, caller: CallingApp) -> None:
        self.app = app
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        token = _CALLING.set(self._caller)
        try:
            await self.app(scope, receive, send)
        finally:
            _CALLING.reset(token)

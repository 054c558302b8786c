"""A request that a public or an optional path opened. It runs without a token only if the routers below match such a path, too.

A middleware between `ServiceAuthMiddleware` and a router may change the path, the method or the root path. So the path is compared
twice: when the request comes in, and inside each router just before it matches a route. If the second path is not public, the
request needs a token after all.
"""

import re
from collections.abc import Awaitable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import get_route_path, path_pattern
from s2s_fastapi.requirement.request_state import SCOPE_KEY

__all__ = ["ARRIVING", "OPENED_KEY", "WEBSOCKET", "Opened", "Opener", "Places", "method_of", "opened_request"]

WEBSOCKET: Final = "WEBSOCKET"
"""What an entry of ``optional_paths`` has in the place of a method if it is for a WebSocket."""
OPENED_KEY: Final = "s2s_fastapi.opened"

ARRIVING: Final[ContextVar["Opened | None"]] = ContextVar("s2s_fastapi.opened", default=None)
"""The request that a public or optional path opened, for as long as it runs. A middleware anywhere below may pass on a new scope without our key."""

_INSIDE: Final[ContextVar[tuple[object, ...]]] = ContextVar("s2s_fastapi.inside", default=())
"""The routers and guards that the opened request is in now. If one of them is called again from inside, that is another request, which the
app itself makes in this process."""


class Places:
    """The paths at which the routers and guards of an app are mounted."""

    def __init__(self, mounted: Iterable[tuple[object, str]] = ()) -> None:
        # The apps are kept as well: the id of an object that is gone may be given to another one.
        self._apps: list[object] = []
        self._prefixes: dict[int, list[re.Pattern[str] | None]] = {}
        for app, path in mounted:
            self._apps.append(app)
            self._prefixes.setdefault(id(app), []).append(path_pattern(path) if path else None)

    def watch(self) -> None:
        """Let every router here compare the path of opened requests again, just before it matches a route.

        Raises:
            ConfigurationError: A router's own middleware hides what it is wrapped around.
        """
        for app in self._apps:
            if isinstance(app, Router):
                _check_paths_in(app)

    def prefixes(self, app: object) -> Sequence[re.Pattern[str] | None]:
        """Return the path of each mount above ``app``; None stands for an app that is not mounted."""
        return self._prefixes.get(id(app), ())


class Opener(Protocol):
    """The middleware whose public or optional paths opened a request."""

    @property
    def places(self) -> Places:
        """Where the routers and guards stand."""

    def opens(self, method: str, path: str) -> bool:
        """Return whether such requests for ``path`` need no token."""

    def mark(self, scope: Scope) -> None:
        """Note in a scope, which may be a new one, that nobody calls, if the middleware looked and found no credentials."""

    def authenticate(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run ``app`` if the request has an accepted token; answer it otherwise."""


@dataclass(slots=True)
class Opened:
    """One request that runs without a token."""

    opener: Opener = field(repr=False)
    path: str = ""
    """The path that the outermost router matched."""

    arrived: bool = False
    """True once a router or a guard has compared it."""

    def compared(self, place: object) -> bool:
        """Return whether the router above compared the path, and ``place`` is an endpoint of it: then no path is left to compare."""
        return self.arrived and not self.opener.places.prefixes(place)

    def enter(
        self, place: object, scope: Scope, receive: Receive, send: Send, *, public: ASGIApp, private: ASGIApp
    ) -> Awaitable[None]:
        """Run ``public`` if the request is public at this router or guard; run ``private`` only with an accepted token."""
        scope[OPENED_KEY] = self
        self.arrived = True
        if self._is_public(place, scope):
            self.opener.mark(scope)
            return _inside(place, public, scope, receive, send)
        return self.opener.authenticate(private, scope, receive, send)

    def _is_public(self, place: object, scope: Scope) -> bool:
        method = method_of(scope)
        path = get_route_path(scope)
        for prefix in self.opener.places.prefixes(place):
            if prefix is None:
                whole = path
            elif self.path.endswith(path) and prefix.fullmatch(self.path.removesuffix(path)):
                whole = self.path
            else:
                continue  # mounted elsewhere, or the path was changed below the mount
            if self.opener.opens(method, whole):
                self.path = whole
                return True
        return False


def method_of(scope: Scope) -> str:
    """Return the method of a request as public and optional paths name it; for a WebSocket, what ``optional_paths`` write.

    A request over HTTP may have any method. So one with the name of a WebSocket has no method that an entry could name.
    """
    if scope["type"] == "websocket":
        return WEBSOCKET
    return "" if scope["method"] == WEBSOCKET else str(scope["method"])


def opened_request(scope: Scope, place: object) -> Opened | None:
    """Return what is known of a request that a public path opened, at a router or guard; None for every other request without a token.

    Ask it only if the scope has no `SCOPE_KEY`: a request with an accepted token may come from a public one.
    """
    opened = scope.get(OPENED_KEY)
    if isinstance(opened, Opened):
        return opened
    return None if any(each is place for each in _INSIDE.get()) else ARRIVING.get()


async def _inside(place: object, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    inside = _INSIDE.set((*_INSIDE.get(), place))
    try:
        await app(scope, receive, send)
    finally:
        _INSIDE.reset(inside)


class _PathCheck:
    """The inside of a router: it matches routes only after the path of an opened request was compared again."""

    __slots__ = ("_router", "app")

    def __init__(self, app: ASGIApp, router: Router) -> None:
        self.app = app
        self._router = router

    # Not a coroutine of its own, which would cost requests with a token more than the check does.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if SCOPE_KEY in scope or scope["type"] == "lifespan" or (opened := opened_request(scope, self._router)) is None:
            return self.app(scope, receive, send)
        return opened.enter(self._router, scope, receive, send, public=self.app, private=self.app)


def _check_paths_in(router: Router) -> None:
    """Put the check around the method that matches routes, inside of the router's own middleware, unless it is there."""
    holder: Any = router
    name = "middleware_stack"
    while (inner := getattr(holder, name, None)) is not None and not isinstance(inner, _PathCheck):
        if getattr(inner, "__self__", None) is router:
            setattr(holder, name, _PathCheck(inner, router))
            return
        holder, name = inner, "app"
    if inner is None:
        raise ConfigurationError(
            f"public_paths: {type(holder).__name__} is a middleware of a router and may change the path, but it has no attribute "
            "`app`, so the path cannot be compared behind it. Keep the inner app in self.app, or add the middleware to the app."
        )

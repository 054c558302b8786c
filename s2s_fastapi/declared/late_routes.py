"""Routes that an app adds or changes after the start check: they are noticed before they answer, and checked.

- Each list of routes and dependencies that was read becomes a `WatchedList`. If one of them changes, the middleware compares all
  lists with what was read.
- At each request the middleware looks whether the outermost router still holds the same objects.
- A `Checkpoint` stands in front of each route, mount and included router that was read. It looks the same way at what is behind it.
- If anything is another object than at the last reading, the app is read again. A route that would have stopped the start
  answers 500 at its checkpoint.

So a request pays for one comparison, and for the checkpoints that it passes. A request without a token is also compared inside each
router (`s2s_fastapi.requirement.opened`). A checkpoint could not do that: it comes after the router, which may answer by itself.
"""

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.routing import Host, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.fastapi_internals import (
    Comparison,
    WatchedList,
    called,
    compare_app,
    compare_route,
    included_below,
    not_built_yet,
    original_route,
    router_of,
    running_route,
)

__all__ = ["WATCH_KEY", "Checkpoint", "FailingRoute", "Read", "ReadRoutes", "Watch", "behind"]

WATCH_KEY: Final = "s2s_fastapi.watch"
"""What the middleware that a request came through has read of its app: `ReadRoutes`."""


class Watch(Protocol):
    """A middleware: it decides about a request at a checkpoint if something changed."""

    def enter(self, checkpoint: "Checkpoint", scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Read the app again if that is needed. Run what stands behind the checkpoint, or answer the request."""


@dataclass(frozen=True, slots=True)
class FailingRoute:
    """A late route that would have stopped the start: it answers 500."""

    name: str
    entry: Any
    """What runs the route; None if it is not known, and nothing of the app may answer."""
    problem: str


class Checkpoint:
    """What is called in the place of a route. It first looks whether the route is still as it was read.

    It knows nothing of any middleware. A route may belong to several apps, and to some without a middleware of ours.
    """

    __slots__ = ("app", "entry", "key", "own")

    def __init__(self, entry: Any, app: ASGIApp, *, own: bool) -> None:
        self.entry = entry
        self.key = id(entry)
        self.app = app
        self.own = own
        """Whether ``app`` is a method of the class of ``entry``."""

    # Not a coroutine of its own, which would cost more than the comparison does.
    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run what was called here if it is as it was read, or if no middleware of ours is in front; otherwise ask the middleware."""
        routes: ReadRoutes | None = scope.get(WATCH_KEY)
        same = None if routes is None else routes.plain.get(self.key)
        if routes is None or (
            same()  # the usual case: two calls instead of four
            if same is not None and routes.mark is WatchedList.mark
            else routes.may_pass(scope, self.entry)
        ):
            return self.app(scope, receive, send)
        return routes.watch.enter(self, scope, receive, send)

    @classmethod
    def install(cls, holder: Any, name: str) -> None:
        """Put a checkpoint in the place of an attribute that is called, unless it is there.

        Raises:
            AttributeError: The object takes no attribute of that name.
        """
        held = getattr(holder, name)
        own = name not in vars(holder)
        if isinstance(held, cls):
            if held.entry is holder:
                return
            # FastAPI copies a mount for each router that includes it, with this attribute.
            own, held = held.own, getattr(type(holder), name).__get__(holder) if held.own else held.app
        object.__setattr__(holder, name, cls(holder, held, own=own))


def behind(app: Any) -> Any:
    """Return what is behind a checkpoint; anything else unchanged."""
    return app.app if isinstance(app, Checkpoint) else app


class Read:
    """What was read of one route, mount or included router. It is compared at each request that passes there."""

    __slots__ = ("entry", "problem", "same")

    def __init__(self, entry: Any) -> None:
        self.entry = entry
        self.problem = ""
        """Why a route must not answer; empty if it may."""
        self.same: Callable[[], bool] = _always
        """Return whether it still holds the same objects."""

    def compare(self, same: Callable[[], bool]) -> None:
        """From now on ask ``same`` as well."""
        before = self.same
        self.same = same if before is _always else lambda: before() and same()


def _always() -> bool:
    return True


class ReadRoutes:
    """All that was read of an app: its outermost router, and each route, mount and included router by its identity."""

    def __init__(
        self,
        watch: Watch,
        holders: Iterable[tuple[Any, Any]] = (),
        entries: Iterable[Any] = (),
        failing: Iterable[FailingRoute] = (),
        before: "ReadRoutes | None" = None,
    ) -> None:
        """Put the checkpoints up, and keep what stands behind each.

        - ``watch`` is the middleware that is asked if something changed.
        - ``holders`` are the apps and routers, each after the mount in front of it; None stands for the outermost.
        - ``entries`` are what runs the routes.
        - ``before`` is what was read the last time.
        """
        self.watch = watch
        entries = tuple(entries)
        holders, failing = tuple(holders), tuple(failing)
        self.failing = {route.name: route.problem for route in failing}
        self.mark = WatchedList.mark  # before the lists are read
        self._lists: list[Callable[[], bool]] = []
        self._top = Read(None)
        self._read: dict[int, Read] = {}
        routers = [(entry, router) for entry, holder in holders if (router := router_of(holder)) is not None]
        included = [(inside, inner) for _, router in routers for inside, inner in included_below(router)]
        places = {id(entry): entry for entry in (*entries, *(entry for entry, _ in (*holders, *included)))}
        for entry in places.values():
            if entry is not None:
                self._put_up(entry)
        for _, router in included:
            for route in not_built_yet(router):
                with contextlib.suppress(AttributeError):
                    _install(route)
        for entry, holder in (*holders, *included):
            self._compare(entry, compare_app(holder))
        for route in failing:
            if id(route.entry) in places or route.entry is None:  # it may be gone in the meantime
                self._of(route.entry).problem = route.problem
        self.problem = self._top.problem
        """Why no route of the app may answer; empty if they may."""
        included_routes = {id(original_route(entry)) for entry in places.values() if original_route(entry) is not entry}
        self.plain = {
            key: read.same for key, read in self._read.items() if key not in included_routes and not read.problem
        }
        """How to compare each route that may answer and that no router includes. Its checkpoint need not look into the scope."""
        known: dict[int, tuple[Any, Any]] = {} if before is None else before.apps
        self.apps: dict[int, tuple[Any, Any]] = {
            id(entry): known.get(id(entry), (entry, entry.app))
            for entry in places.values()
            if not isinstance(entry, Router) and getattr(entry, "app", None) is not None
        }
        """The app that each route or mount had when it was first read, by the route's identity, after the route."""

    def replaced(self) -> Iterator[Any]:
        """Yield the routes and mounts into which somebody put another app, which is not around the first one and cannot be read."""
        for entry, app in self.apps.values():
            readable = isinstance(entry, Mount | Host)
            layer = entry.app
            while layer is not None and layer is not app and not (readable and router_of(layer)):
                layer = getattr(layer, "app", None)
            if layer is None:
                yield entry

    def changed(self) -> bool:
        """Return whether the outermost router, or a list anywhere in the app, is not as it was read."""
        return (self.mark is not WatchedList.mark and self._lists_changed()) or not self._top.same()

    def may_pass(self, scope: Scope, entry: Any) -> bool:
        """Return whether what stands behind the checkpoint of ``entry`` is as it was read, and may answer."""
        read = self.at(running_route(scope, entry))
        return read is not None and not read.problem

    def at(self, entry: Any) -> "Read | None":
        """Return what was read of a route; None if it was not read, or is not as it was."""
        read = self._read.get(id(entry))
        if read is None or (self.mark is not WatchedList.mark and self._lists_changed()):
            return None
        return read if read.same() else None

    def at_last(self, entry: Any) -> "Read":
        """Return what was just read of a route. If nothing was read, the route is not below this middleware: it is not read again."""
        return self._read.setdefault(id(entry), Read(entry))

    def _lists_changed(self) -> bool:
        """Return whether a list of this app changed. If only lists of other apps did, the next request does not compare again."""
        mark = WatchedList.mark
        if not all(same() for same in self._lists):
            return True
        self.mark = mark
        return False

    def _of(self, entry: Any) -> Read:
        return self._read.get(id(entry), self._top)

    def _compare(self, entry: Any, comparison: Comparison) -> None:
        self._of(entry).compare(comparison.same)
        self._lists.append(comparison.lists)

    def _put_up(self, entry: Any) -> None:
        try:
            _install(entry)
        except AttributeError:
            return  # what is read of it counts for the whole app
        self._read[id(entry)] = Read(entry)
        if not isinstance(entry, Router) and hasattr(entry, "app"):
            self._compare(entry, compare_route(entry))


def _install(entry: Any) -> None:
    for holder, name in called(entry):
        Checkpoint.install(holder, name)

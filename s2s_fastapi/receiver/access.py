"""What an app declares: who may call which route, and whom the app calls, read from its routes as frozen values."""

import functools
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from fastapi.routing import iter_route_contexts
from starlette.routing import Host, Mount

from s2s_fastapi.downstream import Downstream
from s2s_fastapi.receiver.guard import GUARD_MARK
from s2s_fastapi.receiver.requirements import AllOf, Requirement, require_scope

__all__ = ["OWN_AUTHENTICATION", "Access", "RouteAccess", "read_access", "router_below"]

OWN_AUTHENTICATION: Final = "__s2s_authenticates__"
"""The mark of a middleware that authenticates by itself: an app below it is judged by its own settings."""


@dataclass(frozen=True, slots=True)
class RouteAccess:
    """One route and what it requires of its caller."""

    path: str
    methods: frozenset[str] = frozenset()
    """Empty where the route takes any, or is a WebSocket."""
    requirement: Requirement | None = None
    """Everything that is required, joined with ``&``; None where the route adds nothing to what the middleware requires."""
    opaque: bool = False
    """True for an ASGI app whose routes cannot be read."""
    mistakes: tuple[str, ...] = ()
    """What is written on the route but does not protect it."""

    @property
    def name(self) -> str:
        """The route as one writes it: ``GET /tickets``."""
        return f"{'/'.join(sorted(self.methods - {'HEAD'}) or self.methods)} {self.path}".strip()


@dataclass(frozen=True, slots=True)
class Access:
    """What a whole app declares."""

    routes: tuple[RouteAccess, ...]
    downstreams: frozenset[Downstream] = frozenset()


def read_access(app: Any) -> Access:
    """Read what ``app`` declares, through included routers, mounts, hosts, WebSocket routes and guarded endpoints.

    What cannot be read is listed as opaque, never left out. A sub-app with a `ServiceAuthMiddleware` of its own is not entered.
    """
    downstreams: set[Downstream] = set()
    routes = tuple(_read_app(app, "", (), downstreams))
    lifespan = getattr(getattr(app, "router", app), "lifespan_context", None)
    downstreams.update(getattr(lifespan, "downstreams", ()))
    return Access(routes, frozenset(downstreams))


def router_below(app: Any) -> Any:
    """Return the first object along ``.app`` that has routes, or None."""
    for layer in _layers(app):
        if hasattr(layer, "routes"):
            return layer
    return None


def _layers(app: Any) -> Iterator[Any]:
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        yield app
        app = getattr(app, "app", None)


def _read_app(
    app: Any, prefix: str, inherited: tuple[Requirement, ...], downstreams: set[Downstream]
) -> Iterator[RouteAccess]:
    for layer in _layers(app):
        if getattr(layer, OWN_AUTHENTICATION, False):
            return
        inherited = (*inherited, *_marks(layer))
        if hasattr(layer, "routes"):
            if prefix and any(
                getattr(entry.cls, OWN_AUTHENTICATION, False) for entry in getattr(layer, "user_middleware", ())
            ):
                return
            router = getattr(layer, "router", layer)
            yield from _read_routes(router.routes, prefix, inherited, downstreams)
            low_priority = getattr(router, "_iter_low_priority_routes", None)  # what FastAPI's frontend() adds
            yield from _read_routes(low_priority() if low_priority else (), prefix, inherited, downstreams)
            return
    yield RouteAccess(prefix or "/", requirement=_joined(inherited), opaque=True)


def _read_routes(
    routes: Iterable[Any], prefix: str, inherited: tuple[Requirement, ...], downstreams: set[Downstream]
) -> Iterator[RouteAccess]:
    for entry in routes:
        # An included router builds its routes when it is first asked: each context is one of them with its whole prefix.
        contexts = iter_route_contexts([entry]) if hasattr(entry, "matches") and hasattr(entry, "handle") else (entry,)
        for context in contexts:
            yield from _read_route(context, prefix, inherited, downstreams)


def _read_route(
    context: Any, prefix: str, inherited: tuple[Requirement, ...], downstreams: set[Downstream]
) -> Iterator[RouteAccess]:
    original = getattr(context, "original_route", context)
    path = prefix + str(getattr(context, "path", "") or getattr(context, "frontend_prefix", "") or "")
    if isinstance(original, (Mount, Host)):
        # Mount keeps the app it was given apart from the one its own middleware wraps: the marks may be on either.
        yield from _read_app(
            context.app, path if isinstance(original, Mount) else f"{prefix}//{original.host}", inherited, downstreams
        )
        return
    methods = frozenset(getattr(context, "methods", None) or ())
    dependant = getattr(context, "dependant", None)
    endpoint = getattr(context, "endpoint", None)
    if dependant is None and endpoint is None:
        yield RouteAccess(path, methods, _joined(inherited), opaque=True)
        return
    found = _Found(list(inherited), [], downstreams)
    found.requirements.extend(_marks(endpoint))
    if dependant is not None:
        found.read(dependant)
    yield RouteAccess(path, methods, _joined(found.requirements), mistakes=tuple(found.mistakes))


@dataclass(slots=True)
class _Found:
    """What the dependencies of one route bring."""

    requirements: list[Requirement]
    mistakes: list[str]
    downstreams: set[Downstream]

    def read(self, dependant: Any) -> None:
        for parameter in _parameters(dependant.call):
            if isinstance(parameter.default, Requirement):
                self.mistakes.append(
                    f"the parameter {parameter.name} has a requirement as its default, which FastAPI takes for a query parameter: "
                    "write Depends(...) around it"
                )
        for dependency in dependant.dependencies:
            if isinstance(dependency.call, Requirement):
                self.requirements.append(dependency.call)
                if dependency.own_oauth_scopes:
                    self.requirements.append(require_scope(*dependency.own_oauth_scopes))
            downstream = getattr(dependency.call, "downstream", None) or getattr(
                getattr(dependency.call, "__self__", None), "downstream", None
            )
            if isinstance(downstream, Downstream):
                self.downstreams.add(downstream)
            self.read(dependency)


def _marks(endpoint: Any) -> Iterator[Requirement]:
    """Yield the requirements of guards around an endpoint, through ``functools.wraps``, partials and wrapped apps."""
    seen: set[int] = set()
    while endpoint is not None and id(endpoint) not in seen:
        seen.add(id(endpoint))
        mark = getattr(endpoint, "__dict__", {}).get(GUARD_MARK)
        if isinstance(mark, Requirement):
            yield mark
        wrapped = endpoint.func if isinstance(endpoint, functools.partial) else getattr(endpoint, "__wrapped__", None)
        endpoint = wrapped if wrapped is not None or not mark else getattr(endpoint, "app", None)


def _parameters(call: Any) -> Iterable[inspect.Parameter]:
    try:
        return inspect.signature(call).parameters.values()
    except (TypeError, ValueError):  # a builtin: it has no defaults of ours
        return ()


def _joined(requirements: Iterable[Requirement]) -> Requirement | None:
    parts = tuple(dict.fromkeys(requirements))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(parts)

"""What an app declares: who may call which route, and whom the app calls, read from its routes as frozen values."""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, get_args

from fastapi.dependencies.utils import get_typed_return_annotation, get_typed_signature
from fastapi.params import Depends
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute, Host, Mount, Router, WebSocketRoute

from s2s_fastapi.downstream import Downstream
from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.guard import GUARD_MARK, GUARDED_MARK
from s2s_fastapi.receiver.reach import asked_around
from s2s_fastapi.receiver.require import FACTORIES, current_principal, require_scope
from s2s_fastapi.receiver.requirements import AllOf, Requirement

__all__ = ["OWN_AUTHENTICATION", "Access", "AppAt", "RouteAccess", "layers", "read_access", "router_below"]

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
    host: str = ""
    """The host it answers to, as declared; empty for any."""
    websocket: bool = False
    missed: Requirement | None = field(default=None, compare=False, repr=False)
    """What an app or a router around it asks, and FastAPI does not ask here: see `asked_around`."""

    @property
    def name(self) -> str:
        """The route as one writes it: ``GET /tickets``, ``WEBSOCKET /chat``, ``GET //api.example.com/tickets``."""
        methods = "WEBSOCKET" if self.websocket else "/".join(sorted(self.methods - {"HEAD"}) or self.methods)
        return f"{methods} {self.host and f'//{self.host}'}{self.path}".strip()


@dataclass(frozen=True, slots=True)
class AppAt:
    """An app or a router whose routes were read, and where it stands: the path and the host before its own."""

    app: Any
    path: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """What a whole app declares."""

    routes: tuple[RouteAccess, ...]
    downstreams: frozenset[Downstream] = frozenset()
    apps: tuple[AppAt, ...] = field(default=(), compare=False, repr=False)


def read_access(app: Any) -> Access:
    """Read what ``app`` declares, through included routers, mounts, hosts, WebSocket routes and guarded endpoints.

    What cannot be read is listed as opaque, never left out. A sub-app with a `ServiceAuthMiddleware` of its own is not entered.
    """
    top = _Place(set())
    routes = tuple(_read_app(top, app, nested=False))
    below = router_below(app)
    for lifespan in _lifespans(getattr(getattr(below, "router", below), "lifespan_context", None)):
        top.downstreams.update(getattr(lifespan, "downstreams", ()))
    return Access(routes, frozenset(top.downstreams), tuple(top.apps))


def router_below(app: Any) -> Any:
    """Return the first object along ``.app`` that has routes or is one, or None."""
    return next((layer for layer in layers(app) if hasattr(layer, "routes") or isinstance(layer, BaseRoute)), None)


@dataclass(frozen=True, slots=True)
class _Place:
    """How far the reading has come, and what is required of everybody who comes there."""

    downstreams: set[Downstream]
    path: str = ""
    host: str = ""
    requirements: tuple[Requirement, ...] = ()
    apps: list[AppAt] = field(default_factory=list)
    around: Mapping[int, tuple[Requirement, ...]] = field(default_factory=dict)
    missed: tuple[Requirement, ...] = ()

    def opaque(self, methods: frozenset[str] = frozenset()) -> RouteAccess:
        return RouteAccess(
            self.path or "/",
            methods,
            _joined(self.requirements),
            opaque=True,
            host=self.host,
            missed=_joined(self.missed),
        )


def layers(*apps: Any) -> Iterator[Any]:
    """Yield each of ``apps`` and what it is wrapped around, along ``.app``."""
    seen: set[int] = set()
    for app in apps:
        layer = app
        while layer is not None and id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            # A router's own middleware holds a method of it.
            layer = getattr(layer, "app", None) or getattr(layer, "__self__", None)


def _lifespans(lifespan: Any) -> Iterator[Any]:
    """Yield a lifespan, and those FastAPI joined into it for included routers: only its closure knows them."""
    yield lifespan
    if getattr(lifespan, "__module__", None) == "fastapi.routing":
        for cell in getattr(inspect.unwrap(lifespan), "__closure__", None) or ():
            yield from _lifespans(cell.cell_contents)


def _read_app(place: _Place, *apps: Any, nested: bool = True) -> Iterator[RouteAccess]:
    for layer in layers(*apps):
        middleware = [layer, *(entry.cls for entry in getattr(layer, "user_middleware", ()))]
        if isinstance(layer, Router):
            middleware += layers(layer.middleware_stack)
        if nested and any(getattr(each, OWN_AUTHENTICATION, False) for each in middleware):
            return
        place = replace(place, requirements=(*place.requirements, *_marks(layer)))
        if isinstance(layer, BaseRoute):
            yield from _read_routes([layer], place)
            return
        if hasattr(layer, "routes"):
            place.apps.append(AppAt(layer, place.path, place.host))
            place = replace(place, around=asked_around(layer))
            router = getattr(layer, "router", layer)
            yield from _read_routes(router.routes, place)
            low_priority = getattr(router, "_iter_low_priority_routes", None)  # what FastAPI's frontend() adds
            yield from _read_routes(low_priority() if low_priority else (), place)
            default = getattr(router, "default", None)
            if default is not None and getattr(default, "__self__", None) is not router:  # not the router's own 404
                yield from _read_app(place, default)
            return
    yield place.opaque()


def _read_routes(routes: Iterable[Any], place: _Place) -> Iterator[RouteAccess]:
    for entry in routes:
        # An included router builds its routes when it is first asked: each context is one of them with its whole prefix.
        contexts = iter_route_contexts([entry]) if isinstance(entry, BaseRoute) else (entry,)
        for context in contexts:
            yield from _read_route(context, place)


def _read_route(context: Any, place: _Place) -> Iterator[RouteAccess]:
    original = getattr(context, "original_route", context)
    place = replace(
        place,
        path=place.path + str(getattr(context, "path", None) or ""),
        missed=(*place.missed, *place.around.get(id(original), ())),
    )
    if isinstance(original, (Mount, Host)):
        place = replace(place, host=original.host) if isinstance(original, Host) else place
        # Mount keeps the app it was given apart from the one its own middleware wraps, and may hide.
        yield from _read_app(place, context.app, getattr(context, "_base_app", None))
        return
    methods = frozenset(getattr(context, "methods", None) or ())
    dependant = getattr(context, "dependant", None)
    endpoint = getattr(context, "endpoint", None)
    if dependant is None and endpoint is None:
        yield place.opaque(methods)
        return
    found = _Found([*place.requirements], [], place.downstreams)
    found.read_endpoint(endpoint, dependant)
    requirement, mistakes = _joined(found.requirements), tuple(found.mistakes)
    trees = getattr(original, "routes", None)  # FastAPI's frontend(): trees of files that share their dependencies
    if trees is None:
        websocket = isinstance(original, WebSocketRoute)
        missed = _joined(place.missed)
        yield RouteAccess(
            place.path,
            methods,
            requirement,
            mistakes=mistakes,
            host=place.host,
            websocket=websocket,
            missed=missed,
        )
        return
    for tree in trees:
        path = f"{place.path}{getattr(context, 'frontend_prefix', '')}{tree.path}".rstrip("/") + "/{path:path}"
        yield RouteAccess(path, frozenset(tree.methods), requirement, mistakes=mistakes, host=place.host)


@dataclass(slots=True)
class _Found:
    """What the dependencies of one route bring."""

    requirements: list[Requirement]
    mistakes: list[str]
    downstreams: set[Downstream]

    def read_endpoint(self, endpoint: Any, dependant: Any) -> None:
        marks = tuple(_marks(endpoint))
        self.requirements.extend(marks)
        if dependant is None:
            return
        if marks and not (
            dependant.request_param_name or dependant.websocket_param_name or dependant.http_connection_param_name
        ):
            self.mistakes.append(
                "guard is for Starlette endpoints and finds no request here: on a FastAPI route use Depends(requirement)"
            )
        if not marks and GUARDED_MARK in getattr(endpoint, "__dict__", {}):
            self.mistakes.append(
                "guard stands above the decorator of the route, which took the function without it: use Depends(requirement)"
            )
        self.read(dependant)

    def read(self, dependant: Any) -> None:
        for parameter in _parameters(dependant.call):
            if isinstance(parameter.default, Requirement):
                self.mistakes.append(
                    f"the parameter {parameter.name} has a requirement as its default, which FastAPI takes for a query parameter: "
                    "write Depends(...) around it"
                )
            if _unseen(parameter.annotation):
                self.mistakes.append(
                    f"the parameter {parameter.name} has a requirement in Annotated[...] that FastAPI does not look at: "
                    "write Depends(...) around it"
                )
        for dependency in dependant.dependencies:
            call = dependency.call
            if isinstance(call, Requirement):
                self.requirements.append(call)
            if isinstance(call, Requirement) or call is current_principal:
                scopes = [*(dependency.parent_oauth_scopes or ()), *(dependency.own_oauth_scopes or ())]
                self.requirements.extend([require_scope(*scopes)] if scopes else [])
            made = call if inspect.isclass(call) else _returned(call)
            if (inspect.isclass(made) and issubclass(made, Requirement)) or _makes_requirement(call):
                self.mistakes.append(
                    f"Depends({_name(call)}) makes a requirement and does not ask it: write Depends({_name(call)}(...))"
                )
            if inspect.isclass(call) and issubclass(call, Principal):
                self.mistakes.append(
                    f"Depends() on {call.__name__} itself makes one of the request's own data: write "
                    "Depends(require_...(...)), or CurrentPrincipal"
                )
            downstream = getattr(call, "downstream", None) or getattr(
                getattr(call, "__self__", None), "downstream", None
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
        endpoint = wrapped if wrapped is not None or mark is None else getattr(endpoint, "app", None)


def _parameters(call: Any) -> Iterable[inspect.Parameter]:
    try:
        return get_typed_signature(call).parameters.values()
    except (TypeError, ValueError):  # a builtin: it has no defaults of ours
        return ()


def _unseen(annotation: Any, *, inside: bool = False) -> bool:
    """Tell whether an annotation holds a requirement where FastAPI does not look: bare, or inside of a union."""
    annotation = getattr(annotation, "__value__", annotation)  # type Admin = Annotated[...]
    for note in getattr(annotation, "__metadata__", ()):
        asked = note.dependency if isinstance(note, Depends) else None
        if isinstance(note, Requirement) or (inside and isinstance(asked, Requirement)):
            return True
    return any(_unseen(part, inside=True) for part in get_args(annotation) if not isinstance(part, Requirement))


def _makes_requirement(call: Any) -> bool:
    """Tell whether a dependency names a requirement or its factory and does not ask it: then nobody does."""
    function = inspect.unwrap(call.func if isinstance(call, functools.partial) else call)
    names = frozenset(getattr(getattr(function, "__code__", None), "co_names", ()))
    if not names.isdisjoint({"admit", "check", "judge"}):
        return False
    known = getattr(function, "__globals__", {})
    return any(isinstance(known.get(name), Requirement) or known.get(name) in FACTORIES for name in names)


def _returned(call: Any) -> Any:
    try:
        return get_typed_return_annotation(call)
    except (TypeError, ValueError):
        return None


def _name(call: Any) -> str:
    return str(getattr(call, "__name__", type(call).__name__))


def _joined(requirements: Iterable[Requirement]) -> Requirement | None:
    parts = tuple(dict.fromkeys(requirements))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(parts)

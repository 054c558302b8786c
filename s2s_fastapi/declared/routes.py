"""What an app declares: who may call which route, and whom the app calls, read from its routes as frozen values."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Host, Mount, Router, WebSocketRoute

from s2s_fastapi.declared.compare import Compared, guards_around
from s2s_fastapi.declared.late_routes import behind
from s2s_fastapi.declared.sentences import Mistake, Why, Written
from s2s_fastapi.declared.written import Reader
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.fastapi_internals import (
    added_middleware,
    answers_itself,
    documentation_page,
    included_router,
    is_documentation,
    joined_lifespans,
    later_routes,
    mounted_app,
    original_route,
    owner_of,
    route_contexts,
    router_of,
    running,
)
from s2s_fastapi.requirement.guard import Guarded
from s2s_fastapi.requirement.requirement import AllOf, Requirement

__all__ = ["OWN_AUTHENTICATION", "Access", "AppAt", "RouteAccess", "layers", "read_access", "router_below"]

T = TypeVar("T")

OWN_AUTHENTICATION: Final = "__s2s_authenticates__"
"""Marks a middleware that authenticates by itself. An app below it is checked with that middleware's settings."""


@dataclass(frozen=True, slots=True)
class RouteAccess:
    """One route and what it requires of its caller."""

    path: str
    methods: frozenset[str] = frozenset()
    """Empty if the route takes any method, or is a WebSocket."""
    requirement: Requirement | None = None
    """Everything that is required, joined with ``&``; None if the route adds nothing to what the middleware requires."""
    opaque: bool = False
    """True for an ASGI app whose routes cannot be read."""
    mistakes: tuple[Mistake, ...] = field(default=(), compare=False)
    """Requirements that are written on the route but do not protect it."""
    shared: frozenset[tuple[int, str]] = field(default=frozenset(), compare=False, repr=False)
    """The attributes of classes with a requirement that FastAPI asks on this route."""
    host: str = ""
    """The host it answers to, as declared; empty for any."""
    websocket: bool = False
    guarded_above: bool = False
    """True if only a guard around an app above it requires something, and the route itself nothing. Then it may have public paths."""
    current_principal: bool = False
    """Whether one of its dependencies is `CurrentPrincipal`."""
    optional_principal: bool = False
    """Whether one of them is `OptionalPrincipal`."""
    acts_for_user: bool = False
    """Whether one of them calls on behalf of the user who sent the request, so that nobody else can call the route."""
    documentation: str = ""
    """The usual path of the page, if FastAPI added the route for its documentation."""
    entry: Any = field(default=None, compare=False, repr=False)
    """What runs the route, or the mount above it if the route cannot be read: see `late_routes`. None if neither is there."""
    missed: Requirement | None = field(default=None, compare=False, repr=False)
    """Requirements on an enclosing app or router that FastAPI does not apply to this route: see `_asked_around`."""

    @property
    def name(self) -> str:
        """The route as one writes it: ``GET /tickets``, ``WEBSOCKET /chat``, ``GET //api.example.com/tickets``."""
        methods = "WEBSOCKET" if self.websocket else "/".join(sorted(self.methods - {"HEAD"}) or self.methods)
        return f"{methods} {self.host and f'//{self.host}'}{self.path}".strip()


@dataclass(frozen=True, slots=True)
class AppAt:
    """An app or a router whose routes were read, or a guard, with the path and the host in front of its own."""

    app: Any
    path: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """What a whole app declares."""

    routes: tuple[RouteAccess, ...]
    callers: tuple[Any, ...] = field(default=(), compare=False, repr=False)
    """What calls other services: a dependency with a ``downstream``, a lifespan with ``downstreams``."""
    apps: tuple[AppAt, ...] = field(default=(), compare=False, repr=False)
    holders: tuple[tuple[Any, Any], ...] = field(default=(), compare=False, repr=False)
    """The apps and routers that were read, each after the mount in front of it: see `late_routes`."""
    unread: tuple[AppAt, ...] = field(default=(), compare=False, repr=False)
    """The apps whose routes could not be read."""

    @property
    def downstreams(self) -> frozenset[Downstream]:
        """Whom the app calls. If a base URL is a function, it is called, so this may raise what the function raises."""
        called = (
            caller.downstreams if hasattr(type(caller), "downstreams") else (caller.downstream,)
            for caller in self.callers
        )
        return frozenset(
            downstream for several in called for downstream in several if isinstance(downstream, Downstream)
        )


def read_access(app: Any) -> Access:
    """Read what ``app`` declares, through included routers, mounts, hosts, WebSocket routes and guarded endpoints.

    What cannot be read is listed as opaque, never left out. A sub-app with a `ServiceAuthMiddleware` of its own is not entered.
    """
    top = _Place([])
    routes = tuple(_read_app(top, app, nested=False))
    below = router_below(app)
    for lifespan in joined_lifespans(getattr(getattr(below, "router", below), "lifespan_context", None)):
        if hasattr(type(lifespan), "downstreams"):
            top.callers.append(lifespan)
    return Access(
        routes,
        tuple(top.callers),
        tuple(top.apps),
        holders=tuple(top.holders),
        unread=tuple(top.unread),
    )


def router_below(app: Any) -> Any:
    """Return the first object along ``.app`` that has routes or is a route, or None."""
    return next((layer for layer in layers(app) if isinstance(layer, Router | Starlette | BaseRoute)), None)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the reading is, and what is required of every request that gets there."""

    callers: list[Any]
    path: str = ""
    host: str = ""
    requirements: tuple[Requirement, ...] = ()
    apps: list[AppAt] = field(default_factory=list)
    holders: list[tuple[Any, Any]] = field(default_factory=list)
    unread: list[AppAt] = field(default_factory=list)
    around: Mapping[int, tuple[Requirement, ...]] = field(default_factory=dict)
    lost: Mapping[int, tuple[Written, ...]] = field(default_factory=dict)
    missed: tuple[Requirement, ...] = ()
    entry: Any = None
    above: tuple[Written, ...] = ()
    """Requirements written on the apps, the mounts and the middleware around."""
    reader: Reader = field(default_factory=Reader)

    def opaque(self, app: Any, methods: frozenset[str] = frozenset()) -> RouteAccess:
        read = Compared.read_app(self.reader, app, self.requirements, self.above)
        return RouteAccess(
            self.path or "/",
            methods,
            _joined(self.requirements),
            opaque=True,
            mistakes=read.mistakes,
            host=self.host,
            guarded_above=bool(self.requirements),
            entry=self.entry,
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


def _read_app(place: _Place, *apps: Any, nested: bool = True) -> Iterator[RouteAccess]:
    for layer in layers(*apps):
        if nested or isinstance(layer, Router | Starlette):
            place.holders.append((place.entry, layer))
        middleware = [layer, *(entry.cls for entry in added_middleware(layer))]
        if isinstance(layer, Router):
            middleware += layers(layer.middleware_stack)
        if nested and any(getattr(each, OWN_AUTHENTICATION, False) for each in middleware):
            return
        place = replace(place, requirements=(*place.requirements, *guards_around(layer)))
        if isinstance(layer, Guarded):
            place.apps.append(AppAt(layer, place.path, place.host))
        if isinstance(layer, BaseRoute):
            yield from _read_routes([layer], place)
            return
        if isinstance(layer, Router | Starlette):  # whatever else has routes, it need not answer by them
            place.apps.append(AppAt(layer, place.path, place.host))
            reader, owner = place.reader, owner_of(layer)
            place = replace(
                place,
                around=_asked_around(layer, reader),
                lost=_lost_around(owner, reader),
                above=(*place.above, *reader.on_middleware(owner, added_middleware(owner))),
            )
            router = getattr(layer, "router", layer)
            if answers_itself(layer) or answers_itself(router):
                yield place.opaque(None)
            yield from _read_routes(router.routes, place)
            yield from _read_routes(later_routes(router), place)
            default = behind(getattr(router, "default", None))
            place = replace(place, entry=router)
            if getattr(default, "__self__", None) is router:
                if getattr(default, "__func__", None) is not Router.not_found:  # it answers in the place of the 404
                    yield place.opaque(None)
            elif default is not None:
                yield from _read_app(place, default)
            return
    place.unread.append(AppAt(apps[0], place.path, place.host))
    yield place.opaque(apps[0])


def _read_routes(routes: Iterable[Any], place: _Place) -> Iterator[RouteAccess]:
    for entry in routes:
        for context in route_contexts(entry):
            yield from _read_route(context, place)


def _read_route(context: Any, place: _Place) -> Iterator[RouteAccess]:
    original = original_route(context)
    place = replace(
        place,
        entry=running(context),
        path=place.path + str(getattr(context, "path", None) or ""),
        missed=(*place.missed, *place.around.get(id(original), ())),
        above=(*place.above, *place.lost.get(id(original), ()), *place.reader.not_copied(original, context)),
    )
    if isinstance(original, (Mount, Host)):
        place = replace(place, above=(*place.above, *place.reader.on_route(original)))
        place = replace(place, host=original.host) if isinstance(original, Host) else place
        yield from _read_app(place, context.app, mounted_app(context))
        return
    methods = frozenset(getattr(context, "methods", None) or ())
    dependant = getattr(context, "dependant", None)
    endpoint = getattr(context, "endpoint", None)
    if dependant is None and endpoint is None:
        yield place.opaque(None, methods)
        return
    read = Compared.read(place.reader, context, place.requirements, place.above)
    place.callers.extend(read.callers)
    requirement = _joined((*place.requirements, *read.requirements))
    trees = getattr(original, "routes", None)  # FastAPI's frontend(): trees of files that share their dependencies
    paths = [(place.path, methods)]
    if trees is not None:
        prefix = f"{place.path}{getattr(context, 'frontend_prefix', '')}"
        paths = [(f"{prefix}{tree.path}".rstrip("/") + "/{path:path}", frozenset[str](tree.methods)) for tree in trees]
    for path, its in paths:
        yield RouteAccess(
            path,
            its,
            requirement,
            mistakes=read.mistakes,
            shared=read.shared,
            host=place.host,
            websocket=isinstance(original, WebSocketRoute),
            guarded_above=bool(place.requirements) and not read.requirements,
            current_principal=read.current_principal,
            optional_principal=read.optional_principal,
            acts_for_user=read.acts_for_user,
            documentation=documentation_page(original) if trees is None else "",
            entry=place.entry,
            missed=_joined(place.missed),
        )


def _joined(requirements: Iterable[Requirement]) -> Requirement | None:
    parts = tuple(dict.fromkeys(requirements))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else AllOf(parts)


def _asked_around(app: Any, reader: Reader) -> Mapping[int, tuple[Requirement, ...]]:
    """Return, for each entry below ``app`` that is not one of FastAPI's routes, what the routers around it ask.

    The entries are known by their identity; the pages of the documentation are left out.
    """

    def held(dependencies: Iterable[Any]) -> tuple[Requirement, ...]:
        return tuple(requirement for depends in dependencies for requirement in reader.held(depends))

    return _by_entry(_asked(router_of(app), (), held))


def _lost_around(app: Any, reader: Reader) -> Mapping[int, tuple[Written, ...]]:
    """Return, for each route below ``app``, the requirements written on the app and its routers that FastAPI does not ask unless the route asks them itself.

    FastAPI copies a router's ``dependencies`` when a route is added and when the router is included: what is appended to the list
    later is asked on no earlier route. It reads no other attribute of them.
    """
    return _by_entry(_lost(router_of(app), () if router_of(app) is app else reader.on_app(app), reader))


def _asked(
    router: Router | None, asked: tuple[Requirement, ...], held: Callable[[Iterable[Any]], tuple[Requirement, ...]]
) -> Iterator[tuple[Any, tuple[Requirement, ...]]]:
    if not isinstance(router, APIRouter):
        return
    asked = (*asked, *held(router.dependencies))
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, dependencies = included
            yield from _asked(inner, (*asked, *held(dependencies)), held)
        elif asked and getattr(entry, "dependant", None) is None and not is_documentation(entry):
            yield entry, asked


def _lost(
    router: Router | None, lost: tuple[Written, ...], reader: Reader
) -> Iterator[tuple[Any, tuple[Written, ...]]]:
    if not isinstance(router, APIRouter):
        return
    lost = (*lost, *reader.on_app(router))
    late = tuple(reader.late(router.dependencies))
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, copied = included
            kept = {id(each) for each in copied}
            missing = reader.late(each for each in router.dependencies if id(each) not in kept)
            yield from _lost(inner, (*lost, *missing), reader)
        elif getattr(entry, "dependant", None) is not None:
            yield entry, (*lost, *late)
        elif lost and not is_documentation(entry):
            yield entry, tuple(each for each in lost if each.where.why is not Why.LATE)


def _by_entry(found: Iterator[tuple[Any, tuple[T, ...]]]) -> Mapping[int, tuple[T, ...]]:
    by_entry: dict[int, tuple[T, ...]] = {}
    for entry, its in found:
        by_entry[id(entry)] = (*by_entry.get(id(entry), ()), *its)
    return by_entry

"""The undocumented parts of FastAPI and Starlette that this package reads. If a release of theirs changes them, change this file.

Documented parts (routes, mounts, requests) are used directly. If a release lacks an attribute, its value is nothing. The tests run on
the lowest and the newest releases that are allowed, and show whether the start check still reads every route.
"""

import asyncio
import contextlib
import copy
import functools
import inspect
import re
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from itertools import count
from operator import is_
from types import FunctionType, MappingProxyType, MemberDescriptorType, MethodType, NoneType
from typing import Any, ClassVar, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from fastapi import APIRouter, FastAPI, routing
from fastapi.dependencies.models import _is_async_gen_callable, _is_coroutine_callable, _is_gen_callable
from fastapi.dependencies.utils import (
    get_dependant,
    get_typed_annotation,
    get_typed_return_annotation,
    get_typed_signature,
)
from fastapi.routing import APIRoute, iter_route_contexts
from starlette._utils import get_route_path, is_async_callable
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router, compile_path
from starlette.types import Scope

__all__ = [
    "DOCUMENT",
    "WATCHED_MARK",
    "Comparison",
    "WatchedList",
    "added_middleware",
    "annotation_of",
    "answers_itself",
    "answers_wrong_method",
    "asked_by_fastapi",
    "attributes_of",
    "awaited",
    "called",
    "chain",
    "compare_app",
    "compare_route",
    "dependant_of",
    "documentation_page",
    "get_route_path",
    "gives",
    "handler_with",
    "hidden_app",
    "included_below",
    "included_router",
    "is_async_callable",
    "is_documentation",
    "joined_lifespans",
    "later_routes",
    "matched_route",
    "mounted_app",
    "not_a_dependency",
    "not_built_yet",
    "not_copied",
    "original_route",
    "own_root_path",
    "owner_of",
    "parameters_of",
    "path_pattern",
    "returned_by",
    "route_contexts",
    "route_of_handler",
    "router_of",
    "running",
    "running_route",
    "unwatched",
]

DOCUMENT: Final = ("openapi", "openapi_schema", "_openapi_routes_version")
"""The attributes in which a FastAPI app keeps its OpenAPI document."""

F = TypeVar("F", bound=Callable[..., Any])

_MOST_HELD: Final = 1000
_PARAMETER: Final = re.compile(r"{\w+")
_PAGES: Final = {
    "swagger_ui_html": "/docs",
    "swagger_ui_redirect": "/docs/oauth2-redirect",
    "redoc_html": "/redoc",
    "openapi": "/openapi.json",
}
"""FastAPI's functions for the pages of the documentation, and the default path of each."""


def added_middleware(app: Any) -> Iterator[Any]:
    """Yield the middleware added with ``app.add_middleware``, outermost first. Each has ``cls``, ``args`` and ``kwargs``."""
    yield from getattr(app, "user_middleware", ())


def route_contexts(entry: Any) -> Iterable[Any]:
    """Return the routes of one entry of a router, each with its whole prefix.

    An included router is one entry. It builds its routes at the first request.
    """
    return iter_route_contexts([entry]) if isinstance(entry, BaseRoute) else (entry,)


def running(context: Any) -> Any:
    """Return what runs a route: the route itself, or what FastAPI made of it for the router that includes it."""
    return getattr(context, "_effective_route", context)


def original_route(entry: Any) -> Any:
    """Return the route whose ``handle`` is called for what `running` returned."""
    return getattr(entry, "original_route", entry)


def running_route(scope: Scope, route: Any) -> Any:
    """Return what runs ``route`` for a request that has come to it: see `running`."""
    known = scope.get("fastapi")
    included = known.get("effective_route_context") if known else None
    return included if included is not None and getattr(included, "original_route", None) is route else route


def called(entry: Any) -> Iterator[tuple[Any, str]]:
    """Yield the attributes that are called when a request has come to what `running` returned, or to the default of a router."""
    original = original_route(entry)
    yield original, "default" if isinstance(original, Router) else "handle"
    # FastAPI keeps the method of what frontend() adds from before.
    if original is not entry and not isinstance(original, APIRoute) and entry.app is not None:
        yield entry, "app"


def router_of(app: Any) -> Router | None:
    """Return the router of an app, or the router itself; None for anything else."""
    router = getattr(app, "router", None) if isinstance(app, Starlette) else app
    return router if isinstance(router, Router) else None


def included_below(router: Any) -> Iterator[tuple[Any, APIRouter]]:
    """Yield each router that ``router`` includes, at any depth, after the entry of ``router`` that leads to it."""
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            yield entry, included[0]
            for _, below in included_below(included[0]):
                yield entry, below


class WatchedList(list[Any]):
    """A list of routes or dependencies. After each change of such a list, `mark` is another object.

    - All lists share one mark, so one comparison shows that none of them changed.
    - The mark changes after the list does. A reader that sees the old mark has read the old list, or notices the change next time.
    """

    mark: ClassVar[object] = object()
    _known: ClassVar["WeakValueDictionary[int, WatchedList]"] = WeakValueDictionary()

    def __init__(self, replaced: list[Any]) -> None:
        super().__init__(replaced)
        self._replaced = replaced  # kept, so that no other list gets its identity

    @classmethod
    def put(cls, owner: Any, name: str) -> bool:
        """Put a watched list in the place of an attribute that is a plain list; return whether it is one now.

        Two owners of the same list still share one afterwards.
        """
        held = getattr(owner, name, None)
        if type(held) is list:
            held = cls._known.setdefault(id(held), cls(held))
            with contextlib.suppress(AttributeError):  # a property: it is compared at each request
                setattr(owner, name, held)
        return type(held) is cls and getattr(owner, name) is held


def _noting(name: str) -> Callable[..., Any]:
    change = getattr(list, name)

    @functools.wraps(change)
    def noting(self: WatchedList, *args: Any, **kwargs: Any) -> Any:
        try:
            return change(self, *args, **kwargs)
        finally:
            WatchedList.mark = object()

    return noting


for _name in (
    *("append", "extend", "insert", "remove", "pop", "clear", "sort", "reverse"),
    *("__setitem__", "__delitem__", "__iadd__", "__imul__"),
):
    setattr(WatchedList, _name, _noting(_name))


class Comparison(NamedTuple):
    """Two functions that compare a router or a route with what was read of it."""

    same: Callable[[], bool]
    """Return whether it still holds the same objects. It is cheap, and called at each request."""
    lists: Callable[[], bool]
    """Return whether its lists still hold the same entries. It is called if a `WatchedList` changed."""


def _comparison(same: Callable[[], bool], *lists: tuple[Any, str]) -> Comparison:
    """Return the comparison. It puts a watched list in the place of each of these attributes."""
    watched = all(WatchedList.put(owner, name) for owner, name in lists)
    read = [(owner, name, list(getattr(owner, name))) for owner, name in lists]

    def unchanged() -> bool:
        for owner, name, entries in read:
            now = getattr(owner, name)
            # By identity: two routes are equal for Starlette if their paths, methods and endpoints are.
            if len(now) != len(entries) or not all(map(is_, now, entries)):
                return False
        return True

    return Comparison(same if watched else lambda: same() and unchanged(), unchanged)


def _compare_router(router: Any, app: Any = None) -> Comparison:
    """Return how to compare the routes, the default and the dependencies of a router; and that ``app`` still has it."""
    # What frontend() adds lies in lists of its own, on releases that have it.
    added = [(router, "_low_priority_routes"), (getattr(router, "_frontend_routes", None), "routes")]
    lists = [(router, "routes"), (router, "dependencies"), *added]
    lists = [(owner, name) for owner, name in lists if hasattr(owner, name)]
    for owner, name in lists:
        WatchedList.put(owner, name)
    routes, default, dependencies = router.routes, router.default, getattr(router, "dependencies", None)
    if type(routes) is not WatchedList or type(dependencies) not in (WatchedList, NoneType):
        return _comparison(lambda: router.default is default and (app is None or app.router is router), *lists)
    return _comparison(
        # One function for both: each call at each request costs as much as all comparisons in it.
        lambda: (
            router.routes is routes
            and router.default is default
            and (dependencies is None or router.dependencies is dependencies)
            and (app is None or app.router is router)
        ),
        *lists,
    )


def not_built_yet(router: Any) -> Iterator[Any]:
    """Yield the routes of an included router as they were written; FastAPI may build what runs them at any later request."""
    for route in (*router.routes, *getattr(router, "_low_priority_routes", ())):
        if included_router(route) is None:
            yield route


def compare_route(entry: Any) -> Comparison:
    """Return how to compare the app and the dependencies of what `running` returned. It must have an app."""
    app, dependant, original = getattr(entry, "app", None), getattr(entry, "dependant", None), original_route(entry)
    if dependant is None:
        return _comparison(lambda: entry.app is app)
    lists = [(dependant, "dependencies"), (original, "dependencies")]
    if not all(WatchedList.put(owner, name) for owner, name in lists):
        return _comparison(lambda: entry.app is app and entry.dependant is dependant, *lists)
    asked, dependencies = dependant.dependencies, original.dependencies
    return _comparison(
        lambda: (
            entry.app is app
            and entry.dependant is dependant
            and dependant.dependencies is asked
            and original.dependencies is dependencies
        ),
        *lists,
    )


def compare_app(app: Any) -> Comparison:
    """Return how to compare a router, or the object to which an app, or a layer around one, passes requests."""
    router = router_of(app)
    if router is not None:
        return _compare_router(router, None if router is app else app)
    name = "router" if isinstance(app, Starlette) else "app"
    inner = getattr(app, name, None)
    return _comparison(lambda: getattr(app, name, None) is inner)


def answers_wrong_method(entry: Any, route: Any, scope: Scope) -> bool:
    """Return whether Starlette or FastAPI answers 405 here, and calls nothing of the developer's."""
    methods = getattr(entry, "methods", None)
    return bool(
        methods
        and scope["type"] == "http"
        and scope["method"] not in methods
        and type(route).handle in (Route.handle, APIRoute.handle)
    )


WATCHED_MARK: Final = "__s2s_watched__"
"""Marks the classes that replace a dependency and check what it returns."""
_ANSWERING: Final = ("app", "__call__", "handle")
_OWN_ANSWERS: Final = tuple(
    vars(kind)[name] for kind in (Router, APIRouter, Starlette, FastAPI) for name in _ANSWERING if name in vars(kind)
)


def answers_itself(app: Any) -> bool:
    """Return whether an app or a router has code of its own in front of its routes, which may answer before any of them."""
    answering = (getattr(app, name, None) for name in _ANSWERING)
    return any(each is not None and getattr(each, "__func__", each) not in _OWN_ANSWERS for each in answering)


def included_router(entry: Any) -> tuple[APIRouter, tuple[Any, ...]] | None:
    """Return the router that an entry includes, and the dependencies of its ``include_router`` call; None for a route."""
    router = getattr(entry, "original_router", None)
    if not isinstance(router, APIRouter):
        return None
    return router, tuple(getattr(getattr(entry, "include_context", None), "dependencies", ()))


def later_routes(router: Any) -> Iterable[Any]:
    """Return the routes that a router tries if no other route fits: those that ``frontend()`` adds."""
    routes: Callable[[], Iterable[Any]] | None = getattr(router, "_iter_low_priority_routes", None)
    return routes() if routes else ()


def mounted_app(mount: Any) -> Any:
    """Return the app that is mounted. The mount's own middleware may wrap and hide it."""
    return getattr(mount, "_base_app", None)


def not_copied(original: Any, context: Any) -> Iterator[str]:
    """Yield what is lost when an included router makes a new route from the path and the endpoint of this one."""
    running = getattr(context, "_effective_route", original)
    if running is original:
        return
    kind = type(original)
    if not isinstance(original, APIRoute | Mount):  # these run themselves, or a copy
        for name in ("handle", "matches"):
            if getattr(kind, name) is not getattr(type(running), name, None):
                yield f"the method {name} of the route class {kind.__name__}"
    app = getattr(original, "app", None)
    foreign = type(app).__module__.partition(".")[0] not in {"builtins", "fastapi", "starlette"}
    if foreign and app is not getattr(running, "app", None):
        yield f"the {type(app).__name__} around the route"


def is_documentation(entry: Any) -> bool:
    """Return whether a route is one of the documentation pages that FastAPI adds by itself."""
    return getattr(getattr(entry, "endpoint", None), "__module__", None) == "fastapi.applications"


def documentation_page(entry: Any) -> str:
    """Return the default path of a documentation page, even if the app serves it elsewhere; nothing for other routes."""
    return _PAGES.get(getattr(entry.endpoint, "__name__", ""), "") if is_documentation(entry) else ""


def owner_of(router: Any) -> Any:
    """Return the FastAPI app whose own router this is; the router itself if it belongs to no app."""
    owner = getattr(router, "dependency_overrides_provider", None)
    return owner if getattr(owner, "router", None) is router else router


def own_root_path(app: Any) -> str:
    """Return the root path that a FastAPI app writes into the scope; nothing if it keeps the server's."""
    return str(getattr(app, "root_path", None) or "")


def path_pattern(template: str) -> re.Pattern[str]:
    """Return the pattern of a path as declared.

    A mount and a route in it may use the same name for a parameter. Starlette never compiles the two as one path, so each
    parameter gets a new name here.
    """
    numbers = count()
    return compile_path(_PARAMETER.sub(lambda _: f"{{p{next(numbers)}", template))[0]


def hidden_app(layer: Any) -> Starlette | Router | None:
    """Return the one app or router that a middleware holds, in an attribute of any name or in a closure; None if it holds several."""
    found: list[Starlette | Router] = []
    seen: set[int] = set()
    waiting = [layer]
    while waiting and len(seen) < _MOST_HELD:
        held = waiting.pop()
        if id(held) in seen or inspect.isclass(held) or not callable(held):
            continue
        seen.add(id(held))
        if isinstance(held, Starlette | Router):
            found.append(held)
            continue
        if isinstance(held, MethodType):
            waiting.append(held.__self__)
        elif isinstance(held, FunctionType):
            for cell in held.__closure__ or ():
                with contextlib.suppress(ValueError):  # not filled yet
                    waiting.append(cell.cell_contents)
        else:
            with contextlib.suppress(AttributeError):
                waiting += object.__getattribute__(held, "__dict__").values()  # runs no code of a proxy
    return found[0] if len(found) == 1 else None


def joined_lifespans(lifespan: Any) -> Iterator[Any]:
    """Yield a lifespan, and the lifespans of included routers that FastAPI joined into it. They are found in its closure."""
    yield lifespan
    if getattr(lifespan, "__module__", None) == "fastapi.routing":
        for cell in getattr(inspect.unwrap(lifespan), "__closure__", None) or ():
            yield from joined_lifespans(cell.cell_contents)


def matched_route(scope: Scope) -> Any:
    """Return the route that matched a request, with the prefixes of the routers around it; None if none has matched yet."""
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    # It stays in the scope when an app below matches a route of its own.
    return included if route is not None and getattr(included, "original_route", None) is route else route


def route_of_handler(route: APIRoute) -> Any:
    """Return what runs ``route`` with the handler that FastAPI is making now, inside of ``get_route_handler``: see `running`."""
    included = routing._effective_route_context_var.get()  # noqa: SLF001 - FastAPI says in no other way for which include it is
    return included if included is not None and included.original_route is route else route


def handler_with(running: Any, dependant: Any) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Return a handler as FastAPI makes it for what `running` returned, but from another ``dependant``. It changes neither."""
    original = original_route(running)
    # A copy of the route as it was written, because FastAPI looks for the included one by the identity of that.
    twin = copy.copy(original)
    vars(twin).update({name: value for name, value in vars(running).items() if name in vars(twin)}, dependant=dependant)
    # FastAPI's errors name the file and the line of the endpoint.
    known = routing._extract_endpoint_context(inspect.unwrap(dependant.call))  # noqa: SLF001
    routing._endpoint_context_cache[id(dependant.call)] = known  # noqa: SLF001
    return APIRoute.get_route_handler(twin)


def dependant_of(call: Callable[..., Any]) -> Any:
    """Return what FastAPI makes of a dependency: its ``call``, the ``dependencies`` below it, and its scopes."""
    return get_dependant(path="/", call=call)


def parameters_of(call: Any) -> Iterable[inspect.Parameter]:
    """Return the parameters of a dependency with their annotations evaluated; nothing for a builtin."""
    try:
        return get_typed_signature(call).parameters.values()
    except (TypeError, ValueError):
        return ()


def annotation_of(owner: Any, annotation: Any) -> Any:
    """Return an annotation of a function or a class. If it is text that can be evaluated, return its value."""
    known = getattr(owner, "__globals__", None) or vars(sys.modules.get(getattr(owner, "__module__", ""), sys))
    try:
        return get_typed_annotation(annotation, known)
    except Exception:  # noqa: BLE001 - text in an annotation is the developer's code, and may raise anything
        return annotation


def gives(call: Any) -> str:
    """Return how FastAPI gets the value of a dependency: "generator", "async generator", "coroutine" or "function"."""
    for kind, is_kind in (
        ("async generator", _is_async_gen_callable),
        ("generator", _is_gen_callable),
        ("coroutine", _is_coroutine_callable),
    ):
        if is_kind(call):
            return kind
    return "function"


def unwatched(call: Any) -> Any:
    """Return a dependency as the developer wrote it, without the check of what it returns."""
    return call.watched if getattr(type(call), WATCHED_MARK, False) else call


def returned_by(call: Any) -> Any:
    """Return the evaluated return annotation of a dependency; None if it has none."""
    try:
        return get_typed_return_annotation(call)
    except (TypeError, ValueError):
        return None


def asked_by_fastapi(depth: int = 2, *, injectors: bool = True) -> bool:
    """Return whether FastAPI's own code called the function that calls this one: the frame ``depth`` calls up.

    With ``injectors``, Dependency Injector counts as FastAPI: its ``@inject`` looks into each ``Depends`` of an endpoint as FastAPI does.
    """
    module = str(sys._getframe(depth).f_globals.get("__name__"))  # noqa: SLF001 - the one way to know
    return module.startswith(("fastapi.", "dependency_injector.") if injectors else "fastapi.")


def awaited(function: F) -> F:
    """Mark a plain function as a coroutine function, so that FastAPI awaits what it returns. What the function checks, it checks at once."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    vars(function)["_is_coroutine"] = vars(asyncio.coroutines)["_is_coroutine"]  # FastAPI looks for it on Python 3.11
    return function


def not_a_dependency(cure: str) -> Callable[[F], F]:
    """Mark a function whose arguments are written in code: ``Depends(function)`` raises a TypeError with this cure at the decorator.

    Without the mark FastAPI would call the function with arguments from the request, and inject what it returns.
    """

    class OutOfReach(inspect.Signature):
        """A signature like any other, but FastAPI cannot read its parameters."""

        __slots__ = ()

        @property
        def parameters(self) -> MappingProxyType[str, inspect.Parameter]:
            if asked_by_fastapi(
                injectors=False
            ):  # an injector reads every function of a module, also one that is only imported
                raise TypeError(cure)
            return super().parameters

    def mark(function: F) -> F:
        vars(function)["__signature__"] = OutOfReach.from_callable(function)
        return function

    return mark


def attributes_of(held: Any) -> dict[str, Any]:
    """Return the attributes of an object itself, also those in slots, or those of one class. No code of the developer's runs."""
    found: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # a proxy answers for `__dict__` as it likes
        found.update(object.__getattribute__(held, "__dict__"))
    for kind in type(held).__mro__:
        if "__slots__" in vars(kind):
            for name, slot in vars(kind).items():
                if type(slot) is MemberDescriptorType:
                    with contextlib.suppress(AttributeError):  # not filled yet
                        found.setdefault(name, slot.__get__(held))
    return found


def chain(call: Any) -> Iterator[Any]:
    """Yield a callable and what it is wrapped around, outermost first.

    It follows partials, methods, the ``__call__`` of an object, and ``__wrapped__``.
    """
    seen: dict[int, Any] = {}
    waiting = [call]
    while waiting:
        link = waiting.pop(0)
        if link is None or id(link) in seen:
            continue
        seen[id(link)] = link
        yield link
        if issubclass(type(link), functools.partial):
            waiting.append(link.func)
        elif type(link) in (MethodType, staticmethod, classmethod):
            waiting.append(link.__func__)
        elif type(link) is not FunctionType and not issubclass(type(link), type):
            owner: Any = next((vars(kind) for kind in type(link).__mro__ if "__call__" in vars(kind)), {})
            waiting.append(owner.get("__call__"))
        if not issubclass(type(link), type):
            wrapped = attributes_of(link).get("__wrapped__")
            waiting.append(wrapped if callable(wrapped) else None)

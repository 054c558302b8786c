"""The inner parts of FastAPI and Starlette that are read here: the one place to look at when a release of theirs changes them.

What is documented (routes, mounts, requests) is used where it is needed. An attribute that a release does not have reads as nothing
there; the tests on the lowest and the newest releases that are allowed say whether the start check still sees every route.
"""

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.dependencies.utils import get_dependant, get_typed_return_annotation, get_typed_signature
from fastapi.routing import iter_route_contexts
from starlette._utils import get_route_path
from starlette.routing import BaseRoute
from starlette.types import Scope

__all__ = [
    "added_middleware",
    "asked_by_fastapi",
    "dependant_of",
    "get_route_path",
    "included_router",
    "is_documentation",
    "joined_lifespans",
    "later_routes",
    "matched_route",
    "mounted_app",
    "parameters_of",
    "returned_by",
    "route_contexts",
]


def added_middleware(app: Any) -> Iterator[Any]:
    """Yield what ``app.add_middleware`` took, outermost first; each has ``cls``, ``args`` and ``kwargs``."""
    yield from getattr(app, "user_middleware", ())


def route_contexts(entry: Any) -> Iterable[Any]:
    """Return the routes that one entry of a router stands for, each with its whole prefix.

    An included router is one entry, and builds its routes when it is first asked.
    """
    return iter_route_contexts([entry]) if isinstance(entry, BaseRoute) else (entry,)


def included_router(entry: Any) -> tuple[APIRouter, tuple[Any, ...]] | None:
    """Return the router that an entry includes, with the dependencies that ``include_router`` was given for it; None for a route."""
    router = getattr(entry, "original_router", None)
    if not isinstance(router, APIRouter):
        return None
    return router, tuple(getattr(getattr(entry, "include_context", None), "dependencies", ()))


def later_routes(router: Any) -> Iterable[Any]:
    """Return what a router tries when no route fits: what ``frontend()`` adds."""
    routes: Callable[[], Iterable[Any]] | None = getattr(router, "_iter_low_priority_routes", None)
    return routes() if routes else ()


def mounted_app(mount: Any) -> Any:
    """Return the app that a mount was given, apart from the one that the mount's own middleware wraps and may hide."""
    return getattr(mount, "_base_app", None)


def is_documentation(entry: Any) -> bool:
    """Tell whether a route is one of the documentation pages that FastAPI adds by itself."""
    return getattr(getattr(entry, "endpoint", None), "__module__", None) == "fastapi.applications"


def joined_lifespans(lifespan: Any) -> Iterator[Any]:
    """Yield a lifespan, and those FastAPI joined into it for included routers: only its closure knows them."""
    yield lifespan
    if getattr(lifespan, "__module__", None) == "fastapi.routing":
        for cell in getattr(inspect.unwrap(lifespan), "__closure__", None) or ():
            yield from joined_lifespans(cell.cell_contents)


def matched_route(scope: Scope) -> Any:
    """Return the route that took a request, with the prefixes of the routers it is included by; None where none did yet."""
    route = scope.get("route")
    included = (scope.get("fastapi") or {}).get("effective_route_context")
    # It stays in the scope when an app below matches a route of its own.
    return included if route is not None and getattr(included, "original_route", None) is route else route


def dependant_of(call: Callable[..., Any]) -> Any:
    """Return what FastAPI makes of a dependency: its ``call``, the ``dependencies`` below it, and its scopes."""
    return get_dependant(path="/", call=call)


def parameters_of(call: Any) -> Iterable[inspect.Parameter]:
    """Return the parameters of a dependency with their annotations evaluated; none of a builtin."""
    try:
        return get_typed_signature(call).parameters.values()
    except (TypeError, ValueError):
        return ()


def returned_by(call: Any) -> Any:
    """Return the annotation of what a dependency returns, evaluated; None where there is none."""
    try:
        return get_typed_return_annotation(call)
    except (TypeError, ValueError):
        return None


def asked_by_fastapi(depth: int = 2) -> bool:
    """Return whether FastAPI's own code called the function that asks this: the frame ``depth`` calls up.

    Dependency Injector counts as FastAPI: its ``@inject`` looks into each ``Depends`` of an endpoint as FastAPI does.
    """
    module = str(sys._getframe(depth).f_globals.get("__name__"))  # noqa: SLF001 - the one way to know
    return module.startswith(("fastapi.", "dependency_injector."))

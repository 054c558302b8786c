"""The apps that something passes requests on to, although no route leads there that can be read: a dispatcher has two of them."""

from collections.abc import Iterable
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import Router

from s2s_fastapi.declared.routes import Access, read_access
from s2s_fastapi.testing.found import find

__all__ = ["CURE", "unread_apps"]

CURE: Final = "A layer passes requests on to an app whose place cannot be read, so nobody knows who gets in there. Mount it, or test it by itself."


def unread_apps(app: Any, read: Iterable[Access], *, opened: Iterable[Any] = ()) -> tuple[str, ...]:
    """Return a path of each app or router below ``app`` that is in none of the readings. ``opened`` are apps that are tested elsewhere."""
    covered: set[int] = set()
    for access in read:
        covered |= {id(_router(place.app)) for place in access.apps}
        # A marker stands in the place of an app that cannot be read, unless all of it is one.
        covered |= {id(router) for place in access.unread if place.app is not app for router in find(place.app).routers}
    covered |= {id(router) for each in opened for router in find(each).routers}
    return tuple(
        dict.fromkeys(_name(router) for router in find(app).routers if id(router) not in covered and _has_own(router))
    )


def _router(app: Any) -> Any:
    return app.router if isinstance(app, Starlette) else app


def _has_own(router: Router) -> bool:
    return any(not route.documentation for route in read_access(router).routes)


def _name(router: Router) -> str:
    routes = [route for route in read_access(router).routes if not route.documentation]
    return f"with {routes[0].name}"

"""What of ours is below an app: its middlewares, the apps inside of it, and the clients that its routes call with."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Router

from s2s_fastapi.caller.service_client import CALLERS
from s2s_fastapi.declared.late_routes import behind
from s2s_fastapi.declared.routes import layers, read_access
from s2s_fastapi.fastapi_internals import included_router, later_routes, mounted_app
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware
from s2s_fastapi.verifier.token_verifier import TokenVerifier

__all__ = ["Found", "find"]

_MOST: Final = 20_000


@dataclass(frozen=True, slots=True)
class Found:
    """What was found below some objects."""

    outermost: tuple[Starlette, ...]
    """The apps that are in no other app."""
    stacks: tuple[tuple[Starlette, Any], ...]
    """All apps, each with its middleware stack. If no request has come yet, the stack was built to look into it."""
    middlewares: tuple[tuple[ServiceAuthMiddleware, Any], ...]
    """Each with the app that it was found in; None outside of all apps."""
    below: frozenset[int]
    """The ids of those middlewares to which a route or a mount leads."""
    verifiers: tuple[TokenVerifier, ...]
    routes: tuple[Any, ...]
    routers: tuple[Router, ...]
    """All routers, those of the apps too, without those that are included in another one."""
    caller: bool
    """Whether one of the objects itself calls other services."""

    @property
    def calls(self) -> bool:
        """Whether something calls other services: a lifespan, or the code of a route."""
        return self.caller or any(read_access(app).callers for app in self.outermost) or any(map(_calls, self.routes))

    @property
    def unguarded(self) -> bool:
        """Whether a route asks who is calling, although no middleware was found that could say it."""
        if self.middlewares:
            return False
        return any(route.requirement is not None for app in self.outermost for route in read_access(app).routes)


def find(*targets: Any) -> Found:
    """Look through layers, closures, mounts, hosts and included routers, for instances: an app may have added a subclass or a partial."""
    stacks: list[tuple[Starlette, Any]] = []
    middlewares: list[tuple[ServiceAuthMiddleware, Any]] = []
    verifiers: list[TokenVerifier] = []
    routes: list[BaseRoute] = []
    routers: list[Router] = []
    included: set[int] = set()
    seen: set[int] = set()
    below: set[int] = set()
    waiting: list[tuple[Any, Any, bool]] = [(target, None, False) for target in targets]
    outermost: list[Starlette] = []
    while waiting and len(seen) < _MOST:
        held, owner, inner = waiting.pop(0)
        if id(held) in seen or held is None or inspect.isclass(held):
            continue
        seen.add(id(held))
        if isinstance(held, TokenVerifier):
            verifiers.append(held)
        elif isinstance(held, ServiceAuthMiddleware):
            middlewares.append((held, owner))
            below |= {id(held)} if inner else set()
            waiting.append((held.app, owner, inner))
        elif isinstance(held, Starlette):
            stack = held.middleware_stack or held.build_middleware_stack()
            stacks.append((held, stack))
            outermost += [held] if owner is None else []
            waiting += [(stack, held, inner), (held.router, held, inner)]
        elif isinstance(held, Router):
            routers.append(held)
            inside = [held.middleware_stack, *held.routes, *later_routes(held), behind(held.default)]
            waiting += [(each, owner, inner) for each in inside]
        elif isinstance(held, BaseRoute) or included_router(held) is not None:
            routes.append(held)
            included |= {id(router) for router in (included_router(held) or ())[:1]}
            waiting += [(each, owner, True) for each in _in_route(held)]
        else:
            waiting += [(each, owner, inner) for each in _in_layer(held)]
    return Found(
        tuple(outermost),
        tuple(stacks),
        tuple(middlewares),
        frozenset(below),
        tuple(verifiers),
        tuple(routes),
        tuple(router for router in routers if id(router) not in included),
        any(isinstance(target, CALLERS) for target in targets),
    )


def _in_route(entry: Any) -> Iterator[Any]:
    included = included_router(entry)
    if included is not None:
        yield included[0]
    yield mounted_app(entry)
    # What FastAPI and Starlette make of an endpoint is a function. A layer around it, or a mounted app, is an object.
    yield from (layer for layer in layers(behind(getattr(entry, "app", None))) if not isinstance(layer, FunctionType))


def _in_layer(held: Any) -> Iterator[Any]:
    """Yield what a layer may pass requests on to: whatever it holds that can be called."""
    if not callable(held):
        return
    if isinstance(held, MethodType):
        yield held.__self__
        yield from _in_layer(held.__func__)
    elif isinstance(held, FunctionType):
        for cell in held.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if callable(content):
                yield content
    else:
        try:
            attributes = object.__getattribute__(held, "__dict__")  # runs no code of a proxy
        except AttributeError:
            return
        yield from (value for value in attributes.values() if callable(value))


def _calls(entry: Any) -> bool:
    """Return whether the code of a route, or a module that it names, has one of our clients."""
    endpoint = inspect.unwrap(getattr(entry, "endpoint", None) or _calls)
    function = getattr(endpoint, "__func__", endpoint)
    names = getattr(function, "__globals__", None) or vars(inspect.getmodule(function) or _NOTHING)
    if names is globals():
        return False
    ours = "s2s_fastapi."
    modules = [
        value for value in names.values() if isinstance(value, ModuleType) and not value.__name__.startswith(ours)
    ]
    return any(isinstance(value, CALLERS) for held in (names, *map(vars, modules)) for value in list(held.values()))


_NOTHING: Final = ModuleType("nothing")

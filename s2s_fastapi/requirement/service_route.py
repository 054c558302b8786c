"""The route class `ServiceRoute`: a route that asks its requirements before it reads the body.

What makes it safe:

- Nothing is removed from what FastAPI holds. The handler that FastAPI makes still asks every requirement. If this class does not run,
  because a subclass replaces `get_route_handler`, or cannot tell, that handler runs.
- A second, shorter handler does without the dependencies that were asked here. Each request compares them with what FastAPI holds.
- Around the endpoint of the shorter handler, one more check: without every requirement asked and met, the endpoint does not run.
"""

import dataclasses
import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import (
    WatchedList,
    gives,
    handler_with,
    route_of_handler,
)
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Anonymous, Authenticated
from s2s_fastapi.requirement.requirement import Requirement, ask, within

__all__ = ["ServiceRoute", "asks_first"]

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_MARK: Final = "__s2s_asks_first__"
_CONNECTION: Final = "s2s_fastapi_connection"
"""The parameter in which the endpoint of the shorter handler gets the request, if it has none of its own."""


class ServiceRoute(APIRoute):
    """A FastAPI route that asks its requirements after matching, before anything else runs and before the body is read.

    Write ``APIRouter(route_class=ServiceRoute)``, or ``app.router.route_class = ServiceRoute`` before the routes.

    - It asks the requirements that stand in a ``Depends`` or ``Security`` of the route, its routers and its app, in FastAPI's order.
    - So 403 comes before 422, no other dependency runs for a caller that is not allowed, and no byte of its body is read.
    - FastAPI asks all others: those below another dependency, those on WebSockets, and all while ``dependency_overrides`` has any.
    - A subclass may override ``get_route_handler``. What it does before it calls the handler of ``super()`` comes before the requirements.
    """

    def get_route_handler(self) -> Handler:
        """Return a handler that asks first. FastAPI calls this once for each place where the route is included."""
        route = route_of_handler(self)
        setattr(route, _MARK, True)
        inner = super().get_route_handler
        # The handler of another route class may do anything. It is made once, as FastAPI would, and runs as it is.
        may_shorten = getattr(inner, "__func__", None) is APIRoute.get_route_handler
        plain, dependant = inner(), route.dependant
        plan: _Plan | None = None

        async def handler(request: Request) -> Response:
            nonlocal plan
            held = dependant.dependencies
            overrides = route.dependency_overrides_provider
            # Without a start check nobody notices a change of the list. With overrides only FastAPI knows what to ask.
            if type(held) is not WatchedList or (overrides is not None and overrides.dependency_overrides):
                return await plain(request)
            if plan is None or not plan.holds(dependant):
                plan = _Plan(route, dependant, may_shorten=may_shorten)
            for requirement in plan.requirements:
                ask(requirement, request.scope)
            if plan.conditions:
                _note(request, plan.conditions)
            return await (plan.short or plain)(request)

        return handler


def asks_first(entry: Any) -> bool:
    """Return whether `ServiceRoute` made the handler of what runs a route."""
    return getattr(entry, _MARK, False) is True


class _Plan:
    """What a route asks first, and the handler that does without. Read from the dependencies that FastAPI holds."""

    __slots__ = ("calls", "conditions", "endpoint", "held", "mark", "requirements", "short")

    def __init__(self, route: APIRoute, dependant: Any, *, may_shorten: bool) -> None:
        self.mark = WatchedList.mark  # before the list is read
        self.held = dependant.dependencies
        self.endpoint = dependant.call
        dependencies = tuple(self.held)
        direct = [each for each in dependencies if _is_plain(each.call)]
        self.calls = tuple((each, each.call) for each in direct)
        wanted = (within(each.call, each.own_oauth_scopes or ()) for each in direct)
        self.requirements: tuple[Requirement, ...] = tuple(dict.fromkeys(wanted))
        self.conditions = tuple(each for each in self.requirements if each.asks_code)
        self.short: Handler | None = None
        if may_shorten and direct and _asked_once(dependencies):
            rest = [each for each in dependencies if not _is_plain(each.call)]
            self.short = _short_handler(route, dependant, rest, direct, self.requirements)

    def holds(self, dependant: Any) -> bool:
        """Return whether FastAPI still holds the list, the endpoint and the requirements that this was read from."""
        return (
            self.mark is WatchedList.mark
            and dependant.dependencies is self.held
            and dependant.call is self.endpoint  # another one may take other arguments: `access_tests` exchanges it
            and all(dependency.call is call for dependency, call in self.calls)
        )


def _is_plain(call: Any) -> bool:
    return issubclass(type(call), Requirement) and type(call).__call__ is Requirement.__call__


def _asked_once(dependencies: Iterable[Any]) -> bool:
    """Return whether FastAPI asks each requirement once, here and below: it does not with ``use_cache=False``."""
    return all(
        (
            not issubclass(type(each.call), Requirement)
            or (each.use_cache and getattr(each, "concurrency", None) is None)
        )
        and _asked_once(each.dependencies)
        for each in dependencies
    )


def _short_handler(
    route: APIRoute, dependant: Any, rest: list[Any], taken: Iterable[Any], requirements: tuple[Requirement, ...]
) -> Handler | None:
    """Return a handler as FastAPI would make it, with only the ``rest`` of the dependencies; None if it would treat the endpoint in another way.

    Its endpoint gets what the dependencies ``taken`` would have given by name. It runs only if ``requirements`` were asked and met.
    """
    names = tuple(each.name for each in taken if each.name is not None)
    own = dependant.request_param_name or dependant.http_connection_param_name

    def completed(values: dict[str, Any]) -> dict[str, Any]:
        scope = (values[own] if own else values.pop(_CONNECTION)).scope
        state = scope.get(SCOPE_KEY)
        if type(state) is not Authenticated:
            state = Anonymous.of(scope)
        for requirement in requirements:
            if state is None or requirement not in state.asked:
                raise ConfigurationError(
                    f"{dependant.path}: the endpoint does not run, because {requirement} was not asked."
                )
        if state.noted:
            state.noted = ()
        for name in names:
            values[name] = None if type(state) is Anonymous else state.principal
        return values

    # FastAPI looks at what is wrapped to see whether to await it, to iterate over it, or to run it in a thread.
    @functools.wraps(dependant.call)
    def endpoint(**values: Any) -> Any:
        return dependant.call(**completed(values))

    if gives(endpoint) != gives(dependant.call):
        return None
    shorter = {} if own else {"http_connection_param_name": _CONNECTION}
    return handler_with(route, dataclasses.replace(dependant, dependencies=rest, call=endpoint, **shorter))


def _note(request: Request, conditions: Iterable[Requirement]) -> None:
    """Let FastAPI not run the code of a condition again that was just met."""
    state = request.scope.get(SCOPE_KEY)
    if isinstance(state, Authenticated):
        state.noted = list(conditions)

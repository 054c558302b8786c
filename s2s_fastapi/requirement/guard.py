"""A requirement around a Starlette endpoint or an ASGI app."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import is_async_callable
from s2s_fastapi.requirement.opened import opened_request
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Anonymous, admit
from s2s_fastapi.verifier.verdict import Judge

__all__ = ["GUARDED_MARK", "GUARD_MARK", "Guarded", "guarded"]

GUARD_MARK = "__s2s_requirement__"
"""On what a guard returns: the requirement."""
GUARDED_MARK = "__s2s_guarded__"
"""On the function inside a guard: the requirement. If a route runs it without the guard, its decorators are in the wrong order."""

E = TypeVar("E")


def guarded(requirement: Judge, endpoint: E) -> E:
    """Return ``endpoint`` behind ``requirement``, in the way that this kind of endpoint needs."""
    innermost = _innermost(endpoint)
    if inspect.isfunction(innermost) or inspect.ismethod(innermost):
        return cast("E", _guarded_function(requirement, cast("Callable[..., Any]", endpoint)))
    if not callable(endpoint):
        raise ConfigurationError(f"guard takes an endpoint or an ASGI app, not {type(endpoint).__name__}.")
    return cast("E", Guarded(cast("ASGIApp", endpoint), requirement))


class Guarded:
    """An ASGI app, or an endpoint class, that runs only for callers that meet a requirement."""

    def __init__(self, app: ASGIApp, requirement: Judge) -> None:
        self.app = app
        setattr(self, GUARD_MARK, requirement)
        self._requirement = requirement
        self.__name__ = getattr(app, "__name__", type(app).__name__)  # the route's name, as without the guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, or let Starlette answer the refusal. A public path below the guard needs no caller."""
        if scope["type"] != "lifespan":
            if SCOPE_KEY not in scope and (opened := opened_request(scope, self)) is not None:
                if opened.compared(self) and Anonymous.of(scope) is not None:
                    await self._opened(scope, receive, send)
                    return
                await opened.enter(self, scope, receive, send, public=self._opened, private=self)
                return
            admit(scope, self._requirement)
        await self.app(scope, receive, send)

    async def _opened(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Anonymous.of(scope) is not None:  # on an optional path, which says nothing about a requirement around it
            admit(scope, self._requirement)
        await self.app(scope, receive, send)


def _guarded_function(requirement: Judge, function: Callable[..., Any]) -> Callable[..., Any]:
    parameters = inspect.signature(function).parameters.values()
    if sum(parameter.default is parameter.empty for parameter in parameters) == 3:  # noqa: PLR2004 - scope, receive, send: an ASGI app
        return Guarded(function, requirement)

    def enter(*args: Any, **kwargs: Any) -> None:
        connection = args[0] if args and isinstance(args[0], HTTPConnection) else _connection(*args, *kwargs.values())
        admit(connection.scope, requirement)

    if is_async_callable(function):

        @functools.wraps(function)
        async def endpoint(*args: Any, **kwargs: Any) -> Any:
            enter(*args, **kwargs)
            return await function(*args, **kwargs)
    else:

        @functools.wraps(function)
        def endpoint(*args: Any, **kwargs: Any) -> Any:
            enter(*args, **kwargs)
            return function(*args, **kwargs)

    setattr(endpoint, GUARD_MARK, requirement)
    if inspect.isfunction(function):
        setattr(function, GUARDED_MARK, requirement)
    return endpoint


def _connection(*values: Any) -> HTTPConnection:
    """Return the request or WebSocket that an endpoint was called with: a method gets it after ``self``, or it is given by name."""
    for value in values:
        if isinstance(value, HTTPConnection):
            return value
    raise ConfigurationError(
        "guard is for Starlette endpoints, which take the request; on a FastAPI route use Depends(requirement)."
    )


def _innermost(call: Any) -> Any:
    """Return what is below partials and ``functools.wraps``, in whichever order they stand."""
    while (
        inner := call.func if isinstance(call, functools.partial) else getattr(call, "__wrapped__", None)
    ) is not None:
        call = inner
    return call

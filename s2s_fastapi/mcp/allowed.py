"""A requirement on one tool, resource, template or prompt."""

import functools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar, cast, overload

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import is_async_callable
from s2s_fastapi.mcp.message import CALLS, MESSAGE, ClientMessage, Refused
from s2s_fastapi.mcp.reading import READING
from s2s_fastapi.requirement.requirement import OptionalOf, Requirement

__all__ = ["Allowed", "admits", "allowed", "required", "requirement_on"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK: Final = "__s2s_allowed__"
_ELSEWHERE: Final = "__s2s_allowed_elsewhere__"
"""The mark of the function in a decorated one. A server that was given the function itself has ``@mcp.tool()`` below `allowed`."""
_MOST_NAMES: Final = 8
"""How many names in front of a URI are looked at. A caller writes the URI."""


def allowed(requirement: Requirement) -> "Allowed":
    """Return what lets only callers that meet ``requirement`` use one tool, resource, resource template or prompt.

    - FastMCP: ``@mcp.tool(auth=allowed(require_caller("agent")))``, likewise for resources and prompts.
    - The official SDK: ``@allowed(require_caller("agent"))`` below ``@mcp.tool()``, ``@mcp.resource(...)`` or ``@mcp.prompt()``.
      In the other order, and on FastMCP, it counts as well.
    - It is decided by the HTTP request of the message, before the function runs. Without one, over stdio for example, it refuses.
    - The caller gets one fixed sentence. The log and the observer get the refusal as that of a route, with the name of the tool.
    - Lists show the tools, resources and prompts that the caller may use, and no others.

    The server must be given to `tool_server`.

    Raises:
        ConfigurationError: ``requirement`` is something else, or optional.
    """
    given: object = requirement
    if not isinstance(given, Requirement) or isinstance(given, OptionalOf):
        raise ConfigurationError(
            f"allowed takes a requirement, such as require_caller(...), that is not optional: not {given!r}."
        )
    return Allowed(requirement)


class Allowed:
    """What `allowed` returns: a decorator for functions, and one of FastMCP's checks."""

    def __init__(self, requirement: Requirement) -> None:
        self.requirement = requirement
        self.__name__ = f"allowed({requirement})"

    def __repr__(self) -> str:
        return self.__name__

    @overload
    def __call__(self, subject: F) -> F: ...
    @overload
    def __call__(self, subject: Any) -> bool: ...
    def __call__(self, subject: Any) -> Any:
        """Return the function with the requirement on it; or, if FastMCP asks, whether the caller may use a component."""
        component = getattr(subject, "component", None)
        if component is not None:
            return admits(component, self.requirement)
        if not callable(subject):
            raise ConfigurationError(
                f"{self} stands on {type(subject).__name__}, which is no function: put it directly above `def`, below @mcp.tool()."
            )
        return self._around(subject)

    def _around(self, function: F) -> F:
        requirement, name = self.requirement, getattr(function, "__name__", type(function).__name__)

        def enter() -> None:
            # `tool_server` has asked before. It is asked again for whoever gets here by another way.
            (MESSAGE.get() or ClientMessage(None, name)).admit(requirement, name)

        wrapped: Any
        if is_async_callable(function):

            @functools.wraps(function)
            async def wrapped(*args: Any, **kwargs: Any) -> Any:
                enter()
                return await function(*args, **kwargs)
        else:

            @functools.wraps(function)
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                enter()
                return function(*args, **kwargs)

        setattr(wrapped, _MARK, (*_marks(function), requirement))
        with suppress(AttributeError):  # a bound method, for example, which nobody decorates
            setattr(function, _ELSEWHERE, (*_marks(function, _ELSEWHERE), requirement))
        return cast("F", wrapped)


def requirement_on(function: object) -> Requirement | None:
    """Return everything that `allowed` requires on a function, joined with ``&``; None for nothing."""
    chain = list(_unwrapped(function))
    for mark in (_MARK, _ELSEWHERE):
        for each in chain:
            if marks := _marks(each, mark):
                return functools.reduce(lambda one, other: one & other, marks)
    return None


def _unwrapped(function: object) -> Iterator[object]:
    while function is not None:
        yield function
        # pydantic's validate_call keeps what it wraps in one of these.
        function = getattr(function, "__wrapped__", None) or getattr(function, "raw_function", None)


def required(component: Any) -> Requirement | None:
    """Return everything that `allowed` requires on a component of FastMCP, joined with ``&``; None for nothing."""
    checks = component.auth if isinstance(component.auth, list | tuple) else [component.auth]
    wanted = [check.requirement for check in checks if isinstance(check, Allowed)]
    if (on_function := requirement_on(getattr(component, "fn", None))) is not None:
        wanted.append(on_function)
    return functools.reduce(lambda one, other: one & other, wanted) if wanted else None


def admits(component: Any, requirement: Requirement | None) -> bool:
    """Return whether FastMCP may let the current message use a component, or show it."""
    if READING.get():
        return True
    message = MESSAGE.get()
    if message is None:
        return False
    # FastMCP asks for lists as well, and while it looks for another version of a tool.
    if message.method not in CALLS or not _is_named(component, message.target):
        return message.may(requirement)
    declared = getattr(component, "uri_template", None) or getattr(component, "uri", None) or component.name
    try:
        message.admit(requirement, str(declared))
    except Refused:
        return False
    return True


def _is_named(component: Any, target: str) -> bool:
    """Return whether a component is the one that a message names. A server that mounts it puts a name in front."""
    matches = getattr(component, "matches", None)  # a template
    if callable(matches):
        template = str(component.uri_template)
        return any(matches(uri) is not None or template == uri for uri in _without_names_in_front(target))
    uri = getattr(component, "uri", None)
    return target.endswith(str(component.name)) if uri is None else str(uri) in _without_names_in_front(target)


def _without_names_in_front(uri: str) -> list[str]:
    """Return a URI, and what it is on the servers that are mounted: `data://one/two/x` may be their `data://two/x` or `data://x`."""
    scheme, separator, rest = uri.partition("://")
    parts = rest.split("/", _MOST_NAMES)
    return [f"{scheme}{separator}{'/'.join(parts[start:])}" for start in range(len(parts))]


def _marks(function: object, mark: str = _MARK) -> tuple[Requirement, ...]:
    return cast("tuple[Requirement, ...]", getattr(function, "__dict__", {}).get(mark, ()))

"""What one endpoint declares by its guards and its dependencies, and what is written on it in vain."""

import contextlib
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self, get_args

from fastapi.params import Depends

from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.framework import parameters_of, returned_by
from s2s_fastapi.receiver.guard import GUARD_MARK, GUARDED_MARK
from s2s_fastapi.receiver.require import FACTORIES, current_principal, require_scope
from s2s_fastapi.receiver.requirements import Requirement

__all__ = ["Endpoint", "guards_around"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one endpoint requires of its caller, and whom it calls."""

    requirements: tuple[Requirement, ...]
    """All of them must be met."""
    mistakes: tuple[str, ...] = ()
    """What looks like protection and is none: a sentence for each."""
    callers: tuple[Any, ...] = ()
    """What it depends on that calls other services: each has a ``downstream``, which is not asked for yet."""

    @classmethod
    def read(cls, endpoint: Any, dependant: Any) -> Self:
        """Read an endpoint, and what FastAPI made of its dependencies; ``dependant`` is None on a plain Starlette route."""
        guards = tuple(guards_around(endpoint))
        if dependant is None:
            return cls(guards)
        below = tuple(_below(dependant))
        mistakes = [*_misplaced_guards(endpoint, guards, dependant), *_unseen_requirements(dependant)]
        for dependency in below:
            mistakes += [*_unasked(dependency.call), *_unseen_requirements(dependency)]
        return cls(
            (*guards, *(requirement for dependency in below for requirement in _required(dependency))),
            tuple(mistakes),
            tuple(caller for dependency in below for caller in _callers(dependency.call)),
        )


def guards_around(endpoint: Any) -> Iterator[Requirement]:
    """Yield the requirements of guards around an endpoint, through ``functools.wraps``, partials and wrapped apps."""
    seen: set[int] = set()
    while endpoint is not None and id(endpoint) not in seen:
        seen.add(id(endpoint))
        mark = getattr(endpoint, "__dict__", {}).get(GUARD_MARK)
        if isinstance(mark, Requirement):
            yield mark
        wrapped = endpoint.func if isinstance(endpoint, functools.partial) else getattr(endpoint, "__wrapped__", None)
        endpoint = wrapped if wrapped is not None or mark is None else getattr(endpoint, "app", None)


def _below(dependant: Any) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency
        yield from _below(dependency)


def _required(dependency: Any) -> Iterator[Requirement]:
    if isinstance(dependency.call, Requirement):
        yield dependency.call
    if isinstance(dependency.call, Requirement) or dependency.call is current_principal:
        scopes = [*(dependency.parent_oauth_scopes or ()), *(dependency.own_oauth_scopes or ())]
        if scopes:
            yield require_scope(*scopes)


def _callers(call: Any) -> Iterator[Any]:
    # Looked for on the types: to ask for it runs the developer's own code, where a base URL is a function.
    for caller in (call, getattr(call, "__self__", None)):
        if hasattr(type(caller), "downstream"):
            yield caller
            return


def _misplaced_guards(endpoint: Any, guards: tuple[Requirement, ...], dependant: Any) -> Iterator[str]:
    takes_request = (
        dependant.request_param_name or dependant.websocket_param_name or dependant.http_connection_param_name
    )
    if guards and not takes_request:
        yield "guard is for Starlette endpoints and finds no request here: on a FastAPI route use Depends(requirement)"
    if not guards and GUARDED_MARK in getattr(endpoint, "__dict__", {}):
        yield "guard stands above the decorator of the route, which took the function without it: use Depends(requirement)"


def _unseen_requirements(dependant: Any) -> Iterator[str]:
    """Yield what stands in the signature of an endpoint or a dependency, and FastAPI does not take for a dependency."""
    for parameter in parameters_of(dependant.call):
        if isinstance(parameter.default, Requirement):
            yield (
                f"the parameter {parameter.name} has a requirement as its default, which FastAPI takes for a query parameter: "
                "write Depends(...) around it"
            )
        if _unseen(parameter.annotation):
            yield (
                f"the parameter {parameter.name} has a requirement in Annotated[...] that FastAPI does not look at: "
                "write Depends(...) around it"
            )


def _unseen(annotation: Any, *, inside: bool = False) -> bool:
    """Tell whether an annotation holds a requirement where FastAPI does not look: bare, or inside of a union."""
    annotation = getattr(annotation, "__value__", annotation)  # type Admin = Annotated[...]
    for note in getattr(annotation, "__metadata__", ()):
        asked = note.dependency if isinstance(note, Depends) else None
        if isinstance(note, Requirement) or (inside and isinstance(asked, Requirement)):
            return True
    return any(_unseen(part, inside=True) for part in get_args(annotation) if not isinstance(part, Requirement))


def _unasked(call: Any) -> Iterator[str]:
    """Yield what is wrong with a dependency that looks as if it asked for something."""
    made = call if inspect.isclass(call) else returned_by(call)
    if (inspect.isclass(made) and issubclass(made, Requirement)) or _makes_requirement(call):
        name = getattr(call, "__name__", type(call).__name__)
        yield f"Depends({name}) makes a requirement and does not ask it: write Depends({name}(...))"
    if inspect.isclass(call) and issubclass(call, Principal):
        yield (
            f"Depends() on {call.__name__} itself makes one of the request's own data: write "
            "Depends(require_...(...)), or CurrentPrincipal"
        )


def _makes_requirement(call: Any) -> bool:
    """Tell whether a dependency names a requirement or its factory and does not ask it: then nobody does."""
    function = inspect.unwrap(call.func if isinstance(call, functools.partial) else call)
    names = frozenset(getattr(getattr(function, "__code__", None), "co_names", ()))
    if not names.isdisjoint({"admit", "check", "judge"}):
        return False
    return any(
        isinstance(value, Requirement) or any(value is factory for factory in FACTORIES)
        for value in _named(function, names)
    )


def _named(function: Any, names: frozenset[str]) -> Iterator[Any]:
    """Yield what a function can mean by its names: globals, what it closes over, what is in a module or a collection of these."""
    known = getattr(function, "__globals__", {})
    values = [known[name] for name in names if name in known]
    for cell in getattr(function, "__closure__", None) or ():
        with contextlib.suppress(ValueError):  # not filled yet
            values.append(cell.cell_contents)
    for value in values:
        yield value
        if inspect.ismodule(value):
            yield from (vars(value)[name] for name in names if name in vars(value))
        elif isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, list | tuple | set | frozenset):
            yield from value

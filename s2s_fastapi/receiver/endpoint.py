"""What one endpoint declares by its guards and its dependencies, and what is written on it without an effect."""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from s2s_fastapi.principal import Principal
from s2s_fastapi.receiver.asked import asked, covers
from s2s_fastapi.receiver.framework import dependant_of, returned_by
from s2s_fastapi.receiver.guard import GUARD_MARK, GUARDED_MARK
from s2s_fastapi.receiver.require import FACTORIES
from s2s_fastapi.receiver.requirements import Requirement
from s2s_fastapi.receiver.returned import unwatched
from s2s_fastapi.receiver.written import line_of, unevaluated, written, written_on_route

__all__ = ["Endpoint", "Mistake", "guards_around"]


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something on a route that looks like protection and is none."""

    text: str
    """What is wrong and what to write instead."""
    at: str = ""
    """File and line of the endpoint or the dependency it stands in: ``app.py:12``."""
    certain: bool = True
    """False: the code may still ask it by hand, so the start check only warns."""
    unless_public: bool = False
    """True: on a public route the start check only warns."""
    shared: tuple[int, str] | None = None
    """An attribute that several routes have: a mistake only if FastAPI asks it on none of them."""
    override: bool = False
    """True: ``dependency_overrides`` takes the requirement away. Tests do that on purpose."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What one endpoint requires of its caller, and whom it calls."""

    requirements: tuple[Requirement, ...]
    """All of them must be met."""
    mistakes: tuple[Mistake, ...] = ()
    callers: tuple[Any, ...] = ()
    """What it depends on that calls other services: each has a ``downstream``, which is not asked for yet."""
    shared: frozenset[tuple[int, str]] = frozenset()
    """The attributes of classes with a requirement that FastAPI asks on this route."""

    @classmethod
    def read(cls, endpoint: Any, dependant: Any, route: Any = None, around: tuple[Requirement, ...] = ()) -> Self:
        """Read an endpoint, and what FastAPI made of its dependencies.

        ``dependant`` is None on a plain Starlette route. ``around`` is what guards around the route ask anyway.
        """
        guards = tuple(guards_around(endpoint))
        below = () if dependant is None else tuple(_below(dependant))
        requirements = (*guards, *(() if dependant is None else asked(dependant)))
        mistakes = (
            [] if dependant is None else list(_misplaced_guards(endpoint, guards, dependant, (*around, *requirements)))
        )
        shared: set[tuple[int, str]] = set()
        calls = [endpoint, *(unwatched(each.call) for each in below if not isinstance(each.call, Requirement))]
        for call in calls:
            at = line_of(call)
            for each in (*written(call), *(written_on_route(route) if call is endpoint else ())):
                what = "a requirement factory" if each.requirement is None else f"the requirement {each.requirement}"
                if each.requirement is not None and covers((*around, *requirements), each.requirement):
                    if each.shared is not None:
                        shared.add(each.shared)
                    continue
                mistakes.append(Mistake(f"{each.place} has {what}: {each.cure}", at, each.certain, shared=each.shared))
            if dependant is not None:
                mistakes += [
                    Mistake(
                        f"the annotation of the parameter {each.parameter}, {each.annotation!r}, cannot be evaluated, so FastAPI sees "
                        "no Depends in it: import or define its names at the top of the module, not below `if TYPE_CHECKING` nor in a function",
                        at,
                        unless_public=True,
                    )
                    for each in unevaluated(call)
                ]
        for dependency in below:
            mistakes += _unasked(dependency)
        mistakes += _overridden(below, getattr(route, "dependency_overrides_provider", None), (*around, *guards))
        return cls(
            requirements,
            tuple(dict.fromkeys(mistakes)),
            tuple(caller for dependency in below for caller in _callers(unwatched(dependency.call))),
            frozenset(shared),
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


def _callers(call: Any) -> Iterator[Any]:
    # Looked for on the types: to ask for it runs the developer's own code, where a base URL is a function.
    for caller in (call, getattr(call, "__self__", None)):
        if hasattr(type(caller), "downstream"):
            yield caller
            return


def _misplaced_guards(
    endpoint: Any, guards: tuple[Requirement, ...], dependant: Any, asking: tuple[Requirement, ...]
) -> Iterator[Mistake]:
    takes_request = (
        dependant.request_param_name or dependant.websocket_param_name or dependant.http_connection_param_name
    )
    at = line_of(endpoint)
    if guards and not takes_request:
        yield Mistake(
            "guard is for Starlette endpoints and finds no request here: on a FastAPI route use Depends(requirement)",
            at,
        )
    unguarded = getattr(endpoint, "__dict__", {}).get(GUARDED_MARK)
    if not guards and unguarded is not None and not covers(asking, unguarded):
        yield Mistake(
            "guard stands above the decorator of the route, which took the function without it: use Depends(requirement)",
            at,
        )


def _unasked(dependency: Any) -> Iterator[Mistake]:
    """Yield what is wrong with a dependency that looks as if it asked for something."""
    call = unwatched(dependency.call)
    at = line_of(call)
    name = getattr(call, "__name__", type(call).__name__)
    if _is_factory(call) or (dependency.name is None and _returns_requirement(call)):
        yield Mistake(f"Depends({name}) makes a requirement and does not ask it: write Depends({name}(...))", at)
    if inspect.isclass(call) and issubclass(call, Principal):
        yield Mistake(
            f"Depends() on {name} itself makes one of the request's own data: write Depends(require_...(...)), or CurrentPrincipal",
            at,
        )


def _is_factory(call: Any) -> bool:
    while isinstance(call, functools.partial):
        call = call.func
    return any(call is factory for factory in FACTORIES) or (inspect.isclass(call) and issubclass(call, Requirement))


def _returns_requirement(call: Any) -> bool:
    """Return whether a dependency says that it returns a requirement, so that FastAPI would throw it away."""
    made = returned_by(call)
    return inspect.isclass(made) and issubclass(made, Requirement)


def _overridden(below: Iterable[Any], provider: Any, around: tuple[Requirement, ...]) -> Iterator[Mistake]:
    """Yield the requirements that ``dependency_overrides`` takes away."""
    overrides: Mapping[Any, Any] = getattr(provider, "dependency_overrides", None) or {}
    for dependency in below if overrides else ():
        override = overrides.get(dependency.call)
        if override is None:
            continue
        instead = (*around, *asked(dependant_of(override)))
        for requirement in asked(dependency, tuple(dependency.own_oauth_scopes or ())):
            if not covers(instead, requirement):
                yield Mistake(
                    f"dependency_overrides replaces the requirement {requirement}: outside of tests, take it out",
                    line_of(override),
                    certain=not any(isinstance(each, Requirement) for each in instead),
                    override=True,
                )

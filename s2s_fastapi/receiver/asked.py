"""What FastAPI asks: the requirements in a tree of dependencies."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi.params import Depends

from s2s_fastapi.receiver.framework import dependant_of
from s2s_fastapi.receiver.require import current_principal, require_scope
from s2s_fastapi.receiver.requirements import AllOf, Requirement

__all__ = ["asked", "covers", "held", "held_by_all"]


def asked(dependant: Any, scopes: tuple[str, ...] = ()) -> Iterator[Requirement]:
    """Yield what a dependency and all dependencies below it ask, with the ``scopes`` of each ``Security`` around them."""
    if isinstance(dependant.call, Requirement):
        yield dependant.call
    if scopes and (isinstance(dependant.call, Requirement) or dependant.call is current_principal):
        yield require_scope(*scopes)
    for dependency in dependant.dependencies:
        yield from asked(dependency, (*scopes, *(dependency.own_oauth_scopes or ())))


def held(depends: Depends, annotation: Any = None) -> Iterator[Requirement]:
    """Yield what FastAPI would ask for a ``Depends`` or ``Security``; ``annotation`` is the type of its parameter."""
    call = annotation if depends.dependency is None else depends.dependency
    if not callable(call):
        return
    try:
        dependant = dependant_of(call)
    except Exception:  # noqa: BLE001 - nobody may ever have read this dependency: what FastAPI cannot read asks nothing
        return
    yield from asked(dependant, tuple(getattr(depends, "scopes", None) or ()))


def held_by_all(dependencies: Iterable[Any]) -> tuple[Requirement, ...]:
    """Return what FastAPI asks for a list such as ``dependencies=[...]``."""
    return tuple(requirement for depends in dependencies for requirement in held(depends))


def covers(asking: Iterable[Requirement], requirement: Requirement) -> bool:
    """Return whether everything in ``requirement`` is among what is asked."""
    parts = {part for each in asking for part in _parts(each)}
    return requirement in parts or all(part in parts for part in _parts(requirement))


def _parts(requirement: Requirement) -> tuple[Requirement, ...]:
    return requirement.parts if isinstance(requirement, AllOf) else (requirement,)

"""What FastAPI asks: the requirements in a tree of dependencies."""

from collections.abc import Iterable, Iterator
from typing import Any

from fastapi.params import Depends

from s2s_fastapi.receiver.framework import dependant_of
from s2s_fastapi.receiver.require import current_principal, require_scope
from s2s_fastapi.receiver.requirements import AllOf, AnyOf, Caller, Requirement, Role, Scope

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
    """Return whether nobody who meets all of ``asking`` could fail ``requirement``, as far as the names say it."""
    parts = [part for each in asking for part in _parts(each)]
    return all(any(_implies(part, wanted) for part in parts) for wanted in _parts(requirement))


def _implies(asked: Requirement, wanted: Requirement) -> bool:
    if isinstance(wanted, AnyOf):
        return asked == wanted or any(_implies(asked, part) for part in wanted.parts)
    if isinstance(asked, Caller) and isinstance(wanted, Caller):
        named = bool(asked.client_ids) and asked.client_ids <= wanted.client_ids
        return asked.kind == wanted.kind and (named or not wanted.client_ids)
    if isinstance(asked, Scope) and isinstance(wanted, Scope):
        return wanted.scopes <= asked.scopes
    if isinstance(asked, Role) and isinstance(wanted, Role):
        return (asked.client, asked.realm) == (wanted.client, wanted.realm) and wanted.roles <= asked.roles
    return asked == wanted


def _parts(requirement: Requirement) -> Iterator[Requirement]:
    if isinstance(requirement, AllOf):
        for part in requirement.parts:
            yield from _parts(part)
    else:
        yield requirement

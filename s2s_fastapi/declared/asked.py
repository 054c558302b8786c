"""What FastAPI asks: the requirements in a tree of dependencies."""

import functools
from collections.abc import Iterable, Iterator
from itertools import product
from types import MethodType
from typing import Any

from fastapi.security.base import SecurityBase

from s2s_fastapi.fastapi_internals import unwatched
from s2s_fastapi.requirement.conditions import HasClaim
from s2s_fastapi.requirement.require import current_principal, optional_principal, require_scope
from s2s_fastapi.requirement.requirement import (
    AllOf,
    AnyOf,
    Caller,
    HasRole,
    HasScope,
    InRealm,
    OptionalOf,
    Requirement,
    scopes_around,
)

__all__ = ["asked", "asked_by", "below", "covers", "leaves_of", "lost_scopes", "plain", "ways_of"]


def asked(dependant: Any, scopes: tuple[str, ...] = ()) -> Iterator[Requirement]:
    """Yield what a dependency and all dependencies below it ask, with the ``scopes`` of each ``Security`` around them."""
    requirement = asked_by(dependant.call)
    if requirement is not None:
        yield requirement
    if scopes and requirement is not None:
        around = scopes_around(requirement, scopes)
        yield around.optional() if isinstance(requirement, OptionalOf) else around
    elif scopes and unwatched(dependant.call) is current_principal:
        yield require_scope(*scopes)
    elif scopes and unwatched(dependant.call) is optional_principal:
        yield require_scope(*scopes).optional()
    for dependency in dependant.dependencies:
        yield from asked(dependency, (*scopes, *(dependency.own_oauth_scopes or ())))


def asked_by(call: Any) -> Requirement | None:
    """Return the requirement that is asked when FastAPI calls this: itself, its ``__call__``, or a partial of them."""
    call = unwatched(call)
    while issubclass(type(call), functools.partial) and not call.args:
        call = call.func
    if type(call) is MethodType and call.__func__ is Requirement.__call__:
        call = call.__self__
    return call if issubclass(type(call), Requirement) else None


def lost_scopes(dependency: Any) -> HasScope | None:
    """Return the scopes of a ``Security`` if nothing below it reads them; a security scheme shows them in the documentation."""
    scopes = frozenset(dependency.own_oauth_scopes or ())
    return None if not scopes or any(_reads_scopes(each) for each in below(dependency)) else HasScope(scopes)


def below(dependant: Any) -> Iterator[Any]:
    """Yield a dependant and all dependencies below it."""
    yield dependant
    for dependency in dependant.dependencies:
        yield from below(dependency)


def _reads_scopes(dependant: Any) -> bool:
    scheme = issubclass(type(unwatched(dependant.call)), SecurityBase)
    return dependant.security_scopes_param_name is not None or asked_by(dependant.call) is not None or scheme


def covers(asking: Iterable[Requirement], requirement: Requirement) -> bool:
    """Return whether every caller who meets all of ``asking`` also meets ``requirement``, as far as the names show it.

    What is asked only of requests with credentials covers what is asked only of them, and nothing else.
    """
    asking = tuple(dict.fromkeys(asking))
    if requirement in asking:
        return True
    if not isinstance(requirement, OptionalOf):
        asking = tuple(each for each in asking if not isinstance(each, OptionalOf))
    wanted = ways_of(requirement)
    return bool(asking) and all(
        any(all(_implied(leaf, way) for leaf in each) for each in wanted) for way in ways_of(AllOf(asking))
    )


def ways_of(requirement: Requirement | None) -> list[tuple[Requirement, ...]]:
    """Return every way to meet a requirement with credentials. Each way is the plain requirements that must all be met."""
    if requirement is None:
        return [()]
    if isinstance(requirement, OptionalOf):
        return ways_of(requirement.requirement)
    if isinstance(requirement, AnyOf):
        return [way for part in requirement.parts for way in ways_of(part)]
    if isinstance(requirement, AllOf):
        return [sum(combination, ()) for combination in product(*(ways_of(part) for part in requirement.parts))]
    return [(requirement,)]


def leaves_of(requirement: Requirement | None) -> Iterator[Requirement]:
    """Yield the plain requirements that a requirement is made of, however they are joined."""
    if isinstance(requirement, OptionalOf):
        yield from leaves_of(requirement.requirement)
    elif isinstance(requirement, AllOf | AnyOf):
        for part in requirement.parts:
            yield from leaves_of(part)
    elif requirement is not None:
        yield requirement


def plain(leaf: Requirement) -> Requirement:
    """Return what a plain requirement asks of a caller, whichever realm it is for."""
    return leaf.requirement if isinstance(leaf, InRealm) else leaf


def _implied(wanted: Requirement, way: tuple[Requirement, ...]) -> bool:
    """Return whether every caller who meets all of ``way`` also meets ``wanted``, a plain requirement."""
    if wanted in way:
        return True
    if isinstance(wanted, InRealm):
        same_realm = (each.requirement for each in way if isinstance(each, InRealm) and each.realm == wanted.realm)
        return _implied(wanted.requirement, tuple(same_realm))
    if isinstance(wanted, Caller):
        callers = [each for each in way if isinstance(each, Caller) and each.kind == wanted.kind]
        named = [each.client_ids for each in callers if each.client_ids]
        if not wanted.client_ids:
            return bool(callers)
        return bool(named) and frozenset.intersection(*named) <= wanted.client_ids
    if isinstance(wanted, HasScope):
        return wanted.scopes <= {name for each in way if isinstance(each, HasScope) for name in each.scopes}
    if isinstance(wanted, HasRole):
        same = [each for each in way if isinstance(each, HasRole) and _owner(each) == _owner(wanted)]
        return wanted.roles <= {name for each in same for name in each.roles}
    if isinstance(wanted, HasClaim):
        same_claim = [each for each in way if isinstance(each, HasClaim) and each.path == wanted.path]
        return any(each.typed <= wanted.typed for each in same_claim)
    return False


def _owner(role: HasRole) -> tuple[str | None, bool]:
    return role.client, role.realm

"""How far the dependencies of an app or a router reach: FastAPI asks them on its own routes, and on nothing else."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import APIRouter

from s2s_fastapi.receiver.framework import dependant_of, included_router, is_documentation
from s2s_fastapi.receiver.require import current_principal, require_scope
from s2s_fastapi.receiver.requirements import Requirement

__all__ = ["asked_around"]


def asked_around(app: Any) -> Mapping[int, tuple[Requirement, ...]]:
    """Return, for each entry below ``app`` that is no route of FastAPI's own, what the routers around it ask.

    The entries are known by their identity; the pages of the documentation are left out.
    """
    router = getattr(app, "router", app)
    if not isinstance(router, APIRouter):
        return {}
    found: dict[int, tuple[Requirement, ...]] = {}
    for entry, asked in _entries(router, tuple(_requirements(router.dependencies))):
        found[id(entry)] = (*found.get(id(entry), ()), *asked)
    return found


def _entries(router: APIRouter, asked: tuple[Requirement, ...]) -> Iterator[tuple[Any, tuple[Requirement, ...]]]:
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, around = included
            yield from _entries(inner, (*asked, *_requirements([*around, *inner.dependencies])))
        elif asked and getattr(entry, "dependant", None) is None and not is_documentation(entry):
            yield entry, asked


def _requirements(dependencies: Iterable[Any]) -> Iterator[Requirement]:
    for depends in dependencies:
        if callable(depends.dependency):
            yield from _asked(dependant_of(depends.dependency), tuple(getattr(depends, "scopes", None) or ()))


def _asked(dependant: Any, scopes: tuple[str, ...]) -> Iterator[Requirement]:
    """Yield what a dependency and those below it ask, with the scopes of a ``Security`` around them."""
    if isinstance(dependant.call, Requirement):
        yield dependant.call
    if scopes and (isinstance(dependant.call, Requirement) or dependant.call is current_principal):
        yield require_scope(*scopes)
    for dependency in dependant.dependencies:
        yield from _asked(dependency, (*scopes, *(getattr(dependency, "own_oauth_scopes", None) or ())))

"""How far the dependencies of an app or a router reach: FastAPI asks them on its own routes, and on nothing else."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import APIRouter

from s2s_fastapi.receiver.asked import held_by_all
from s2s_fastapi.receiver.framework import included_router, is_documentation
from s2s_fastapi.receiver.requirements import Requirement

__all__ = ["asked_around", "asked_too_late"]


def asked_around(app: Any) -> Mapping[int, tuple[Requirement, ...]]:
    """Return, for each entry below ``app`` that is no route of FastAPI's own, what the routers around it ask.

    The entries are known by their identity; the pages of the documentation are left out.
    """
    return _by_entry(_around(_router(app), ()))


def asked_too_late(app: Any) -> Mapping[int, tuple[Requirement, ...]]:
    """Return, for each route of FastAPI's own below ``app``, what must be asked there since its routers now say so.

    FastAPI copies a router's ``dependencies`` when a route is added and when the router is included: what is appended to the list
    later is asked on no earlier route.
    """
    return _by_entry(_late(_router(app)))


def _router(app: Any) -> APIRouter | None:
    router = getattr(app, "router", app)
    return router if isinstance(router, APIRouter) else None


def _around(router: APIRouter | None, asked: tuple[Requirement, ...]) -> Iterator[tuple[Any, tuple[Requirement, ...]]]:
    if router is None:
        return
    asked = (*asked, *held_by_all(router.dependencies))
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, dependencies = included
            yield from _around(inner, (*asked, *held_by_all(dependencies)))
        elif asked and getattr(entry, "dependant", None) is None and not is_documentation(entry):
            yield entry, asked


def _late(
    router: APIRouter | None, late: tuple[Requirement, ...] = ()
) -> Iterator[tuple[Any, tuple[Requirement, ...]]]:
    if router is None:
        return
    own = held_by_all(router.dependencies)
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, copied = included
            yield from _late(inner, (*late, *held_by_all(each for each in router.dependencies if each not in copied)))
        elif (late or own) and getattr(entry, "dependant", None) is not None:
            yield entry, (*late, *own)


def _by_entry(found: Iterator[tuple[Any, tuple[Requirement, ...]]]) -> Mapping[int, tuple[Requirement, ...]]:
    by_entry: dict[int, tuple[Requirement, ...]] = {}
    for entry, requirements in found:
        by_entry[id(entry)] = (*by_entry.get(id(entry), ()), *requirements)
    return by_entry

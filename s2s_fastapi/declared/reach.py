"""Which requirements of an app or a router do not apply to a route: FastAPI asks them on its own routes only."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from fastapi import APIRouter

from s2s_fastapi.declared.places import Why, Written
from s2s_fastapi.declared.written import Reader
from s2s_fastapi.fastapi_internals import included_router, is_documentation
from s2s_fastapi.requirement.requirement import Requirement

__all__ = ["asked_around", "lost_around"]

T = TypeVar("T")


def asked_around(app: Any, reader: Reader) -> Mapping[int, tuple[Requirement, ...]]:
    """Return, for each entry below ``app`` that is not one of FastAPI's routes, what the routers around it ask.

    The entries are known by their identity; the pages of the documentation are left out.
    """

    def held(dependencies: Iterable[Any]) -> tuple[Requirement, ...]:
        return tuple(requirement for depends in dependencies for requirement in reader.held(depends))

    return _by_entry(_around(_router(app), (), held))


def lost_around(app: Any, reader: Reader) -> Mapping[int, tuple[Written, ...]]:
    """Return, for each route below ``app``, the requirements written on the app and its routers that FastAPI does not ask unless the route asks them itself.

    FastAPI copies a router's ``dependencies`` when a route is added and when the router is included: what is appended to the list
    later is asked on no earlier route. It reads no other attribute of them.
    """
    return _by_entry(_lost(_router(app), () if _router(app) is app else reader.on_app(app), reader))


def _router(app: Any) -> APIRouter | None:
    router = getattr(app, "router", app)
    return router if isinstance(router, APIRouter) else None


def _around(
    router: APIRouter | None, asked: tuple[Requirement, ...], held: Callable[[Iterable[Any]], tuple[Requirement, ...]]
) -> Iterator[tuple[Any, tuple[Requirement, ...]]]:
    if router is None:
        return
    asked = (*asked, *held(router.dependencies))
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, dependencies = included
            yield from _around(inner, (*asked, *held(dependencies)), held)
        elif asked and getattr(entry, "dependant", None) is None and not is_documentation(entry):
            yield entry, asked


def _lost(
    router: APIRouter | None, lost: tuple[Written, ...], reader: Reader
) -> Iterator[tuple[Any, tuple[Written, ...]]]:
    if router is None:
        return
    lost = (*lost, *reader.on_app(router))
    late = tuple(reader.late(router.dependencies))
    for entry in router.routes:
        included = included_router(entry)
        if included is not None:
            inner, copied = included
            kept = {id(each) for each in copied}
            missing = reader.late(each for each in router.dependencies if id(each) not in kept)
            yield from _lost(inner, (*lost, *missing), reader)
        elif getattr(entry, "dependant", None) is not None:
            yield entry, (*lost, *late)
        elif lost and not is_documentation(entry):
            yield entry, tuple(each for each in lost if each.where.why is not Why.LATE)


def _by_entry(found: Iterator[tuple[Any, tuple[T, ...]]]) -> Mapping[int, tuple[T, ...]]:
    by_entry: dict[int, tuple[T, ...]] = {}
    for entry, its in found:
        by_entry[id(entry)] = (*by_entry.get(id(entry), ()), *its)
    return by_entry

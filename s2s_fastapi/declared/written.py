"""What is written: every requirement in the code of a route, whether or not FastAPI asks it.

FastAPI asks the last ``Depends`` of a parameter, and the lists ``dependencies=[...]``. It ignores every other place without an error.
This reader finds the other places, so that the start check can compare what is written with what is asked.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any, Final

from s2s_fastapi.declared.callables import CLOSED, module_of, own_classes
from s2s_fastapi.declared.code_reader import IDLE, CodeReader
from s2s_fastapi.declared.places import Where, Why, Written
from s2s_fastapi.fastapi_internals import attributes_of, chain, not_copied
from s2s_fastapi.requirement.guard import GUARD_MARK
from s2s_fastapi.requirement.requirement import Requirement

__all__ = ["Reader"]

_MOST: Final = 200
"""Functions of a route handler that are looked at."""


class Reader(CodeReader):
    """Reads what stands on routes and around them as well. One reader is for one reading of an app."""

    def on_route(self, route: Any) -> tuple[Written, ...]:
        """Return what stands in the attributes of a route and of its class."""
        return self._once(("route", id(route)), route, lambda: self._in_framework_object(route, "route"))

    def on_app(self, app: Any) -> tuple[Written, ...]:
        """Return what stands in the attributes of an app or a router and of its class."""
        return self._once(("app", id(app)), app, lambda: self._in_framework_object(app, "app or router"))

    def on_middleware(self, app: Any, middleware: Iterable[Any]) -> tuple[Written, ...]:
        """Return what stands in the middleware and the exception handlers of an app."""
        return self._once(("middleware", id(app)), app, lambda: self._in_middleware(app, middleware))

    def not_copied(self, original: Any, running: Any) -> Iterator[Written]:
        """Yield what stands on a route and is lost, because including its router makes a new route."""
        if original is running:
            return
        app, kept = getattr(original, "app", None), getattr(running, "app", None)
        while app is not kept and app is not None:
            mark = attributes_of(app).get(GUARD_MARK)
            if isinstance(mark, Requirement):
                yield Written.depends(mark, Where("a guard around the route", Why.NOT_COPIED))
            app = attributes_of(app).get("app")
        for what in not_copied(original, running):
            where = Where(what, Why.NOT_COPIED, certain=False)
            yield Written(None, where, where.why.value, certain=False, what="code that does not run")

    def late(self, dependencies: Iterable[Any]) -> Iterator[Written]:
        """Yield what stands in dependencies that were added to a router too late."""
        for depends in dependencies:
            where = Where("a router around it", Why.LATE, whole=True)
            yield from self._once(("late", id(depends)), depends, functools.partial(self._in_value, depends, where))

    def _in_framework_object(self, held: Any, what: str) -> Iterator[Written]:
        """Yield what stands in the attributes of a route, a router or an app, and of its class below the frameworks' own."""
        skipped = {"app", "callbacks", "dependant", "dependency_overrides", "endpoint", "router", "routes"}
        # A router's dependencies that came too late are known by `asked_too_late`.
        skipped |= {"dependencies"} if hasattr(held, "route_class") else {"original_route"}
        # FastAPI's own class sets each attribute on the object, which hides the attributes of a subclass. So read them separately.
        for holder in (held, *own_classes(type(held))):
            for name, value in attributes_of(holder).items():
                if type(value) in IDLE or (holder is held and name in skipped):
                    continue
                where = Where(f"the attribute {name} of the {what}", Why.ELSEWHERE, opens=False)
                state = name == "state" and type(value).__module__ == "starlette.datastructures"
                for part in attributes_of(value).values() if state else (value,):
                    yield from self._in_value(part, where)
        if any("get_route_handler" in vars(kind) for kind in own_classes(type(held))):
            yield from self._in_handler(held)

    def _in_handler(self, route: Any) -> Iterator[Written]:
        """Yield what stands on the handler of the developer's own route class."""
        waiting, seen = [getattr(route, "app", None)], dict[int, Any]()
        while waiting and len(seen) < _MOST:
            function = waiting.pop()
            if type(function) is not FunctionType or id(function) in seen:
                continue
            seen[id(function)] = function
            if module_of(function) not in CLOSED:
                yield from self._in_signature(function, Why.SIGNATURE, certain=True, above=" of its route handler")
            waiting += [cell.cell_contents for cell in function.__closure__ or ()]

    def _in_middleware(self, app: Any, middleware: Iterable[Any]) -> Iterator[Written]:
        entries: list[tuple[str, Any]] = []
        for entry in middleware:
            name = f"the middleware {getattr(entry.cls, '__name__', type(entry.cls).__name__)}"
            entries += [(name, value) for value in (*entry.args, *entry.kwargs.values())]
            entries += [(name, member) for kind in own_classes(entry.cls) for member in vars(kind).values()]
        handlers = attributes_of(app).get("exception_handlers")
        entries += [("an exception handler", value) for value in handlers.values()] if type(handlers) is dict else []
        for text, value in entries:
            where = Where(text, Why.MIDDLEWARE, certain=False, opens=False, everywhere=(id(app), text))
            for function in chain(value) if type(value) in (FunctionType, MethodType) else ():
                if type(function) is FunctionType and module_of(function) not in CLOSED:
                    for each in self._in_signature(function, Why.MIDDLEWARE, certain=False, above=f" of {text}"):
                        yield replace(each, where=replace(each.where, everywhere=(id(app), each.where.text)))
            if type(value) is not FunctionType:
                yield from self._in_value(value, where)

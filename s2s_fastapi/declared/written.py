"""What is written: every requirement in the code of a route, whether or not FastAPI asks it.

FastAPI asks the last ``Depends`` of a parameter, and the lists ``dependencies=[...]``. It ignores every other place without an error.
This reader finds the other places, so that `compare` can tell what is written and not asked.

It runs no code of the developer's and trusts none of their objects. It judges by ``type(value)``, since a proxy may answer anything
for its class.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass, replace
from itertools import islice
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Annotated, Any, Final, get_args, get_origin

from fastapi.params import Depends
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from s2s_fastapi.declared.asked import asked, asked_by
from s2s_fastapi.declared.callables import (
    CLOSED,
    METHODS,
    Role,
    annotations_of,
    functions_of,
    meant,
    module_of,
    name_of,
    names_in,
    own_attributes,
    own_classes,
    owners_of,
    parts,
    text_of,
)
from s2s_fastapi.declared.sentences import Unevaluated, Where, Why, Written
from s2s_fastapi.fastapi_internals import attributes_of, chain, dependant_of, not_copied, parameters_of
from s2s_fastapi.requirement.guard import GUARD_MARK, GUARDED_MARK
from s2s_fastapi.requirement.require import FACTORIES
from s2s_fastapi.requirement.requirement import Requirement, Scope

__all__ = ["Reader"]

_MEMBERS: Final[Mapping[type, Callable[[Any], Iterable[Any]]]] = {
    list: list.__iter__,
    tuple: tuple.__iter__,
    set: set.__iter__,
    frozenset: frozenset.__iter__,
    dict: dict.values,
    MappingProxyType: MappingProxyType.values,
}
"""How to read a container without its own methods."""
_FIELDS: Final = frozenset({"__pydantic_fields__", "__pydantic_computed_fields__"})
_DEPTH: Final = 4
_ITEMS: Final = 200
"""Members of a container that are read. A table of policies is shorter, and a cache need not be read to its end."""
_BUDGET: Final = 2000
"""Values that are read below one place."""
_PLAIN: Final = frozenset({str, int, float, bool, bytes, type(None), type(PydanticUndefined)})
_IDLE: Final = _PLAIN | {*METHODS}
"""Types whose values are not read if they are an attribute."""
_ANNOTATED: Final = (Why.INSIDE, Why.ATTRIBUTE, Why.FIELD)
"""Why a requirement within an annotation is not asked, if no parameter has the annotation."""
_VARIADIC: Final = (inspect.CO_VARARGS, inspect.CO_VARKEYWORDS)
_FUNCTIONS: Final = 200
"""Functions of a route handler that are looked at."""


class Reader:
    """Reads the code of routes, and of what is around them. What several of them share is read once.

    One reader is for one reading of an app.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Any, tuple[Any, ...]]] = {}
        """What was found, with the object it was found in: while the object lives, no other one gets its identity."""

    def written(self, call: Any, role: Role = Role.DEPENDENCY) -> tuple[Written, ...]:
        """Return what stands in one endpoint or dependency.

        That is its signature, its class, the models it reads, the names in its code, and the same of what it is wrapped around.
        """
        return self._once(("call", id(call), role), call, lambda: self._in_call(call, role))

    def unevaluated(self, call: Any, role: Role = Role.DEPENDENCY) -> Iterator[Unevaluated]:
        """Yield the parameters of an endpoint or a dependency whose annotations could not be evaluated."""
        read = role is not Role.STARLETTE
        for parameter in self._parameters(call):
            text = text_of(parameter.annotation)
            if text is None or (not read and parameter.default is parameter.empty):
                continue  # the request of a Starlette endpoint
            # A `Depends` as default is asked whatever the annotation says, unless the annotation holds another one.
            depends = issubclass(type(parameter.default), Depends)
            found = Unevaluated(parameter.name, text)
            yield found if read and not (depends and not found.names_depends) else replace(found, read=False)

    def held(self, depends: Any, annotation: Any = None) -> tuple[Requirement, ...]:
        """Return what FastAPI would ask for a ``Depends`` or ``Security``; ``annotation`` is the type of its parameter."""
        call = annotation if depends.dependency is None else depends.dependency
        if not callable(call):
            return ()
        found = self._once(("dependant", id(call)), call, lambda: _dependants(call))
        scopes = tuple(getattr(depends, "scopes", None) or ())
        return tuple(requirement for dependant in found for requirement in asked(dependant, scopes))

    def _parameters(self, call: Any) -> tuple[inspect.Parameter, ...]:
        return self._once(("parameters", id(call)), call, lambda: parameters_of(call))

    def _once(self, key: tuple[object, ...], held: Any, read: Callable[[], Iterable[Any]]) -> tuple[Any, ...]:
        known = self._known.get(key)
        if known is None:
            self._known[key] = (held, ())  # nothing more, if it is read within itself
            try:
                found = tuple(read())
            except Exception as error:  # noqa: BLE001 - the code that is read is the developer's, and may raise anything
                if key[0] in {"parameters", "dependant"}:
                    found = ()
                else:
                    where = Where("its code", Why.CODE, certain=False)
                    cure = f"reading it raised {type(error).__name__}, so look yourself whether FastAPI asks each requirement there"
                    found = (
                        Written(None, where, cure, certain=False, what="something that the start check cannot read"),
                    )
            self._known[key] = known = (held, found)
        return known[1]

    def _in_call(self, call: Any, role: Role) -> Iterator[Written]:
        seen: set[tuple[str, Requirement | None]] = set()
        names = next((link for link in reversed([*chain(call)]) if type(link) is FunctionType), call)
        for parameter in self._parameters(call) if role is not Role.STARLETTE else ():
            where = Where(f"the parameter {parameter.name}", Why.PARAMETER, whole=True)
            for each in self._in_parameter(parameter.annotation, parameter.default, where, names):
                seen.add((each.where.text, each.requirement))
                yield each
        why = Why.STARLETTE if role is Role.STARLETTE else Why.SIGNATURE
        for function, filled, outermost in functions_of(call):
            for each in self._in_signature(function, why, filled, certain=outermost):
                if (each.where.text, each.requirement) not in seen:
                    yield each
            yield from self._in_code(function)
        owned = False
        for link in chain(call):
            if issubclass(type(link), functools.partial):
                where = Where("an argument of its partial", Why.SIGNATURE)
                yield from self._in_value((*link.args, *link.keywords.values()), where)
            for owner, certain in () if owned and type(link) is FunctionType else owners_of(link, role):
                owned = True  # the class that a method was defined in is not the nearest one
                yield from self._in_owner(owner, certain=certain)

    def _in_parameter(self, annotation: Any, default: Any, where: Where, owner: Any) -> Iterator[Written]:
        yield from self._in_annotation(annotation, where, owner, {})
        yield from self._in_value(default, where)

    def _in_signature(
        self, function: FunctionType, why: Why, filled: int = 0, *, certain: bool, above: str = ""
    ) -> Iterator[Written]:
        """Yield what stands in the parameters of one function, but for the first ones that are ``filled``."""
        code = function.__code__
        named = code.co_argcount + code.co_kwonlyargcount
        names = code.co_varnames[: named + sum(bool(code.co_flags & flag) for flag in _VARIADIC)]
        positional = code.co_varnames[: code.co_argcount]
        defaults = dict(zip(reversed(positional), reversed(function.__defaults__ or ()), strict=False))
        defaults |= function.__kwdefaults__ or {}
        annotations = dict(annotations_of(function))
        for name in names:
            if name not in positional[:filled]:
                where = Where(f"the parameter {name}{above}", why, whole=why is not Why.STARLETTE, certain=certain)
                yield from self._in_parameter(annotations.get(name), defaults.get(name), where, function)
        where = Where(f"the annotation of what {above or 'it'} returns", Why.INSIDE, certain=certain)
        yield from self._in_annotation(annotations.get("return"), where, function, {})

    def _in_code(self, function: FunctionType) -> Iterator[Written]:
        """Yield what a function can mean by the names in its code: globals, members of modules, attributes, what it closes over."""
        known = function.__globals__
        names = frozenset(names_in(function.__code__))
        for name in names & known.keys():
            value = known[name]
            module = vars(value) if type(value) is ModuleType else None
            for member in names & module.keys() if module is not None else ("",):
                text = f"{name}.{member}" if module is not None else name
                held = value if module is None else module[member]
                yield from (
                    replace(each, where=replace(each.where, text=f"the global {text}", everywhere=(id(known), text)))
                    for each in self._in_global(held)
                )
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            yield from self._in_value(value, Where(f"the variable {name}", Why.CODE, certain=False))
        for name, value in vars(function).items():
            if name not in {GUARD_MARK, GUARDED_MARK, "__wrapped__"}:
                yield from self._in_value(value, Where(f"the function's attribute {name}", Why.CODE, certain=False))

    def _in_global(self, value: Any) -> tuple[Written, ...]:
        if type(value) is FunctionType or issubclass(type(value), type):
            return ()
        where = Where("", Why.CODE, certain=False, opens=False)
        return self._once(("global", id(value)), value, lambda: self._in_value(value, where))

    def _in_owner(self, owner: Any, *, certain: bool) -> Iterator[Written]:
        """Yield what stands in the attributes of a class, or of an object and its class, the nearest of each name only."""
        for name, (holder, value) in own_attributes(owner).items():
            is_class = issubclass(type(holder), type)
            if is_class and type(value) in METHODS:
                continue
            kind = f"the class attribute {holder.__name__}" if is_class else f"the attribute {type(holder).__name__}"
            why = Why.ATTRIBUTE if is_class else Why.ELSEWHERE
            where = Where(f"{kind}.{name}", why, certain=certain, shared=(id(holder), name))
            yield from self._in_value(value, where)
        for kind in own_classes(owner if issubclass(type(owner), type) else type(owner)):
            for name, annotation in annotations_of(kind):
                where = Where(
                    f"the class attribute {kind.__name__}.{name}",
                    Why.ATTRIBUTE,
                    certain=certain,
                    shared=(id(kind), name),
                )
                yield from self._in_annotation(annotation, where, kind, {}, data=False)

    def _in_annotation(
        self, annotation: Any, where: Where, owner: Any, seen: dict[Any, Any], *, data: bool = True
    ) -> Iterator[Written]:
        """Yield what stands in an annotation, each type once; not ``data`` if a dependency gives the value."""
        # Under its own name: what a text or an alias stands for is a new object each time.
        if _known_type(annotation, seen):  # type Json = dict[str, Json] | ...
            return
        followed = meant(annotation, owner)
        if text_of(annotation) is None and followed is not annotation:
            where = where.inside(why=_inside(where))
        elif text_of(annotation) is not None and where.why in _ANNOTATED:
            where = where.inside()
        if followed is not annotation and _known_type(followed, seen):
            return
        annotation = followed
        kind = type(annotation)
        text = text_of(annotation)
        if text is not None:
            if where.why in _ANNOTATED and any(word in text for word in ("Depends", "Security", "Annotated")):
                quotes = "its annotation stands in quotes, where FastAPI does not read it: write it without them"
                cure = quotes if where.why is Why.INSIDE else where.why.value
                yield Written(None, where, cure, what="a requirement that FastAPI cannot see", certain=where.certain)
        elif issubclass(kind, Depends | Requirement):
            yield from self._in_value(annotation, where.inside(why=_inside(where)))
        elif get_origin(annotation) is Annotated:
            inner, *notes = get_args(annotation)
            for note in notes:
                yield from self._in_value(note, where, annotation=inner)
            data = data and not any(issubclass(type(note), Depends) for note in notes)
            # FastAPI flattens an `Annotated` within an `Annotated`, but evaluates no name in quotes there.
            inside = where if type(inner) is type(annotation) else where.inside(why=_inside(where))
            yield from self._in_annotation(inner, inside, owner, seen, data=data)
        elif issubclass(kind, type):
            if data:
                yield from self._in_model(annotation, where)
        else:
            for part in parts(annotation):
                yield from self._in_annotation(part, where.inside(why=_inside(where)), owner, seen, data=data)

    def _in_model(self, model: type[Any], where: Where) -> Iterator[Written]:
        """Yield what stands in a model of a body, a query, a form, headers or cookies."""
        if (
            issubclass(model, BaseModel)
            or is_dataclass(model)
            or hasattr(model, "__total__")
            or hasattr(model, "_fields")
        ):
            for each in self._once(("model", id(model)), model, lambda: self._in_fields(model)):
                yield replace(each, certain=each.certain and where.certain)

    def _in_fields(self, model: type[Any]) -> Iterator[Written]:
        for kind in own_classes(model):
            for name, value in vars(kind).items():
                if name == "__init__" and type(value) is FunctionType and not is_dataclass(kind):
                    text = f" of {kind.__name__}.__init__"
                    yield from self._in_signature(value, Why.ELSEWHERE, 1, certain=False, above=text)
                elif name in _FIELDS and type(value) is dict:
                    for field, info in value.items():
                        yield from self._in_value(
                            info, Where(f"the field {_owner(kind, name, field)}.{field}", Why.FIELD)
                        )
                elif type(value) not in _IDLE and not name.startswith("__pydantic_"):
                    yield from self._in_value(value, Where(f"the class attribute {kind.__name__}.{name}", Why.FIELD))
            for name, annotation in annotations_of(kind):
                where = Where(f"the field {kind.__name__}.{name}", Why.FIELD)
                yield from self._in_annotation(annotation, where, kind, {})

    def _in_value(self, value: Any, where: Where, annotation: Any = None) -> Iterator[Written]:
        yield from self._in_part(value, where, annotation, _DEPTH, [_BUDGET])

    def _in_part(self, value: Any, where: Where, annotation: Any, depth: int, budget: list[int]) -> Iterator[Written]:
        kind = type(value)
        budget[0] -= 1
        if issubclass(kind, Depends):
            yield from self._in_depends(value, where, annotation)
        elif issubclass(kind, Requirement):
            yield Written.bare(value, where)
        elif depth <= 0 or budget[0] <= 0 or kind in _PLAIN:
            return
        elif issubclass(kind, FieldInfo):
            inner = where.inside(why=Why.ELSEWHERE if where.why is Why.PARAMETER else None)
            for part in (value.default, value.default_factory, value.metadata, value.json_schema_extra):
                if type(part) not in _PLAIN:
                    place = replace(inner, whole=True) if part is value.default else inner
                    yield from self._in_part(part, place, None, depth - 1, budget)
        elif (read := next((_MEMBERS[base] for base in kind.__mro__ if base in _MEMBERS), None)) is not None:
            members = tuple(islice(read(value), _ITEMS))
            if not members:
                return
            inner = where.inside(why=Why.ELSEWHERE if where.why in (Why.PARAMETER, Why.INSIDE) else None)
            for member in members:
                yield from self._in_part(member, inner, None, depth - 1, budget)
        elif where.opens:
            yield from self._in_object(value, where, depth, budget)

    def _in_object(self, value: Any, where: Where, depth: int, budget: list[int]) -> Iterator[Written]:
        """Yield what stands one level deep in an object of an unknown class, which may use it in any way."""
        inner = replace(where.inside(certain=False), opens=False)
        if type(value) is FunctionType:
            yield from self._in_signature(value, Why.SIGNATURE, certain=False, above=f" of {where.text}")
            if where.why is not Why.CODE:
                for each in self._in_code(value):
                    yield replace(each, where=replace(each.where, text=f"{where.text}, by {each.where.text},"))
        elif type(value) is MethodType:
            yield from self._in_part(value.__self__, inner, None, depth - 1, budget)
        elif issubclass(type(value), functools.partial):
            yield from self._in_part((value.func, *value.args), inner, None, depth - 1, budget)
        elif not issubclass(type(value), type | ModuleType) and module_of(type(value)) not in CLOSED:
            for holder, part in own_attributes(value).values():
                if holder is not value and type(part) in METHODS:
                    continue
                if type(part) in (FunctionType, MethodType):
                    yield from self._in_object(part, inner, depth - 1, budget) if depth > 1 else ()
                else:
                    yield from self._in_part(part, inner, None, depth - 1, budget)

    def _in_depends(self, depends: Any, where: Where, annotation: Any) -> Iterator[Written]:
        call = annotation if depends.dependency is None else depends.dependency
        if any(call is factory for factory in FACTORIES):
            cure = "write Depends(require_...(...)) with its parentheses"
            yield Written(None, where, cure, certain=where.certain, what="a requirement factory")
        found = self.held(depends, annotation)
        for requirement in found:
            yield Written.depends(requirement, where)
        scopes = frozenset(getattr(depends, "scopes", None) or ())
        if scopes and not found:
            yield replace(Written.depends(Scope(scopes), where), dependency=call, scopes=scopes)
        if not found and callable(call) and where.why is not Why.CODE:
            name = name_of(call)
            for each in self.written(call):  # it may ask by hand what is dropped with it
                if each.requirement is not None and not each.certain:
                    text = f"{where.text}, whose dependency {name} names {each.where.text},"
                    cure = where.why.value
                    yield replace(each, where=replace(where, text=text), cure=cure, dependency=call)

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
            where = Where("the list of dependencies of a router around it", Why.LATE, whole=True)
            yield from self._once(("late", id(depends)), depends, functools.partial(self._in_value, depends, where))

    def _in_framework_object(self, held: Any, what: str) -> Iterator[Written]:
        """Yield what stands in the attributes of a route, a router or an app, and of its class below the frameworks' own."""
        skipped = {"app", "callbacks", "dependant", "dependency_overrides", "endpoint", "router", "routes"}
        # A router's dependencies that came too late are known by `asked_too_late`.
        skipped |= {"dependencies"} if hasattr(held, "route_class") else {"original_route"}
        # FastAPI's own class sets each attribute on the object, which hides the attributes of a subclass. So read them separately.
        for holder in (held, *own_classes(type(held))):
            for name, value in attributes_of(holder).items():
                if type(value) in _IDLE or (holder is held and name in skipped):
                    continue
                why = Why.ASSIGNED if name == "dependencies" else Why.ELSEWHERE
                where = Where(f"the attribute {name} of the {what}", why, opens=False)
                state = name == "state" and type(value).__module__ == "starlette.datastructures"
                for part in attributes_of(value).values() if state else (value,):
                    yield from self._in_value(part, where)
        if any("get_route_handler" in vars(kind) for kind in own_classes(type(held))):
            yield from self._in_handler(held)

    def _in_handler(self, route: Any) -> Iterator[Written]:
        """Yield what stands on the handler of the developer's own route class."""
        waiting, seen = [getattr(route, "app", None)], dict[int, Any]()
        while waiting and len(seen) < _FUNCTIONS:
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
            name = f"the middleware {name_of(entry.cls)}"
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


def _owner(model: type[Any], name: str, field: str) -> str:
    """Return the name of the class that declares a field, of those whose attribute ``name`` has it."""
    declaring = [kind for kind in own_classes(model) if field in vars(kind).get(name, ())]
    return str(declaring[-1].__name__)


def _dependants(call: Any) -> Iterator[Any]:
    requirement = asked_by(call)
    # FastAPI asks nothing of what it cannot read.
    yield dependant_of(call if requirement is None else requirement)


def _known_type(annotation: Any, seen: dict[Any, Any]) -> bool:
    """Return whether a type was seen before, and remember it. Also true after so many types that one must be building new ones without end."""
    key = text_of(annotation) or id(annotation)
    if key in seen or len(seen) >= _ITEMS:
        return True
    seen[key] = annotation
    return False


def _inside(where: Where) -> Why:
    return Why.INSIDE if where.why is Why.PARAMETER else where.why

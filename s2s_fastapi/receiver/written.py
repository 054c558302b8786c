"""What is written: every requirement in the code of a route, whether or not FastAPI asks it.

FastAPI asks the last ``Depends`` of a parameter, and the lists ``dependencies=[...]``. It ignores every other place without an error.
This reader finds the other places, so that the start check can compare what is written with what is asked.
"""

import functools
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import islice
from types import CodeType, FunctionType, ModuleType
from typing import Annotated, Any, Final, ForwardRef, get_args, get_origin

from fastapi.params import Depends
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from typing_inspection.typing_objects import is_typealiastype

from s2s_fastapi.receiver.asked import held
from s2s_fastapi.receiver.framework import annotation_of, parameters_of
from s2s_fastapi.receiver.guard import GUARD_MARK, GUARDED_MARK
from s2s_fastapi.receiver.require import FACTORIES
from s2s_fastapi.receiver.requirements import Requirement

__all__ = ["Unevaluated", "Written", "line_of", "unevaluated", "written", "written_on_route"]

_DEPENDS: Final = (
    "FastAPI does not look there: write dependencies=[Depends(...)] on the route, or one Depends(...) on a parameter"
)
_LAST: Final = (
    "FastAPI asks only the last Depends of a parameter: join the requirements with & in one Depends(... & ...), or give each its own "
    "parameter"
)
_INSIDE: Final = (
    "FastAPI does not look inside of a union or a container: write Annotated[..., Depends(...)] around the whole type"
)
_BARE: Final = "FastAPI does not ask a requirement without Depends(...) around it"
_BY_HAND: Final = "FastAPI does not ask it there: if the code does not ask it by hand either, write Depends(...)"
_FRAMEWORKS: Final = frozenset({"builtins", "fastapi", "functools", "pydantic", "s2s_fastapi", "starlette"})
"""Modules whose classes hold no requirement of the developer's."""
_DEPTH: Final = 4
_ITEMS: Final = 200
"""Members of a container that are looked at: a table of policies is shorter, and a cache need not be read to its end."""


@dataclass(frozen=True, slots=True)
class Written:
    """A requirement that stands in the code of a route."""

    requirement: Requirement | None
    """None: a factory such as ``require_service`` without its parentheses."""
    place: str
    """Where it stands: ``the parameter caller``."""
    cure: str
    certain: bool = True
    """False: the code may ask it by hand."""
    shared: tuple[int, str] | None = None
    """The identity of the class or object it is an attribute of: several routes have this one."""


@dataclass(frozen=True, slots=True)
class Unevaluated:
    """A parameter whose annotation is still text, so that FastAPI saw no ``Depends`` in it."""

    parameter: str
    annotation: str


def written(call: Any) -> Iterator[Written]:
    """Yield what stands in one endpoint or dependency: its signature, its class, the models it reads, and the names in its code."""
    seen: set[int] = set()
    for parameter in parameters_of(call):
        yield from _in_parameter(parameter.name, parameter.annotation, parameter.default, seen)
    for function in _functions(call):
        yield from _in_function(function, seen)
    owner = getattr(_without_partial(call), "__self__", _without_partial(call))
    if not isinstance(owner, FunctionType | ModuleType):
        yield from _in_attributes(owner if inspect.isclass(owner) else type(owner))
        yield from () if inspect.isclass(owner) else _in_attributes(owner)


def written_on_route(route: Any) -> Iterator[Written]:
    """Yield what stands in the arguments of a route's decorator that FastAPI uses for the document only."""
    for name in ("openapi_extra", "responses", "tags"):
        yield from _in_value(getattr(route, name, None), f"the argument {name}", _DEPENDS, whole=False)


def unevaluated(call: Any) -> Iterator[Unevaluated]:
    """Yield the parameters of an endpoint or a dependency whose annotations FastAPI could not evaluate."""
    for parameter in parameters_of(call):
        text = _text(parameter.annotation)
        # A `Depends` as default is asked whatever the annotation says, unless the annotation holds another one.
        if text is not None and not (isinstance(parameter.default, Depends) and not _may_depend(text)):
            yield Unevaluated(parameter.name, text)


def line_of(call: Any) -> str:
    """Return file and line of an endpoint or a dependency as ``app.py:12``; empty if it has none."""
    function = inspect.unwrap(_without_partial(call))
    if not hasattr(function, "__code__"):  # a class, or an object that can be called
        function = getattr(function, "__init__" if inspect.isclass(function) else "__call__", None)
    code = getattr(function, "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _in_parameter(name: str, annotation: Any, default: Any, seen: set[int]) -> Iterator[Written]:
    place = f"the parameter {name}"
    found = [*_in_annotation(annotation, place, seen), *_in_value(default, place, _BARE, whole=True)]
    if sum(each.certain for each in found) > 1:
        found = [replace(each, cure=_LAST) if each.cure is _BARE else each for each in found]
    yield from found


def _in_annotation(
    annotation: Any, place: str, seen: set[int], *, inside: bool = False, data: bool = True
) -> Iterator[Written]:
    """Yield what stands in an annotation; ``inside`` of a union or a container, and not ``data`` if a dependency gives the value."""
    while is_typealiastype(annotation):  # type Caller = Annotated[...]
        annotation = annotation.__value__
    text = _text(annotation)
    if text is not None:
        if inside and _may_depend(text):
            yield Written(
                None, place, "its annotation stands in quotes, where FastAPI does not read it: write it without them"
            )
    elif get_origin(annotation) is Annotated:
        kind, *notes = get_args(annotation)
        for note in notes:
            yield from _in_value(note, place, _INSIDE if inside else _BARE, whole=True, annotation=kind)
        data = data and not any(isinstance(note, Depends) for note in notes)
        yield from _in_annotation(kind, place, seen, inside=inside, data=data)
    elif inspect.isclass(annotation) and get_origin(annotation) is None:
        if data:
            yield from _in_model(annotation, place, seen)
    else:
        for part in get_args(annotation):
            yield from _in_annotation(part, place, seen, inside=True, data=data)


def _in_model(model: type[Any], place: str, seen: set[int]) -> Iterator[Written]:
    """Yield what stands in the fields of a model of a body, a query, a form, headers or cookies."""
    if id(model) in seen:
        return
    seen.add(id(model))
    if issubclass(model, BaseModel):
        for name, field in model.model_fields.items():
            where = f"the field {model.__name__}.{name} of {place}"
            yield from _in_value(field, where, _DEPENDS, whole=True)
            yield from _in_annotation(field.annotation, where, seen, inside=True)
    elif is_dataclass(model) or hasattr(model, "__total__") or hasattr(model, "_fields"):
        defaults = {each.name: each.default for each in fields(model)} if is_dataclass(model) else {}
        for name, annotation in _annotations(model):
            where = f"the field {model.__name__}.{name} of {place}"
            yield from _in_annotation(annotation, where, seen, inside=True)
            yield from _in_value(defaults.get(name), where, _DEPENDS, whole=True)


def _in_value(
    value: Any, place: str, cure: str, *, whole: bool, annotation: Any = None, depth: int = _DEPTH
) -> Iterator[Written]:
    if isinstance(value, Depends):
        if value.dependency is not None and any(value.dependency is factory for factory in FACTORIES):
            yield Written(None, place, "write Depends(require_...(...)) with its parentheses")
        for requirement in held(value, annotation):
            yield Written(requirement, place, cure)
    elif isinstance(value, Requirement):
        yield Written(value, place, cure if whole else _BY_HAND, certain=whole)
    elif isinstance(value, FieldInfo):
        for part in (value.default, value.metadata, value.json_schema_extra):
            yield from _in_value(part, place, _DEPENDS, whole=part is value.default, depth=depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset | dict):
        for member in islice(value.values() if isinstance(value, dict) else value, _ITEMS):
            yield from _in_value(member, place, _DEPENDS, whole=False, depth=depth - 1)


def _in_function(function: FunctionType, seen: set[int]) -> Iterator[Written]:
    """Yield what stands in one function of a chain of decorators: FastAPI reads the signature of the innermost one only."""
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    defaults = dict(zip(reversed(names[: code.co_argcount]), reversed(function.__defaults__ or ()), strict=False))
    defaults |= function.__kwdefaults__ or {}
    annotations = dict(_annotations(function))
    for name in names:
        yield from _in_parameter(name, annotations.get(name), defaults.get(name), seen)
    yield from _in_annotation(annotations.get("return"), "the annotation of what it returns", seen, inside=True)
    for name, value in _named(function):
        for each in _in_value(value, name, _BY_HAND, whole=False):
            yield replace(each, certain=False, cure=_BY_HAND)
    for name, value in vars(function).items():
        if name not in {GUARD_MARK, GUARDED_MARK}:
            for each in _in_value(value, f"the function's attribute {name}", _BY_HAND, whole=False):
                yield replace(each, certain=False, cure=_BY_HAND)


def _in_attributes(holder: Any) -> Iterator[Written]:
    """Yield what stands in the attributes of a class, or of an object, that an endpoint or a dependency belongs to."""
    for owner in holder.__mro__ if inspect.isclass(holder) else (holder,):
        if getattr(owner, "__module__", "").partition(".")[0] in _FRAMEWORKS:
            continue
        kind = (
            f"the class attribute {owner.__name__}"
            if inspect.isclass(owner)
            else f"the attribute {type(owner).__name__}"
        )
        values = [
            *((name, _in_value(value, f"{kind}.{name}", _DEPENDS, whole=False)) for name, value in _data(owner)),
            *(
                (name, _in_annotation(value, f"{kind}.{name}", set(), inside=True))
                for name, value in _class_annotations(owner)
            ),
        ]
        for name, found in values:
            for each in found:
                yield replace(each, shared=(id(owner), name))


def _data(owner: Any) -> Iterable[tuple[str, Any]]:
    attributes = getattr(owner, "__dict__", {})  # none of an object with slots
    return [(name, value) for name, value in attributes.items() if not name.startswith("__")]


def _class_annotations(owner: Any) -> Iterable[tuple[str, Any]]:
    return _annotations(owner) if inspect.isclass(owner) else ()


def _functions(call: Any) -> Iterator[FunctionType]:
    """Yield the functions that run for an endpoint or a dependency: decorators, the function below them, methods of an endpoint class."""
    if inspect.isclass(call):
        methods = None if issubclass(call, HTTPEndpoint | WebSocketEndpoint) else {"__init__", "__new__"}
        for name, value in vars(call).items():
            if isinstance(value, FunctionType) and (methods is None or name in methods):
                yield value
        return
    seen: set[int] = set()
    while call is not None and id(call) not in seen:
        seen.add(id(call))
        call = _without_partial(call)
        function = getattr(call, "__func__", call)
        if not isinstance(function, FunctionType):
            function = vars(type(function)).get("__call__")
        if isinstance(function, FunctionType):
            yield function
        call = getattr(call, "__wrapped__", None)


def _named(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function can mean by the names in its code: globals, members of modules, and what it closes over."""
    names = frozenset(_names(function.__code__))
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if inspect.ismodule(value):
            yield from ((f"the global {name}.{member}", vars(value)[member]) for member in names & vars(value).keys())
        else:
            yield f"the global {name}", value
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"the variable {name}", cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:  # a comprehension is code of its own before Python 3.12
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _annotations(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the annotations of a function or a class, each evaluated if it can be."""
    try:
        annotations = inspect.get_annotations(owner)
    except (TypeError, ValueError, NameError):
        return
    for name, annotation in annotations.items():
        yield name, annotation_of(owner, annotation)


def _text(annotation: Any) -> str | None:
    if isinstance(annotation, ForwardRef):
        return annotation.__forward_arg__
    return annotation if isinstance(annotation, str) else None


def _may_depend(text: str) -> bool:
    return any(word in text for word in ("Depends", "Security", "Annotated"))


def _without_partial(call: Any) -> Any:
    while isinstance(call, functools.partial):
        call = call.func
    return call

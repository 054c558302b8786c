"""What a callable is made of: its functions, classes and objects, the names in its code, and what its annotations mean."""

import functools
import inspect
import sys
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Annotated, Any, Final, ForwardRef, NewType, TypeVar, get_args, get_origin

from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
from typing_inspection.typing_objects import is_typealiastype

from s2s_fastapi.fastapi_internals import annotation_of, attributes_of, chain

__all__ = [
    "CLOSED",
    "METHODS",
    "Role",
    "annotations_of",
    "functions_of",
    "line_of",
    "meant",
    "module_of",
    "name_of",
    "names_in",
    "own_attributes",
    "own_classes",
    "owners_of",
    "parts",
    "text_of",
]

_FRAMEWORKS: Final = frozenset(
    {"builtins", "enum", "fastapi", "functools", "pydantic", "s2s_fastapi", "starlette", "typing"}
)
"""Modules whose classes cannot hold a requirement of the developer."""
CLOSED: Final = frozenset({"fastapi", "s2s_fastapi", "starlette"})
"""Modules whose objects are not read: an app has its own requirements."""
METHODS: Final = (FunctionType, staticmethod, classmethod, property)
_STEPS: Final = 16
"""Aliases that are followed one after the other."""


class Role(Enum):
    """What a callable is to a route."""

    ENDPOINT = auto()
    STARLETTE = auto()
    """An endpoint, or an ASGI app, whose signature FastAPI does not read."""
    DEPENDENCY = auto()


def line_of(*calls: Any) -> str:
    """Return file and line of the first endpoint or dependency that has them, as ``app.py:12``; empty if none has.

    The file is relative to the current folder if it is below it.
    """
    for call in calls:
        links = list(chain(call))
        for kind in (link for link in links if issubclass(type(link), type)):
            made = attributes_of(kind).get("__init__")
            links += [made] if module_of(made) == module_of(kind) else []  # a package may have written another one
        functions = [link for link in links if type(link) is FunctionType]
        if functions:
            code = functions[-1].__code__
            return f"{code.co_filename}:{code.co_firstlineno}".removeprefix(f"{Path.cwd()}/")
    return ""


def functions_of(call: Any) -> Iterator[tuple[FunctionType, int, bool]]:
    """Yield the functions that run for a call, how many of their first parameters are filled, and whether nothing wraps them."""
    filled, outermost = 0, True
    for link in chain(call):
        kind = type(link)
        if kind is FunctionType:
            if module_of(link) not in CLOSED:
                yield link, filled, outermost
            outermost = False
        elif issubclass(kind, functools.partial):
            filled += len(link.args)
        elif issubclass(kind, type):
            endpoint = issubclass(link, HTTPEndpoint | WebSocketEndpoint)
            for name, (_, method) in own_attributes(link).items():
                if endpoint or name in {"__init__", "__new__"}:
                    yield from functions_of(method) if type(method) in (FunctionType, staticmethod, classmethod) else ()
        else:
            filled += 1  # the object itself


def owners_of(link: Any, role: Role) -> Iterator[tuple[Any, bool]]:
    """Yield the classes and objects that a callable belongs to, and whether their attributes are meant for it.

    A method that is a dependency may belong to an object that holds dependencies for others.
    """
    kind = type(link)
    endpoint = role is not Role.DEPENDENCY
    if kind is MethodType:
        yield link.__self__, endpoint
    elif kind is FunctionType:
        *path, _ = link.__qualname__.split(".")
        owner: Any = sys.modules.get(link.__module__)
        for name in path:
            owner = attributes_of(owner).get(name)
        if path and issubclass(type(owner), type):  # a static method
            yield owner, endpoint
    elif not issubclass(kind, functools.partial | staticmethod | classmethod):
        yield link, True


def own_attributes(owner: Any) -> dict[str, tuple[Any, Any]]:
    """Return the attributes of a class, or of an object and its class, each with its owner. Of equal names the nearest counts."""
    is_class = issubclass(type(owner), type)
    holders = [*(() if is_class else (owner,)), *own_classes(owner if is_class else type(owner))]
    found: dict[str, tuple[Any, Any]] = {}
    for holder in holders:
        for name, value in attributes_of(holder).items():
            found.setdefault(name, (holder, value))
    return found


def own_classes(kind: Any) -> Iterator[Any]:
    """Yield a class and its base classes, without those of the frameworks."""
    yield from (base for base in getattr(kind, "__mro__", ()) if module_of(base) not in _FRAMEWORKS)


def name_of(call: Any) -> str:
    """Return the name of a callable as one reads it in the code; of an object without a name, its class's."""
    return str(getattr(call, "__name__", type(call).__name__))


def module_of(held: Any) -> str:
    """Return the first name of the module that a function or a class is from."""
    return str(getattr(held, "__module__", "")).partition(".")[0]


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that code may look up: globals and attributes."""
    yield from code.co_names
    for constant in code.co_consts:  # a comprehension is code of its own before Python 3.12
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def meant(annotation: Any, owner: Any) -> Any:
    """Follow what is another name for an annotation: an alias, generic or not, a ``NewType``, a bound, a name in quotes.

    ``owner`` is the function or class whose names the quotes mean.
    """
    for _ in range(_STEPS):
        following = _one_step(annotation, owner)
        if following is annotation:
            break
        annotation = following
    return annotation


def _one_step(annotation: Any, owner: Any) -> Any:
    origin = get_origin(annotation)
    if is_typealiastype(annotation):  # type Caller = Annotated[...]
        return annotation.__value__
    if is_typealiastype(origin):  # type Of[T] = Annotated[T, ...]
        try:
            return origin.__value__[get_args(annotation)]
        except TypeError:  # it does not use its parameters
            return origin.__value__
    if isinstance(annotation, NewType):
        return annotation.__supertype__
    if isinstance(annotation, TypeVar):
        return annotation if annotation.__bound__ is None else annotation.__bound__
    text = text_of(annotation)
    if text is None:
        return annotation
    evaluated = annotation_of(owner, text)
    return annotation if text_of(evaluated) is not None else evaluated


def parts(annotation: Any) -> Iterator[Any]:
    """Yield the types that an annotation is made of."""
    for part in get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]:
        yield from part if isinstance(part, list) else (part,)  # the parameters of a Callable


def annotations_of(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the annotations of a function or a class, each evaluated if it can be."""
    try:
        annotations = inspect.get_annotations(owner)
    except (TypeError, ValueError, NameError):
        return
    for name, annotation in annotations.items():
        yield name, annotation_of(owner, annotation)


def text_of(annotation: Any) -> str | None:
    """Return the text of an annotation that is not evaluated; None of any other."""
    if type(annotation) is ForwardRef:
        return annotation.__forward_arg__
    return annotation if type(annotation) is str else None

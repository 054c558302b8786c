"""What a function depends on, read from its signature: every ``Depends`` in it, and in the functions that it depends on."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Dependence", "dependences", "endpoints"]


@dataclass(frozen=True, slots=True)
class Dependence:
    """One parameter that a dependency fills."""

    function: Callable[..., Any]
    """The function that has the parameter."""
    parameter: str
    annotation: Any
    """Its type, without ``Annotated``."""
    dependency: Any
    """The argument of ``Depends``."""


def dependences(function: Any, seen: frozenset[int] = frozenset()) -> Iterator[Dependence]:
    """Yield the dependencies of `function`, direct and indirect. A signature that cannot be read yields nothing."""
    if not inspect.isroutine(function) or id(function) in seen:
        return
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except Exception:  # noqa: BLE001 - an annotation that is text may raise anything
        return
    for parameter in parameters:
        hint = hints.get(parameter.name, Any)
        annotation, *metadata = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        for marker in (*metadata, parameter.default):
            dependency = getattr(marker, "dependency", None)  # FastAPI's Depends, and Security
            if callable(dependency):
                yield Dependence(function, parameter.name, annotation, dependency)
                yield from dependences(dependency, seen | {id(function)})


def endpoints(app: Any) -> Iterator[Any]:
    """Yield the functions of an app's routes, including included routers and mounted apps, as far as they can be found."""
    for route in getattr(app, "routes", ()):
        endpoint = getattr(route, "endpoint", None)
        if endpoint is not None:
            yield endpoint
        else:
            yield from endpoints(getattr(route, "original_router", route))

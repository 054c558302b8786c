"""What an annotation means: aliases, names in quotes, and types that are another name for a type."""

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Final, ForwardRef, NewType, TypeVar, get_args, get_origin

from typing_inspection.typing_objects import is_typealiastype

from s2s_fastapi.fastapi_internals import annotation_of

__all__ = ["annotations_of", "meant", "parts", "text_of"]

_STEPS: Final = 16
"""Aliases that are followed one after the other."""


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

"""The public names of the package with their signatures, as one text: ``python -m tests.kit.surface`` writes the reviewed one."""

import inspect
import re
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final, ForwardRef, get_args, get_origin

from starlette.types import ASGIApp, Receive, Scope, Send

import s2s_fastapi
from tests.kit.public import PUBLIC

__all__ = ["REVIEWED", "surface"]

REVIEWED: Final = Path(__file__).resolve().parents[1] / "public_surface.txt"
_HEADING: Final = "The public names of s2s_fastapi. Written by `make surface`; review every change.\n\n"
_OF_MODULE: Final = "\nThe public names of {}.\n\n"
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")
_MODULE: Final = re.compile(r"\b(?:[a-z_0-9]+\.)+(?=[A-Z])")
_UNPACKED: Final = re.compile(r"\*<class '(\w+)'>")
"""How Python 3.11 writes ``Unpack[...]``."""

_ALIASES: Final = {"ASGIApp": ASGIApp, "Receive": Receive, "Send": Send, "Scope": Scope}
"""What Starlette names and `inspect` writes out, the longest first."""


def surface() -> str:
    """Return what the modules of the policy have in `__all__`: a line for each name, and for each public member of a class."""
    first, *others = PUBLIC
    assert first == s2s_fastapi.__name__
    return (
        _HEADING
        + _names(s2s_fastapi)
        + "".join(_OF_MODULE.format(name) + _names(import_module(name)) for name in others)
    )


def _names(module: ModuleType) -> str:
    return "".join(f"{line}\n" for name in sorted(module.__all__) for line in _line_or_lines(module, name))


def _line_or_lines(module: ModuleType, name: str) -> Iterator[str]:
    value = getattr(module, name)
    if module is not s2s_fastapi and name in s2s_fastapi.__all__ and getattr(s2s_fastapi, name) is value:
        yield f"{name}: s2s_fastapi.{name}"
    elif inspect.ismodule(value):
        yield f"module {name}"
        yield from (
            f"    {line}" for member in sorted(value.__all__) for line in _lines(member, getattr(value, member))
        )
    else:
        yield from _lines(name, value)


def _lines(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        value = inspect.unwrap(value) if callable(value) else value
        yield f"{name}{_signature(value)}" if inspect.isfunction(value) else f"{name}: {type(value).__name__}"
        return
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    yield f"class {name}({bases})"
    # An enumeration's members are what users see. Its signature, and that of FastAPI's own classes, differs between releases.
    made = next(base for base in value.__mro__ if "__init__" in vars(base) or "__new__" in vars(base))
    if not issubclass(value, Enum) and not made.__module__.startswith("fastapi"):
        yield f"    {name}{_signature(value)}"
    foreign = [base for base in value.__mro__ if not base.__module__.startswith("s2s_fastapi")]
    for member in sorted(vars(value)):
        if not member.startswith("_") and not any(hasattr(base, member) for base in foreign):  # theirs, overridden
            found = inspect.getattr_static(value, member)
            inner = getattr(found, "__func__", found)
            kind = type(found).__name__ if inner is not found else ""
            shown = f"{member}{_signature(inner)}" if inspect.isfunction(inner) else f"{member}: {_attribute(found)}"
            yield f"    {kind} {shown}" if kind else f"    {shown}"


def _attribute(found: object) -> str:
    return "property" if isinstance(found, property) else "attribute"


def _bare(annotation: Any) -> Any:
    """Return the type alone: the rest of an `Annotated` looks different from release to release of Pydantic."""
    bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    return bare.__forward_arg__ if isinstance(bare, ForwardRef) else bare


def _signature(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except ValueError:
        return "(...)"
    parameters = [each.replace(annotation=_bare(each.annotation)) for each in signature.parameters.values()]
    shown = _MODULE.sub("", _ADDRESS.sub("", str(signature.replace(parameters=parameters))))
    shown = _UNPACKED.sub(r"Unpack[\1]", shown)
    for name, alias in _ALIASES.items():
        shown = shown.replace(_MODULE.sub("", inspect.formatannotation(alias)), name)
    return shown


if __name__ == "__main__":
    REVIEWED.write_text(surface(), encoding="utf-8")

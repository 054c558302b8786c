"""A realm file as Keycloak reads it: which fields it knows, and how it converts a value to the type of its field.

Keycloak reads realm files with Jackson, into its ``*Representation`` classes. ``representations.json`` lists the fields of these
classes, as in 26.7.3, and the fields that 26.0.8 does not have. Hand-written files rely on the conversions: ``"false"`` is accepted as
a boolean, ``true`` and ``12`` as a text.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

from s2s_fastapi.text import printable

__all__ = ["Converted", "convert"]

_NAMES: Final = ("clientId", "username", "alias", "name")
_LONGEST_NAME: Final = 80


@dataclass(frozen=True, slots=True)
class Converted:
    """A document that has only known fields, each with a value of its type, and why Keycloak refuses the file."""

    document: dict[str, Any] = field(repr=False)
    unknown_fields: tuple[str, ...]
    """The places of the fields that Keycloak does not know."""
    wrong_types: tuple[str, ...]
    """One sentence for each value that cannot be converted to the type of its field."""


def convert(document: Mapping[str, Any], version: tuple[int, ...]) -> Converted:
    """Return the document as a server of ``version`` reads it."""
    converter = _Converter(_fields(old=version < (26, 1)))
    return Converted(
        document=converter.converted("RealmRepresentation", document, ()),
        unknown_fields=tuple(converter.unknown_fields),
        wrong_types=tuple(converter.wrong_types),
    )


@cache
def _fields(*, old: bool) -> dict[str, dict[str, str]]:
    content = json.loads(files(__package__).joinpath("representations.json").read_text(encoding="utf-8"))
    fields: dict[str, dict[str, str]] = content["fields"]
    absent = content["not in 26.0"] if old else {}
    return {
        name: {one: kind for one, kind in kinds.items() if one not in absent.get(name, ())}
        for name, kinds in fields.items()
    }


class _Converter:
    def __init__(self, fields: Mapping[str, Mapping[str, str]]) -> None:
        self.fields = fields
        self.unknown_fields: list[str] = []
        self.wrong_types: list[str] = []

    def converted(self, kind: str, value: Any, place: tuple[str, ...]) -> Any:
        """Return the value as ``kind``: ``any``, a scalar, ``[kind]``, ``{kind}`` or the name of a class."""
        if value is None or kind == "any":
            return value
        try:
            if kind in _SCALARS:
                return _SCALARS[kind](value)
            if kind == "texts" and not isinstance(value, list):  # a single value counts as a list of one
                return [_text(value)]
            if kind == "texts" or kind[0] == "[":
                inside = "text" if kind == "texts" else kind[1:-1]
                return [self.converted(inside, one, (*place, label)) for label, one in _labelled(value)]
            return {
                name: self.converted(of, one, (*place, f".{name}"))
                for name, of, one in self._members(kind, value, place)
            }
        except _WrongTypeError as error:
            self.wrong_types.append(f"`{_shown(place)}` must be {error.expected}")
            return None

    def _members(self, kind: str, value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str, Any]]:
        if not isinstance(value, Mapping):
            raise _WrongTypeError("an object")
        for name, one in value.items():
            of = kind[1:-1] if kind[0] == "{" else self.fields[kind].get(name)
            if of is None:
                self.unknown_fields.append(_shown((*place, f".{name}")))
            else:
                yield name, of, one


class _WrongTypeError(Exception):
    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise _WrongTypeError("a text")


def _boolean(value: Any) -> bool | None:
    if isinstance(value, str) and value.strip() in _WORDS:
        return _WORDS[value.strip()]
    if isinstance(value, int):
        return bool(value)
    raise _WrongTypeError("true or false")


def _number(value: Any) -> int | None:
    if value == "":
        return None
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            return int(value)
    raise _WrongTypeError("a whole number")


_WORDS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    "": None,
}
_SCALARS: Final[Mapping[str, Callable[[Any], Any]]] = {"text": _text, "boolean": _boolean, "number": _number}


def _labelled(value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, list):
        raise _WrongTypeError("a list")
    for number, one in enumerate(value):
        named = (one.get(name) for name in _NAMES) if isinstance(one, Mapping) else ()
        yield f"[{next((name for name in named if isinstance(name, str)), number)}]", one


def _shown(place: tuple[str, ...]) -> str:
    return "".join(printable(part, _LONGEST_NAME) for part in place).removeprefix(".")

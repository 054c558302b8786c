"""JSON that has exactly one reading (RFC 8259, RFC 7493)."""

import json
import math
import re
from collections import Counter
from typing import Any, Final, NoReturn

__all__ = ["AmbiguousJsonError", "DuplicateMembersError", "NotAnObjectError", "doubled", "json_object"]

_MAX_DEPTH: Final = 32
_WHITESPACE: Final = " \t\n\r"
_ODD_NUMBERS: Final = "numbers that JSON does not know or nobody can hold (NaN, Infinity, 1e999)"
# A string is consumed even if it never ends, so that no character is read twice.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


class AmbiguousJsonError(ValueError):
    """The JSON can be read in more than one way, or not by all parsers. The text names the problem and shows none of the JSON."""


class DuplicateMembersError(AmbiguousJsonError):
    """An object has two members of the same name. Parsers differ in which one they take."""


class NotAnObjectError(ValueError):
    """The JSON is not an object."""


def json_object(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    It is UTF-8 without byte order mark, member names are unique at every level, numbers are finite, text has a UTF-8 form, and there
    are at most 32 levels.

    Raises:
        AmbiguousJsonError: It is JSON, but breaks one of these rules.
        NotAnObjectError: It is JSON, but not an object.
        ValueError: It is anything else; the text may show parts of it.
    """
    text = raw.decode("utf-8")
    if text.count("{") + text.count("[") > _MAX_DEPTH:  # only then can it be deeper than that
        _check_depth(text)
    text = text.strip(_WHITESPACE)
    value, end = _DECODER.raw_decode(text)  # as `decode` does, without its two regular expressions
    if end != len(text):
        raise ValueError("more than one value")
    if not isinstance(value, dict):
        raise NotAnObjectError("not an object")
    if "\\u" in text:
        _check_text(value)
    return value


def doubled(raw: bytes) -> tuple[str, dict[str, Any]]:
    """Return the path of the first duplicate member, with dots between names, and the members of the object that are not duplicated.

    Raises:
        ValueError: It is not one JSON object, or has no such member.
    """
    pairs = _PAIRS.decode(raw.decode("utf-8"))
    path = _first_doubled(pairs)
    if not path or not isinstance(pairs, _Pairs):
        raise NotAnObjectError("not an object with a member that stands twice")
    times = Counter(name for name, _ in pairs)
    return path, {name: value for name, value in pairs if times[name] == 1}


class _Pairs(list[tuple[str, Any]]):
    """An object with all its members, including those with the same name."""


def _first_doubled(value: Any) -> str:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for name, member in value:
            if name in seen:
                return name
            seen.add(name)
            if found := _first_doubled(member):
                return f"{name}.{found}"
    elif isinstance(value, list):
        return next(filter(None, map(_first_doubled, value)), "")
    return ""


def _check_text(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        problem = "lone surrogates, which have no UTF-8 form"
    else:
        return
    raise AmbiguousJsonError(problem)  # outside the except block: the first error contains the whole text


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in ("{", "["):
            depth += 1
        elif mark in ("}", "]"):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise AmbiguousJsonError(f"more than {_MAX_DEPTH} levels")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DuplicateMembersError("duplicate members")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise AmbiguousJsonError(_ODD_NUMBERS)
    return number


def _refuse(_: str) -> NoReturn:
    raise AmbiguousJsonError(_ODD_NUMBERS)


# Made once: json.loads with hooks would make one for every token.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
_PAIRS: Final = json.JSONDecoder(object_pairs_hook=_Pairs)

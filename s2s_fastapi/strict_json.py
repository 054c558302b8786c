"""JSON that has exactly one reading (RFC 8259, RFC 7493)."""

import json
import math
import re
from typing import Any, Final, NoReturn

__all__ = ["json_object"]

_MAX_DEPTH: Final = 32
# A string is consumed even if it never ends, so that no character is looked at twice.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


def json_object(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Guaranteed are UTF-8 without byte order mark, member names that are unique at every level, finite numbers, text that has a
    UTF-8 form, and at most 32 levels.

    Raises:
        ValueError: It is anything else; the text may repeat parts of it.
    """
    text = raw.decode("utf-8")
    if text.count("{") + text.count("[") > _MAX_DEPTH:  # only then can it be deeper than that
        _check_depth(text)
    value = _DECODER.decode(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one error for whatever is not that
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate has no UTF-8 form
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in ("{", "["):
            depth += 1
        elif mark in ("}", "]"):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


# Made once: json.loads with hooks would make one for every token.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)

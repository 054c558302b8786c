"""Text from outside, made fit for a log."""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["listed", "named", "printable", "quoted", "without_tokens"]

_CUT: Final = "..."
_PLAIN: Final = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_.:/@%+~#&=?-]*[A-Za-z0-9_/])?")
_LONGEST_NAME: Final = 255
# {" in base64url: how the header and the payload of every JWT begin. Cut off before its signature, what a token says would still be told.
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_.-]{7,}")


def printable(text: str, longest: int) -> str:
    """Return ``text`` on one line, ``longest`` characters of it at most, with nothing that a handler or a terminal acts on.

    What was cut ends in three dots; each character that is not printable is shown as U+FFFD, so that nothing looks like
    something else.
    """
    if len(text) <= longest and text.isprintable():
        return text
    kept = text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in kept)


def quoted(text: str) -> str:
    """Return printable ``text`` in single quotes that nothing in it can end: what looks like another field stays inside."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def named(name: str) -> str:
    """Return a name as it stands in a sentence: as it is if it is one plain ASCII word, otherwise in double quotes.

    It has 256 characters at most. So a name with a comma is never read as two, and a name that reads like a sentence never as a part of ours.
    """
    if len(name) <= _LONGEST_NAME and _PLAIN.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped, _LONGEST_NAME - 1)}"'


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """Return names in order, so that nobody can take two for one: each as `named`."""
    return separator.join(map(named, sorted(names)))


def without_tokens(text: str) -> str:
    """Return ``text`` without the JWTs in it, whole or cut off."""
    return _JWT.sub("(left out)", text) if "eyJ" in text else text

"""Text from outside made safe for a log, and bytes written as text."""

import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

__all__ = ["base64url", "listed", "named", "names_in", "printable", "quoted", "without_tokens"]

_CUT: Final = "..."
_PLAIN: Final = re.compile(r"[A-Za-z0-9_/](?:[A-Za-z0-9_.:/@%+~#&=?-]*[A-Za-z0-9_/])?")
_LONGEST_NAME: Final = 255
# {" in base64url: how the header and the payload of every JWT begin. Even without its signature, the claims of a token must not be logged.
_JWT: Final = re.compile(r"eyJ[A-Za-z0-9_.-]{7,}")


def printable(text: str, longest: int) -> str:
    """Return ``text`` on one line, at most ``longest`` characters, without characters that a handler or terminal interprets.

    Text that was cut ends in three dots. Each character that is not printable is shown as U+FFFD.
    """
    if len(text) <= longest and text.isprintable():
        return text
    kept = text if len(text) <= longest else text[: longest - len(_CUT)] + _CUT
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in kept)


def quoted(text: str) -> str:
    """Return printable ``text`` in single quotes, escaped: text that imitates another field stays inside the quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def named(name: str) -> str:
    """Return a name for use in a sentence: unchanged if it is one plain ASCII word, otherwise in double quotes.

    It has at most 256 characters. So a name with a comma is never read as two names, and a name that imitates a sentence is never read
    as a part of ours.
    """
    if len(name) <= _LONGEST_NAME and _PLAIN.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(escaped, _LONGEST_NAME - 1)}"'


def listed(names: Iterable[str], separator: str = ", ") -> str:
    """Return names in order, each as `named`: so two names are never read as one."""
    return separator.join(map(named, sorted(names)))


def names_in(claim: object) -> list[str]:
    """Return the names in a claim that is a text or a list of texts, as ``aud`` is (RFC 7519 section 4.1.3). What is no text is left out."""
    return [
        name
        for name in (claim if isinstance(claim, list | tuple | set | frozenset) else (claim,))
        if isinstance(name, str)
    ]


def without_tokens(text: str) -> str:
    """Return ``text`` without the JWTs in it, whole or cut off."""
    return _JWT.sub("(left out)", text) if "eyJ" in text else text


def base64url(raw: bytes) -> str:
    """Return bytes as JWTs and JWKs write them: base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")

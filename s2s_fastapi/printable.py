"""Text from outside, made fit for a log."""

from typing import Final

__all__ = ["printable", "quoted"]

_CUT: Final = "..."


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

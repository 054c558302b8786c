"""What a service says of the credentials of a request that it refused: its challenges (RFC 9110 section 11.6.1)."""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["UNAUTHORIZED", "challenge_error"]

UNAUTHORIZED: Final = 401
_MAX_CHALLENGE: Final = 8192
_END: Final = re.compile(r"[,;]")
_PARAMETER: Final = re.compile(r"[ \t]+[A-Za-z_-]+[ \t]*=")
# RFC 9110 section 11.6.1: what follows a word decides whether it is a scheme, token68 or parameter. No part can match in two ways.
_ITEM: Final = re.compile(
    r'([ \t,;]*)([!#$%&\'*+\-.^_`|~0-9A-Za-z/]+)(?:[ \t]*=(?!=)[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,;"=]+))|(=*))'
)


def challenge_error(challenges: Iterable[str], scheme: str = "Bearer") -> str:
    """Return the ``error`` of the first challenge of `scheme` that has one (RFC 6750 section 3, RFC 9449 section 7.1), or "" if none has.

    Many services write challenges by hand. Text that cannot be parsed is skipped up to the next comma or semicolon.
    """
    wanted = scheme.lower()
    for challenge in challenges:
        found, position, text = "", 0, challenge[:_MAX_CHALLENGE]
        while position < len(text):
            item = _ITEM.match(text, position)
            if item is None:
                end = _END.search(text, position)
                position = end.end() if end else len(text)
                continue
            separator, name, quoted, plain, _ = item.groups()
            first, position = position == 0, item.end()
            if quoted is None and plain is None:
                # A word in the middle of unquoted text, such as scope=a b, is no scheme.
                if first or "," in separator or _PARAMETER.match(text, position):
                    found = name.lower()
            elif found == wanted and name.lower() == "error":
                return str(plain.strip("'") if quoted is None else quoted)
    return ""

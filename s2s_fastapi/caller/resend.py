"""Whether a token was refused, whether its request can be sent again, and how the first answer is discarded."""

import re
from collections.abc import Iterable
from typing import Any, Final

from s2s_fastapi.engine.steps import Steps

__all__ = ["UNAUTHORIZED", "challenge_error", "discarding", "replayable", "short"]

UNAUTHORIZED: Final = 401

_MAX_CHALLENGE = 8192
_SMALL_BODY = 4096
_END: Final = re.compile(r"[,;]")
_PARAMETER: Final = re.compile(r"[ \t]+[A-Za-z_-]+[ \t]*=")
_DIGITS: Final = re.compile(r"[0-9]{1,4}")
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


def replayable(request: Any) -> bool:
    """Return whether the body of `request` can be sent a second time exactly.

    Only a ``ByteStream`` can. A file, an iterator or a multipart form would be empty or shorter the second time, without an error.
    """
    kind = type(request.stream)
    return kind.__name__ == "ByteStream" and kind.__module__.partition(".")[0] in ("httpx", "httpx2")


def discarding(response: Any) -> Steps[None]:
    """Discard the body of a sync or async response without reading it: httpx would read all of it, and it may never end."""
    if _worth_closing(response):

        def close() -> None:
            response.stream.close()

        async def aclose() -> None:
            await response.stream.aclose()

        yield close, aclose  # a stream has one of the two
        _empty(response)


def _worth_closing(response: Any) -> bool:
    if response.is_closed or response.is_stream_consumed:  # a hook has read it
        return False
    return not short(response.headers)


def short(headers: Any) -> bool:
    """Return whether the body of a response is worth reading: reading a short one keeps the connection for the second request."""
    if "Content-Encoding" in headers:  # a few bytes of it may become gigabytes
        return False
    length = headers.get("Content-Length", "")
    return _DIGITS.fullmatch(length) is not None and int(length) <= _SMALL_BODY


def _empty(response: Any) -> None:
    elapsed = getattr(response.stream, "elapsed", None)  # httpx2 keeps it on the stream, httpx on the response
    if elapsed is not None:
        response.elapsed = elapsed
    response.headers.pop("Content-Encoding", None)  # or a decoder would miss its end
    response.stream = type(response.request.stream)(b"")

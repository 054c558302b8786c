"""What a request carries: our token, or one it must not."""

import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from s2s_fastapi.caller.origins import within
from s2s_fastapi.caller.propagation import withdraw
from s2s_fastapi.principal import digest

__all__ = ["CARRIED", "SHORTEST_TOKEN", "astrip_elsewhere", "holds", "strip_elsewhere"]

CARRIED: Final = "s2s_fastapi.carried"
"""The request extension that tells which token we attached, and where it may go: ``(Token, pins)``."""

SHORTEST_TOKEN: Final = 64
"""Nothing shorter is a token of Keycloak's; this spares most values the search, and most words in them the hash."""
_WORDS: Final = re.compile(rb"[A-Za-z0-9_.-]+")
_BEGINNING: Final = b"eyJ"  # {" in base64url: how the header of every JWT of Keycloak's begins


def strip_elsewhere(request: Any) -> None:
    """Take our token, and the trace, off a request that was redirected to where they must not go.

    httpx keeps the token from http to https of one host, and every other header wherever it leads.
    """
    token, pinned = request.extensions.get(CARRIED, (None, None))
    if pinned is None or within(request.url, pinned):
        return
    if request.headers.get("Authorization") == token.header:
        del request.headers["Authorization"]
    withdraw(request)


async def astrip_elsewhere(request: Any) -> None:
    """Do as `strip_elsewhere`, as a hook of an async client."""
    strip_elsewhere(request)


def holds(value: bytes, inbound: bytes) -> bool:
    """Return whether the JWT of this digest stands anywhere in a header value or URL, percent-encoded or not.

    Only its digest is known, so everything that has the shape of a JWT is hashed: three parts of base64url, whatever is around.
    A body is not looked at (it may be a stream), and in a thread without the request's context there is no digest to compare with.
    """
    if len(value) < SHORTEST_TOKEN:
        return False
    return any(digest(jwt.decode("ascii")) == inbound for jwt in _jwts(unquote_to_bytes(value)))


def _jwts(text: bytes) -> Iterator[bytes]:
    for word in _WORDS.findall(text):  # one pass: a pattern for the three parts would start anew at each character
        parts = word.split(b".")
        for three in zip(parts, parts[1:], parts[2:], strict=False):
            jwt = b".".join(three)
            if len(jwt) >= SHORTEST_TOKEN:
                yield jwt
                if (glued := jwt.find(_BEGINNING)) > 0:  # to a word of the same alphabet: bearer-eyJ...
                    yield jwt[glued:]

"""What a request carries: our token, or one it must not."""

from typing import Any, Final

from s2s_fastapi.caller.origins import within
from s2s_fastapi.principal import digest

__all__ = ["CARRIED", "astrip_elsewhere", "holds", "strip_elsewhere"]

CARRIED: Final = "s2s_fastapi.carried"
"""The request extension that tells which token we attached, and where it may go: ``(Token, pins)``."""

# A shorter header value is no token of Keycloak's; this spares a hash for each of the others.
_SHORTEST_TOKEN: Final = 64


def strip_elsewhere(request: Any) -> None:
    """Take our token off a request that was redirected to where it must not go: httpx keeps it from http to https of one host."""
    token, pinned = request.extensions.get(CARRIED, (None, None))
    if pinned is not None and not within(request.url, pinned) and request.headers.get("Authorization") == token.header:
        del request.headers["Authorization"]


async def astrip_elsewhere(request: Any) -> None:
    """Do as `strip_elsewhere`, as a hook of an async client."""
    strip_elsewhere(request)


def holds(value: bytes, inbound: bytes) -> bool:
    """Return whether a header value is, or ends in, the token of this digest."""
    if len(value) < _SHORTEST_TOKEN:
        return False
    text = value.decode("latin-1")
    return digest(text) == inbound or digest(text.rpartition(" ")[2]) == inbound

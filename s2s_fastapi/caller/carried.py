"""What a request carries: our token, or one it must not."""

from typing import Any, Final
from urllib.parse import unquote_to_bytes

from s2s_fastapi.caller.origins import within
from s2s_fastapi.caller.propagation import withdraw
from s2s_fastapi.caller.resend import bearer_error
from s2s_fastapi.principal import digest, length_of

__all__ = [
    "CARRIED",
    "SHORTEST_TOKEN",
    "anote_refusal",
    "astrip_elsewhere",
    "holds",
    "note_refusal",
    "refuses",
    "strip_elsewhere",
]

CARRIED: Final = "s2s_fastapi.carried"
"""The request extension that tells which token we attached, where it may go, who shares it, and who logs: ``(Token, pins, SharedToken, Log)``."""

SHORTEST_TOKEN: Final = 64
"""Nothing shorter is a token of Keycloak's; this spares most values the search."""
_NOTHING: Final = None, None, None, None
_UNAUTHORIZED: Final = 401
_BEGINNING: Final = b"ey"  # { and a quote or a space in base64url: how the header of every JWT begins


def strip_elsewhere(request: Any) -> None:
    """Take our token, and the trace, off a request that was redirected to where they must not go.

    httpx keeps the token from http to https of one host, and every other header wherever it leads.

    Raises:
        TokenWithheld: Another hook has exchanged the token for something else.
    """
    token, pinned, _, log = request.extensions.get(CARRIED, _NOTHING)
    if token is None:
        return
    there = request.headers.get("Authorization")
    if pinned is None or within(request.url, pinned):
        if there not in {None, token.header}:
            there = None  # error trackers record the locals of each frame that logs
            raise log.withheld(
                "An event hook of this client has put another Authorization header in the place of this service's token; nothing was sent."
                " A user's token is never passed on; write auth=None for a request that is to carry something else."
            )
        return
    if there == token.header:
        del request.headers["Authorization"]
    withdraw(request)


async def astrip_elsewhere(request: Any) -> None:
    """Do as `strip_elsewhere`, as a hook of an async client."""
    strip_elsewhere(request)


def refuses(response: Any) -> bool:
    """Return whether exactly our token was refused by whom it was for.

    ``response.request`` is the last of a chain of redirects: it may have ended elsewhere, or here again but without the token.
    """
    if response.status_code != _UNAUTHORIZED:
        return False
    request = response.request
    token, pinned, *_ = request.extensions.get(CARRIED, _NOTHING)
    return (
        token is not None
        and bearer_error(response.headers.get_list("WWW-Authenticate")) == "invalid_token"
        and [value for name, value in request.headers.raw if name.lower() == b"authorization"] == [token.header_bytes]
        and (pinned is None or within(request.url, pinned))
    )


def note_refusal(response: Any) -> None:
    """Mark our token as refused as soon as the 401 is there: if a later hook raises, the auth flow never sees the response."""
    if refuses(response):
        token, _, shared, _ = response.request.extensions[CARRIED]
        shared.refuse(token)


async def anote_refusal(response: Any) -> None:
    """Do as `note_refusal`, as a hook of an async client."""
    note_refusal(response)


def holds(value: bytes, inbound: bytes) -> bool:
    """Return whether the JWT of this digest stands anywhere in a header value or URL, percent-encoded or not, whatever is around it.

    Only its digest is known, so every piece of the text is hashed that is as long as it and could be a JWT. A body is not looked at (it
    may be a stream), and in a thread without the request's context there is no digest to compare with.
    """
    length = length_of(inbound)
    if len(value) < length:
        return False
    text = unquote_to_bytes(value)
    start = text.find(_BEGINNING)
    while 0 <= start <= len(text) - length:
        jwt = text[start : start + length]
        if jwt.count(b".") == 2 and digest(jwt) == inbound:  # noqa: PLR2004 - header, payload, signature
            return True
        start = text.find(_BEGINNING, start + 1)
    return False

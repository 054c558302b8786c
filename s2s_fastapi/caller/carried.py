"""What a request carries: our token, a token it must not carry, and the trace."""

from collections.abc import Collection
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from s2s_fastapi.accepted import FURTHER, INBOUND, digest, length_of
from s2s_fastapi.caller.binding import NONCE, PROOF, Answer, Proven, Remedy
from s2s_fastapi.caller.challenges import UNAUTHORIZED, challenge_error
from s2s_fastapi.caller.origins import pin_of, within
from s2s_fastapi.telemetry.spans import INVALID_SPAN, current_span, propagated
from s2s_fastapi.text import named

__all__ = [
    "CARRIED",
    "HELD_BY_URL",
    "OWN_AUTHORIZATION",
    "OWN_PROOF",
    "PLACEHOLDER",
    "SHORTEST_TOKEN",
    "anote_refusal",
    "astrip_elsewhere",
    "foreign_tokens",
    "held_by_header",
    "holds",
    "is_placeholder",
    "note_refusal",
    "propagate",
    "prove",
    "proven",
    "refuses",
    "remedy",
    "strip_elsewhere",
]

CARRIED: Final = "s2s_fastapi.carried"
"""The request extension of our token: ``(GrantedToken, pins, SharedToken, Log)``: the token, where it may go, who shares it, who logs."""

SHORTEST_TOKEN: Final = 64
"""No token of Keycloak is shorter, so most values need not be searched."""
PLACEHOLDER: Final = "s2s-fastapi-placeholder"
"""The API key for SDKs that insist on one. It is no secret: our token takes its place before the request is sent."""
_HEADER_OF_PLACEHOLDER: Final = f"Bearer {PLACEHOLDER}".encode()

HELD_BY_URL: Final = (
    "The URL holds the token of the current request; nothing was sent."
    " That token was given to this service, not to the services that it calls."
)
OWN_AUTHORIZATION: Final = (
    "The request already has an Authorization header, so no token was added, and the request was not sent."
    " A user's token is never forwarded. Leave the header out"
)

OWN_PROOF: Final = "The request already has a DPoP header, and each request gets a proof of its own; nothing was sent. Leave the header out."
_PROVEN: Final = "s2s_fastapi.proven"
_FIRST: Final = "s2s_fastapi.proven_for_first_hop"
_PROPAGATED: Final = "s2s_fastapi.propagated"
_NOTHING: Final = None, None, None, None
_BEGINNING: Final = b"ey"  # { and a quote or a space in base64url: how the header of every JWT begins


def strip_elsewhere(request: Any) -> None:
    """Remove our token, its proof and the trace from a request that was redirected to an origin that must not get them.

    A request that stays at our origins gets a proof of its own for each hop. httpx keeps the token on a redirect from http to https of one host, and every other header on any redirect.

    Raises:
        TokenWithheld: Another hook has replaced the token.
    """
    token, pinned, _, log = request.extensions.get(CARRIED, _NOTHING)
    if token is None:
        return
    there = request.headers.get("Authorization")
    if pinned is None or within(request.url, pinned):
        if there not in {None, token.header}:
            there = None  # error trackers record the locals of each frame that logs
            raise log.withheld(
                "An event hook of this client has replaced this service's token with another Authorization header; nothing was sent."
                " A user's token is never forwarded. Write auth=None for a request that must carry another header."
            )
        if token.binding is not None:
            if there is None:
                request.headers.pop(PROOF, None)
            else:
                _prove_hop(request, token)
        return
    if there == token.header:
        del request.headers["Authorization"]
    if token.binding is not None:
        request.headers.pop(PROOF, None)
    withdraw(request)


def prove(request: Any, token: Any) -> None:
    """Write a fresh proof for `request` as it is now into its headers (RFC 9449 section 4.2)."""
    url = request.url.copy_with(userinfo=b"") if request.url.userinfo else request.url
    made = token.binding.prove(request.method, str(url), pin_of(url), token.value)
    request.headers[PROOF] = made.header
    request.extensions[_PROVEN] = made
    request.extensions[_FIRST] = True


def proven(request: Any) -> Proven | None:
    """Return the proof that we made for `request`, or for the one that was redirected to it."""
    made: Proven | None = request.extensions.get(_PROVEN)
    return made


def _prove_hop(request: Any, token: Any) -> None:
    """Make a proof for a redirected request, and for one that another hook has changed."""
    made = proven(request)
    if (
        not request.extensions.pop(_FIRST, False)
        or made is None
        or (request.method, str(request.url), request.headers.get(PROOF)) != (made.method, made.url, made.header)
    ):
        prove(request, token)
        del request.extensions[_FIRST]


async def astrip_elsewhere(request: Any) -> None:
    """Do as `strip_elsewhere`, as a hook of an async client."""
    strip_elsewhere(request)


def refuses(response: Any) -> bool:
    """Return whether exactly our token was refused, by a service that it was meant for.

    ``response.request`` is the last of a chain of redirects: it may be at another origin, or here again but without the token.
    """
    if response.status_code != UNAUTHORIZED:
        return False
    request = response.request
    token, pinned, *_ = request.extensions.get(CARRIED, _NOTHING)
    return (
        token is not None
        and challenge_error(response.headers.get_list("WWW-Authenticate")) == "invalid_token"
        and _carries(request, token, pinned)
    )


def remedy(response: Any, tried: Collection[str] = ()) -> Remedy:
    """Take note of what a receiver said to our proof; return what the request needs if it was refused. "" for any other request.

    `tried` are the remedies that this request had already.
    """
    request = response.request
    token, pinned, *_ = request.extensions.get(CARRIED, _NOTHING)
    made = proven(request)
    if made is None or not _carries(request, token, pinned):
        return ""
    headers = response.headers
    answer = Answer(response.status_code, headers.get_list("WWW-Authenticate"), headers.get(NONCE), headers.get("Date"))
    needed: Remedy = token.binding.remedy(made, answer, tried)
    return needed


def _carries(request: Any, token: Any, pinned: Any) -> bool:
    return [value for name, value in request.headers.raw if name.lower() == b"authorization"] == [
        token.header_bytes
    ] and (pinned is None or within(request.url, pinned))


def note_refusal(response: Any) -> None:
    """Mark our token as refused as soon as the 401 arrives: if a later hook raises, the auth flow never sees the response."""
    token, _, shared, _ = response.request.extensions.get(CARRIED, _NOTHING)
    if token is not None and (refuses(response) if token.binding is None else remedy(response) == "token"):
        shared.refuse(token)


async def anote_refusal(response: Any) -> None:
    """Do as `note_refusal`, as a hook of an async client."""
    note_refusal(response)


def is_placeholder(value: bytes) -> bool:
    """Return whether the value of an Authorization header is exactly the placeholder's, and so stands for no header."""
    return compare_digest(value, _HEADER_OF_PLACEHOLDER)


def foreign_tokens() -> tuple[bytes, ...]:
    """Return the digests of the tokens that this context must not send on."""
    inbound, further = INBOUND.get(), FURTHER.get()
    return further if inbound is None else (inbound, *further)


def held_by_header(name: str) -> str:
    """Return the sentence about a header that holds the token of the current request."""
    return (
        f"The header {named(name)} holds the token of the current request; nothing was sent."
        " That token was given to this service, not to the services that it calls."
    )


def holds(value: bytes, inbound: bytes) -> bool:
    """Return whether a header value or URL contains the JWT of this digest, percent-encoded or not.

    - Hash every JWT-shaped substring of the token's length and compare digests: only the digest is known.
    - A body is not searched (it may be a stream). A thread without the request's context has no digest to compare with.
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


def propagate(request: Any) -> None:
    """Write the current trace into a request's headers (W3C Trace Context), unless they have one.

    - An instrumentation of the HTTP client makes its own span later and overwrites ours.
    - If the same ``Request`` is sent again, the earlier trace is replaced.
    """
    if _PROPAGATED in request.extensions:
        withdraw(request)
    if current_span() is INVALID_SPAN:
        return
    names = propagated(request.headers)
    if names:
        request.extensions[_PROPAGATED] = names


def withdraw(request: Any) -> None:
    """Remove from a request what `propagate` wrote into it."""
    for name in request.extensions.pop(_PROPAGATED, ()):
        request.headers.pop(name, None)

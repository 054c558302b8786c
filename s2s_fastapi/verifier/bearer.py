"""From the request's headers to its credentials: ``Bearer`` or ``DPoP``, one space, one token (RFC 6750 section 2.1, RFC 9449 section 7.1)."""

import re
import string
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import DPOP_REFUSED, NO_TOKEN, NOT_A_TOKEN, TOKEN_IN_URL, TWO_HEADERS, size_cure
from s2s_fastapi.verifier.jws import MAX_TOKEN_BYTES

__all__ = [
    "BEARER_OR_DPOP",
    "ONLY_BEARER",
    "brings_credentials",
    "credentials_in",
    "credentials_of",
    "has_token",
    "is_dpop",
    "proofs_in",
    "token_in",
]

_BEARER: Final = b"Bearer "
_DPOP: Final = b"DPoP "
ONLY_BEARER: Final[Mapping[bytes, bytes]] = MappingProxyType({b"bearer": _BEARER})
BEARER_OR_DPOP: Final[Mapping[bytes, bytes]] = MappingProxyType({**ONLY_BEARER, b"dpop": _DPOP})
"""The schemes of an app that accepts DPoP: each in lower case, and as credentials begin with it."""
_CREDENTIALS: Final = frozenset({b"authorization", b"dpop"})
"""Headers of a request that brings credentials, whatever is in them (RFC 7235 section 4.2, RFC 9449 section 4.1)."""
_TOKEN68: Final = string.ascii_letters.encode() + string.digits.encode() + b"-._~+/"
"""The characters of a token68, before the equals signs at its end (RFC 7235 section 2.1)."""
# access_token, each of its bytes as it is or percent-encoded (RFC 3986 section 2.1). The query is not split into names: to decode
# 64 KB of them took 20 ms, and anybody can send them without a token.
_TOKEN_IN_QUERY: Final = re.compile(
    b"[&;]" + b"".join(b"(?:%c|%%(?i:%02x))" % (byte, byte) for byte in b"access_token") + b"="
)

# A token in the URL is not a credential here: it ends up in logs and histories.
_NO_CREDENTIALS: Final = Decision(reason=Reason.NO_CREDENTIALS)
_DPOP_REFUSED: Final = Decision(reason=Reason.NO_CREDENTIALS, cure=DPOP_REFUSED)
_TWO_HEADERS: Final = Decision(reason=Reason.INVALID_REQUEST, cure=TWO_HEADERS)
_NO_TOKEN: Final = Decision(reason=Reason.INVALID_REQUEST, cure=NO_TOKEN)
_NOT_A_TOKEN: Final = Decision(reason=Reason.INVALID_REQUEST, cure=NOT_A_TOKEN)
_TOKEN_IN_URL: Final = Decision(reason=Reason.INVALID_REQUEST, cure=TOKEN_IN_URL)


def credentials_of(token: bytes) -> bytes:
    """Return the one spelling under which a bearer token is remembered: a header value as almost every client sends it."""
    return _BEARER + token


def token_in(credentials: bytes) -> bytes:
    """Return the token in credentials that `credentials_in` or `credentials_of` returned."""
    return credentials[credentials.index(b" ") + 1 :]


def is_dpop(credentials: bytes) -> bool:
    """Return whether credentials came under the scheme DPoP. Such a token accepts nothing without the proof of its own request."""
    return credentials.startswith(_DPOP)


def proofs_in(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    """Return the values of all DPoP headers. A request must have exactly one (RFC 9449 section 4.3)."""
    return tuple(value for name, value in headers if name.lower() == b"dpop")


def credentials_in(
    headers: Iterable[tuple[bytes, bytes]],
    query_string: bytes,
    known: Container[bytes] = (),
    schemes: Mapping[bytes, bytes] = ONLY_BEARER,
) -> bytes | Decision:
    """Return the credentials of a request under one of the schemes, or the refusal if it has none.

    - The credentials are ``Bearer``, one space and one token68 word of at most 16 KB, however the header spells the scheme.
      Nothing else is known about the token. With ``schemes=BEARER_OR_DPOP`` they may also be ``DPoP`` and the word.
    - ``known`` holds credentials that were checked before. If the header's value is one of them, only the query is checked.
    - Credentials that are malformed or given more than once are refused with 400 (RFC 6750 section 3.1).
    """
    value: bytes | None = None
    for name, each in headers:
        if name == b"authorization":
            if value is not None:
                return _TWO_HEADERS
            value = each
    if value is None:
        return _NO_CREDENTIALS
    if value not in known:
        scheme, _, token = value.strip(b" \t").partition(b" ")
        spelled = schemes.get(scheme.lower())
        if spelled is None:
            if scheme.lower() == b"dpop":
                return _DPOP_REFUSED
            begun = any(scheme.lower().startswith((name + b"\t", name + b",")) for name in schemes)
            return _NOT_A_TOKEN if begun else _NO_CREDENTIALS
        token = token.lstrip(b" ")
        if len(token) > MAX_TOKEN_BYTES:
            return Decision(reason=Reason.INVALID_REQUEST, cure=size_cure(len(token), MAX_TOKEN_BYTES))
        if not _is_token68(token):
            return _NOT_A_TOKEN if token else _NO_TOKEN
        # Keep the same object if it is spelled that way: its hash was computed above, and that of 16 KB takes longer than this.
        value = value if value == spelled + token else spelled + token
    return _TOKEN_IN_URL if query_string and has_token(query_string) else value


def brings_credentials(headers: Iterable[tuple[bytes, bytes]], query_string: bytes) -> bool:
    """Return whether a request has credentials, good or bad: an Authorization or a DPoP header, even an empty one, or a token in the query.

    Only a request without any of them is anonymous. What is malformed must never be taken for nothing.
    """
    return any(name.lower() in _CREDENTIALS for name, _ in headers) or has_token(query_string)


def has_token(query_string: bytes) -> bool:
    """Return whether the query has a parameter access_token (RFC 6750 section 2.3), however its name is written."""
    if b"%" not in query_string and b"access_token" not in query_string:
        return False
    return _TOKEN_IN_QUERY.search(b"&" + query_string) is not None


def _is_token68(token: bytes) -> bool:
    word = token.rstrip(b"=")
    return bool(word) and not word.translate(None, _TOKEN68)

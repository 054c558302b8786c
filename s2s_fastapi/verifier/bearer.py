"""From the request's headers to one token."""

import re
from collections.abc import Container, Iterable
from typing import Final

from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak.cures import NO_TOKEN, NOT_A_TOKEN, TOKEN_IN_URL, TWO_HEADERS, size_cure
from s2s_fastapi.verifier.jws import MAX_TOKEN_BYTES
from s2s_fastapi.verifier.refusal import Refused

__all__ = ["bearer_token"]

_TOKEN68: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 7235 section 2.1; linear: the classes do not overlap
# access_token, each of its bytes as it is or percent-encoded (RFC 3986 section 2.1). Looked for without a list of all names: to decode
# 64 KB of them took 20 ms, and whoever has no token at all can send them.
_TOKEN_IN_QUERY: Final = re.compile(
    b"[&;]" + b"".join(b"(?:%c|%%(?i:%02x))" % (byte, byte) for byte in b"access_token") + b"="
)


def bearer_token(headers: Iterable[tuple[bytes, bytes]], query_string: bytes, known: Container[bytes] = ()) -> bytes:
    """Return the bearer token of a request (RFC 6750 section 2.1), given ASGI headers.

    The token is one token68 word of at most 16 KB; nothing else is known about it yet. One that is in ``known``
    was looked at before.

    Raises:
        Refused: There are no bearer credentials, or they are malformed, or given more than once (RFC 6750 section 3.1).
    """
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if found is not None:
                raise Refused(Reason.INVALID_REQUEST, TWO_HEADERS)
            found = value
    if found is None:
        # A token in the URL ends up in logs and histories: it is no way to authenticate here, and no credential.
        raise Refused(Reason.NO_CREDENTIALS)
    if found[:7] == b"Bearer " and (token := found[7:]) in known and not query_string:
        return token
    scheme, _, token = found.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        if scheme.lower().startswith((b"bearer\t", b"bearer,")):
            raise Refused(Reason.INVALID_REQUEST, NOT_A_TOKEN)
        raise Refused(Reason.NO_CREDENTIALS)
    token = token.lstrip(b" ")
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused(Reason.INVALID_REQUEST, size_cure(len(token), MAX_TOKEN_BYTES))
    if not _TOKEN68.fullmatch(token):
        raise Refused(Reason.INVALID_REQUEST, NOT_A_TOKEN if token else NO_TOKEN)
    if _has_token(query_string):
        raise Refused(Reason.INVALID_REQUEST, TOKEN_IN_URL)
    return token


def _has_token(query_string: bytes) -> bool:
    """Tell whether the query has a parameter access_token (RFC 6750 section 2.3), however its name is written."""
    if b"%" not in query_string and b"access_token" not in query_string:
        return False
    return _TOKEN_IN_QUERY.search(b"&" + query_string) is not None

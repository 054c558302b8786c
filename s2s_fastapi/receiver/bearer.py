"""From the request's headers to one token."""

import re
from collections.abc import Iterable

from s2s_fastapi.decision import Reason
from s2s_fastapi.receiver.jws import MAX_TOKEN_BYTES
from s2s_fastapi.receiver.refusal import Refused

__all__ = ["bearer_token"]

_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*", re.ASCII)  # RFC 7235 section 2.1; linear: the classes do not overlap
_QUERY_TOKEN = re.compile(rb"(?:^|&)access_token=")


def bearer_token(headers: Iterable[tuple[bytes, bytes]], query_string: bytes) -> str:
    """Return the bearer token of a request (RFC 6750 section 2.1), given ASGI headers.

    The token is one token68 word of at most 16 KB; nothing else is known about it yet.

    Raises:
        Refused: There are no bearer credentials, or they are malformed, or given more than once (RFC 6750 section 3.1).
    """
    values = [value for name, value in headers if name == b"authorization"]
    if not values:
        # A token in the URL ends up in logs and histories: it is no way to authenticate here, and no credential.
        raise Refused(Reason.NO_CREDENTIALS)
    if len(values) > 1:
        raise Refused(Reason.INVALID_REQUEST)
    scheme, _, token = values[0].decode("latin-1").strip(" \t").partition(" ")
    if scheme.lower() != "bearer":
        raise Refused(
            Reason.INVALID_REQUEST if scheme.lower().startswith(("bearer\t", "bearer,")) else Reason.NO_CREDENTIALS
        )
    token = token.lstrip(" ")
    if len(token) > MAX_TOKEN_BYTES or not _TOKEN68.fullmatch(token) or _QUERY_TOKEN.search(query_string):
        raise Refused(Reason.INVALID_REQUEST)
    return token

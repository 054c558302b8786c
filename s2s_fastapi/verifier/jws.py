"""A strict parser for compact JWS, run before any library sees the token; its payload is read once the signature held.

Libraries differ in what they tolerate (padding, duplicate members, encodings, ``crit``), and each tolerance was somebody's
vulnerability. What passes here has exactly one reading.
"""

import string
from binascii import Error as Base64Error
from binascii import a2b_base64
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak.cures import size_cure, unreadable
from s2s_fastapi.verifier.algorithms import ALGORITHMS
from s2s_fastapi.verifier.refusal import Refused

__all__ = ["MAX_TOKEN_BYTES", "Jws", "parse"]

MAX_TOKEN_BYTES: Final = 16_384
_MAX_HEADER_BYTES: Final = 4096
_MAX_KID: Final = 512
_TYPES: Final = frozenset({"jwt", "at+jwt"})  # RFC 7519 section 5.1, RFC 9068 section 2.1
# Headers that change what is signed or encrypted, or that bring a key or a place to fetch one from. Keycloak sends none of them.
_FORBIDDEN: Final = frozenset({"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"})

_ALPHABET: Final = string.ascii_uppercase.encode() + string.ascii_lowercase.encode() + string.digits.encode() + b"-_"
"""Base64url (RFC 4648 section 5)."""
_FROM_URLSAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""To the alphabet of `a2b_base64`, which takes none of the characters that base64url does not have."""
_LAST: Final = (None, b"", _ALPHABET[::16], _ALPHABET[::4])
"""By the length of a segment modulo 4: its last character, if bits are left over in it and must be zero."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed, unverified token: nothing in it may be believed, reported or acted on, except to refuse."""

    algorithm: str
    kid: str
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def claims(self) -> dict[str, Any]:
        """Return the payload, read as strictly as the header; asked for only once the signature held.

        Before that reading it would be work that anybody can order: some milliseconds for 16 KB.

        Raises:
            Refused: It is not one JSON object with exactly one reading; the cure says why, since the signature held.
        """
        try:
            return json_object(self.payload)
        except (ValueError, RecursionError) as error:
            cure, client_id = unreadable(self.payload, error)
        # Outside of the except block: the error may repeat parts of the token.
        raise Refused(Reason.MALFORMED_CLAIMS, cure, client_id=client_id)


def parse(token: bytes) -> Jws:
    """Read a compact JWS (RFC 7515 section 7.1).

    Raises:
        Refused: It is not exactly that: three parts of canonical base64url without padding, a header of at most 4 KB that is one
            JSON object (UTF-8, no duplicate members, at most 32 levels), an asymmetric algorithm, and no header that changes the
            rules.
    """
    parts = token.split(b".", 3)
    if len(token) > MAX_TOKEN_BYTES:
        raise Refused(Reason.MALFORMED_TOKEN, size_cure(len(token), MAX_TOKEN_BYTES))
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise Refused(Reason.MALFORMED_TOKEN)
    if len(parts[0]) > _MAX_HEADER_BYTES:
        raise Refused(Reason.MALFORMED_TOKEN)
    algorithm, kid = _header(parts[0])
    return Jws(
        algorithm=algorithm,
        kid=kid,
        payload=_decoded(parts[1]),
        signing_input=token[: len(parts[0]) + 1 + len(parts[1])],
        signature=_decoded(parts[2]),
    )


@lru_cache(maxsize=64)
def _header(segment: bytes) -> tuple[str, str]:
    """Return ``alg`` and ``kid``; remembered, since all tokens that a key signed begin with the same words."""
    header = _object(_decoded(segment))
    if not _FORBIDDEN.isdisjoint(header):
        raise Refused(Reason.UNSUPPORTED_HEADER)
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise Refused(Reason.UNSUPPORTED_HEADER)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Refused(Reason.ALGORITHM_NOT_ALLOWED)
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID:
        raise Refused(Reason.MALFORMED_TOKEN)
    return algorithm, kid


def _decoded(segment: bytes) -> bytes:
    # Python's decoder ignores the bits that are left over in the last character; one token must have one spelling.
    spare = _LAST[len(segment) % 4]
    if not segment or (spare is not None and segment[-1] not in spare):
        raise Refused(Reason.MALFORMED_TOKEN)
    try:
        return a2b_base64(segment.translate(_FROM_URLSAFE) + b"=" * (-len(segment) % 4), strict_mode=True)
    except Base64Error:
        raise Refused(Reason.MALFORMED_TOKEN) from None


def _object(raw: bytes) -> dict[str, Any]:
    try:
        return json_object(raw)
    except (ValueError, RecursionError):
        raise Refused(Reason.MALFORMED_TOKEN) from None

"""A strict parser for compact JWS. It runs before any library sees the token. The payload is read only after the signature held.

Libraries differ in what they tolerate (padding, duplicate members, encodings, ``crit``), and each tolerance was somebody's
vulnerability. A token that passes here has exactly one reading.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.jose.base64url import decoded
from s2s_fastapi.keycloak.cures import size_cure, unreadable

__all__ = ["MAX_TOKEN_BYTES", "Jws", "parse"]

MAX_TOKEN_BYTES: Final = 16_384
_MAX_HEADER_BYTES: Final = 4096
_MAX_KID: Final = 512
_TYPES: Final = frozenset({"jwt", "at+jwt"})  # RFC 7519 section 5.1, RFC 9068 section 2.1
# Headers that change what is signed or encrypted, or that bring a key or its URL. Keycloak sends none of them.
_FORBIDDEN: Final = frozenset({"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"})

_MALFORMED: Final = Decision(reason=Reason.MALFORMED_TOKEN)
_UNSUPPORTED: Final = Decision(reason=Reason.UNSUPPORTED_HEADER)
_OTHER_ALGORITHM: Final = Decision(reason=Reason.ALGORITHM_NOT_ALLOWED)


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed, unverified token. Nothing in it may be believed, reported or acted on, except to refuse."""

    algorithm: str
    kid: str
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    def claims(self) -> dict[str, Any] | Decision:
        """Return the payload, read as strictly as the header. Call it only after the signature held.

        - Reading 16 KB takes some milliseconds. Before the signature holds, anybody could order that work.
        - It is refused unless it is one JSON object with exactly one reading. The cure says why, since the signature held.
        """
        try:
            return json_object(self.payload)
        except (ValueError, RecursionError) as error:
            cure, client_id = unreadable(self.payload, error)
        return Decision(reason=Reason.MALFORMED_CLAIMS, cure=cure, client_id=client_id)


def parse(token: bytes) -> Jws | Decision:
    """Read a compact JWS (RFC 7515 section 7.1), or return its refusal unless it is exactly that.

    - Three parts of canonical base64url without padding, at most 16 KB.
    - A header of at most 4 KB that is one JSON object: UTF-8, no duplicate members, at most 32 levels.
    - An asymmetric algorithm, and no header that changes the rules.
    """
    if len(token) > MAX_TOKEN_BYTES:
        return Decision(reason=Reason.MALFORMED_TOKEN, cure=size_cure(len(token), MAX_TOKEN_BYTES))
    parts = token.split(b".", 3)
    if len(parts) != 3 or len(parts[0]) > _MAX_HEADER_BYTES:  # noqa: PLR2004 - header, payload, signature
        return _MALFORMED
    try:
        header = _header(parts[0])
        if isinstance(header, Decision):
            return header
        algorithm, kid = header
        return Jws(
            algorithm=algorithm,
            kid=kid,
            payload=decoded(parts[1]),
            signing_input=token[: len(parts[0]) + 1 + len(parts[1])],
            signature=decoded(parts[2]),
        )
    except (ValueError, RecursionError):
        return _MALFORMED


@lru_cache(maxsize=64)
def _header(segment: bytes) -> tuple[str, str] | Decision:
    """Return ``alg`` and ``kid``. Remembered, since all tokens that a key signed begin with the same header."""
    header = json_object(decoded(segment))
    if not _FORBIDDEN.isdisjoint(header):
        return _UNSUPPORTED
    typ = header.get("typ")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        return _UNSUPPORTED
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return _OTHER_ALGORITHM
    kid = header.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID:
        return _MALFORMED
    return algorithm, kid

"""A strict parser for compact JWS, run before any library sees the token.

Libraries differ in what they tolerate (padding, duplicate members, encodings, ``crit``), and each tolerance was somebody's
vulnerability. What passes here has exactly one reading.
"""

import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from s2s_fastapi.decision import Reason
from s2s_fastapi.receiver.refusal import Refused

__all__ = ["ALGORITHMS", "MAX_TOKEN_BYTES", "Jws", "parse"]

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)
"""Asymmetric only: with an HS algorithm anybody who knows the public key could sign."""

MAX_TOKEN_BYTES: Final = 16_384
_MAX_HEADER_BYTES: Final = 4096
_MAX_DEPTH: Final = 32
_MAX_KID: Final = 512
_TYPES: Final = frozenset({"jwt", "at+jwt"})  # RFC 7519 section 5.1, RFC 9068 section 2.1
# Headers that change what is signed or encrypted, or that bring a key or a place to fetch one from. Keycloak sends none of them.
_FORBIDDEN: Final = frozenset({"crit", "b64", "zip", "enc", "cty", "jwk", "jku", "x5u", "x5c"})
# A string is consumed even if it never ends, so that no character is looked at twice.
_BRACKETS: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Jws:
    """A well-formed, unverified token: nothing in it may be believed, reported or acted on, except to refuse."""

    algorithm: str
    kid: str
    claims: dict[str, Any] = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: str) -> Jws:
    """Read a compact JWS (RFC 7515 section 7.1) whose payload is a JSON object.

    Raises:
        Refused: It is not exactly that: canonical base64url without padding, UTF-8, no duplicate members, header at most 4 KB,
            at most 32 levels deep, an asymmetric algorithm, and no header that changes the rules.
    """
    parts = token.split(".", 3)
    if len(token) > MAX_TOKEN_BYTES or len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        raise Refused(Reason.MALFORMED_TOKEN)
    if len(parts[0]) > _MAX_HEADER_BYTES:
        raise Refused(Reason.MALFORMED_TOKEN)
    header = _object(_decoded(parts[0]))
    algorithm, kid = _checked(header)
    return Jws(
        algorithm=algorithm,
        kid=kid,
        claims=_object(_decoded(parts[1])),
        signing_input=f"{parts[0]}.{parts[1]}".encode("ascii"),
        signature=_decoded(parts[2]),
    )


def _checked(header: dict[str, Any]) -> tuple[str, str]:
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


def _decoded(segment: str) -> bytes:
    try:
        decoded = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except (Base64Error, ValueError):
        raise Refused(Reason.MALFORMED_TOKEN) from None
    # Python's decoder skips foreign characters and ignores spare bits; one token must have one spelling.
    if not decoded or urlsafe_b64encode(decoded).rstrip(b"=") != segment.encode():
        raise Refused(Reason.MALFORMED_TOKEN)
    return decoded


def _object(raw: bytes) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8")
        if text.count("{") + text.count("[") > _MAX_DEPTH:  # only then can it be deeper than that
            _check_depth(text)
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # a lone surrogate has no UTF-8 form
    except (ValueError, RecursionError):
        raise Refused(Reason.MALFORMED_TOKEN) from None
    if not isinstance(value, dict):
        raise Refused(Reason.MALFORMED_TOKEN)
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for match in _BRACKETS.finditer(text):
        mark = match[0]
        if mark in ("{", "["):
            depth += 1
        elif mark in ("}", "]"):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise ValueError("too deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("duplicate member")
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("number out of range")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)

"""A public key, given as a JWK, that verifies with one algorithm (RFC 7517). What a library is asked about such a key is asked here."""

import hashlib
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from s2s_fastapi.jose.algorithms import KEY_TYPES
from s2s_fastapi.text import base64url

__all__ = ["PRIVATE", "PUBLIC", "UnusableKeyError", "public_members", "signature_check", "thumbprint"]

PUBLIC: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
)
"""The public members of each ``kty`` (RFC 7518 section 6, RFC 8037 section 2). Nothing else reaches a library: no private part, no hint
that it might act on."""
PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""The members that nobody may publish (RFC 7518 sections 6.2.2, 6.3.2 and 6.4)."""

# A signature that nobody made, in the length that the algorithm reads: it would refuse another length unread. The one of EdDSA (the
# neutral element and 0) is valid for every message if the key is the neutral element.
_NO_SIGNATURE: Final = {"ES256": bytes(64), "ES384": bytes(96), "ES512": bytes(132), "EdDSA": b"\1" + bytes(63)}


class UnusableKeyError(Exception):
    """A key is not one to verify with; the text says why, and what to change, without the key's numbers."""


def public_members(algorithm: str, jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of `jwk` that make the public key for `algorithm`.

    Raises:
        KeyError: One of them is missing.
    """
    key_type, _ = KEY_TYPES[algorithm]
    return {"kty": key_type, **{member: jwk[member] for member in PUBLIC[key_type]}}


def thumbprint(members: Mapping[str, Any]) -> str:
    """Return the thumbprint (RFC 7638 section 3, SHA-256) of a key whose `public_members` these are."""
    return base64url(hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest())


def signature_check(algorithm: str, members: Mapping[str, Any]) -> Callable[[bytes, bytes], bool]:
    """Return the function that says whether its second argument is this key's signature of the first.

    - A test signature of zeros was refused before. If this machine's OpenSSL cannot use the key, that shows here, and not later.
    - The caller checks the numbers of an RSA key before: joserfc warns about a short one, and a long one costs time.
    - It raises whatever the library raises: for a point that is not on the curve, for example.

    Raises:
        UnusableKeyError: It can be read, and is not safe to verify with.
    """
    # joserfc costs a fifth of our import time: it is loaded with the first keys, on the thread that fetched them.
    from joserfc.jwk import import_key  # noqa: PLC0415
    from joserfc.jws import JWSRegistry  # noqa: PLC0415

    model = JWSRegistry.algorithms[algorithm]
    key = import_key(dict(members))
    model.check_key(key)
    if model.verify(b"", _NO_SIGNATURE.get(algorithm, bytes(256)), key):
        raise UnusableKeyError("it accepts a signature that nobody made: replace it")
    return lambda message, signature: model.verify(message, signature, key)

"""The realm's public keys as one immutable value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

__all__ = ["KeySet", "VerificationKey"]

_MAX_KEYS: Final = 100
_RSA_BITS: Final = range(2048, 16_384 + 1)
_RSA_EXPONENTS: Final = range(3, 2**64, 2)
# The public members of each key type (RFC 7518 section 6, RFC 8037 section 2). Nothing else is handed on: no private part, no
# hint that a library might act on.
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# The one key type, and where there is one the one curve, that an algorithm goes with.
_KEY_TYPES: Final = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key, bound to the one algorithm it verifies."""

    kid: str
    algorithm: str
    thumbprint: str
    """RFC 7638: tells whether a key published later under the same ``kid`` is still this key."""
    verify: Callable[[bytes, bytes], bool]
    """Tell whether the second argument is this key's signature of the first."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one realm, by ``kid`` and algorithm."""

    keys: Mapping[tuple[str, str], VerificationKey]

    def find(self, kid: str, algorithm: str) -> VerificationKey | None:
        """Return the key for exactly this ``kid`` and ``alg``, if there is one."""
        return self.keys.get((kid, algorithm))

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Self:
        """Read a JWK Set (RFC 7517 section 5), leaving out every key that cannot safely verify an access token.

        Left out are encryption keys, symmetric and private keys, unknown types and curves, RSA below 2048 bits, keys without
        ``kid`` or ``alg``, malformed keys, and keys that share ``kid`` and ``alg`` with a different one: which of them would be
        right cannot be known. One bad key never spoils the others.
        """
        entries = document.get("keys")
        found: dict[tuple[str, str], VerificationKey] = {}
        clashing: set[tuple[str, str]] = set()
        for entry in entries[:_MAX_KEYS] if isinstance(entries, list) else ():
            key = _read_key(entry)
            if key is None:
                continue
            name = (key.kid, key.algorithm)
            if found.setdefault(name, key).thumbprint != key.thumbprint:
                clashing.add(name)
        return cls({name: key for name, key in found.items() if name not in clashing})


def _read_key(entry: Any) -> VerificationKey | None:
    """Return the key, or None where it is not one to verify with."""
    # joserfc costs a fifth of our import time: it is loaded with the first keys, on the thread that fetched them.
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import import_key  # noqa: PLC0415
    from joserfc.jws import JWSRegistry  # noqa: PLC0415
    from joserfc.util import base64_to_int  # noqa: PLC0415

    if not isinstance(entry, dict) or entry.get("use") != "sig" or not _SECRET.isdisjoint(entry):
        return None
    kid, name = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str) or not kid or not isinstance(name, str) or name not in _KEY_TYPES:
        return None
    if "key_ops" in entry and entry["key_ops"] != ["verify"]:
        return None
    key_type, curve = _KEY_TYPES[name]
    if entry.get("kty") != key_type or (curve and entry.get("crv") != curve):
        return None
    algorithm = JWSRegistry.algorithms[name]
    try:
        # Before the import: about a short key joserfc warns, and where warnings are errors that would spoil the whole set.
        if key_type == "RSA" and not _sound_rsa(base64_to_int(entry["n"]), base64_to_int(entry["e"])):
            return None
        key = import_key({"kty": key_type, **{member: entry[member] for member in _PUBLIC[key_type]}})
        algorithm.check_key(key)
        return VerificationKey(
            kid, name, key.thumbprint(), lambda message, signature: algorithm.verify(message, signature, key)
        )
    except (JoseError, ValueError, TypeError, KeyError):
        return None


def _sound_rsa(modulus: int, exponent: int) -> bool:
    """Tell whether OpenSSL can and should verify with these numbers; an even modulus is nobody's product of two primes."""
    return modulus.bit_length() in _RSA_BITS and modulus % 2 == 1 and exponent in _RSA_EXPONENTS

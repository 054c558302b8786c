"""The realm's public keys as one immutable value."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self

from s2s_fastapi.receiver.algorithms import KEY_TYPES
from s2s_fastapi.telemetry.reports import report

__all__ = ["KeySet", "VerificationKey", "bound_key"]

_log = logging.getLogger("s2s_fastapi.keys")

_RSA_BITS: Final = range(2048, 16_384 + 1)
_RSA_EXPONENTS: Final = range(3, 2**64, 2)
# The public members of each key type (RFC 7518 section 6, RFC 8037 section 2). Nothing else is handed on: no private part, no
# hint that a library might act on.
_PUBLIC: Final = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_SECRET: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
# Nobody's signature, in the length that the curve's algorithm looks at: others it would refuse unread. That of EdDSA (the neutral
# element and 0) is everybody's where the key is the neutral element.
_NO_SIGNATURE: Final = {"ES256": bytes(64), "ES384": bytes(96), "ES512": bytes(132), "EdDSA": b"\1" + bytes(63)}


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

    def keeping(self, before: "KeySet") -> "KeySet":
        """Return these keys, those that were in ``before`` as the objects they were there.

        Accepted tokens hold the key that verified them and the set that had it last. Whoever invents a ``kid`` orders a fetch each
        5 s: without this each would leave all its keys in memory for as long as one token remembers it.
        """
        kept: dict[tuple[str, str], VerificationKey] = {}
        for name, key in self.keys.items():
            known = before.keys.get(name)
            kept[name] = known if known is not None and known.thumbprint == key.thumbprint else key
        return KeySet(kept)

    @classmethod
    def read(cls, document: Mapping[str, Any], *, bind: "Bind | None" = None) -> Self:
        """Read a JWK Set (RFC 7517 section 5), leaving out every key that cannot safely verify an access token.

        Left out are encryption keys, symmetric and private keys, unknown types and curves, RSA below 2048 bits, keys without
        ``kid`` or ``alg``, malformed keys, and keys that share ``kid`` and ``alg`` with a different one: which of them would be
        right cannot be known. One bad key never spoils the others, whatever the library says to it. How many there may be is
        bounded by the bytes of the answer, not by a number: a good key in the last place is a good key. ``bind`` takes the place of
        `bound_key`.
        """
        entries = document.get("keys")
        found: dict[tuple[str, str], VerificationKey] = {}
        clashing: set[tuple[str, str]] = set()
        for entry in entries if isinstance(entries, list) else ():
            key = _read_key(entry, bind or bound_key)
            if key is None:
                continue
            name = (key.kid, key.algorithm)
            if found.setdefault(name, key).thumbprint != key.thumbprint:
                clashing.add(name)
        return cls({name: key for name, key in found.items() if name not in clashing})


Bind = Callable[[str, str, Mapping[str, Any]], VerificationKey | None]
"""Makes a key of a ``kid``, an ``alg`` and the public members; None or any exception where it is not one to verify with."""


def _read_key(entry: Any, bind: Bind) -> VerificationKey | None:
    """Return the key, or None where it is not one to verify with."""
    if not isinstance(entry, dict) or entry.get("use") != "sig" or not _SECRET.isdisjoint(entry):
        return None
    kid, name = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str) or not kid or not isinstance(name, str) or name not in KEY_TYPES:
        return None
    if "key_ops" in entry and entry["key_ops"] != ["verify"]:
        return None
    key_type, curve = KEY_TYPES[name]
    if entry.get("kty") != key_type or (curve and entry.get("crv") != curve):
        return None
    try:
        return bind(kid, name, {"kty": key_type, **{member: entry[member] for member in _PUBLIC[key_type]}})
    except Exception as error:  # noqa: BLE001 (UnsupportedAlgorithm in a FIPS build and whatever else: this key, not the set)
        kind = type(error).__name__
        report(partial(_log.warning, "The %s key %.64r cannot be used and is left out: %s.", name, kid, kind))
        return None


def bound_key(kid: str, algorithm: str, members: Mapping[str, Any]) -> VerificationKey | None:
    """Bind a public key to the one algorithm it verifies, after it has refused nobody's signature.

    So what the machine's OpenSSL cannot do shows here, and not in a request. Raises whatever the library raises.
    """
    # joserfc costs a fifth of our import time: it is loaded with the first keys, on the thread that fetched them.
    from joserfc.jwk import import_key  # noqa: PLC0415
    from joserfc.jws import JWSRegistry  # noqa: PLC0415
    from joserfc.util import base64_to_int  # noqa: PLC0415

    # Before the import: about a short key joserfc warns, and where warnings are errors that would look like a broken one.
    if "n" in members and not _sound_rsa(base64_to_int(members["n"]), base64_to_int(members["e"])):
        return None
    model = JWSRegistry.algorithms[algorithm]
    key = import_key(dict(members))
    model.check_key(key)
    if model.verify(b"", _NO_SIGNATURE.get(algorithm, bytes(256)), key):
        return None
    return VerificationKey(
        kid, algorithm, key.thumbprint(), lambda message, signature: model.verify(message, signature, key)
    )


def _sound_rsa(modulus: int, exponent: int) -> bool:
    """Tell whether OpenSSL can and should verify with these numbers; an even modulus is nobody's product of two primes."""
    return modulus.bit_length() in _RSA_BITS and modulus % 2 == 1 and exponent in _RSA_EXPONENTS

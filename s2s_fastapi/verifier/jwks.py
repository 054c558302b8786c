"""The realm's public keys as one immutable value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from s2s_fastapi.jose.algorithms import KEY_TYPES
from s2s_fastapi.jose.keys import PRIVATE, UnusableKeyError, public_members, signature_check, thumbprint
from s2s_fastapi.text import listed, named

__all__ = ["KeySet", "UnusableKeyError", "VerificationKey", "bound_key"]

_RSA_BITS: Final = range(2048, 16_384 + 1)
_RSA_EXPONENTS: Final = range(3, 2**64, 2)


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key, bound to the one algorithm it verifies."""

    kid: str
    algorithm: str
    thumbprint: str
    """RFC 7638. It shows whether a key that is published later under the same ``kid`` is still this key."""
    verify: Callable[[bytes, bytes], bool]
    """Return whether the second argument is this key's signature of the first."""


@dataclass(frozen=True, slots=True)
class KeySet:
    """The usable keys of one realm, by ``kid`` and algorithm."""

    keys: Mapping[tuple[str, str], VerificationKey]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Why a published signing key is not among them, by its ``kid``."""

    def find(self, kid: str, algorithm: str) -> VerificationKey | None:
        """Return the key for exactly this ``kid`` and ``alg``, if there is one."""
        return self.keys.get((kid, algorithm))

    def why_not(self, kid: str) -> str:
        """Return why a key that is published under this ``kid`` was not found; return nothing if none is published."""
        if kid in self.skipped:
            return self.skipped[kid]
        algorithms = [algorithm for published, algorithm in self.keys if published == kid]
        return f"it is published for {listed(algorithms)}, and the token names another algorithm" if algorithms else ""

    def keeping(self, before: "KeySet") -> "KeySet":
        """Return these keys, those that were in ``before`` as the objects they were there.

        Accepted tokens hold the key that verified them and the set that had it last. Whoever invents a ``kid`` orders a fetch each
        5 s: without this each would leave all its keys in memory for as long as one token remembers it.
        """
        kept: dict[tuple[str, str], VerificationKey] = {}
        for name, key in self.keys.items():
            known = before.keys.get(name)
            kept[name] = known if known is not None and known.thumbprint == key.thumbprint else key
        return KeySet(kept, self.skipped)

    @classmethod
    def read(cls, document: Mapping[str, Any], *, bind: "Bind | None" = None) -> Self:
        """Read a JWK Set (RFC 7517 section 5), leaving out every key that cannot safely verify an access token.

        - Left out are encryption keys, symmetric and private keys, unknown types and curves, RSA below 2048 bits, keys without ``kid``
          or ``alg``, and malformed keys.
        - Two different keys with the same ``kid`` and ``alg`` are both left out: nobody can know which one is right.
        - One bad key never spoils the others, whatever the library says to it.
        - The bytes of the answer bound the number of keys. There is no other bound: a good key in the last place is used.
        - ``skipped`` names the keys that are left out, except encryption keys.
        - ``bind`` replaces `bound_key`.
        """
        entries = document.get("keys")
        found: dict[tuple[str, str], VerificationKey] = {}
        clashing: set[tuple[str, str]] = set()
        skipped: dict[str, str] = {}
        for entry in entries if isinstance(entries, list) else ():
            try:
                key = _read_key(entry, bind or bound_key)
            except UnusableKeyError as unusable:
                skipped.setdefault(_kid(entry), str(unusable))
                continue
            if key is not None and found.setdefault((key.kid, key.algorithm), key).thumbprint != key.thumbprint:
                clashing.add((key.kid, key.algorithm))
                skipped[key.kid] = f"another key for {key.algorithm} is published under the same kid"
        return cls({name: key for name, key in found.items() if name not in clashing}, skipped)


Bind = Callable[[str, str, Mapping[str, Any]], VerificationKey]
"""Makes a key of a ``kid``, an ``alg`` and the public members; raises `UnusableKeyError`, or anything else, if it is not one to verify with."""


def _kid(entry: Any) -> str:
    kid = entry.get("kid") if isinstance(entry, dict) else None
    return kid if isinstance(kid, str) else ""


def _read_key(entry: Any, bind: Bind) -> VerificationKey | None:
    """Return the key, or None for an encryption key.

    Raises:
        UnusableKeyError: It is not one to verify with.
    """
    if isinstance(entry, dict) and entry.get("use") == "enc":
        return None
    problem = _problem(entry)
    if problem:
        raise UnusableKeyError(problem)
    kid, name = entry["kid"], entry["alg"]
    try:
        return bind(kid, name, public_members(name, entry))
    except UnusableKeyError:
        raise
    except Exception as error:  # noqa: BLE001 (UnsupportedAlgorithm in a FIPS build and whatever else: this key, not the set)
        problem = f"{name}: the cryptography library does not take it ({type(error).__name__})"
    raise UnusableKeyError(problem)  # outside of the except block, so that the library's error is not attached


def _problem(entry: Any) -> str:
    """Return why a published entry is not a key to verify with, as far as its members show."""
    if not isinstance(entry, dict):
        return "it is not an object"
    if not PRIVATE.isdisjoint(entry):
        return "its secret part is published: replace it, and publish public keys only"
    if not _kid(entry):
        return "it has no kid"
    use, name = entry.get("use"), entry.get("alg")
    if use != "sig":
        return f"its use is {named(use)}, not sig" if isinstance(use, str) else "it has no use, which must be sig"
    if not isinstance(name, str):
        return "it has no alg"
    if name not in KEY_TYPES:
        return (
            f"its algorithm {named(name)} is not accepted here: choose {listed(KEY_TYPES, ' or ')} in the key provider"
        )
    if "key_ops" in entry and entry["key_ops"] != ["verify"]:
        return "its key_ops are not verify alone"
    key_type, curve = KEY_TYPES[name]
    found = [str(entry[member]) for member in ("kty", "crv") if isinstance(entry.get(member), str)]
    if entry.get("kty") != key_type or (curve and entry.get("crv") != curve):
        kind = " ".join(map(named, found)) or "a key without kty"
        return f"{name} is not accepted with {kind}: choose {curve or key_type} in the key provider"
    return ""


def bound_key(kid: str, algorithm: str, members: Mapping[str, Any]) -> VerificationKey:
    """Bind a public key to the one algorithm it verifies, after it has refused a signature that nobody made.

    If this machine's OpenSSL cannot use the key, that shows here and not in a request. Raises whatever the library raises.

    Raises:
        UnusableKeyError: It can be read, and is not safe to verify with.
    """
    if "n" in members:
        from joserfc.util import base64_to_int  # noqa: PLC0415 - a fifth of our import time, loaded with the first keys

        _check_rsa(base64_to_int(members["n"]), base64_to_int(members["e"]))
    return VerificationKey(kid, algorithm, thumbprint(members), signature_check(algorithm, members))


def _check_rsa(modulus: int, exponent: int) -> None:
    """Refuse numbers with which OpenSSL cannot or should not verify. An even modulus is not a product of two large primes."""
    bits = modulus.bit_length()
    if bits not in _RSA_BITS:
        raise UnusableKeyError(
            f"RSA of {bits} bits, and only {_RSA_BITS[0]} to {_RSA_BITS[-1]} are accepted: choose another key size in the key provider"
        )
    if modulus % 2 == 0 or exponent not in _RSA_EXPONENTS:
        raise UnusableKeyError("its RSA numbers are not those of a key: replace it")

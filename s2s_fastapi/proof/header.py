"""The header of a proof: it brings the public key. Everything here is cheap, and no library sees the key yet."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.jose.algorithms import KEY_TYPES
from s2s_fastapi.jose.base64url import decoded
from s2s_fastapi.jose.keys import PRIVATE, public_members, thumbprint
from s2s_fastapi.proof.algorithms import PROOF_ALGORITHMS

__all__ = ["TYPE", "ProofHeader", "read_header"]

TYPE: Final = "dpop+jwt"
"""The ``typ`` of every proof (RFC 9449 section 4.2)."""

_MEMBERS: Final = frozenset({"typ", "alg", "jwk"})
_RSA_BITS: Final = range(2048, 4096 + 1)
_RSA_EXPONENT: Final = "AQAB"
_COORDINATE: Final = {"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}
"""Bytes of each coordinate (RFC 7518 section 6.2.1.2, RFC 8037 section 2)."""


@dataclass(frozen=True, slots=True)
class ProofHeader:
    """The algorithm and the public key of a proof. Nobody knows yet whether its sender has the private key."""

    algorithm: str
    thumbprint: str
    """RFC 7638, computed from the required members alone."""
    members: Mapping[str, str] = field(repr=False, hash=False)


@lru_cache(maxsize=512)
def read_header(segment: bytes) -> ProofHeader | str:
    """Read the first part of a proof, or return why it is refused: a sentence without any value from it.

    - It is remembered, because all proofs of one key begin with the same header.
    - The header has ``typ``, ``alg`` and ``jwk``, and nothing else: no other key, no URL of a key, nothing that changes the rules.
    - ``jwk`` has the public members of its type. Beside them it may have what libraries export: ``use`` sig, ``key_ops`` verify, the same
      ``alg``, a ``kid`` and ``ext``. No decision looks at these.
    - RSA has 2048 to 4096 bits and the exponent 65537, and curves are P-256, P-384, P-521 and Ed25519: so a check takes bounded time.

    Raises:
        ValueError: It is not canonical base64url, or not a JSON object with exactly one reading.
    """
    header = json_object(decoded(segment))
    if header.get("typ") != TYPE:
        return f"its typ is not {TYPE}"
    if header.keys() != _MEMBERS:
        return "its header has other members than typ, alg and jwk"
    algorithm, jwk = header["alg"], header["jwk"]
    if algorithm not in PROOF_ALGORITHMS:  # a tuple: anything can be looked up in it
        return f"its alg is none of {', '.join(PROOF_ALGORITHMS)}"
    if not isinstance(jwk, dict):
        return "its jwk is not an object"
    problem = _problem(algorithm, jwk)
    if problem:
        return problem
    members = public_members(algorithm, jwk)
    return ProofHeader(algorithm, thumbprint(members), members)


def _problem(algorithm: str, jwk: dict[str, Any]) -> str:
    """Return why `jwk` is not a public key for `algorithm`."""
    if not PRIVATE.isdisjoint(jwk):
        return "its jwk contains the private key: replace this key, and send only the public part"
    key_type, curve = KEY_TYPES[algorithm]
    if jwk.get("kty") != key_type or (curve and jwk.get("crv") != curve):
        return f"its jwk is not a key for {algorithm}"
    numbers = ("n", "e") if key_type == "RSA" else ("x", "y") if key_type == "EC" else ("x",)
    harmless = _harmless(algorithm, jwk)
    if any(name not in ("kty", "crv", *numbers, *harmless) for name in jwk) or (not curve and "crv" in jwk):
        return "its jwk has members that are not allowed, or not with these values"
    if not all(isinstance(jwk.get(name), str) for name in numbers):
        return "its jwk lacks a number of the key"
    first, *others = (decoded(jwk[name].encode("ascii")) for name in numbers)
    if curve:
        return (
            ""
            if {len(first), *map(len, others)} == {_COORDINATE[curve]}
            else "its jwk has coordinates of a wrong length"
        )
    modulus = int.from_bytes(first, "big")
    if modulus.bit_length() not in _RSA_BITS or jwk["e"] != _RSA_EXPONENT:
        return f"its RSA key does not have {_RSA_BITS[0]} to {_RSA_BITS[-1]} bits and the exponent 65537"
    if modulus % 2 == 0 or first[0] == 0:  # not a product of two large primes; a second spelling of the same key
        return "its RSA numbers are not those of a key"
    return ""


def _harmless(algorithm: str, jwk: dict[str, Any]) -> list[str]:
    """Return the members beside the key that may be there because their values say nothing new."""
    held = {
        "use": jwk.get("use") == "sig",
        "key_ops": jwk.get("key_ops") == ["verify"],
        "alg": jwk.get("alg") == algorithm,
        "ext": jwk.get("ext") is True,
        "kid": isinstance(jwk.get("kid"), str),
    }
    return [name for name, is_harmless in held.items() if is_harmless]

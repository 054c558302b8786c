"""The signature algorithms that are accepted, and the kind of key that each goes with."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = ["ALGORITHMS", "KEY_TYPES"]

KEY_TYPES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
        "ES256": ("EC", "P-256"),
        "ES384": ("EC", "P-384"),
        "ES512": ("EC", "P-521"),
        "EdDSA": ("OKP", "Ed25519"),
    }
)
"""The ``kty`` and the ``crv`` (empty for RSA) of each ``alg`` (RFC 7518 section 3.1, RFC 8037 section 3.1)."""

ALGORITHMS: Final = frozenset(KEY_TYPES)
"""Only asymmetric algorithms: with an HS algorithm, anybody who knows the public key could sign."""

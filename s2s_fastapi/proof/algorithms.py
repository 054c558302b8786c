"""The algorithms with which a proof may be signed."""

from typing import Final

__all__ = ["PROOF_ALGORITHMS"]

PROOF_ALGORITHMS: Final = (
    "ES256",
    "ES384",
    "ES512",
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "EdDSA",
)
"""In the order in which ``algs`` of a challenge names them (RFC 9449 section 7.1). EdDSA is Ed25519 only."""

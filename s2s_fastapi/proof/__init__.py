"""Proofs that a caller holds the key of a bound token (DPoP, RFC 9449): made for the calling side, checked for the receiving side."""

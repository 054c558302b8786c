"""Base64url with exactly one spelling (RFC 4648 section 5, RFC 7515 section 2)."""

import string
from binascii import a2b_base64
from typing import Final

__all__ = ["decoded"]

_ALPHABET: Final = string.ascii_uppercase.encode() + string.ascii_lowercase.encode() + string.digits.encode() + b"-_"
_FROM_URLSAFE: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
"""Translates to the alphabet of `a2b_base64`. A character that base64url does not have becomes one that `a2b_base64` refuses."""
_LAST: Final = (None, b"", _ALPHABET[::16], _ALPHABET[::4])
"""By the length of a segment modulo 4: its last character, if bits are left over in it and must be zero."""


def decoded(segment: bytes) -> bytes:
    """Return the bytes of one part.

    Raises:
        ValueError: It is empty or not canonical base64url.
    """
    # Python's decoder ignores the bits that are left over in the last character; one token must have one spelling.
    spare = _LAST[len(segment) % 4]
    if not segment or (spare is not None and segment[-1] not in spare):
        raise ValueError("not canonical base64url")
    return a2b_base64(segment.translate(_FROM_URLSAFE) + b"=" * (-len(segment) % 4), strict_mode=True)

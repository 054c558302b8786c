"""From a good token and a recipe to the token of an attack: one thing is changed, everything else stays as it is.

A recipe is a JSON object of a case file. Its members, in the order in which they take effect:

- ``header``, ``claims``: members to set. ``without_header``, ``without_claims``: members to leave out.
- ``algorithm``: another algorithm of the realm; ``alg`` and ``kid`` follow.
- ``header_text``, ``claims_text``: the JSON text. ``${json}`` is the object, ``${members}`` is the object without its braces.
- ``header_encoding``, ``claims_encoding``: another encoding than UTF-8.
- ``signed_by``: ``trusted`` (the realm), ``foreign`` or ``further`` (another realm of the app); ``signed_as``: the algorithm that really signs; ``secret``: a form of the public
  key with which HMAC signs.
- ``header_part``, ``claims_part``, ``signature_part``: what is done to a part after the signature: see `_SPELLINGS`.
- ``compact``: how the parts are joined.
"""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.keyring import Keyring
from s2s_fastapi.testing.attack.templates import filled
from s2s_fastapi.text import base64url

__all__ = ["MEMBERS", "forged", "read_parts"]

MEMBERS: Final = frozenset(
    {
        "header", "claims", "without_header", "without_claims", "algorithm", "header_text", "claims_text",
        "header_encoding", "claims_encoding", "signed_by", "signed_as", "secret", "header_part", "claims_part",
        "signature_part", "compact",
    }
)  # fmt: skip
"""All members of a recipe."""


def read_parts(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the claims of a token that we made ourselves."""
    header, claims, _ = token.split(".")
    return _read(header), _read(claims)


def forged(good: str, recipe: Mapping[str, Any], keys: Keyring, variables: Mapping[str, Any]) -> str:
    """Return the token that the recipe makes of a good one.

    Raises:
        ConfigurationError: The recipe is none.
    """
    if not MEMBERS.issuperset(recipe):
        raise ConfigurationError(f"A recipe has no member {', '.join(sorted(recipe.keys() - MEMBERS))}.")
    if not recipe:
        return good
    asked: dict[str, Any] = filled({name: value for name, value in recipe.items() if name not in _LATER}, variables)
    header, claims = read_parts(good)
    algorithm = asked.get("algorithm")
    if algorithm is not None:
        header |= {"alg": algorithm, "kid": keys.kid("trusted", algorithm)}
    signs = str(asked.get("signed_as", header["alg"]))
    header = _changed(header, asked.get("header", {}), asked.get("without_header", ()))
    claims = _changed(claims, asked.get("claims", {}), asked.get("without_claims", ()))
    first = _part("header", header, recipe, asked, variables)
    second = _part("claims", claims, recipe, asked, variables)
    signature = keys.signature(
        f"{first}.{second}".encode(),
        owner=asked.get("signed_by", "trusted"),
        algorithm=signs,
        secret=asked.get("secret"),
    )
    parts = {"header": first, "claims": second, "signature": base64url(signature)}
    parts = {name: _spelling(asked.get(f"{name}_part", "same"))(part) for name, part in parts.items()}
    return str(filled(recipe.get("compact", "${header}.${claims}.${signature}"), {**variables, **parts}))


_LATER: Final = ("header_text", "claims_text", "compact")
"""The members that use variables which are known only while the token is made."""


def _part(
    name: str,
    members: dict[str, Any],
    recipe: Mapping[str, Any],
    asked: Mapping[str, Any],
    variables: Mapping[str, Any],
) -> str:
    text = json.dumps(members, separators=(",", ":"))
    if f"{name}_text" in recipe:
        text = str(filled(recipe[f"{name}_text"], {**variables, "json": text, "members": text[1:-1]}))
    return base64url(text.encode(asked.get(f"{name}_encoding", "utf-8"), "surrogatepass"))


def _changed(members: dict[str, Any], changes: Mapping[str, Any], without: Any) -> dict[str, Any]:
    return {name: value for name, value in {**members, **changes}.items() if name not in without}


def _read(part: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return read


def _bytes_of(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def _spare_bits(part: str) -> str:
    """Set a bit that is left over in the last character: many decoders ignore it."""
    if len(part) % 4 in (0, 1):
        return part + "A"  # no bit is left over: a character that is one too many
    return part[:-1] + _ALPHABET[_ALPHABET.index(part[-1]) | 1]


def _flipped(part: str) -> str:
    """Change one bit in the middle."""
    raw = bytearray(_bytes_of(part))
    raw[len(raw) // 2] ^= 1
    return base64url(bytes(raw))


_SPELLINGS: Final[Mapping[str, Callable[[str], str]]] = {
    "same": lambda part: part,
    "empty": lambda _: "",
    "padded": lambda part: part + "=" * (-len(part) % 4 or 4),
    "one padding": lambda part: part + "=",
    "with the other alphabet": lambda part: part.replace("-", "+").replace("_", "/") + "+",
    "with a line break": lambda part: part[: len(part) // 2] + "\n" + part[len(part) // 2 :],
    "with a space": lambda part: part[: len(part) // 2] + " " + part[len(part) // 2 :],
    "with spare bits": _spare_bits,
    "with one bit changed": _flipped,
    "cut off": lambda part: base64url(_bytes_of(part)[:-1]),
    "one byte longer": lambda part: base64url(_bytes_of(part) + b"\0"),
    "one byte": lambda _: "AA",
    "zeros": lambda part: base64url(bytes(len(_bytes_of(part)))),
    "ones": lambda part: base64url(b"\xff" * len(_bytes_of(part))),
    "halves exchanged": lambda part: base64url(_exchanged(_bytes_of(part))),
    "DER": lambda part: base64url(_der(_bytes_of(part))),
    "of the attacker's text": lambda _: base64url(b"signed"),
}
"""What can be done to a part after the signature."""


def _spelling(name: str) -> Callable[[str], str]:
    if name not in _SPELLINGS:
        raise ConfigurationError(f"A part cannot be {name!r}, only {', '.join(_SPELLINGS)}.")
    return _SPELLINGS[name]


def _exchanged(raw: bytes) -> bytes:
    half = len(raw) // 2
    return raw[half:] + raw[:half]


def _der(raw: bytes) -> bytes:
    """Return an ECDSA signature as X.509 writes it (RFC 3279), which JWS does not (RFC 7518 section 3.4)."""
    half = len(raw) // 2
    numbers = b"".join(_der_integer(part) for part in (raw[:half], raw[half:]))
    return bytes((0x30, len(numbers))) + numbers


def _der_integer(raw: bytes) -> bytes:
    number = raw.lstrip(b"\0") or b"\0"
    number = b"\0" + number if number[0] & 0x80 else number
    return bytes((0x02, len(number))) + number

"""The keys of an attack: those of the attacked realm, those of an attacker, and what everybody can know of a public key."""

import hmac
import json
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc.jwk import RSAKey

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.keys import RealmKeys, once_in_a_process

__all__ = ["FORGER", "Keyring"]

FORGER: Final = RealmKeys(once_in_a_process("attacker"))
"""The attacker's keys: made once in the process, because an RSA key takes up to 50 ms."""

_HASHES: Final = {"HS256": "sha256", "HS384": "sha384", "HS512": "sha512"}
_SPKI: Final = PublicFormat.SubjectPublicKeyInfo
_PKCS1: Final = PublicFormat.PKCS1


class Keyring:
    """Signs whatever a recipe makes, with the realm's keys, with an attacker's, or with a secret that is none."""

    def __init__(self, trusted: RealmKeys, further: RealmKeys | None = None) -> None:
        """Take the keys of the attacked realm, and those of a further realm if the app accepts its tokens too."""
        self._owners = {"trusted": trusted, "foreign": FORGER, **({} if further is None else {"further": further})}

    def __repr__(self) -> str:
        return "Keyring()"

    def kid(self, owner: str, algorithm: str) -> str:
        """Return the id of a key of ``trusted``, ``foreign`` or ``further``."""
        return self._keys(owner).kid(algorithm)

    def jwk(self, owner: str, algorithm: str) -> Mapping[str, Any]:
        """Return the public key as a JWK."""
        kid = self.kid(owner, algorithm)
        return next(entry for entry in self._keys(owner).published() if entry["kid"] == kid)

    def signature(self, signing_input: bytes, *, owner: str, algorithm: str, secret: str | None = None) -> bytes:
        """Return the signature of a recipe: ``secret`` is a form of the public RS256 key.

        Raises:
            ConfigurationError: There is no such owner, algorithm or form.
        """
        if secret is None:
            return self._keys(owner).signature(signing_input, algorithm)
        return hmac.digest(self._secret(secret), signing_input, _HASHES[algorithm])

    def _keys(self, owner: str) -> RealmKeys:
        if owner not in self._owners:
            known = " and ".join(self._owners)
            raise ConfigurationError(f"A case signs with the key of {owner}, but there are only {known}.")
        return self._owners[owner]

    def _secret(self, form: str) -> bytes:
        jwk = self.jwk("trusted", "RS256")
        forms = _public_forms(json.dumps(jwk))
        if form not in forms:
            raise ConfigurationError(f"A case signs with the secret {form}, but there are only {', '.join(forms)}.")
        return forms[form]


@cache
def _public_forms(jwk: str) -> Mapping[str, bytes]:
    """Return what a verifier that mixes up keys and secrets may take for the secret."""
    public: Any = RSAKey.import_key(json.loads(jwk)).public_key
    pem: bytes = public.public_bytes(Encoding.PEM, _SPKI)
    der: bytes = public.public_bytes(Encoding.DER, _SPKI)
    return {
        "empty": b"",
        "pem": pem,
        "pem without its last line feed": pem.rstrip(b"\n"),
        "pem on one line": pem.replace(b"\n", b""),
        "pem with CR LF": pem.replace(b"\n", b"\r\n"),
        "pem with CR": pem.replace(b"\n", b"\r"),
        "pem, indented": b"  " + pem.replace(b"\n", b"\n  "),
        "pem behind a byte order mark": b"\xef\xbb\xbf" + pem,
        "pem behind a comment": b"# the realm's key\n" + pem,
        "pem without its frame": b"".join(pem.splitlines()[1:-1]),
        "pem, PKCS1": public.public_bytes(Encoding.PEM, _PKCS1),
        "der": der,
        "der, PKCS1": public.public_bytes(Encoding.DER, _PKCS1),
        "der in base64": b64encode(der),
        "openssh": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "jwk": jwk.encode(),
        "jwks": json.dumps({"keys": [json.loads(jwk)]}).encode(),
        "modulus": json.loads(jwk)["n"].encode(),
        "kid": json.loads(jwk)["kid"].encode(),
    }

"""The keys of one realm: those that sign its tokens and those that its JWKS publishes. They are made when they are first needed."""

import json
import threading
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, Final, TypeAlias

from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import base64url

__all__ = ["NewKey", "RealmKeys", "once_in_a_process"]

_CURVES: Final = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_RSA_BITS: Final = 2048
_RSA: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_HMAC_BITS: Final = {"HS256": 256, "HS384": 384, "HS512": 512}


NewKey: TypeAlias = Callable[[str, str], Key]
"""Makes a key for an algorithm, and for a role: ``signing 1``, ``signing 2``, ``encryption``."""


class _SigningKey:
    def __init__(self, algorithm: str, key: Key) -> None:
        self.algorithm = algorithm
        self.key = key
        self.kid = self.key.thumbprint()
        self.secret = algorithm in _HMAC_BITS

    def jwk(self) -> dict[str, Any]:
        return _jwk(self.key, self.kid, "sig", self.algorithm)

    def signature(self, signing_input: bytes) -> bytes:
        # The algorithm itself and not joserfc's compact form, which warns of Keycloak's name EdDSA.
        return JWSRegistry.algorithms[self.algorithm].sign(signing_input, self.key)


def _generated(algorithm: str) -> Key:
    if algorithm in _RSA:
        return RSAKey.generate_key(_RSA_BITS)
    if algorithm in _CURVES:
        return ECKey.generate_key(_CURVES[algorithm])
    if algorithm == "EdDSA":
        return OKPKey.generate_key("Ed25519")
    if algorithm in _HMAC_BITS:
        return OctKey.generate_key(_HMAC_BITS[algorithm])
    raise ConfigurationError(f"Keycloak signs with no algorithm {algorithm!r}.")


def _new(algorithm: str, role: str) -> Key:  # noqa: ARG001 - each key is new, whatever its role
    return _generated(algorithm)


@cache
def _made_once(owner: str, algorithm: str, role: str) -> Key:  # noqa: ARG001 - they are the key of the cache
    return _generated(algorithm)


def once_in_a_process(owner: str) -> NewKey:
    """Return a maker of keys that gives the same owner the same keys for as long as the process lives.

    To make an RSA key takes 10 to 50 ms, more than all the rest of a test. Two owners never have a key in common.
    """
    return partial(_made_once, owner)


def _part(members: Mapping[str, Any]) -> str:
    return base64url(json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode())


def _jwk(key: Key, kid: str, use: str, algorithm: str) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": kid, "use": use, "alg": algorithm}


class RealmKeys:
    """The keys of one realm, new in every process. Safe to use from threads. `new` makes them.

    There is one signing key for each algorithm a client asks for; the realm grows it on first use, as Keycloak does. The newest of
    an algorithm signs, the older ones stay published until they are removed.
    """

    def __init__(self, new: NewKey = _new) -> None:
        self._lock = threading.RLock()
        self._new = new
        self._made: Counter[str] = Counter()
        self._signing: dict[str, list[_SigningKey]] = {}
        self._encryption: Key | None = None

    def sign(
        self, claims: Mapping[str, Any], *, algorithm: str = "RS256", header_type: str = "JWT", kid: str = ""
    ) -> str:
        """Return `claims` as a compact JWS under the algorithm's newest key. `kid` is the name of another key, for a forged token.

        Raises:
            ConfigurationError: There is no such algorithm.
        """
        key = self._newest(algorithm)
        signing_input = f"{_part({'alg': algorithm, 'typ': header_type, 'kid': kid or key.kid})}.{_part(claims)}"
        return f"{signing_input}.{base64url(key.signature(signing_input.encode('ascii')))}"

    def signature(self, signing_input: bytes, algorithm: str = "RS256") -> bytes:
        """Return the signature of the algorithm's newest key over any bytes: the suite of attacks signs what is no token.

        Raises:
            ConfigurationError: There is no such algorithm.
        """
        return self._newest(algorithm).signature(signing_input)

    def kid(self, algorithm: str = "RS256") -> str:
        """Return the id of the key that signs now."""
        return self._newest(algorithm).kid

    def public_key(self) -> str:
        """Return the RS256 key as the realm page shows it: DER in base64."""
        key = self._newest("RS256").key
        return b64encode(key.as_der(private=False)).decode("ascii") if isinstance(key, RSAKey) else ""

    def published(self) -> list[dict[str, Any]]:
        """Return the members of the JWKS: every public signing key, and the RSA-OAEP key that encrypts."""
        with self._lock:
            self._newest("RS256")
            shown = [key.jwk() for keys in self._signing.values() for key in keys if not key.secret]
            if self._encryption is None:
                self._encryption = self._new("RS256", "encryption")
            encryption = self._encryption
            return [*shown, _jwk(encryption, encryption.thumbprint(), "enc", "RSA-OAEP")]

    def rotate(self, algorithm: str = "RS256", *, keep: bool = True) -> str:
        """Let a new key sign from now on, keep or remove the older ones, and return the new one's id.

        Raises:
            ConfigurationError: There is no such algorithm.
        """
        with self._lock:
            fresh = self._another(algorithm)
            older = self._signing.get(algorithm, []) if keep else []
            self._signing[algorithm] = [fresh, *older]
        return fresh.kid

    def remove(self, kid: str) -> None:
        """Remove a key from the JWKS. If it was the one that signs, the next one signs from then on, or a new one.

        Raises:
            ConfigurationError: There is no such key.
        """
        with self._lock:
            for keys in self._signing.values():
                for key in keys:
                    if key.kid == kid:
                        keys.remove(key)
                        return
        raise ConfigurationError(f"There is no key {kid} to remove.")

    def _newest(self, algorithm: str) -> _SigningKey:
        with self._lock:
            keys = self._signing.setdefault(algorithm, [])
            if not keys:
                keys.append(self._another(algorithm))
            return keys[0]

    def _another(self, algorithm: str) -> _SigningKey:
        self._made[algorithm] += 1
        return _SigningKey(algorithm, self._new(algorithm, f"signing {self._made[algorithm]}"))

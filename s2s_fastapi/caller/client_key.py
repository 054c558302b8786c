"""The private key of a service: read from PEM or JWK, its assertions, and its registration (RFC 7523, RFC 7517, RFC 7638)."""

import json
import re
import secrets
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import base64url

__all__ = ["LIFE", "ClientKey", "KeyType", "new_private_key", "registration"]

LIFE: Final = 60
"""Seconds that an assertion lives: the limit of Keycloak, and far more than a request may take."""

_LARGEST: Final = 65_536
_RSA_BITS: Final = 2048
_NEW_RSA_BITS: Final = 3072  # good beyond 2030 (NIST SP 800-57), and still signed with in 2 ms
_MAX_NAME: Final = 255
_BLOCK: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
_PRIVATE: Final = "PRIVATE KEY"
_OPTIONAL: Final = {"RSA": ("p", "q", "dp", "dq", "qi"), "EC": (), "OKP": ()}
_MEMBERS: Final = {"RSA": ("n", "e", "d"), "EC": ("crv", "x", "y", "d"), "OKP": ("crv", "x", "d")}
_CURVES: Final = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512", "Ed25519": "EdDSA"}
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

_CUT_OFF: Final = "is cut off: it is not written to its end yet, or was copied in part"
_PUBLIC: Final = "holds a public key only: this service needs the private one that belongs to it"
_ENCRYPTED: Final = "is encrypted: write the key without its password (`openssl pkey -in FILE -out key.pem`), readable by this service alone"
_OPENSSH: Final = "is in OpenSSH's own form: convert a copy of it with `ssh-keygen -p -N '' -m PKCS8 -f COPY`"
_NO_KEY: Final = (
    "holds neither a private key in PEM nor a JWK: make one with `s2s-fastapi keygen`,"
    " or convert DER with `openssl pkey -inform DER -in FILE -out key.pem`"
)
_BROKEN: Final = "holds a private key that is damaged"
_SHORT: Final = f"holds an RSA key of less than {_RSA_BITS} bits: make a longer one"
_OTHER_KIND: Final = (
    "holds a key of a kind that Keycloak takes no assertions from: take RSA, P-256, P-384, P-521 or Ed25519"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A private key as read from its file. Its ``repr`` shows nothing of the key."""

    kid: str
    """The JWK's own ``kid``, or else the key's thumbprint (RFC 7638)."""
    algorithm: str
    """The JWK's own ``alg``, or else the default of its type: RS256, ES256, ES384, ES512 or EdDSA."""
    text: str = field(repr=False)
    """The content of the file: to see whether it now has another key."""
    key: Any = field(repr=False, compare=False)

    @classmethod
    def read(cls, file: Path, *, said: str = "") -> Self:
        """Return the key that `file` contains now; `said` is the setting that names the file.

        Raises:
            ConfigurationError: It has no key that can be used. The sentence names the file and the cure, and shows none of its content.
        """
        found = _read(file)
        if isinstance(found, str):  # here, in a frame without the content: error trackers record the locals
            raise ConfigurationError(f"{said}{': ' if said else ''}{file} {found}.")
        kid, algorithm, text, key = found
        return cls(kid=kid, algorithm=algorithm, text=text, key=key)

    def public_jwk(self) -> dict[str, Any]:
        """Return the public key as a member of the key set of the client in Keycloak."""
        return {**self.key.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def assertion(self, client_id: str, audience: str, now: Callable[[], float]) -> str:
        """Return a new assertion that this is `client_id`, for `audience` alone (RFC 7523 section 3).

        Each has its own ``jti``, because Keycloak accepts none twice. `now` is called after everything is loaded.
        """
        header = {"typ": "JWT", "kid": self.kid}
        if self.algorithm == "EdDSA":
            return self._edwards(header, client_id, audience, now)
        # Takes ten times as long to import as this package: loaded for the first assertion, on the thread that requests the token.
        from authlib.oauth2.rfc7523 import private_key_jwt_sign  # noqa: PLC0415

        signed: str = private_key_jwt_sign(
            self.key,
            client_id,
            audience,
            alg=self.algorithm,
            claims=_identity(),
            header=header,
            issued_at=int(now()),
            expires_in=LIFE,
        )
        return signed

    def _edwards(self, header: dict[str, str], client_id: str, audience: str, now: Callable[[], float]) -> str:
        """Sign with the name EdDSA: Keycloak knows no other, and joserfc's `encode` warns of it."""
        from joserfc.jws import JWSRegistry  # noqa: PLC0415

        since = int(now())
        claims = {"iss": client_id, "sub": client_id, "aud": audience, "iat": since, "exp": since + LIFE, **_identity()}
        signing_input = f"{_part({'alg': 'EdDSA', **header})}.{_part(claims)}"
        return f"{signing_input}.{base64url(JWSRegistry.algorithms['EdDSA'].sign(signing_input.encode('ascii'), self.key))}"


def _identity() -> dict[str, str]:
    return {"jti": secrets.token_urlsafe(24)}


def _part(members: Mapping[str, Any]) -> str:
    return base64url(json.dumps(members, separators=(",", ":")).encode())


_Found = tuple[str, str, str, Any]


def _read(file: Path) -> _Found | str:
    """Return kid, algorithm, content and key, or what is wrong with the file. No exception from below leaves this module."""
    try:
        if file.is_fifo():  # opening it could wait for ever, on a thread that others need
            return "is a pipe, which can be read only once: write a file"
        with file.open("rb") as opened:
            content = opened.read(_LARGEST + 1)
    except OSError as error:
        return f"cannot be read ({error.strerror or type(error).__name__})"
    if not content.strip():
        return "is empty"
    if len(content) > _LARGEST:
        return "is too large for a key"
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return _NO_KEY
    found = _from_jwk(text) if text.lstrip().startswith("{") else _from_pem(text)
    return found if isinstance(found, str) else (*found[:2], text, found[2])


def _from_pem(text: str) -> tuple[str, str, Any] | str:
    blocks = {match[0]: match[1] for match in _BLOCK.finditer(text)}
    private = [block for block, label in blocks.items() if label.endswith(_PRIVATE)]
    if not private:
        if f"{_PRIVATE}-----" in text or text.rstrip().endswith("-----BEGIN"):
            return _CUT_OFF
        return _PUBLIC if any(label.endswith(("PUBLIC KEY", "CERTIFICATE")) for label in blocks.values()) else _NO_KEY
    if len(private) > 1:
        return "holds more than one private key: leave the one to sign with"
    (block,) = private
    if "ENCRYPTED" in block:
        return _ENCRYPTED
    if "OPENSSH" in block:
        return _OPENSSH
    from joserfc.errors import JoseError, SecurityWarning  # noqa: PLC0415
    from joserfc.jwk import ECKey, Key, OKPKey, RSAKey  # noqa: PLC0415

    kinds: tuple[type[Key], ...] = (RSAKey, ECKey, OKPKey)
    problem = _BROKEN
    for kind in kinds:
        try:
            return _described(kind.import_key(block), "", "")
        except SecurityWarning:  # it is one where warnings are errors
            return _SHORT
        except JoseError:  # a key, but of another kind
            problem = _OTHER_KIND
        except Exception:  # noqa: BLE001, S112 - the parser may raise anything for a damaged key
            continue
    return problem


def _from_jwk(text: str) -> tuple[str, str, Any] | str:
    try:
        jwk = json_object(text.encode())
    except (ValueError, RecursionError):
        return _CUT_OFF if not text.rstrip().endswith("}") else "is not JSON with exactly one reading"
    kind = jwk.get("kty")
    if isinstance(jwk.get("keys"), list):
        return "holds a set of keys: give one private JWK alone"
    if kind == "oct":
        return "holds a symmetric key, which is a secret: give it as KEYCLOAK_CLIENT_SECRET, or make a key pair"
    if not isinstance(kind, str) or kind not in _MEMBERS:
        return _OTHER_KIND if kind else _NO_KEY
    if "d" not in jwk:
        return _PUBLIC
    operations = jwk.get("key_ops", ["sign"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "sign" not in operations:
        return "holds a key that is not for signing (`use`, `key_ops`)"
    kid, algorithm = jwk.get("kid", ""), jwk.get("alg", "")
    if not isinstance(kid, str) or not kid.isprintable() or len(kid) > _MAX_NAME or not isinstance(algorithm, str):
        return "holds a JWK whose kid or alg is no name"
    # No other member of a JWK decides how it signs.
    members = {name: jwk[name] for name in ("kty", *_MEMBERS[kind], *_OPTIONAL[kind]) if name in jwk}
    from joserfc.errors import SecurityWarning  # noqa: PLC0415
    from joserfc.jwk import ECKey, Key, OKPKey, RSAKey  # noqa: PLC0415

    kinds: dict[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    try:
        return _described(kinds[kind].import_key(members), kid, algorithm)
    except SecurityWarning:
        return _SHORT
    except Exception:  # noqa: BLE001 - the parser may raise anything for a damaged key
        return _BROKEN


def _described(key: Any, kid: str, algorithm: str) -> tuple[str, str, Any] | str:
    public = key.as_dict(private=False)
    if public["kty"] == "RSA":
        if int.from_bytes(urlsafe_b64decode(public["n"] + "=="), "big").bit_length() < _RSA_BITS:
            return _SHORT
        possible: tuple[str, ...] = _RSA_ALGORITHMS
    else:
        named = _CURVES.get(public["crv"])
        if named is None:
            return _OTHER_KIND
        possible = (named,)
        algorithm = named if algorithm == public["crv"] else algorithm  # RFC 9864's Ed25519 is EdDSA to Keycloak
    if algorithm and algorithm not in possible:
        return f"holds a JWK with an alg that its key cannot sign with: take {', '.join(possible)}, or none"
    return kid or key.thumbprint(), algorithm or possible[0], key


class KeyType(StrEnum):
    """The kinds of keys that are made (``kty``, RFC 7518 section 6.1, RFC 8037)."""

    EC = "EC"
    RSA = "RSA"
    OKP = "OKP"


def new_private_key(kty: KeyType) -> bytes:
    """Return a new private key in PEM (PKCS #8), without a password: P-256, RSA of 3072 bits, or Ed25519."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415

    if kty is KeyType.RSA:
        return RSAKey.generate_key(_NEW_RSA_BITS).as_pem(private=True)
    return (ECKey.generate_key("P-256") if kty is KeyType.EC else OKPKey.generate_key("Ed25519")).as_pem(private=True)


def registration(client_id: str, keys: Sequence[ClientKey]) -> dict[str, Any]:
    """Return the client for the Admin REST API and for an import, with these public keys, any of which may sign. It has no secret.

    It creates a client. Put over an existing client it changes only the settings named here.
    """
    algorithms = {key.algorithm for key in keys}
    key_set = {"keys": [key.public_jwk() for key in keys]}
    return {
        "clientId": client_id,
        "protocol": "openid-connect",
        "publicClient": False,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
        "clientAuthenticatorType": "client-jwt",
        "attributes": {
            "use.jwks.url": "false",
            "use.jwks.string": "true",
            "jwks.string": json.dumps(key_set, separators=(",", ":")),
            # Empty means any: while a key is replaced by one of another type, both must be accepted.
            "token.endpoint.auth.signing.alg": algorithms.pop() if len(algorithms) == 1 else "",
        },
    }

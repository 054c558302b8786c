"""Signed assertions as Keycloak judges them, refusals in its order and words, measured on 26.0.8 and 26.7.3 (RFC 7523 section 3)."""

import hashlib
import json
import threading
from base64 import urlsafe_b64decode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.realm.model import Denied
from s2s_fastapi.text import base64url

__all__ = ["ASSERTION_TYPE", "KINDS", "Assertion", "AssertionRules", "Seen", "public_keys"]

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

_FAILED: Final = "Client authentication with signed JWT failed: "
_ALGORITHMS: Final = frozenset(f"{kind}{bits}" for kind in ("RS", "PS", "ES") for bits in (256, 384, 512)) | {"EdDSA"}
KINDS: Final[dict[str, type[Key]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_SKEW: Final = 15
_MAX_AGE: Final = 60
_KEPT: Final = 10_000
_PARTS: Final = 3


class Seen:
    """The ids of the assertions that a realm has accepted, until the assertions expire. Safe to use from threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until: dict[object, float] = {}

    def add(self, jti: object, until: float, now: float) -> bool:
        """Return whether the id is new, and keep it."""
        with self._lock:
            if len(self._until) >= _KEPT:
                self._until = {one: end for one, end in self._until.items() if end >= now}
            if self._until.get(jti, now - 1) >= now:
                return False
            self._until[jti] = until
            return True


def public_keys(attributes: Mapping[str, Any]) -> Iterator[tuple[str, Key]]:
    """Yield the keys that a client's attributes hold, each with its ``kid``; without those of ``jwks.url``, which would have to be fetched.

    Raises:
        ValueError: The key set cannot be read.
    """
    if str(attributes.get("use.jwks.string", "")).lower() == "true":
        for jwk in json.loads(attributes.get("jwks.string") or "{}").get("keys", ()):
            kind = KINDS.get(jwk.get("kty"))
            if kind is not None and jwk.get("use", "sig") == "sig":
                yield str(jwk.get("kid", "")), kind.import_key(jwk)
    elif attributes.get("jwt.credential.certificate"):
        pem = f"-----BEGIN CERTIFICATE-----\n{attributes['jwt.credential.certificate']}\n-----END CERTIFICATE-----\n"
        key = RSAKey.import_key(pem)
        yield base64url(hashlib.sha256(key.as_der(private=False)).digest()), key


@dataclass(frozen=True, slots=True, kw_only=True)
class AssertionRules:
    """What one release of Keycloak compares an assertion with."""

    strict: bool
    """26.7, not 26.0."""
    audiences: tuple[str, ...]
    now: float
    seen: Seen


@dataclass(frozen=True, slots=True, repr=False)
class Assertion:
    """A JWT that was sent as an assertion. Nothing in it may be believed before `refusal` has returned None."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signing_input: bytes
    signature: bytes

    @classmethod
    def read(cls, text: str) -> "Assertion | None":
        """Return the parts of a compact JWS, or None if it is not one."""
        parts = text.split(".")
        if len(parts) != _PARTS:
            return None
        try:
            raw = [urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in parts]
            header, claims = (json.loads(part) for part in raw[:2])
        except (ValueError, RecursionError):
            return None
        if not isinstance(header, dict) or not isinstance(claims, dict):
            return None
        if any(name in claims and not _is_date(claims[name]) for name in ("exp", "iat", "nbf")):
            return None
        return cls(header, claims, f"{parts[0]}.{parts[1]}".encode(), raw[2])

    @property
    def client_id(self) -> str:
        """The client that the assertion claims to be (``sub``); empty if it claims none."""
        named = self.claims.get("sub")
        return named if isinstance(named, str) else ""

    def refusal(self, attributes: Mapping[str, Any], rules: AssertionRules) -> Denied | None:
        """Return the first reason why it does not prove the client with these attributes, or None."""
        reason = self._unsigned(attributes, rules) or self._unfit(rules)
        return Denied(status=400, error="invalid_client", description=reason) if reason else None

    def _unsigned(self, attributes: Mapping[str, Any], rules: AssertionRules) -> str:
        algorithm, expected = self.header.get("alg"), attributes.get("token.endpoint.auth.signing.alg")
        if (expected and algorithm != expected) or (rules.strict and algorithm not in _ALGORITHMS):
            return f"{'I' if rules.strict else 'i'}nvalid signature algorithm"
        try:
            keys = list(public_keys(attributes))
        except Exception as error:  # noqa: BLE001 - any error of a library that reads what a client wrote into a form
            return f"{_FAILED}Error when loading public keys: {type(error).__name__}"
        kid = self.header.get("kid")
        key = next((key for named, key in keys if kid in (None, named)), None)
        if key is None:
            return "Unable to load public key"
        return "" if self.signed_by(key) else f"{_FAILED}Signature on JWT token failed validation"

    def signed_by(self, key: Key) -> bool:
        """Return whether this key made the signature, in an algorithm that Keycloak knows."""
        if self.header.get("alg") not in _ALGORITHMS:
            return False
        try:
            # The algorithm itself and not joserfc's compact form, which warns of Keycloak's name EdDSA.
            return JWSRegistry.algorithms[self.header["alg"]].verify(self.signing_input, self.signature, key)
        except Exception:  # noqa: BLE001 - a key of another kind
            return False

    def _unfit(self, rules: AssertionRules) -> str:
        said = "" if rules.strict else _FAILED
        return self._misdirected(rules) or self._untimely(rules, said) or self._repeated(rules, said)

    def _misdirected(self, rules: AssertionRules) -> str:
        aud = self.claims.get("aud")
        named = aud if isinstance(aud, list) else [aud]
        if rules.strict:
            if len(named) > 1:
                return "Multiple audiences not allowed"
            return "" if named and named[0] in rules.audiences else "Invalid token audience"
        if aud is None:
            return f"{_FAILED}null"
        if set(map(str, named)) & set(rules.audiences):
            return ""
        return (
            f"{_FAILED}Token audience doesn't match domain. Expected audiences are any of [{', '.join(rules.audiences)}]"
            f" but audience from token is '[{', '.join(map(str, named))}]'"
        )

    def _untimely(self, rules: AssertionRules, said: str) -> str:
        until, since, start = (self.claims.get(name) for name in ("exp", "iat", "nbf"))
        if until is None and (rules.strict or since is None):
            return "Token exp claim is required" if rules.strict else f"{said}null"
        ended = until is not None and (until <= rules.now if rules.strict else until < rules.now)
        if ended or (start is not None and start > rules.now + (_SKEW if rules.strict else 0)):
            return f"{said}Token is not active"
        if since is None or (until is not None and not rules.strict):
            return ""
        if rules.strict and since > rules.now + _SKEW:
            return "Token was issued in the future"
        if since + _MAX_AGE < rules.now:
            return f"{said}Token was issued too far in the past to be used now"
        return ""

    def _repeated(self, rules: AssertionRules, said: str) -> str:
        jti = self.claims.get("jti")
        if jti is None:
            return "Token jti claim is required" if rules.strict else f"{said}Missing ID on the token"
        until = self.claims.get("exp", rules.now + _MAX_AGE)
        return "" if rules.seen.add(str(jti), until, rules.now) else f"{said}Token reuse detected"


def _is_date(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""DPoP proofs at the token endpoint as Keycloak judges them, refusals in its order and words, measured on 26.7.3 (RFC 9449 section 5).

This is Keycloak's check, with what it tolerates. The receiving side of this package checks proofs in `s2s_fastapi.proof`.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.realm.model import Denied
from s2s_fastapi.testing.assertions import Seen

__all__ = ["PROOF_ALGORITHMS", "ProofRules", "proved"]

PROOF_ALGORITHMS: Final = (*("PS384", "RS384", "EdDSA", "ES384", "ES256", "RS256", "ES512", "PS256", "PS512", "RS512"),)
"""``dpop_signing_alg_values_supported``."""

_LIFETIME: Final = 10
_SKEW: Final = 15
_PARTS: Final = (2, 3)
_OTHER_ALGORITHMS: Final = frozenset({"none", "HS256", "HS384", "HS512", "Ed25519", "Ed448"})
"""Known to Keycloak, and not accepted for proofs. Every other name is one that it cannot read."""
_SIGNATURE_BYTES: Final = {"ES256": 64, "ES384": 96, "ES512": 132, "EdDSA": 64}
_KINDS: Final[Mapping[str, tuple[type[Key], tuple[str, ...]]]] = {
    "RSA": (RSAKey, ("n", "e")),
    "EC": (ECKey, ("crv", "x", "y")),
    "OKP": (OKPKey, ("crv", "x")),
}
_KIND_OF: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth"})
_NO_URI: Final = re.compile(r"[\s<>\"{}|\\^`]|%(?![0-9A-Fa-f]{2})|\[(?![^\]]*\])")
_FAILED: Final = Denied(status=500, error="unknown_error", description="For more on this error consult the server log.")
_UNREADABLE: Final = "DPoP header verification failure"
_NOT_SIGNED: Final = (
    "DPoP verification failure: org.keycloak.exceptions.TokenSignatureInvalidException: Invalid token signature"
)
_NO_SIGNATURE: Final = "DPoP verification failure: org.keycloak.common.VerificationException: Signing failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRules:
    """What a proof is compared with."""

    url: str
    """The URL of the request, as the server sees it, without its query."""
    method: str
    now: int
    seen: Seen


class _Refused(Exception):
    """Why a proof is refused, in Keycloak's words."""


def proved(value: str, rules: ProofRules) -> str | Denied:
    """Return the thumbprint of the key that a proof proves (RFC 7638), or the refusal of the proof.

    ``value`` is the header ``DPoP``. Several headers of that name are one with commas, as for Keycloak.
    """
    try:
        return _proved(value, rules)
    except _Refused as refused:
        return Denied(status=400, error="invalid_request", description=str(refused))
    except _NoKeyError:
        return _FAILED


def _proved(value: str, rules: ProofRules) -> str:
    if not value.strip():
        raise _Refused("DPoP proof is missing")
    header, claims, signing_input, signature = _read(value)
    if header.get("typ") != "dpop+jwt":
        shown = "null" if header.get("typ") is None else header["typ"]
        raise _Refused(f"Invalid or missing type in DPoP header: {shown}")
    algorithm = header.get("alg")
    if algorithm is None:
        raise _Refused("No alg in DPoP header")
    if algorithm not in PROOF_ALGORITHMS:
        raise _Refused(f"Unsupported DPoP algorithm: {algorithm}")
    key = _key(header.get("jwk"), algorithm)
    size = _SIGNATURE_BYTES.get(algorithm) or _rsa_bytes(key)
    if len(signature) != size:
        raise _Refused(_NO_SIGNATURE)
    if not _signed(algorithm, signing_input, signature, key):
        raise _Refused(_NOT_SIGNED)
    _check_claims(claims, rules)
    return str(key.thumbprint())


def _read(value: str) -> tuple[dict[str, Any], dict[str, Any], bytes, bytes]:
    parts = value.split(".")
    if len(parts) not in _PARTS:
        raise _Refused(_UNREADABLE)
    try:
        raw = [urlsafe_b64decode(part.rstrip("=") + "=" * (-len(part.rstrip("=")) % 4)) for part in parts]
        header, claims = (json.loads(part) for part in raw[:2])
    except (ValueError, RecursionError):
        raise _Refused(_UNREADABLE) from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise _Refused(_UNREADABLE)
    algorithm, jwk = header.get("alg"), header.get("jwk")
    known = algorithm is None or algorithm in PROOF_ALGORITHMS or algorithm in _OTHER_ALGORITHMS
    if not known or not isinstance(jwk, dict | None):
        raise _Refused(_UNREADABLE)
    return header, _typed(claims), f"{parts[0]}.{parts[1]}".encode(), raw[2] if len(raw) > len(_PARTS) else b""


def _typed(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims as Keycloak reads them into its types: a number is a text, and a text that is a number is one."""
    typed: dict[str, Any] = {}
    for name in ("jti", "htm", "htu"):
        value = claims.get(name)
        if isinstance(value, dict | list):
            raise _Refused(_UNREADABLE)
        typed[name] = "" if value is None else value if isinstance(value, str) else json.dumps(value)
    moment = claims.get("iat")
    if isinstance(moment, bool | dict | list):
        raise _Refused(_UNREADABLE)
    try:
        typed["iat"] = None if moment is None else int(moment)
    except (ValueError, OverflowError):
        raise _Refused(_UNREADABLE) from None
    return typed


class _NoKeyError(Exception):
    """A key that makes Keycloak fail."""


def _key(jwk: Mapping[str, Any] | None, algorithm: str) -> Key:
    if jwk is None:
        raise _Refused("No JWK in DPoP header")
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _Refused("Unsupported key type in DPoP header")
    made, members = _KINDS[kind]
    try:
        key = made.import_key({"kty": kind, **{name: jwk[name] for name in members}})
    except Exception:  # noqa: BLE001 - any error of a library that reads what a client wrote into a header
        raise _NoKeyError from None
    if not _PRIVATE.isdisjoint(jwk):
        raise _Refused("Private key material must not be present in DPoP JWK")
    if _KIND_OF[algorithm[:2]] != kind:
        raise _Refused(
            f"Key with algorithm {algorithm} and type {kind} is incorrect for provider algorithm {algorithm}"
        )
    return key


def _rsa_bytes(key: Key) -> int:
    public: Any = key.public_key if isinstance(key, RSAKey) else None
    return (public.key_size + 7) // 8 if public is not None else 0


def _signed(algorithm: str, signing_input: bytes, signature: bytes, key: Key) -> bool:
    try:
        # The algorithm itself and not joserfc's compact form, which warns of Keycloak's name EdDSA.
        return JWSRegistry.algorithms[algorithm].verify(signing_input, signature, key)
    except Exception:  # noqa: BLE001 - a key of another curve
        return False


def _check_claims(claims: Mapping[str, Any], rules: ProofRules) -> None:
    moment, jti, htm, htu = (claims[name] for name in ("iat", "jti", "htm", "htu"))
    if moment is None or not all(text.strip() for text in (jti, htm, htu)):
        raise _Refused("DPoP mandatory claims are missing")
    try:
        named = None if _NO_URI.search(htu) else _plain(htu)
    except ValueError:  # an IPv6 address that is none
        named = None
    if named is None:
        raise _Refused("Malformed HTTP URL in DPoP proof")
    if named != _plain(rules.url):
        raise _Refused("DPoP HTTP URL mismatch")
    if htm != rules.method:
        raise _Refused("DPoP HTTP method mismatch")
    if not rules.now - _LIFETIME - _SKEW <= moment <= rules.now + _SKEW:
        raise _Refused("DPoP proof is not active")
    if not rules.seen.add((jti, htu), moment + _LIFETIME + _SKEW, rules.now):
        raise _Refused("DPoP proof has already been used")


def _plain(url: str) -> tuple[str, str, str]:
    """Return a URL as Keycloak compares it: scheme and host in lower case, nothing else changed, without query and fragment."""
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower(), parts.path

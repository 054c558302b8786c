"""The key of a caller whose token is bound, and the good proofs that attacks begin with (RFC 9449 section 4.2)."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any, Final

from s2s_fastapi.testing.attack.keyring import Keyring
from s2s_fastapi.testing.keys import RealmKeys, once_in_a_process
from s2s_fastapi.text import base64url

__all__ = ["PROVER", "ath_of", "binding", "good_proof", "proof_variables"]

_MAKE: Final = once_in_a_process("a caller that proves its key")
_KEYS: Final = RealmKeys(_MAKE)
PROVER: Final = Keyring(_KEYS)
"""Signs proofs: ``trusted`` is the key to which good tokens are bound, ``foreign`` is an attacker's."""

_ALGORITHM: Final = "ES256"
_MEMBERS: Final = ("kty", "crv", "x", "y")


def _jwk(owner: str) -> dict[str, Any]:
    found = PROVER.jwk(owner, _ALGORITHM)
    return {name: found[name] for name in _MEMBERS}


def binding() -> dict[str, Any]:
    """Return the claims that bind a token to the key, as Keycloak writes them."""
    return {"typ": "DPoP", "cnf": {"jkt": _KEYS.kid(_ALGORITHM), "kc-jkt-type": "DPoP"}}


def ath_of(token: str) -> str:
    """Return the claim ``ath`` for a token."""
    return base64url(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())


def good_proof(token: str, *, method: str, url: str, now: int) -> str:
    """Return a new proof for one request."""
    header = {"typ": "dpop+jwt", "alg": _ALGORITHM, "jwk": _jwk("trusted")}
    claims = {
        "jti": secrets.token_urlsafe(16),
        "htm": method,
        "htu": url,
        "iat": now,
        "ath": ath_of(token),
    }
    signing_input = f"{_part(header)}.{_part(claims)}"
    signature = PROVER.signature(signing_input.encode(), owner="trusted", algorithm=_ALGORITHM)
    return f"{signing_input}.{base64url(signature)}"


def proof_variables(*, method: str, url: str, another_token: str) -> dict[str, Any]:
    """Return what the recipe of a proof can name."""
    scheme, mark, place = url.partition("://")
    host, slash, path = place.partition("/")
    return {
        "method": method,
        "method_in_lower_case": method.lower(),
        "another_method": "POST" if method == "GET" else "GET",
        "url": url,
        "url_of_another_scheme": f"{'http' if scheme == 'https' else 'https'}{mark}{place}",
        "url_of_another_host": f"{scheme}{mark}attacker.example{slash}{path}",
        "url_of_a_longer_host": f"{scheme}{mark}{host}.attacker.example{slash}{path}",
        "url_with_a_user": f"{scheme}{mark}{host}@attacker.example{slash}{path}",
        "url_of_another_port": f"{scheme}{mark}{host.partition(':')[0]}:1{slash}{path}",
        "url_of_another_path": f"{scheme}{mark}{host}/another/path",
        "url_of_the_host": f"{scheme}{mark}{host}",
        "path_alone": f"/{path}",
        "ath_of_another_token": ath_of(another_token),
        "jwk": _jwk("trusted"),
        "jwk_foreign": _jwk("foreign"),
        "jwk_private": _private(),
        "jkt_foreign": PROVER.kid("foreign", _ALGORITHM),
    }


def _private() -> Mapping[str, Any]:
    """Return the key with its private member: a proof that has it gives the key away."""
    private = _MAKE(_ALGORITHM, "signing 1").as_dict(private=True)
    return {name: private[name] for name in (*_MEMBERS, "d")}


def _part(members: Mapping[str, Any]) -> str:
    return base64url(json.dumps(members, separators=(",", ":")).encode())

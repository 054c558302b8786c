"""Assertions with one thing wrong, and what Keycloak says of each: played on real servers and on the embedded issuer alike."""

import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc.jwk import Key, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.caller.client_key import ClientKey, registration
from tests.kit.missing import MISSING

__all__ = ["CLIENTS", "KEY", "OTHER", "ROWS", "Row", "form_of"]

TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
KEY: Final = RSAKey.generate_key(2048)
OTHER: Final = RSAKey.generate_key(2048)
KID: Final = KEY.thumbprint()
SIGNED = "Client authentication with signed JWT failed: "
CREDENTIALS = (401, "invalid_client", "Invalid client or Invalid client credentials")


def _client(client_id: str, **changes: Any) -> dict[str, Any]:
    keys = [ClientKey(kid=key.thumbprint(), algorithm="RS256", text="", key=key) for key in (KEY,)]
    return {**registration(client_id, keys), **changes}


CLIENTS: Final = (
    _client("signs"),
    _client("signs-too"),
    _client("off", enabled=False),
    _client("keyless", attributes={}),
    _client("broken", attributes={"use.jwks.string": "true", "jwks.string": "{"}),
    _client("accountless", serviceAccountsEnabled=False),
    {
        "clientId": "secret",
        "secret": "s",
        "publicClient": False,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
    },
)


def _base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request that differs from a good one, and the answers of 26.7.3 and 26.0.8: status, error, start of the description."""

    name: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    """Changes; dates are seconds from now."""
    header: Mapping[str, Any] = field(default_factory=dict)
    form: Mapping[str, Any] = field(default_factory=dict)
    key: Key = field(default_factory=lambda: KEY)
    client: str = "signs"
    new: tuple[int, str, str] | None
    """None: a token."""
    old: tuple[int, str, str] | None


def same(said: str) -> dict[str, Any]:
    return {"new": (400, "invalid_client", said), "old": (400, "invalid_client", said)}


def prefixed(said: str, old: str = "") -> dict[str, Any]:
    return {"new": (400, "invalid_client", said), "old": (400, "invalid_client", SIGNED + (old or said))}


def only_new(said: str) -> dict[str, Any]:
    return {"new": (400, "invalid_client", said), "old": None}


TAKEN: Final[dict[str, Any]] = {"new": None, "old": None}
UNKNOWN: Final[dict[str, Any]] = {"new": CREDENTIALS, "old": CREDENTIALS}
ALGORITHM: Final[dict[str, Any]] = {
    "new": (400, "invalid_client", "Invalid signature algorithm"),
    "old": (400, "invalid_client", "invalid signature algorithm"),
}
AUDIENCE: Final[dict[str, Any]] = prefixed(
    "Invalid token audience", "Token audience doesn't match domain. Expected audiences are any of ["
)

ROWS: Final = (
    Row(name="nothing wrong", **TAKEN),
    Row(name="no client_id", form={"client_id": MISSING}, **TAKEN),
    Row(name="no kid", header={"kid": MISSING}, **TAKEN),
    Row(name="aud is the token endpoint", claims={"aud": "{issuer}/protocol/openid-connect/token"}, **TAKEN),
    Row(name="aud in a list", claims={"aud": ["{issuer}"]}, **TAKEN),
    Row(name="two in aud", claims={"aud": ["{issuer}", "x"]}, **only_new("Multiple audiences not allowed")),
    Row(name="another aud", claims={"aud": "http://other.example/realms/x"}, **AUDIENCE),
    Row(name="a slash more in aud", claims={"aud": "{issuer}/"}, **AUDIENCE),
    Row(name="no aud", claims={"aud": MISSING}, **prefixed("Invalid token audience", "null")),
    Row(name="another key under its kid", key=OTHER, **same(f"{SIGNED}Signature on JWT token failed validation")),
    Row(name="another kid", header={"kid": "other"}, **same("Unable to load public key")),
    Row(name="another alg", header={"alg": "PS256"}, **ALGORITHM),
    Row(name="alg none", header={"alg": "none"}, **ALGORITHM),
    Row(name="another alg and kid", header={"alg": "PS256", "kid": "other"}, **ALGORITHM),
    Row(name="ended", claims={"exp": -30, "iat": -50}, **prefixed("Token is not active")),
    Row(name="no exp", claims={"exp": MISSING}, **only_new("Token exp claim is required")),
    Row(name="no iat", claims={"iat": MISSING}, **TAKEN),
    Row(name="from 10 s ahead", claims={"iat": 10}, **TAKEN),
    Row(name="from a minute ahead", claims={"iat": 60, "exp": 90}, **only_new("Token was issued in the future")),
    Row(name="old and not ended", claims={"iat": -100}, **only_new("Token was issued too far in the past")),
    Row(name="ends in an hour", claims={"exp": 3600}, **TAKEN),
    Row(name="not yet", claims={"nbf": 60}, **prefixed("Token is not active")),
    Row(name="no jti", claims={"jti": MISSING}, **prefixed("Token jti claim is required", "Missing ID on the token")),
    Row(name="no sub", claims={"sub": MISSING}, form={"client_id": MISSING}, **UNKNOWN),
    Row(name="no iss", claims={"iss": MISSING}, form={"client_id": MISSING}, **UNKNOWN),
    Row(name="by another client", claims={"iss": "signs-too"}, form={"client_id": MISSING}, **UNKNOWN),
    Row(name="about another client", claims={"sub": "signs-too"}, form={"client_id": MISSING}, **UNKNOWN),
    Row(
        name="by and about another client than client_id",
        form={"client_id": "signs-too"},
        **prefixed(
            "client_id parameter does not match authenticated client",
            "client_id parameter not matching with client from JWT token",
        ),
    ),
    Row(name="nobody", client="nobody", **UNKNOWN),
    Row(name="nobody, and no client_id", client="nobody", form={"client_id": MISSING}, **UNKNOWN),
    Row(name="a client that is off", client="off", **UNKNOWN),
    Row(name="a client without keys", client="keyless", **same("Unable to load public key")),
    Row(name="a client with a broken key set", client="broken", **same(f"{SIGNED}Error when loading public keys")),
    Row(
        name="a client without a service account",
        client="accountless",
        new=(401, "unauthorized_client", "Client not enabled to retrieve service account"),
        old=(401, "unauthorized_client", "Client not enabled to retrieve service account"),
    ),
    Row(
        name="a client that is set to a secret",
        client="secret",
        new=(401, "unauthorized_client", CREDENTIALS[2]),
        old=(401, "unauthorized_client", CREDENTIALS[2]),
    ),
    Row(
        name="a client that is set to a secret, and no client_id",
        client="secret",
        form={"client_id": MISSING},
        new=CREDENTIALS,
        old=(400, "invalid_client", "Missing client_id parameter"),
    ),
    Row(name="no type", form={"client_assertion_type": MISSING}, **same("Parameter client_assertion_type is missing")),
    Row(
        name="another type",
        form={"client_assertion_type": "x"},
        **same(f"Parameter client_assertion_type has value 'x' but expected is '{TYPE}'"),
    ),
    Row(name="no assertion", form={"client_assertion": MISSING}, **same("client_assertion parameter missing")),
    Row(name="no JWT", form={"client_assertion": "x"}, **same(f"{SIGNED}java.lang.IllegalArgumentException")),
    Row(name="no JWT and no client_id", form={"client_assertion": "x", "client_id": MISSING}, **UNKNOWN),
    Row(
        name="a secret",
        form={"client_assertion": MISSING, "client_assertion_type": MISSING, "client_secret": "s"},
        **same("Parameter client_assertion_type is missing"),
    ),
    Row(name="a secret beside it", form={"client_secret": "s"}, **TAKEN),
    Row(
        name="a scope that is not there",
        form={"scope": "nope"},
        new=(400, "invalid_scope", "Invalid scopes: nope"),
        old=(400, "invalid_scope", "Invalid scopes: nope"),
    ),
)


def form_of(row: Row, issuer: str, *, jti: str) -> dict[str, str]:
    """Return the form that a row sends to the realm of that issuer."""
    now = int(time.time())
    claims = {"iss": row.client, "sub": row.client, "aud": "{issuer}", "iat": 0, "exp": 50, "jti": jti, **row.claims}
    sent = {
        name: now + value if name in ("iat", "exp", "nbf") else _filled(value, issuer)
        for name, value in claims.items()
        if value is not MISSING
    }
    header = {name: value for name, value in {"alg": "RS256", "kid": KID, **row.header}.items() if value is not MISSING}
    form = {
        "grant_type": "client_credentials",
        "client_id": row.client,
        "client_assertion_type": TYPE,
        "client_assertion": _signed(header, sent, row.key),
        **row.form,
    }
    return {name: value for name, value in form.items() if value is not MISSING}


def _filled(value: Any, issuer: str) -> Any:
    if isinstance(value, list):
        return [_filled(one, issuer) for one in value]
    return value.replace("{issuer}", issuer)


def _signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: Key) -> str:
    parts = [_base64url(json.dumps(part).encode()) for part in (header, claims)]
    algorithm = JWSRegistry.algorithms[header["alg"]]
    return ".".join([*parts, _base64url(algorithm.sign(".".join(parts).encode(), key))])

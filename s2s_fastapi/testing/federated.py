"""Tokens of identity providers in the place of a secret, as Keycloak judges them: refusals in its order and words, measured on 26.7.3.

``kubernetes`` is a cluster, ``oidc`` any OpenID Provider, ``spiffe`` a trust domain (RFC 7523 section 2.2; SPIFFE JWT-SVID section 3).
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx
from joserfc.jwk import Key, RSAKey

from s2s_fastapi.realm.entities import Client, IdentityProvider
from s2s_fastapi.realm.model import Denied, RealmModel
from s2s_fastapi.testing.assertions import ASSERTION_TYPE, KINDS, Assertion, Seen
from s2s_fastapi.testing.keys import RealmKeys

__all__ = ["SPIFFE_TYPE", "FederationRules", "ProviderKeys", "federated"]

SPIFFE_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"

_MAX_AGE: Final = {"kubernetes": 3600, "oidc": 300, "spiffe": 300}
_FETCH_SECONDS: Final = 5.0
_BETWEEN_FETCHES: Final = 10
_SPIFFE_ID: Final = "spiffe://"
_UNKNOWN_CLIENT: Final = Denied(
    status=401, error="invalid_client", description="Invalid client or Invalid client credentials"
)
_PUBLIC: Final = ("kty", "n", "e", "crv", "x", "y")

_Keys = list[tuple[Mapping[str, Any], Key]]


class ProviderKeys:
    """The published keys of a realm's identity providers: given, or fetched when they are first needed. Safe to use from threads.

    A key that is not known is fetched at most every 10 seconds, as by Keycloak.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._given: dict[str, _Keys] = {}
        self._own: dict[str, RealmKeys] = {}
        self._fetched: dict[str, tuple[float, _Keys]] = {}

    def give(self, alias: str, jwks: Mapping[str, Any]) -> None:
        """Take the keys of a provider, in place of those that it publishes.

        Raises:
            ValueError: This is no key set.
        """
        keys = _read(jwks)
        with self._lock:
            self._given[alias] = keys

    def sign(self, alias: str, claims: Mapping[str, Any]) -> str:
        """Return a token of a provider, signed by a key that is made for it here and counts beside the others."""
        with self._lock:
            own = self._own.setdefault(alias, RealmKeys())
        return own.sign(dict(claims))

    def find(self, provider: IdentityProvider, header: Mapping[str, Any], now: float) -> Key | None:
        """Return the key that a header names, or the first one for its algorithm if it names none."""
        with self._lock:
            own = self._own.get(provider.alias)
            named = header.get("kid") is not None
            if own is not None and named and (key := _named(_read({"keys": own.published()}), header)) is not None:
                return key
            if provider.alias in self._given:
                return _named(self._given[provider.alias], header)
            at, keys = self._fetched.get(provider.alias, (float("-inf"), []))
            key = _named(keys, header)
            if key is None and not 0 <= now - at < _BETWEEN_FETCHES:
                keys = _published(provider)
                self._fetched[provider.alias] = now, keys
                key = _named(keys, header)
            return key


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationRules:
    """What an assertion is compared with."""

    kind: str
    """The parameter ``client_assertion_type``."""
    client_id: str
    """The client that the request names; empty if it names none."""
    issuer: str
    """The claim ``iss`` of the realm: the only audience."""
    now: float
    seen: Seen
    keys: ProviderKeys


def federated(text: str, model: RealmModel, rules: FederationRules) -> tuple[str, Denied | None]:
    """Return the client that an assertion proves, and why it does not prove it."""
    assertion = Assertion.read(text) if rules.kind in {ASSERTION_TYPE, SPIFFE_TYPE} else None
    if assertion is None:
        return rules.client_id, _UNKNOWN_CLIENT
    provider = _provider(assertion, model, rules)
    clients = model.federated_clients(provider.alias, assertion.client_id) if provider is not None else ()
    if provider is None or len(clients) != 1 or not clients[0].enabled or clients[0].public:
        return rules.client_id, _UNKNOWN_CLIENT
    return clients[0].id, _refusal(assertion, clients[0], provider, rules)


def _provider(assertion: Assertion, model: RealmModel, rules: FederationRules) -> IdentityProvider | None:
    """Return the provider that an assertion claims to be from."""
    sub, issuer = assertion.client_id, assertion.claims.get("iss")
    if not sub or issuer == sub:  # the client's own assertion
        return None
    by_trust_domain = rules.kind == SPIFFE_TYPE and sub.startswith(_SPIFFE_ID)
    if rules.kind == SPIFFE_TYPE and not by_trust_domain and not rules.client_id:
        return None
    for provider in model.identity_providers:
        if not provider.enabled or provider.kind not in _MAX_AGE:
            continue
        config = provider.config
        if provider.kind == "spiffe":
            if by_trust_domain and sub.startswith(f"{config.get('trustDomain', '')}/"):
                return provider
        elif not by_trust_domain and issuer and issuer == config.get("issuer"):
            return provider
    return None


def _refusal(assertion: Assertion, client: Client, provider: IdentityProvider, rules: FederationRules) -> Denied | None:
    expected = SPIFFE_TYPE if provider.kind == "spiffe" else ASSERTION_TYPE
    if rules.kind != expected:
        return _bad(f"Parameter client_assertion_type has value '{rules.kind}' but expected is '{expected}'")
    if provider.kind == "oidc" and provider.config.get("supportsClientAssertions") != "true":
        return _UNKNOWN_CLIENT
    if rules.client_id not in {"", client.id}:
        return _bad("client_id parameter does not match authenticated client")
    if assertion.header.get("alg") in {None, "none", "HS256", "HS384", "HS512"}:
        return _bad("Invalid signature algorithm")
    key = rules.keys.find(provider, assertion.header, rules.now)
    if key is None or not assertion.signed_by(key):
        return _UNKNOWN_CLIENT
    reason = _misdirected(assertion, rules) or _untimely(assertion, provider, rules)
    if not reason and provider.kind == "oidc" and provider.config.get("supportsClientAssertionReuse") != "true":
        reason = _repeated(assertion, provider, rules)
    return _bad(reason) if reason else None


def _misdirected(assertion: Assertion, rules: FederationRules) -> str:
    aud = assertion.claims.get("aud")
    named = aud if isinstance(aud, list) else [aud]
    if rules.issuer not in named:
        return "Invalid token audience"
    return "Multiple audiences not allowed" if len(named) > 1 else ""


def _untimely(assertion: Assertion, provider: IdentityProvider, rules: FederationRules) -> str:
    until, since, start = (assertion.claims.get(name) for name in ("exp", "iat", "nbf"))
    if until is None:
        return "Token exp claim is required"
    if until <= rules.now or (start is not None and start > rules.now):
        return "Token is not active"
    longest = _MAX_AGE[provider.kind]
    if since is None:
        too_long = until > rules.now + longest
        return "Token expiration is too far in the future and iat claim not present in token" if too_long else ""
    if since > rules.now:
        return "Token was issued in the future"
    return "Token was issued too far in the past to be used now" if since + longest < rules.now else ""


def _repeated(assertion: Assertion, provider: IdentityProvider, rules: FederationRules) -> str:
    jti = assertion.claims.get("jti")
    if jti is None:
        return "Token jti claim is required"
    new = rules.seen.add((provider.alias, str(jti)), assertion.claims["exp"], rules.now)
    return "" if new else "Token reuse detected"


def _bad(description: str) -> Denied:
    return Denied(status=400, error="invalid_client", description=description)


# Keys


def _published(provider: IdentityProvider) -> _Keys:
    """Return the keys that a provider publishes; none if they cannot be fetched."""
    config = provider.config
    if provider.kind == "oidc" and config.get("useJwksUrl") != "true":
        pem = config.get("publicKeySignatureVerifier", "").strip()
        if pem and not pem.startswith("-----"):
            pem = f"-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n"
        try:
            return [({}, RSAKey.import_key(pem))] if pem else []
        except Exception:  # noqa: BLE001 - any error of a library that reads what somebody wrote into a file
            return []
    try:
        with httpx.Client(timeout=_FETCH_SECONDS, follow_redirects=True) as client:
            url = config.get("bundleEndpoint") if provider.kind == "spiffe" else config.get("jwksUrl")
            if not url:
                page = f"{config.get('issuer', '').rstrip('/')}/.well-known/openid-configuration"
                url = client.get(page).raise_for_status().json()["jwks_uri"]
            return _read(client.get(url).raise_for_status().json())
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return []


def _read(jwks: Mapping[str, Any]) -> _Keys:
    given = jwks.get("keys")
    if not isinstance(given, list):
        raise ValueError('a key set is an object with the member "keys"')  # noqa: TRY004 - what a library raises for it
    return [(jwk, key) for jwk in given if isinstance(jwk, dict) and (key := _key(jwk)) is not None]


def _key(jwk: Mapping[str, Any]) -> Key | None:
    """Return a public key; None if it is of a kind that Keycloak does not use."""
    try:
        # Without its other members: SPIFFE writes `"use": "jwt-svid"`, which joserfc refuses.
        return KINDS[jwk["kty"]].import_key({name: jwk[name] for name in _PUBLIC if name in jwk})
    except Exception:  # noqa: BLE001 - any error of a library that reads what somebody else published
        return None


def _named(keys: _Keys, header: Mapping[str, Any]) -> Key | None:
    kid, algorithm = header.get("kid"), header.get("alg")
    for jwk, key in keys:
        if kid == jwk.get("kid", kid) if kid is not None else algorithm == jwk.get("alg", algorithm):
            return key
    return None

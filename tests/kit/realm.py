"""A realm of our own for tests: real keys, real signatures, and the three pages a receiver reads, without a network."""

import asyncio
import json
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import httpx
import trio
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak.cures import unsigned_cure
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verdict import Verdict

SERVER = "http://keycloak.test"

Decide = Callable[[TokenVerifier, str], Any]
DECIDING: dict[str, Decide] = {
    "sync": lambda verifier, token: verifier.decide(token),
    "asyncio": lambda verifier, token: asyncio.run(verifier.adecide(token)),
    "trio": lambda verifier, token: trio.run(verifier.adecide, token),
}
"""The kinds of code in which a verdict can be asked for."""


def settings(**changes: Any) -> KeycloakSettings:
    given: dict[str, Any] = {"url": SERVER, "realm": "corp", "client_id": "crm-api-gateway", **changes}
    return KeycloakSettings(**{name: value for name, value in given.items() if value is not None})


def b64(value: bytes | str | dict[str, Any]) -> str:
    raw = json.dumps(value).encode() if isinstance(value, dict) else value.encode() if isinstance(value, str) else value
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


class SigningKey:
    """A key pair under a kid, and what the JWKS says of it."""

    def __init__(self, algorithm: str = "RS256", *, kid: str | None = None) -> None:
        self.algorithm = algorithm
        self.kid = kid or str(uuid.uuid4())
        self.private: Key
        if algorithm.startswith(("RS", "PS")):
            self.private = RSAKey.generate_key(2048)
        elif algorithm.startswith("ES"):
            self.private = ECKey.generate_key({"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[algorithm])
        else:
            self.private = OKPKey.generate_key("Ed25519")

    @property
    def jwk(self) -> dict[str, Any]:
        return {**self.private.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": self.algorithm}

    def sign(self, signing_input: str) -> str:
        return b64(JWSRegistry.algorithms[self.algorithm].sign(signing_input.encode(), self.private))


# Made once: an RSA key takes a tenth of a second. The kid is fixed, because ids of tests are made of it.
_RSA = SigningKey("RS256", kid="the-realm-key")


class Realm:
    """One realm: it mints tokens as Keycloak does, and answers for its keys; ``answers`` can be replaced to misbehave."""

    def __init__(self, name: str = "corp", *, key: SigningKey | None = None) -> None:
        self.issuer = f"{SERVER}/realms/{name}"
        self.key = key or _RSA
        self.published: list[dict[str, Any]] = [
            self.key.jwk,
            {**SigningKey("ES256").jwk, "use": "enc", "alg": "ECDH-ES"},
        ]
        self.not_before = 0
        self.requests: list[str] = []
        self.answer: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self._lock = threading.Lock()

    def transport(self) -> httpx.BaseTransport:
        return httpx.MockTransport(self._respond)

    @property
    def fetches(self) -> int:
        return sum(path.endswith("/certs") for path in self.requests)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return the claims of a service token; a change to None leaves the claim out."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "exp": now + 300,
            "iat": now,
            "jti": f"trrtcc:{uuid.uuid4()}",
            "iss": self.issuer,
            "aud": "crm-api-gateway",
            "sub": str(uuid.uuid4()),
            "typ": "Bearer",
            "azp": "chat-app-service",
            "acr": "1",
            "scope": "profile email",
            "client_id": "chat-app-service",
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def user_claims(self, **changes: Any) -> dict[str, Any]:
        return self.claims(**{"client_id": None, "sid": str(uuid.uuid4()), "azp": "crm-ui", **changes})

    def token(self, *, key: SigningKey | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        return self.sign(self.claims(**changes), key=key, header=header)

    def user_token(self, **changes: Any) -> str:
        return self.sign(self.user_claims(**changes))

    def sign(
        self, payload: dict[str, Any] | bytes, *, key: SigningKey | None = None, header: dict[str, Any] | None = None
    ) -> str:
        key = key or self.key
        head = {"alg": key.algorithm, "typ": "JWT", "kid": key.kid, **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        signing_input = f"{b64(head)}.{b64(payload)}"
        return f"{signing_input}.{key.sign(signing_input)}"

    def _respond(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request.url.path)
        special = self.answer(request)
        if special is not None:
            return special
        if request.url.path.endswith("/protocol/openid-connect/certs"):
            return httpx.Response(200, json={"keys": self.published})
        return httpx.Response(200, json={"realm": "corp", "tokens-not-before": self.not_before})


class Clock:
    """Stands still until somebody moves it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def as_if_fetches_took_5_seconds(realm: Realm) -> Callable[[], float]:
    """Return a clock for a realm's keys on which the next fetch may begin as soon as one has ended: an unknown key is looked for at once."""
    return lambda: time.monotonic() + 5.0 * realm.fetches


def key_source(realm: Realm, clock: Callable[[], float] = time.monotonic) -> KeySource:
    """Return the receiver's key source over a realm, on a clock of the test's own."""
    return KeySource(Endpoints.of(settings()), BackChannel(transport=realm.transport, timeout=3.0), clock=clock)


def token_verifier(
    realm: Realm,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] | None = None,
    given: KeycloakSettings | None = None,
    **options: Any,
) -> TokenVerifier:
    """Return a verifier over a realm; ``monotonic`` moves its keys, ``clock`` tells it the time of day."""
    verifier = TokenVerifier(given or settings(), transport=realm.transport, clock=clock, **options)
    if monotonic is not None:
        verifier.ready().keys = key_source(realm, monotonic)
    return verifier


def unsigned_sentence(verifier: TokenVerifier, reason: Reason, kid: str = "") -> str:
    """Return what the operator reads of a token that nobody signed: made of the settings and the published keys, whatever the token says."""
    ready = verifier.ready()
    return unsigned_cure(reason, issuer=ready.checks.issuer, jwks=ready.keys.url, published=ready.keys.published(kid))


def judged(verifier: TokenVerifier, token: str) -> Verdict:
    """Return the verdict on a token, after asking for it from plain code, from asyncio and from trio."""
    verdict = verifier.decide(token)
    assert asyncio.run(verifier.adecide(token)) == verdict
    assert trio.run(verifier.adecide, token) == verdict
    return verdict

"""A caller with a key of its own: bound tokens of a realm of tests, and the proofs that go with them (RFC 9449)."""

import time
from collections.abc import Callable
from typing import Any

from s2s_fastapi.proof.key import ProofKey
from tests.kit.realm import Realm

__all__ = ["PUBLIC_URL", "Owner"]

PUBLIC_URL = "https://crm.example.com"


class Owner:
    """Whoever owns a key, and tokens of a realm that are bound to it."""

    def __init__(self, realm: Realm, *, clock: Callable[[], float] = time.time) -> None:
        self.realm = realm
        self.key = ProofKey()
        self._clock = clock

    def token(self, **changes: Any) -> str:
        """Return a token as Keycloak issues it for a request with a proof."""
        bound = {"typ": "DPoP", "cnf": {"jkt": self.key.thumbprint, "kc-jkt-type": "DPoP"}}
        return self.realm.token(**{**bound, **changes})

    def proof(self, token: str, url: str, method: str = "GET", *, at: float | None = None) -> str:
        return self.key.proof(method, url, now=self._clock() if at is None else at, token=token)

    def headers(self, token: str, path: str, method: str = "GET", base: str = PUBLIC_URL) -> list[tuple[str, str]]:
        """Return the two headers of one request."""
        return [("Authorization", f"DPoP {token}"), ("DPoP", self.proof(token, base + path, method))]

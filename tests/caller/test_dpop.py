"""Bound tokens on real sockets: proofs, nonces, clocks, redirects and refusals, with httpx and httpx2, sync and async."""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from s2s_fastapi.caller.auth import ServiceTokenAuth
from tests.caller.bound import TOKEN_URL, BindingKeycloak, proofs, thumbprint_in
from tests.caller.fakes import Receiver
from tests.caller.test_auth import WAYS, Send

pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture
def keycloak() -> BindingKeycloak:
    return BindingKeycloak()


@pytest.fixture(params=WAYS)
def send(request: pytest.FixtureRequest) -> Send:
    return WAYS[str(request.param)][1]


def auth_for(*receivers: Receiver, **options: Any) -> ServiceTokenAuth:
    return ServiceTokenAuth(*(receiver.url for receiver in receivers), audience="bob", dpop=True, **options)


def test_a_request_carries_the_token_and_a_proof_for_exactly_this_request(
    send: Send, bob: Receiver, keycloak: BindingKeycloak
) -> None:
    assert send(auth_for(bob), "POST", f"{bob.url}/x/y?q=1#f", content=b"{}").status_code == 200

    (proof,), (token,) = proofs(bob), bob.tokens
    assert proof is not None
    assert token is not None
    assert proof.header["typ"] == "dpop+jwt"
    assert (proof.claims["htm"], proof.claims["htu"]) == ("POST", f"{bob.url}/x/y")
    ath = urlsafe_b64encode(hashlib.sha256(token.removeprefix("DPoP ").encode()).digest()).decode().rstrip("=")
    assert proof.claims["ath"] == ath
    assert thumbprint_in(token) == proof.thumbprint == keycloak.shown[0].thumbprint
    asked = keycloak.shown[0]
    assert (asked.claims["htm"], asked.claims["htu"]) == ("POST", TOKEN_URL)
    assert "ath" not in asked.claims
    assert set(proof.header["jwk"]) == {"kty", "crv", "x", "y"}

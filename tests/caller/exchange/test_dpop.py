"""Exchanged tokens that are bound to this service's key: what is sent, what is kept, and what is refused."""

import time
from typing import Any

import httpx
import pytest

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.errors import NoUserToActFor, TokenRequestError
from tests.caller.bound import BindingExchange, proofs, thumbprint_in
from tests.caller.exchange.fakes import claims_of_user
from tests.caller.fakes import Receiver, jwt, wait_until_idle
from tests.kit.calling import bob, clock, environment, source
from tests.kit.forks import in_child, needs_fork

__all__ = ["bob", "clock", "environment", "source"]
pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture
def keycloak() -> BindingExchange:
    return BindingExchange()


def users_token(name: str = "ann", **changes: Any) -> str:
    now = int(time.time())
    return jwt(**claims_of_user(name, iat=now - 10, exp=now + 290, **changes))


def for_user(bob: Receiver, name: str = "ann") -> ServiceTokenAuth:
    return ServiceTokenAuth(bob.url, audience="bob", dpop=True).on_behalf_of(users_token(name))


def test_the_exchanged_token_is_bound_to_the_key_of_the_service(bob: Receiver, keycloak: BindingExchange) -> None:
    own = ServiceTokenAuth(bob.url, audience="bob", dpop=True)
    ann = own.on_behalf_of(users_token())
    for auth in (ann, own, ann):
        assert httpx.get(f"{bob.url}/x", auth=auth).status_code == 200

    made = [proof for proof in proofs(bob) if proof is not None]
    assert [proof.claims["htu"] for proof in made] == [f"{bob.url}/x"] * 3
    assert {thumbprint_in(token) for token in bob.tokens} == {keycloak.shown[0].thumbprint}
    assert len({proof.claims["jti"] for proof in made}) == 3
    assert [asked.form["grant_type"][-14:] for asked in keycloak.requests] == ["token-exchange", "nt_credentials"]
    assert ann.downstream.dpop
    assert ann.downstream.on_behalf
    assert set(ann.headers_for("GET", bob.url)) == {"Authorization", "DPoP"}


@pytest.mark.parametrize(
    ("body", "claims", "said"),
    [
        ({"token_type": "Bearer"}, {}, "ignored the proof"),
        ({}, {"cnf": {"jkt": "A" * 43}}, "not bound to the key"),
        ({}, {"typ": "Bearer"}, "no DPoP access token"),
    ],
)
def test_an_exchanged_token_that_is_not_bound_to_it_is_not_used(
    body: dict[str, Any], claims: dict[str, Any], said: str, bob: Receiver, keycloak: BindingExchange
) -> None:
    keycloak.body, keycloak.claims = body, claims

    with pytest.raises(TokenRequestError, match=said):
        httpx.get(bob.url, auth=for_user(bob))
    assert bob.seen == []


def test_a_bound_token_of_a_user_cannot_be_exchanged(bob: Receiver, keycloak: BindingExchange) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob", dpop=True)
    for cnf in ({"jkt": "A" * 43}, {"x5t#S256": "x"}):
        with pytest.raises(NoUserToActFor, match="sender-constrained user token"):
            auth.on_behalf_of(users_token(cnf=cnf, typ="DPoP"))
    assert keycloak.requests == []


@needs_fork
def test_a_forked_child_exchanges_with_its_own_key(
    bob: Receiver, keycloak: BindingExchange, source: TokenSource
) -> None:
    bearer = ServiceTokenAuth(bob.url, audience="bob").on_behalf_of(users_token("ben"))
    ann = for_user(bob)
    for auth in (ann, bearer):
        httpx.get(bob.url, auth=auth)
    wait_until_idle()

    def child() -> None:
        httpx.get(bob.url, auth=bearer)
        assert len(keycloak.requests) == 2
        httpx.get(bob.url, auth=ann)
        assert len(keycloak.requests) == 3
        assert keycloak.shown[0].thumbprint != keycloak.shown[1].thumbprint
        assert len(source.exchanged) == 2

    assert in_child(child) == 0
    assert bob.tokens[1] == bob.tokens[2]
    assert thumbprint_in(bob.tokens[3]) != thumbprint_in(bob.tokens[0])

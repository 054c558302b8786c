"""Tokens of two realms: which realm decides, who waits for whom, and what each remembers."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import trio

from s2s_fastapi import TokenVerifier
from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import AuthenticationError, ConfigurationError, KeysUnavailable
from s2s_fastapi.verifier.bearer import credentials_of
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import Verdict
from tests.kit.realm import Clock, Realm, SigningKey, settings
from tests.kit.realms import corp_and_partners, loaded, realms_verifier, settings_of, transport_to

Decide = Callable[[RealmsVerifier, str], Verdict]


async def _adecide(verifier: RealmsVerifier, token: str) -> Verdict:
    return await verifier.adecide(credentials_of(token.encode()))


WAYS: dict[str, Decide] = {
    "sync": lambda verifier, token: verifier.decide(credentials_of(token.encode())),
    "asyncio": lambda verifier, token: asyncio.run(_adecide(verifier, token)),
    "trio": lambda verifier, token: trio.run(_adecide, verifier, token),
}


@pytest.fixture(params=sorted(WAYS))
def decide(request: pytest.FixtureRequest) -> Decide:
    return WAYS[request.param]


@pytest.fixture
def hanging() -> Iterator[Callable[[httpx.Request], httpx.Response | None]]:
    """An answer that does not come before the test is over."""
    over = threading.Event()

    def answer(_: httpx.Request) -> None:
        over.wait(20)

    yield answer
    over.set()


def test_each_realm_accepts_its_own_tokens_and_the_principal_says_which(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    verifier = realms_verifier(corp, partners)
    ours, theirs = decide(verifier, corp.token()).principal, decide(verifier, partners.token()).principal
    assert ours is not None
    assert theirs is not None
    assert (ours.issuer, ours.realm, ours.other_realm) == (corp.issuer, "corp", "")
    assert (theirs.issuer, theirs.realm, theirs.other_realm) == (partners.issuer, "partners", "partners")
    assert [verifier.of(each).checks.issuer for each in (ours, theirs)] == [corp.issuer, partners.issuer]


def test_a_token_of_the_first_realm_causes_no_fetch_from_the_second(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(realms_verifier(corp, partners))
    before = partners.fetches
    for _ in range(3):
        assert decide(verifier, corp.token()).accepted
    assert partners.fetches == before


def test_a_realm_that_hangs_delays_no_token_of_the_other(decide: Decide, hanging: Any) -> None:
    corp, partners = corp_and_partners()
    partners.answer = hanging
    verifier = realms_verifier(corp, partners)
    began = time.monotonic()
    assert decide(verifier, corp.token()).accepted  # its keys were not there yet
    assert time.monotonic() - began < 3  # the deadline of those who wait for the partner
    corp.key = SigningKey("ES256")
    corp.published = [corp.key.jwk]
    assert decide(verifier, corp.token()).accepted  # its keys were replaced


def test_a_key_that_no_realm_has_is_unknown_and_the_cure_names_both_realms(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    decision = decide(
        loaded(realms_verifier(corp, partners)), corp.token(key=SigningKey("ES256", kid="nobodys"))
    ).decision
    assert (decision.reason, decision.unverified_kid, decision.issuer) == (Reason.UNKNOWN_KEY, "nobodys", "")
    assert corp.issuer in decision.cure
    assert partners.issuer in decision.cure


def test_if_one_realm_has_no_keys_a_token_that_no_other_accepts_is_answered_503(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    partners.answer = lambda _: httpx.Response(500)
    verifier = realms_verifier(corp, partners)
    assert decide(verifier, corp.token()).accepted
    decision = decide(verifier, partners.token()).decision
    assert decision.reason is Reason.KEYS_UNAVAILABLE
    assert decision.retry_after > 0
    assert decision.cure.startswith(f"{partners.issuer}: ")
    assert decide(verifier, corp.token(exp=1, iat=1)).decision.reason is not Reason.KEYS_UNAVAILABLE


def test_if_all_realms_have_keys_a_signature_that_none_made_says_so(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    forger = SigningKey("RS256", kid=corp.key.kid)
    decision = decide(loaded(realms_verifier(corp, partners)), corp.token(key=forger)).decision
    assert decision.reason is Reason.INVALID_SIGNATURE
    assert decision.cure.startswith(f"{corp.issuer}: ")


def test_a_refusal_of_the_tokens_own_realm_is_final(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    verifier = realms_verifier(corp, partners)
    decision = decide(verifier, partners.token(aud="another-service")).decision
    assert (decision.reason, decision.issuer) == (Reason.WRONG_AUDIENCE, partners.issuer)


def test_an_issuer_of_no_realm_is_refused_with_the_realm_whose_key_signed(decide: Decide) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(realms_verifier(corp, partners))
    before = corp.fetches
    decision = decide(verifier, partners.token(iss="https://elsewhere.test/realms/x")).decision
    assert (decision.reason, decision.issuer) == (Reason.WRONG_ISSUER, partners.issuer)
    assert corp.fetches == before  # nobody was asked for another key


def test_a_remembered_token_is_checked_against_its_own_realm_alone() -> None:
    corp, partners = corp_and_partners()
    monotonic = Clock()
    verifier = loaded(realms_verifier(corp, partners, monotonic=monotonic))
    ours, theirs = (credentials_of(realm.token().encode()) for realm in (corp, partners))
    assert verifier.decide(ours).accepted
    assert verifier.decide(theirs).accepted
    partners.not_before = 2**40
    partners.published = []
    monotonic.advance(700)
    partners.answer = lambda request: (
        httpx.Response(200, json={"keys": [SigningKey("ES256").jwk]}) if request.url.path.endswith("certs") else None
    )
    assert verifier.decide(theirs).decision.reason is Reason.UNKNOWN_KEY
    assert verifier.decide(ours).accepted
    assert verifier.known(ours) is not None
    assert verifier.known(theirs) is None


def test_the_tokens_of_one_realm_take_no_place_of_the_other() -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(realms_verifier(corp, partners, cached_tokens=4))
    ours = credentials_of(corp.token().encode())
    assert verifier.decide(ours).accepted
    for _ in range(20):
        assert verifier.decide(credentials_of(partners.token().encode())).accepted
    assert verifier.known(ours) is not None
    assert ours in verifier.tokens.recent
    assert b"Bearer x" not in verifier.tokens.recent


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_token_verifier_takes_a_list(way: str) -> None:
    corp, partners = corp_and_partners()
    verifier = TokenVerifier(settings_of(corp, partners), transport=transport_to(corp, partners))
    token = partners.token()
    principal = verifier.verify(token) if way == "sync" else asyncio.run(verifier.averify(token))
    assert principal.realm == "partners"
    assert verifier.audiences == {"crm-api-gateway"}
    with pytest.raises(AuthenticationError):
        verifier.verify(partners.token(aud="another-service"))


def test_without_any_keys_the_token_verifier_says_so() -> None:
    corp, partners = corp_and_partners()
    corp.answer = partners.answer = lambda _: httpx.Response(500)
    verifier = TokenVerifier(settings_of(corp, partners), transport=transport_to(corp, partners))
    with pytest.raises(KeysUnavailable):
        verifier.verify(corp.token())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param([], "names no realm", id="empty"),
        pytest.param("corp", "takes KeycloakSettings, or a list", id="text"),
        pytest.param([settings(), "partners"], "not str", id="another type in the list"),
        pytest.param([settings(), settings(name="again")], "lists the realm", id="one realm twice"),
        pytest.param(
            [settings(), settings(url="http://partner.test")], "two realms with the name corp", id="one name twice"
        ),
        pytest.param([settings(), settings(realm="b", client_id=None)], "AUDIENCE", id="no audience"),
    ],
)
def test_a_list_that_names_no_set_of_realms_is_refused(given: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence.replace("(", r"\(")):
        TokenVerifier(given).ready()


def test_two_realms_with_one_name_in_keycloak_are_accepted_under_two_names_here() -> None:
    corp = Realm("corp")
    other = Realm("corp", key=SigningKey("ES256"))
    other.issuer = "http://partner.test/realms/corp"
    given = [settings(), settings(url="http://partner.test", name="partners")]

    def respond(request: httpx.Request) -> httpx.Response:
        realm = other if request.url.host == "partner.test" else corp
        with httpx.Client(transport=realm.transport()) as client:
            return client.send(httpx.Request("GET", request.url))

    verifier = TokenVerifier(given, transport=lambda: httpx.MockTransport(respond))
    found = [verifier.verify(realm.token()) for realm in (corp, other)]
    assert [(each.realm, each.issuer) for each in found] == [("corp", corp.issuer), ("partners", other.issuer)]

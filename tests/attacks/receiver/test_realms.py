"""A partner whose realm is trusted beside ours, and who is hostile: it signs and publishes what it likes, or does not answer."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from s2s_fastapi import ConfigurationError, KeycloakSettings
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.verifier.bearer import credentials_of
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import Verdict
from tests.kit.realm import Clock, Realm, SigningKey
from tests.kit.realms import PARTNERS_KEY, corp_and_partners, loaded, realms_verifier

CERTS = "/protocol/openid-connect/certs"
THE_SAME_KID = SigningKey("RS256", kid="the-realm-key")
"""A key of the partner under the kid of ours."""


@pytest.fixture(params=["ours first", "the partner first"])
def first(request: pytest.FixtureRequest) -> str:
    """The order of the realms: no attack depends on it."""
    return str(request.param)


def trusting(corp: Realm, partners: Realm, first: str, **options: Any) -> RealmsVerifier:
    realms = (corp, partners) if first == "ours first" else (partners, corp)
    return realms_verifier(*realms, **options)


def decide(verifier: RealmsVerifier, token: str) -> Verdict:
    """Return the verdict on a token, in plain code and in asyncio."""
    credentials = credentials_of(token.encode())
    verdict = verifier.decide(credentials)
    assert asyncio.run(verifier.adecide(credentials)).decision.reason is verdict.decision.reason
    return verdict


def reason(verifier: RealmsVerifier, token: str) -> Reason:
    return decide(verifier, token).decision.reason


@pytest.fixture
def hanging() -> Iterator[Callable[[httpx.Request], None]]:
    """An answer that does not come before the test is over."""
    over = threading.Event()

    def answer(_: httpx.Request) -> None:
        over.wait(20)

    yield answer
    over.set()


def test_the_partner_cannot_sign_tokens_of_our_realm(first: str) -> None:
    corp, partners = corp_and_partners()
    decision = decide(loaded(trusting(corp, partners, first)), partners.token(iss=corp.issuer)).decision
    assert (decision.reason, decision.issuer) == (Reason.WRONG_ISSUER, partners.issuer)


def test_the_partner_cannot_sign_tokens_of_our_realm_under_our_kid(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = [THE_SAME_KID.jwk]
    verifier = loaded(trusting(corp, partners, first))
    assert reason(verifier, corp.token(key=THE_SAME_KID)) is Reason.WRONG_ISSUER
    assert reason(verifier, corp.token(key=THE_SAME_KID, azp="payroll", client_id="payroll")) is Reason.WRONG_ISSUER


def test_our_key_cannot_sign_tokens_of_the_partner(first: str) -> None:
    corp, partners = corp_and_partners()
    assert reason(loaded(trusting(corp, partners, first)), corp.token(iss=partners.issuer)) is Reason.WRONG_ISSUER


def test_the_same_kid_in_both_realms_keeps_nobody_out(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = [THE_SAME_KID.jwk]
    verifier = loaded(trusting(corp, partners, first))
    ours, theirs = decide(verifier, corp.token()), decide(verifier, partners.token(key=THE_SAME_KID))
    assert ours.principal is not None
    assert theirs.principal is not None
    assert (ours.principal.realm, theirs.principal.realm) == ("corp", "partners")


def test_our_own_public_key_published_by_the_partner_gives_it_nothing_and_takes_nothing(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = [PARTNERS_KEY.jwk, corp.key.jwk]
    verifier = loaded(trusting(corp, partners, first))
    accepted = decide(verifier, corp.token()).principal
    assert accepted is not None
    assert accepted.issuer == corp.issuer
    said_by_us = decide(
        verifier, corp.token(iss=partners.issuer)
    ).principal  # whoever has the key signs for the partner, too
    assert said_by_us is not None
    assert (said_by_us.issuer, said_by_us.realm) == (partners.issuer, "partners")


def test_a_key_that_we_withdrew_does_not_live_on_because_the_partner_publishes_it(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = [PARTNERS_KEY.jwk, corp.key.jwk]
    monotonic = Clock()
    verifier = loaded(trusting(corp, partners, first, monotonic=monotonic))
    token = corp.token()
    assert reason(verifier, token) is Reason.ALLOWED
    corp.published = [SigningKey("ES256").jwk]
    monotonic.advance(700)
    assert reason(verifier, token) is not Reason.ALLOWED
    assert reason(verifier, corp.token()) is not Reason.ALLOWED


def test_a_revocation_by_the_partner_concerns_its_own_tokens_only(first: str) -> None:
    corp, partners = corp_and_partners()
    monotonic = Clock()
    verifier = loaded(trusting(corp, partners, first, monotonic=monotonic))
    ours, theirs = corp.token(), partners.token()
    assert {reason(verifier, token) for token in (ours, theirs)} == {Reason.ALLOWED}
    partners.not_before = 2**40
    monotonic.advance(700)
    assert reason(verifier, theirs) is Reason.REVOKED
    assert reason(verifier, ours) is Reason.ALLOWED
    assert reason(verifier, corp.token()) is Reason.ALLOWED


@pytest.mark.parametrize(
    "publishes", ["hundreds of keys", "a thousand keys with our kid", "our kid for each algorithm"]
)
def test_however_many_keys_the_partner_publishes_a_token_costs_one_check_for_each_realm(
    first: str, publishes: str
) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(trusting(corp, partners, first))
    checks: list[str] = []

    def counting(realm: Realm, key: dict[str, Any]) -> Any:
        def bind(kid: str, algorithm: str, members: Any) -> VerificationKey:
            def verify(message: bytes, signature: bytes) -> bool:
                checks.append(realm.issuer)
                return False

            return VerificationKey(kid, algorithm, str(members), verify)

        return bind

    kid, jwk = corp.key.kid, THE_SAME_KID.jwk
    published = {
        "hundreds of keys": [{**jwk, "kid": f"{number}"} for number in range(400)] + [jwk],
        "a thousand keys with our kid": [jwk] * 1000,
        "our kid for each algorithm": [{**jwk, "alg": alg} for alg in ("RS256", "RS384", "RS512", "PS256", "PS384")],
    }[publishes]
    documents = {corp.issuer: [corp.key.jwk], partners.issuer: published}
    for realm in verifier.realms:
        mine = corp if realm.checks.issuer == corp.issuer else partners
        keys = KeySet.read({"keys": documents[mine.issuer]}, bind=counting(mine, {}))
        assert len([name for name in keys.keys if name == (kid, "RS256")]) == 1
        realm.keys.ready = lambda keys=keys: keys  # type: ignore[misc]
    for _ in range(3):
        checks.clear()
        verifier.decide(credentials_of(corp.token(key=SigningKey("RS256", kid=kid)).encode()))
        assert sorted(checks) == sorted([corp.issuer, partners.issuer])


def test_two_different_keys_under_one_kid_are_none_for_the_partner_alone(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = [THE_SAME_KID.jwk, SigningKey("RS256", kid="the-realm-key").jwk, PARTNERS_KEY.jwk]
    verifier = loaded(trusting(corp, partners, first))
    assert reason(verifier, corp.token()) is Reason.ALLOWED
    assert reason(verifier, partners.token(key=THE_SAME_KID)) is not Reason.ALLOWED
    assert reason(verifier, partners.token()) is Reason.ALLOWED


def test_a_partner_that_does_not_answer_holds_up_no_token_of_ours(first: str, hanging: Any) -> None:
    corp, partners = corp_and_partners()
    partners.answer = hanging
    verifier = trusting(corp, partners, first)
    assert reason(verifier, corp.token()) is Reason.ALLOWED
    corp.key = SigningKey("ES256")
    corp.published = [corp.key.jwk]
    assert reason(verifier, corp.token()) is Reason.ALLOWED


def test_our_new_key_is_found_although_the_partner_published_it_first(first: str) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(trusting(corp, partners, first))
    new = SigningKey("ES256", kid="tomorrow")
    partners.published = [PARTNERS_KEY.jwk, SigningKey("ES256", kid="tomorrow").jwk]
    assert (
        reason(verifier, partners.token(key=new)) is not Reason.ALLOWED
    )  # the partner's keys with that kid are loaded now
    corp.key, corp.published = new, [new.jwk]
    assert reason(verifier, corp.token()) is Reason.ALLOWED


def test_a_partner_that_answers_slowly_does_not_delay_our_new_key(first: str, hanging: Any) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(trusting(corp, partners, first))
    partners.answer = lambda request: hanging(request) if request.url.path.endswith(CERTS) else None
    corp.key = SigningKey("ES256")
    corp.published = [corp.key.jwk]
    assert reason(verifier, corp.token()) is Reason.ALLOWED


def test_a_partner_that_withdrew_all_its_keys_is_alone_without_them(first: str) -> None:
    corp, partners = corp_and_partners()
    partners.published = []
    verifier = trusting(corp, partners, first)
    assert reason(verifier, corp.token()) is Reason.ALLOWED
    assert reason(verifier, partners.token()) is Reason.KEYS_UNAVAILABLE


def test_while_our_keys_are_missing_the_partner_cannot_turn_our_callers_away_for_good(first: str) -> None:
    corp, partners = corp_and_partners()
    corp.answer = lambda _: httpx.Response(500)
    partners.published = [PARTNERS_KEY.jwk, THE_SAME_KID.jwk]
    verifier = trusting(corp, partners, first)
    assert reason(verifier, corp.token()) is Reason.KEYS_UNAVAILABLE  # not 401: callers would throw good tokens away
    partners.published = [PARTNERS_KEY.jwk, corp.key.jwk]
    assert reason(trusting(corp, partners, first), corp.token()) is Reason.KEYS_UNAVAILABLE


def test_tokens_of_the_partner_push_out_none_of_ours(first: str) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(trusting(corp, partners, first, cached_tokens=4))
    ours = credentials_of(corp.token().encode())
    assert verifier.decide(ours).accepted
    for _ in range(20):
        assert verifier.decide(credentials_of(partners.token().encode())).accepted
    assert verifier.known(ours) is not None


def test_what_the_partner_signs_never_names_our_realm_in_the_log(first: str) -> None:
    corp, partners = corp_and_partners()
    verifier = loaded(trusting(corp, partners, first))
    found: list[Decision] = [
        decide(verifier, partners.token(iss=corp.issuer, **claims)).decision
        for claims in ({}, {"typ": "ID"}, {"exp": 1, "iat": 1}, {"cnf": {"jkt": "x"}}, {"aud": "another"})
    ]
    assert {decision.issuer for decision in found} == {partners.issuer}
    assert Reason.ALLOWED not in {decision.reason for decision in found}


def test_the_settings_of_the_partner_cannot_make_it_sign_our_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYCLOAK_ISSUER", "https://sso.corp.test/realms/corp")
    monkeypatch.setenv("KEYCLOAK_CLIENT_ID", "crm")
    monkeypatch.setenv("KEYCLOAK_CLIENT_SECRET", "of-corp")
    partners = KeycloakSettings(url="https://sso.partner.test", realm="corp")
    assert (partners.issuer, partners.client_id, partners.client_secret) == (
        "https://sso.partner.test/realms/corp",
        "",
        None,
    )

    class Partner(KeycloakSettings):
        url: str = "https://sso.partner.test"
        realm: str = "corp"

    with pytest.raises(ConfigurationError, match="could sign tokens of this issuer"):
        Partner(issuer="https://sso.corp.test/realms/corp")

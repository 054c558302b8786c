"""Authentic, by the very key and algorithm? And the same verdict from threads, asyncio and trio?"""

import threading
from base64 import urlsafe_b64decode
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
import trio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError, ConfigurationError, KeysUnavailable
from s2s_fastapi.jose.algorithms import ALGORITHMS
from s2s_fastapi.principal import Principal
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verdict import Verdict
from tests.kit.realm import Clock, Realm, SigningKey, b64, judged, settings, token_verifier, unsigned_sentence

KEYS = {algorithm: SigningKey(algorithm, kid=f"key-{algorithm}") for algorithm in sorted(ALGORITHMS)}
STRANGERS = {family: SigningKey(family) for family in ("RS256", "ES256", "ES384", "ES512", "EdDSA")}
REALM = Realm(key=KEYS["RS256"])
REALM.published = [key.jwk for key in KEYS.values()]
VERIFIER = token_verifier(REALM)
ORDER = {  # SEC 2: the orders of the curves' groups
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": (1 << 521) - 0x5AE79787C40D069948033FEB708F65A2FC44A36477663B851449048E16EC79BF7,
}
SIZE = {"ES256": 32, "ES384": 48, "ES512": 66}


def refused(token: str, verifier: TokenVerifier = VERIFIER) -> Reason:
    """Return why a token is refused before anything in it is believed."""
    verdict = judged(verifier, token)
    decision = verdict.decision
    assert verdict.principal is None
    assert (decision.client_id, decision.token_id, decision.issuer, decision.kid) == ("",) * 4
    assert decision.cure == unsigned_sentence(verifier, decision.reason, decision.unverified_kid)
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify(token)
    error = caught.value
    assert (error.code, error.status_code, error.challenge) == (decision.reason, 401, 'Bearer error="invalid_token"')
    assert error.detail == "The access token was not accepted."
    assert not token or token not in f"{error!r} {error}"
    assert error.__cause__ is None
    assert error.__context__ is None
    return decision.reason


def parts(token: str) -> tuple[str, bytes]:
    signing_input, _, signature = token.rpartition(".")
    return signing_input, urlsafe_b64decode(signature + "=" * (-len(signature) % 4))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_token_is_accepted_with_its_own_key(algorithm: str) -> None:
    verdict = judged(VERIFIER, REALM.token(key=KEYS[algorithm]))
    assert verdict.decision.reason is Reason.ALLOWED
    assert verdict.decision.kid == f"key-{algorithm}"
    assert isinstance(verdict.principal, Principal)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_token_is_refused_with_anybody_elses_key_of_the_same_type(algorithm: str) -> None:
    family = "RS256" if algorithm[:2] in ("RS", "PS") else algorithm
    stranger = SigningKey.__new__(SigningKey)
    stranger.private, stranger.algorithm, stranger.kid = STRANGERS[family].private, algorithm, f"key-{algorithm}"
    assert refused(REALM.token(key=stranger)) is Reason.INVALID_SIGNATURE


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), id="the last bit"),
        pytest.param(lambda raw: bytes([raw[0] ^ 0x40]) + raw[1:], id="a bit at the beginning"),
        pytest.param(lambda raw: raw[:-1], id="one byte short"),
        pytest.param(lambda raw: raw + b"\0", id="one byte more"),
        pytest.param(lambda raw: b"\0" + raw, id="one byte in front"),
        pytest.param(lambda raw: raw[: len(raw) // 2], id="half of it"),
        pytest.param(lambda raw: raw * 2, id="twice"),
        pytest.param(lambda raw: bytes(len(raw)), id="zeros"),
        pytest.param(lambda raw: b"\xff" * len(raw), id="ones"),
        pytest.param(lambda raw: b"\1", id="one byte"),
        pytest.param(lambda raw: b"\1" * 8000, id="thousands of bytes"),
    ],
)
def test_no_other_signature_will_do(algorithm: str, change: Callable[[bytes], bytes]) -> None:
    signing_input, raw = parts(REALM.token(key=KEYS[algorithm]))
    assert refused(f"{signing_input}.{b64(change(raw))}") is Reason.INVALID_SIGNATURE


@pytest.mark.parametrize("part", [0, 1], ids=["header", "payload"])
def test_header_and_payload_are_both_signed(part: int) -> None:
    mine, other = REALM.token().split("."), REALM.token(header={"x": 1}, azp="billing", client_id="billing").split(".")
    mine[part] = other[part]
    assert refused(".".join(mine)) is Reason.INVALID_SIGNATURE


# Elliptic curves


@pytest.mark.parametrize("algorithm", sorted(SIZE))
@pytest.mark.parametrize(
    ("r", "s"),
    [
        pytest.param(lambda r, s, n: 0, lambda r, s, n: 0, id="r = s = 0"),
        pytest.param(lambda r, s, n: 0, lambda r, s, n: s, id="r = 0"),
        pytest.param(lambda r, s, n: r, lambda r, s, n: 0, id="s = 0"),
        pytest.param(lambda r, s, n: n, lambda r, s, n: s, id="r = n"),
        pytest.param(lambda r, s, n: r, lambda r, s, n: n, id="s = n"),
        pytest.param(lambda r, s, n: n, lambda r, s, n: n, id="r = s = n"),
        pytest.param(lambda r, s, n: n + 1, lambda r, s, n: n + 1, id="r = s = n + 1"),
        pytest.param(lambda r, s, n: 1, lambda r, s, n: 1, id="r = s = 1"),
        pytest.param(lambda r, s, n: s, lambda r, s, n: r, id="r and s exchanged"),
    ],
)
def test_no_pair_of_convenient_numbers_is_a_signature(
    algorithm: str, r: Callable[[int, int, int], int], s: Callable[[int, int, int], int]
) -> None:
    signing_input, raw = parts(REALM.token(key=KEYS[algorithm]))
    size = SIZE[algorithm]
    numbers = int.from_bytes(raw[:size]), int.from_bytes(raw[size:]), ORDER[algorithm]
    forged = r(*numbers).to_bytes(size) + s(*numbers).to_bytes(size)
    assert refused(f"{signing_input}.{b64(forged)}") is Reason.INVALID_SIGNATURE


@pytest.mark.parametrize("algorithm", sorted(SIZE))
def test_an_ecdsa_signature_is_two_numbers_of_full_length_and_not_der(algorithm: str) -> None:
    key = KEYS[algorithm].private
    assert isinstance(key, ECKey)
    assert key.private_key is not None
    signing_input, _ = parts(REALM.token(key=KEYS[algorithm]))
    der = key.private_key.sign(signing_input.encode(), ec.ECDSA(getattr(hashes, f"SHA{algorithm[2:]}")()))
    r, s = decode_dss_signature(der)
    size = SIZE[algorithm]
    good = r.to_bytes(size) + s.to_bytes(size)
    assert judged(VERIFIER, f"{signing_input}.{b64(good)}").decision.reason is Reason.ALLOWED
    for bad in (
        der,
        r.to_bytes(size + 1) + s.to_bytes(size + 1),
        s.to_bytes(size) + r.to_bytes(size),
        good[1:],
        good + good,
    ):
        assert refused(f"{signing_input}.{b64(bad)}") is Reason.INVALID_SIGNATURE


@pytest.mark.parametrize("algorithm", sorted(SIZE))
@pytest.mark.parametrize("other", sorted(SIZE))
def test_a_signature_of_another_curve_or_hash_is_none(algorithm: str, other: str) -> None:
    if algorithm == other:
        return
    header = {"alg": algorithm, "kid": f"key-{algorithm}"}
    assert refused(REALM.token(key=KEYS[other], header=header)) is Reason.INVALID_SIGNATURE


# Algorithm confusion


@pytest.mark.parametrize("signs", sorted(ALGORITHMS))
@pytest.mark.parametrize("says", sorted(ALGORITHMS))
def test_a_key_verifies_with_its_own_algorithm_only(signs: str, says: str) -> None:
    if signs == says:
        return
    realm, clock = Realm(key=KEYS[signs]), Clock()
    verifier = token_verifier(realm, monotonic=clock)
    verifier.ready().keys.get()
    clock.advance(5)
    # Truly signed by this very key, under another name: kid and alg together name a key, and there is none.
    token = realm.token(header={"alg": says})
    assert verifier.decide(token).decision.reason is Reason.UNKNOWN_KEY
    assert refused(token, verifier) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("published", "signs"), [("RS256", "PS256"), ("PS256", "RS256"), ("RS256", "RS512"), ("PS512", "PS256")]
)
def test_one_rsa_key_pair_does_not_verify_what_it_signed_in_another_way(published: str, signs: str) -> None:
    realm = Realm(key=KEYS[published])
    pair = SigningKey.__new__(SigningKey)
    pair.private, pair.algorithm, pair.kid = KEYS[published].private, signs, KEYS[published].kid
    verifier = token_verifier(realm)
    assert refused(realm.token(key=pair, header={"alg": published}), verifier) is Reason.INVALID_SIGNATURE


def test_two_issuers_that_share_a_kid_do_not_share_a_key() -> None:
    ours, theirs = Realm(key=SigningKey("ES256", kid="1")), Realm("partner", key=SigningKey("ES256", kid="1"))
    assert refused(theirs.token(iss=ours.issuer), token_verifier(ours)) is Reason.INVALID_SIGNATURE
    assert refused(theirs.token(), token_verifier(ours)) is Reason.INVALID_SIGNATURE


def test_the_signature_is_asked_before_anything_the_token_says() -> None:
    stranger = SigningKey.__new__(SigningKey)
    stranger.private, stranger.algorithm, stranger.kid = STRANGERS["ES256"].private, "ES256", "key-ES256"
    for changes in ({"exp": 1}, {"iss": "https://evil.example"}, {"aud": None}, {"typ": "ID"}, {"azp": 5}):
        assert refused(REALM.token(key=stranger, **changes)) is Reason.INVALID_SIGNATURE


# What a verdict tells


def test_an_accepted_token_tells_who_and_by_which_key() -> None:
    decision = judged(VERIFIER, REALM.token(jti="trrtcc:1")).decision
    assert (decision.reason, decision.status, decision.outcome) == (Reason.ALLOWED, 200, "allowed")
    assert (decision.client_id, decision.token_id) == ("chat-app-service", "trrtcc:1")
    assert (decision.issuer, decision.kid, decision.unverified_kid) == (REALM.issuer, "key-RS256", "")


def test_before_the_signature_holds_a_verdict_tells_at_most_the_kid_and_that_escaped_and_short() -> None:
    realm, clock = Realm(), Clock()
    verifier = token_verifier(realm, monotonic=clock)
    verifier.ready().keys.get()
    clock.advance(5)
    kid = "\x1b[31m\n\r\u2028\u202e" + "k" * 200
    shown = "\ufffd[31m\ufffd\ufffd\ufffd\ufffd" + "k" * 55
    assert len(shown) == 64
    unknown = judged(verifier, realm.token(header={"kid": kid})).decision
    assert (unknown.reason, unknown.unverified_kid, unknown.cure) == (
        Reason.UNKNOWN_KEY,
        shown,
        unsigned_sentence(verifier, Reason.UNKNOWN_KEY),
    )
    realm.published.append({**KEYS["RS256"].jwk, "kid": kid})
    clock.advance(5)
    forged = judged(verifier, realm.token(header={"kid": kid})).decision
    assert (forged.reason, forged.unverified_kid, forged.cure) == (
        Reason.INVALID_SIGNATURE,
        shown,
        unsigned_sentence(verifier, Reason.INVALID_SIGNATURE),
    )
    signed = judged(verifier, realm.token(key=KEYS["RS256"], header={"kid": kid})).decision
    assert (signed.reason, signed.unverified_kid) == (Reason.ALLOWED, "")
    assert signed.kid.isprintable()


def test_what_a_verified_token_says_is_shown_on_one_line_and_bounded() -> None:
    verdict = judged(VERIFIER, REALM.token(aud="other", jti="j" * 1000, azp="chat\napp", client_id="chat\napp"))
    decision = verdict.decision
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert decision.client_id == "chat\ufffdapp"
    assert len(decision.token_id) == 200
    assert "\n" not in decision.cure


@pytest.mark.parametrize("claim", ["azp", "jti", "iss"])
@pytest.mark.parametrize(
    "value", ["http://evil.example/\r\n\x1b[31m\u202e" + "x" * 1000, ["a\nb"] * 500], ids=["a text", "a list"]
)
def test_no_name_in_a_verified_token_makes_a_second_line_or_a_long_one(claim: str, value: Any) -> None:
    decision = judged(VERIFIER, REALM.token(**{claim: value})).decision
    assert decision.reason is Reason.MALFORMED_CLAIMS
    for text in (decision.client_id, decision.token_id, decision.issuer):
        assert text.isprintable()
        assert len(text) <= 203
    assert decision.cure.isprintable()
    assert len(decision.cure) < 600


def test_nobody_is_let_in_without_a_name_and_the_first_reason_is_the_verdict() -> None:
    allowed, wrong, other = (
        Decision(reason=reason) for reason in (Reason.ALLOWED, Reason.WRONG_AUDIENCE, Reason.NOT_A_SERVICE)
    )
    assert not Verdict((allowed,)).accepted
    assert Verdict((wrong, other)).decision is wrong


def test_the_scopes_of_a_verdict_are_in_order() -> None:
    assert judged(VERIFIER, REALM.token(scope="k e b h a j c g i d f")).scopes == tuple("abcdefghijk")


def test_keys_that_are_not_there_are_nobodys_fault_but_ours() -> None:
    realm = Realm()
    realm.answer = lambda request: httpx.Response(500)
    verifier = token_verifier(realm, monotonic=Clock())
    verdict = judged(verifier, realm.token())
    assert (verdict.decision.reason, verdict.decision.status, verdict.principal) == (Reason.KEYS_UNAVAILABLE, 503, None)
    with pytest.raises(KeysUnavailable) as caught:
        verifier.verify(realm.token())
    assert caught.value.status_code == 503
    assert caught.value.retry_after in (5, 6)  # five seconds, and up to a tenth more by lot
    assert caught.value.headers == {"Retry-After": str(caught.value.retry_after)}
    with pytest.raises(KeysUnavailable):
        trio.run(verifier.averify, realm.token())


@pytest.mark.parametrize("token", ["%", "{}", "a.b.c"])
def test_a_malformed_token_asks_keycloak_nothing(token: str) -> None:
    realm = Realm()
    verifier = token_verifier(realm)
    assert refused(token, verifier) is Reason.MALFORMED_TOKEN
    assert realm.requests == []


@pytest.mark.parametrize("foreign", ["\u00e9", "\u200b", "\ufeff", "\uff41", "\udcff"])
@pytest.mark.parametrize("place", [0, 20, -20, -1])
def test_a_character_that_no_token_has_is_never_passed_over(foreign: str, place: int) -> None:
    token = REALM.token()
    assert VERIFIER.decide(token).decision.reason is Reason.ALLOWED
    changed = f"{token[:place]}{foreign}{token[place:]}"
    assert VERIFIER.decide(changed).decision.reason is Reason.MALFORMED_TOKEN


# How a verifier is made


@pytest.mark.parametrize(
    "audience",
    ["", " ", " a", "a\nb", [], (), [""], ["a", ""], [1], [None], {}, "account", ["a", "account"], [["a"]], 5, b"a"],
    ids=repr,
)
def test_an_audience_that_nobody_or_everybody_has_is_an_error_at_construction(audience: Any) -> None:
    with pytest.raises(ConfigurationError):
        TokenVerifier(settings(), audience=audience)


def test_a_verifier_without_an_audience_says_what_to_set_and_accepts_nothing() -> None:
    realm = Realm()
    verifier = token_verifier(realm, given=settings(client_id=None))
    with pytest.raises(ConfigurationError, match="Set KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE"):
        verifier.decide(realm.token())
    assert realm.requests == []


def test_a_verifier_that_skips_the_audience_on_purpose_needs_none() -> None:
    realm = Realm()
    verifier = token_verifier(realm, given=settings(client_id=None), insecure_skip_audience=True)
    for audience in (None, "billing", ["a", "b"]):
        assert judged(verifier, realm.token(aud=audience)).decision.reason is Reason.ALLOWED
    assert judged(verifier, realm.token(typ="ID")).decision.reason is Reason.WRONG_TYPE


@pytest.mark.parametrize(
    ("given", "audience", "expected"),
    [
        ({}, None, {"crm-api-gateway"}),
        ({"audience": ["tickets", "crm"]}, None, {"tickets", "crm"}),
        ({"audience": "Acme, Inc"}, None, {"Acme, Inc"}),
        ({}, "tickets", {"tickets"}),
        ({"audience": "crm"}, ["tickets", "https://crm.example"], {"tickets", "https://crm.example"}),
        ({"client_id": None}, None, set()),
    ],
)
def test_the_audience_is_the_argument_or_the_setting_or_the_client_id(
    given: dict[str, Any], audience: Any, expected: set[str]
) -> None:
    assert TokenVerifier(settings(**given), audience=audience).audiences == expected


def test_a_verifier_reads_the_environment_at_its_first_token_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm()
    verifier = TokenVerifier(transport=realm.transport)
    with pytest.raises(ConfigurationError, match="KEYCLOAK_URL"):
        verifier.verify(realm.token())
    for name, value in (("URL", "http://keycloak.test"), ("REALM", "corp"), ("CLIENT_ID", "crm-api-gateway")):
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    assert verifier.verify(realm.token()).client_id == "chat-app-service"


def test_threads_that_make_it_ready_together_share_its_keys() -> None:
    realm, meeting = Realm(), threading.Barrier(2)

    class Slow(KeycloakSettings):
        @property
        def audiences(self) -> frozenset[str]:
            with suppress(threading.BrokenBarrierError):
                meeting.wait(1)
            return super().audiences

    verifier = TokenVerifier(
        Slow(**settings().model_dump(include={"url", "realm", "client_id"})), transport=realm.transport
    )
    token, seen = realm.token(), []
    threads = [threading.Thread(target=lambda: seen.append(verifier.decide(token).decision.reason)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [Reason.ALLOWED] * 2
    assert realm.fetches == 1


# Whatever a realm signs

CLAIMS = [
    "exp",
    "iat",
    "nbf",
    "iss",
    "aud",
    "azp",
    "client_id",
    "sid",
    "sub",
    "jti",
    "typ",
    "scope",
    "cnf",
    "realm_access",
    "resource_access",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just("roles"), inner, max_size=3)
    ),
    max_leaves=6,
)


@hypothesis_settings(deadline=None)
@given(changes=st.dictionaries(st.sampled_from(CLAIMS), VALUES, min_size=1, max_size=3))
def test_whatever_claims_are_signed_there_is_a_verdict_and_what_is_allowed_is_of_the_right_types(
    changes: dict[str, Any],
) -> None:
    claims = {**REALM.claims(), **changes}
    token = REALM.sign(claims, key=KEYS["ES256"])
    verdict = VERIFIER.decide(token)
    decision = verdict.decision
    assert decision.status in {200, 401}
    for text in (decision.client_id, decision.token_id, decision.issuer, decision.kid, decision.cure):
        assert text.isprintable()
    if decision.reason is not Reason.ALLOWED:
        return
    caller = verdict.principal
    assert caller is not None
    assert hash(caller) == hash(caller)
    assert claims["iss"] == REALM.issuer == caller.issuer
    assert claims["typ"].lower() == "bearer"
    assert "crm-api-gateway" in caller.audiences
    assert 0 < caller.expires_at - caller.issued_at <= 24 * 3600
    assert claims.get("cnf") is None
    if caller.kind == "service":
        assert claims["client_id"] == claims["azp"] == caller.client_id
        assert "sid" not in claims
    if caller.kind == "user":
        assert claims["sid"]
        assert "client_id" not in claims
    names = [*caller.scopes, *caller.realm_roles, *(role for roles in caller.client_roles.values() for role in roles)]
    assert all(isinstance(name, str) for name in names)


@pytest.mark.parametrize("token", [None, 1, "", b"", b"a.b.c", b"\xff\xfe", bytearray(b"a.b.c"), ["a.b.c"]])
def test_what_is_no_token_at_all_is_refused_like_any_other(token: Any) -> None:
    with pytest.raises(AuthenticationError) as caught:
        VERIFIER.verify(token)
    assert (caught.value.code, caught.value.status_code) == ("malformed_token", 401)


def test_a_token_in_bytes_as_a_message_carries_it_is_verified_alike() -> None:
    token = REALM.token()
    assert VERIFIER.verify(token.encode()) == VERIFIER.verify(token)


@pytest.mark.parametrize(
    ("given", "cure"),
    [
        (None, "no token was given"),
        ("", "no token was given"),
        (b" ", "no token was given"),
        ("Bearer eyJ.eyJ.c2ln", "a whole header was given"),
        (b"bearer eyJ.eyJ.c2ln", "a whole header was given"),
        ("Bearer", "not one well-formed JWS"),
        ("opaque", "not one well-formed JWS"),
    ],
)
def test_each_wrong_input_of_a_token_verifier_has_its_own_cure(given: Any, cure: str) -> None:
    realm = Realm()
    verifier = TokenVerifier(settings(), transport=realm.transport)
    for decide in (verifier.decide, lambda token: trio.run(verifier.adecide, token)):
        decision = decide(given).decision
        assert decision.reason is Reason.MALFORMED_TOKEN
        assert cure in decision.cure
    assert realm.requests == []

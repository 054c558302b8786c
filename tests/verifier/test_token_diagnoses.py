"""What the log says of a token that is refused names the true reason, and the caller still reads one fixed sentence."""

import json
import logging
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448
from fastapi import FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import AuthenticationError, KeycloakSettings, ServiceAuthMiddleware, TokenVerifier
from s2s_fastapi.backchannel.strict_json import doubled
from s2s_fastapi.decision import Decision, Reason
from tests.kit.realm import DECIDING, Clock, Realm, SigningKey, b64, judged, settings, token_verifier

DECISIONS = "s2s_fastapi.decisions"


def refusal(token: str, realm: Realm) -> Decision:
    decision = judged(token_verifier(realm), token).decision
    assert decision.reason is not Reason.ALLOWED
    with pytest.raises(AuthenticationError) as caught:
        token_verifier(realm).verify(token)
    assert caught.value.detail == decision.reason.detail
    return decision


# A payload that is malformed after the signature held

GIVE_ANOTHER = "give the mapper another claim name, or switch “Multivalued” on."
TWICE = [
    ('"realm_access": {"roles": ["a"]}, "realm_access": {"roles": "a"}', "realm_access"),
    ('"resource_access": {}, "resource_access": {"crm": {"roles": "a"}}', "resource_access"),
    ('"realm_access": {"roles": [], "roles": "a"}', "realm_access.roles"),
    ('"resource_access": {"crm": {"roles": [], "roles": []}}', "resource_access.crm.roles"),
    ('"scope": "other"', "scope"),
    ('"\\u0061ud": "other"', "aud"),
    ('"list": [{"a": 1, "a": 1}]', "list.a"),
    ('"x\\ny": 1, "x\\ny": 1', '"x\N{REPLACEMENT CHARACTER}y"'),
]


@pytest.mark.parametrize(("members", "claim"), TWICE, ids=[claim for _, claim in TWICE])
def test_a_claim_that_stands_twice_is_named_with_the_client_whose_mapper_wrote_it(members: str, claim: str) -> None:
    realm = Realm()
    decision = refusal(realm.sign(f"{json.dumps(realm.claims())[:-1]}, {members}}}".encode()), realm)
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert (decision.client_id, decision.kid, decision.unverified_kid) == ("chat-app-service", realm.key.kid, "")
    assert decision.cure == (
        f"its signature holds, but in the token of chat-app-service the claim {claim} stands twice. A mapper of the client "
        f"chat-app-service or of its scopes writes into it: {GIVE_ANOTHER}"
    )


@pytest.mark.parametrize(
    "payload",
    [
        '{"a": 1, "a": 2}',
        '{"azp": "x", "azp": "y"}',
        '{"azp": {"a": 1}, "azp": {"a": 1}}',
    ],
)
def test_of_a_client_that_is_not_told_or_told_twice_nothing_is_said(payload: str) -> None:
    realm = Realm()
    decision = refusal(realm.sign(payload.encode()), realm)
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert decision.client_id == ""
    assert "stands twice. A mapper of the client that got it or of its scopes writes into it" in decision.cure
    assert "token of" not in decision.cure


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b'{"a": 1, "a": 2} and no more JSON', "its payload has duplicate members"),
        (b'[{"a": 1, "a": 2}]', "its payload has duplicate members"),
        (b'{"n": NaN}', "its payload has numbers that JSON does not know"),
        (b'{"n": ' + b"[" * 40 + b"]" * 40 + b"}", "its payload has more than 32 levels"),
        (b'{"n": "\\ud800"}', "its payload has lone surrogates"),
        (b"[]", "its payload is not one JSON object in UTF-8"),
        (b"\xff\xfe", "its payload is not one JSON object in UTF-8"),
        (b"secret-of-the-token", "its payload is not one JSON object in UTF-8"),
    ],
)
def test_a_payload_that_cannot_be_read_says_why_and_repeats_nothing(payload: bytes, why: str) -> None:
    realm = Realm()
    decision = refusal(realm.sign(payload), realm)
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert decision.cure.startswith(f"its signature holds, but {why}")
    assert "secret-of-the-token" not in decision.cure


def test_of_a_payload_that_nobody_signed_nothing_is_said() -> None:
    realm = Realm()
    header, _, signature = realm.token().split(".")
    payload = b64(b'{"a": 1, "a": 2}')
    decision = refusal(f"{header}.{payload}.{signature}", realm)
    assert decision.reason is Reason.INVALID_SIGNATURE
    assert "twice" not in decision.cure


@pytest.mark.parametrize("raw", [b"{}", b'{"a": 1}', b"[]", b'"a"', b'[{"a": 1, "a": 1}]', b"\xff"])
def test_what_has_no_member_twice_is_no_object_to_explain(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"not an object|decode"):
        doubled(raw)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"realm_access": {"roles": "a"}}, "the claim realm_access.roles is missing or malformed"),
        ({"resource_access": {"crm": {"roles": "a"}}}, "the claim resource_access.crm.roles is missing or malformed"),
        (
            {"resource_access": {"a, b": {"roles": [1]}}},
            'the claim "resource_access.a, b.roles" is missing or malformed',
        ),
    ],
)
def test_roles_that_are_no_list_are_told_with_their_path_and_the_switch(claims: dict[str, Any], said: str) -> None:
    realm = Realm()
    decision = refusal(realm.token(**claims), realm)
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert decision.cure == (
        f"token of chat-app-service: {said}. Remove the mapper that overwrites it, or switch “Multivalued” on in it: roles are a list."
    )


# A token without azp


@pytest.mark.parametrize(
    ("azp", "said"),
    [(None, "token without azp"), ("", "token with a malformed azp"), (["a"], "token with a malformed azp")],
)
@pytest.mark.parametrize(
    "claims",
    [{"typ": "ID"}, {"typ": None}, {"typ": 5}, {"cnf": {"jkt": "x"}}, {"cnf": {"x5t#S256": "x"}}, {}],
    ids=["ID", "no typ", "odd typ", "DPoP", "mTLS", "good otherwise"],
)
def test_a_token_without_azp_leaves_no_hole_in_the_sentence(claims: dict[str, Any], azp: Any, said: str) -> None:
    realm = Realm()
    cure = refusal(realm.token(azp=azp, **claims), realm).cure
    assert cure.startswith(f"{said}{':' if not claims else ''} ")
    assert "  " not in cure
    assert "None" not in cure
    assert " client ," not in cure


# exp not after iat


@pytest.mark.parametrize("leeway", [0.0, 30.0, 60.0])
@pytest.mark.parametrize(("life", "reason"), [(1, Reason.ALLOWED), (0, None), (-1, None), (-10, None), (-59, None)])
def test_a_token_whose_exp_is_not_after_its_iat_is_refused_whatever_the_tolerance(
    life: int, reason: Reason | None, leeway: float
) -> None:
    realm, clock = Realm(), Clock()
    verifier = token_verifier(realm, clock=clock, given=settings(leeway=leeway))
    now = int(clock.now)
    decision = judged(verifier, realm.token(iat=now, exp=now + life)).decision
    expired = life + leeway <= 0
    assert decision.reason is (reason or (Reason.EXPIRED if expired else Reason.MALFORMED_CLAIMS))
    if decision.reason is Reason.MALFORMED_CLAIMS:
        assert decision.cure.startswith(
            "token of chat-app-service has an exp that is not after its iat. Raise “Access Token"
        )


# A token over 16 KB


@pytest.mark.parametrize("size", [16_385, 16_386, 24_753, 60_000, 1_000_000])
def test_a_token_over_16_kb_says_its_size_in_the_log_and_nothing_in_the_answer(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    realm, app = Realm(), FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport)
    said = f"the token has {size} bytes, more than the 16384 that are read. Switch off “Full scope allowed”"
    with TestClient(app) as client, caplog.at_level(logging.WARNING, DECISIONS):
        answer = client.get("/", headers={"Authorization": "Bearer " + "a" * size})
        short = client.get("/", headers={"Authorization": "Bearer ?"})
    assert answer.status_code == 400
    assert answer.json() == short.json()
    assert answer.headers["WWW-Authenticate"] == short.headers["WWW-Authenticate"]
    long, other = (record for record in caplog.records if record.name == DECISIONS)
    assert vars(long)["cure"].startswith(said)
    assert "bytes" not in vars(other)["cure"]
    with pytest.raises(AuthenticationError, match=said) as caught:
        token_verifier(realm).verify("a" * size)
    assert caught.value.detail == "The access token was not accepted."


def test_a_token_of_16_kb_says_nothing_of_its_size() -> None:
    assert "bytes" not in refusal("a" * 16_384, Realm()).cure


# A key that is published and skipped


def ready(realm: Realm) -> TokenVerifier:
    """Return a verifier that has the keys already, and for which the time has come to ask again."""
    clock = Clock()
    verifier = token_verifier(realm, monotonic=clock)
    verifier.ready().keys.get()
    clock.advance(5)
    return verifier


def ed448_token(realm: Realm) -> tuple[dict[str, Any], str]:
    """Return a key as Keycloak publishes it, and a token that it truly signed."""
    private = ed448.Ed448PrivateKey.generate()
    x = b64(private.public_key().public_bytes_raw())
    text = f"{b64({'alg': 'EdDSA', 'typ': 'JWT', 'kid': 'k448'})}.{b64(realm.claims())}"
    return (
        {"kty": "OKP", "use": "sig", "alg": "EdDSA", "crv": "Ed448", "kid": "k448", "x": x},
        f"{text}.{b64(private.sign(text.encode()))}",
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"use": None}, "it has no use, which must be sig"),
        ({"alg": None}, "it has no alg"),
        ({"alg": "ES256K"}, "its algorithm ES256K is not accepted here: choose "),
        ({"key_ops": ["sign"]}, "its key_ops are not verify alone"),
        ({"n": b64(b"\xff" * 128)}, "RSA of 1024 bits, and only 2048 to 16384 are accepted: choose another key size"),
        ({"alg": "PS256"}, "it is published for PS256, and the token names another algorithm"),
    ],
)
def test_a_token_of_a_published_key_that_was_skipped_says_why(changes: dict[str, Any], why: str) -> None:
    realm, other = Realm(), SigningKey("ES256")
    skipped = {**realm.key.jwk, **changes}
    realm.published = [other.jwk, {name: value for name, value in skipped.items() if value is not None}]
    decision = ready(realm).decide(realm.token()).decision
    assert decision.reason is Reason.UNKNOWN_KEY
    jwks = "http://keycloak.test/realms/corp/protocol/openid-connect/certs"
    assert decision.cure.startswith(f"the key of that kid at {jwks} cannot verify the token: {why}")
    assert (decision.client_id, decision.kid, decision.unverified_kid) == ("", "", realm.key.kid)


def test_a_key_of_another_curve_is_named_in_the_log_and_in_the_cure_with_the_curve_to_choose(
    caplog: pytest.LogCaptureFixture,
) -> None:
    realm = Realm()
    jwk, token = ed448_token(realm)
    realm.published.append(jwk)
    verifier = ready(realm)
    why = "EdDSA is not accepted with OKP Ed448: choose Ed25519 in the key provider"
    assert verifier.decide(token).decision.cure.endswith(f"cannot verify the token: {why}")
    assert verifier.decide(token).decision.cure.endswith(f"cannot verify the token: {why}")  # turned away at once
    told = [record.getMessage() for record in caplog.records if record.name == "s2s_fastapi.keys"]
    assert told == [
        f"The key k448 at {verifier.ready().keys.url} cannot be used and is left out: {why}. Tokens that it signed are refused."
    ]


def test_a_key_that_is_not_published_is_still_told_as_one_of_another_realm() -> None:
    realm = Realm()
    decision = ready(realm).decide(realm.token(header={"kid": "nobody"})).decision
    assert decision.cure.startswith("no key of that kid at ")


# The log of TokenVerifier


@pytest.mark.parametrize("decide", DECIDING.values(), ids=DECIDING)
def test_a_verifier_writes_a_refusal_to_the_log_as_the_middleware_does(
    decide: Any, caplog: pytest.LogCaptureFixture
) -> None:
    realm = Realm()
    token = realm.token(aud="other", jti="id-1")
    decide(token_verifier(realm), token)
    [record] = [record for record in caplog.records if record.name == DECISIONS]
    fields = vars(record)
    assert (record.levelno, fields["outcome"], fields["reason"], fields["status"]) == (
        logging.WARNING,
        "refused",
        "wrong_audience",
        401,
    )
    assert (fields["client_id"], fields["token_id"], fields["kid"]) == ("chat-app-service", "id-1", realm.key.kid)
    assert (fields["method"], fields["route"]) == ("", "")
    assert "method" not in record.getMessage()
    assert fields["cure"].startswith("token of chat-app-service has aud [other], expected crm-api-gateway")


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        pytest.param({}, {}, "Or PARTNERS_CLIENT_ID is wrong here: it says that this service is crm.", id="client"),
        pytest.param({"AUDIENCE": "a"}, {}, "Or PARTNERS_AUDIENCE is wrong here: it says", id="audience"),
        pytest.param({}, {"audience": "a"}, "", id="named in code"),
    ],
)
def test_a_wrong_audience_names_the_services_own_variable_with_its_prefix(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], options: dict[str, Any], words: str
) -> None:
    realm = Realm()
    cure = partners(realm, monkeypatch, variables, options).decide(realm.token(aud="other")).decision.cure
    assert words in cure
    assert ("wrong here" in cure) is bool(words)
    assert "KEYCLOAK_" not in cure


def test_other_cures_name_variables_with_the_prefix_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = Realm()
    verifier = partners(realm, monkeypatch)
    wrong_issuer, unknown = realm.token(iss="http://elsewhere/realms/corp"), realm.token(header={"kid": "unknown"})
    assert "Set PARTNERS_PUBLIC_URL (or PARTNERS_ISSUER)" in verifier.decide(wrong_issuer).decision.cure
    verifier.ready().keys._absent["unknown"] = float("inf")
    assert "are PARTNERS_REALM or PARTNERS_URL wrong here?" in verifier.decide(unknown).decision.cure
    realm.answer = lambda request: httpx.Response(404)
    refusal = partners(realm, monkeypatch).decide(wrong_issuer).decision
    assert refusal.reason is Reason.KEYS_UNAVAILABLE
    assert "PARTNERS_" in refusal.cure
    assert "KEYCLOAK_" not in refusal.cure


def partners(
    realm: Realm,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str] | None = None,
    options: dict[str, Any] | None = None,
) -> TokenVerifier:
    """Return a verifier whose settings were read with the prefix PARTNERS_."""
    given = {"URL": "http://keycloak.test", "REALM": "corp", "CLIENT_ID": "crm", **(variables or {})}
    for name, value in given.items():
        monkeypatch.setenv(f"PARTNERS_{name}", value)
    return token_verifier(realm, given=KeycloakSettings.from_environment(prefix="PARTNERS_"), **(options or {}))


def test_the_log_of_a_verifier_tells_nothing_of_a_token_that_nobody_signed(caplog: pytest.LogCaptureFixture) -> None:
    realm = Realm()
    token = realm.token(azp="alice-in-claims")[:-8] + "AAAAAAAA"
    token_verifier(realm).decide(token)
    [record] = [record for record in caplog.records if record.name == DECISIONS]
    assert vars(record)["reason"] == "invalid_signature"
    everything = f"{record.getMessage()} {vars(record)}"
    assert all(part not in everything for part in (*token.split("."), "alice-in-claims"))


def test_a_verifier_writes_acceptances_at_debug_and_keys_that_are_not_there_as_errors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    realm = Realm()
    verifier = token_verifier(realm)
    verifier.decide(realm.token())
    with caplog.at_level(logging.DEBUG, DECISIONS):
        verifier.decide(realm.token())
        down = Realm()
        down.published = []
        token_verifier(down).decide(realm.token())
    told = [(record.levelno, vars(record)["reason"]) for record in caplog.records if record.name == DECISIONS]
    assert told == [(logging.DEBUG, "allowed"), (logging.ERROR, "keys_unavailable")]


def test_a_flood_of_refusals_is_counted_by_a_verifier_too(caplog: pytest.LogCaptureFixture) -> None:
    realm = Realm()
    verifier = token_verifier(realm)
    for _ in range(50):
        verifier.decide("rubbish")
    assert len([record for record in caplog.records if record.name == DECISIONS]) == 20

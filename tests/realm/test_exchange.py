"""When the model exchanges a token, and for what: the rules that stand in the comments of ``realm/exchange.py``."""

from dataclasses import replace
from typing import Any

import pytest

from s2s_fastapi.keycloak import exchange
from s2s_fastapi.realm.exchange import (
    ACCESS_TOKEN,
    ENABLED,
    GRANT_TYPE,
    ID_TOKEN,
    REFRESH_TOKEN,
    SINCE,
    SubjectToken,
    bound_to,
)
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from s2s_fastapi.text import names_in
from tests.realm.exchanges import document

MODEL = RealmModel.read(document())
SOMEBODY = SubjectToken(client_id="front", audience=frozenset({"alice", "roles", "bound", "consenting", "refreshing"}))


def _subject(token: Granted | Denied) -> SubjectToken:
    assert isinstance(token, Granted), token
    return token.as_subject()


def _exchanged(client_id: str = "alice", subject: SubjectToken | None = SOMEBODY, **request: Any) -> Granted:
    token = MODEL.exchanged(client_id, subject, **request)
    assert isinstance(token, Granted), token
    assert not token.unknown
    return token


def _refused(client_id: str = "alice", subject: SubjectToken | None = SOMEBODY, **request: Any) -> str:
    answer = MODEL.exchanged(client_id, subject, **request)
    assert isinstance(answer, Denied), answer
    return answer.description


def test_rule_37_only_a_client_that_is_enabled_for_it_exchanges_and_only_from_26_2_on() -> None:
    assert MODEL.may_exchange("alice") is None
    for client_id, said in (
        ("disabled", "Standard token exchange is not enabled for the requested client"),
        ("bound", "DPoP proof is missing"),
        ("off", "Invalid client or Invalid client credentials"),
        ("nobody", "Invalid client or Invalid client credentials"),
    ):
        refused = MODEL.may_exchange(client_id)
        assert refused is not None
        assert refused.description == said == _refused(client_id, None)
    for version, error in (("26.1.5", "unsupported_grant_type"), ("26.2.0", "invalid_request")):
        answer = RealmModel.read(document(), version=version).exchanged("alice", None)
        assert isinstance(answer, Denied)
        assert answer.error == error


def test_rule_38_the_client_of_the_subject_and_its_account_must_be_enabled() -> None:
    changed = document()
    changed["clients"] = [one for one in changed["clients"] if one["clientId"] != "front-sub"]
    next(one for one in changed["users"] if one["username"] == "ben")["enabled"] = False
    next(one for one in changed["clients"] if one["clientId"] == "svc-off")["serviceAccountsEnabled"] = False
    model = RealmModel.read(changed)
    for subject, good in (
        (SOMEBODY, True),
        (replace(SOMEBODY, username="ann"), True),
        (replace(SOMEBODY, username="service-account-svc", client_id="svc", session=False), True),
        (replace(SOMEBODY, username="ben"), False),
        (replace(SOMEBODY, username="nobody"), False),
        (replace(SOMEBODY, username="service-account-svc-off", client_id="svc-off", session=False), False),
        (replace(SOMEBODY, client_id="off"), False),
        (replace(SOMEBODY, client_id="front-sub"), False),
        (None, False),
    ):
        answer = model.exchanged("alice", subject)
        assert isinstance(answer, Granted) is good
        assert good or answer == Denied(status=400, error="invalid_request", description="Invalid token")


def test_rule_38_a_bound_token_is_exchanged_only_by_its_own_client_with_a_proof_by_its_key() -> None:
    bound = replace(SOMEBODY, bound="thumb")
    assert "was not issued for the requesting client" in _refused(subject=bound)
    assert "was not issued for the requesting client" in _refused(subject=bound, jkt="thumb")
    own = replace(bound, client_id="alice")
    assert _refused(subject=own) == "DPoP proof is missing"
    assert _refused(subject=own, jkt="another") == "DPoP confirmation doesn't match DPoP proof"
    assert _exchanged(subject=own, jkt="thumb").claims["cnf"]["jkt"] == "thumb"


def test_rule_42_a_proof_binds_the_new_token_also_if_the_subject_is_bound_to_nothing() -> None:
    assert _exchanged(jkt="thumb").claims["cnf"] == {"jkt": "thumb", "kc-jkt-type": "DPoP"}
    assert _exchanged(audiences=["bob"], scope="bob-aud", jkt="thumb").claims["typ"] == "DPoP"
    assert "cnf" not in _exchanged().claims


@pytest.mark.parametrize(
    ("claims", "bound"),
    [
        ({}, ""),
        ({"cnf": {"jkt": "thumb"}}, "thumb"),
        ({"cnf": {"x5t#S256": "a certificate"}}, "?"),
        ({"cnf": {"jkt": ""}}, "?"),
        ({"cnf": {"jkt": 7}}, "?"),
        ({"cnf": None}, "?"),
    ],
)
def test_a_token_that_is_bound_in_a_way_nobody_can_prove_is_bound_all_the_same(
    claims: dict[str, Any], bound: str
) -> None:
    assert bound_to(claims) == bound


def test_rule_39_the_requester_must_be_in_the_audience_unless_the_token_is_its_own() -> None:
    outside = replace(SOMEBODY, audience=frozenset({"bob"}))
    assert _refused(subject=outside) == "Client is not within the token audience"
    own = _subject(MODEL.service_token("alice"))
    assert _exchanged(subject=own, scope="bob-aud").claims["aud"] == "bob"


def test_rule_40_an_audience_narrows_the_result_and_must_be_there() -> None:
    ann = replace(SOMEBODY, username="ann")
    both = _exchanged(subject=ann, scope="bob-aud charles-aud", audiences=["charles"])
    assert (both.claims["aud"], sorted(both.scope.split())) == ("charles", ["bob-aud", "charles-aud"])
    roles = _exchanged("roles", ann, audiences=["bob"])
    assert roles.claims["resource_access"] == {"bob": {"roles": ["reader"]}}
    assert "boss" in roles.claims["realm_access"]["roles"]
    assert _refused("roles", ann, audiences=["alice", "off"]) == "Client disabled"
    assert _refused(audiences=["bob", "charles"]) == "Requested audience not available: bob, charles"


def test_rule_41_consent_and_a_second_session_are_missing() -> None:
    assert "Missing consents" in _refused("consenting")
    refresh: dict[str, Any] = {"requested": REFRESH_TOKEN}
    assert _exchanged("refreshing", **refresh).refresh
    assert "creating a new session" in _refused("refreshing", replace(SOMEBODY, offline=True), **refresh)
    assert "creating a new session" in _refused("refreshing", replace(SOMEBODY, session=False), **refresh)
    held = replace(SOMEBODY, username="ann")
    assert "offline_access not allowed" in _refused("refreshing", held, scope="offline_access", **refresh)
    assert _refused("roles", **refresh) == "requested_token_type unsupported"


def test_a_user_about_whom_nothing_is_known_has_no_role() -> None:
    assert "aud" not in _exchanged(scope="gated").claims
    assert _exchanged(subject=replace(SOMEBODY, username="ann"), scope="gated").claims["aud"] == "bob"
    assert "realm_access" not in _exchanged("roles").claims


def test_an_exchanged_token_is_a_users_if_it_has_a_session_and_nobodys_if_not() -> None:
    user = _exchanged(subject=_subject(MODEL.password("ann", via="front")), scope="bob-aud")
    assert (user.claims["azp"], user.claims["sid"], user.account) == ("alice", "", "ann")
    assert "client_id" not in user.claims
    service = _exchanged(subject=_subject(MODEL.service_token("svc")), scope="bob-aud")
    assert (service.claims["azp"], service.account) == ("alice", "service-account-svc")
    assert not {"sid", "client_id"} & service.claims.keys()


def test_a_chain_has_the_first_account_and_the_last_requester() -> None:
    first = _exchanged(subject=_subject(MODEL.password("ann", via="front")), scope="chain-aud")
    second = _exchanged("chain", _subject(first), scope="charles-aud")
    assert (second.claims["azp"], second.claims["aud"], second.account) == ("chain", "charles", "ann")
    assert second.claims["sub"] == first.claims["sub"]


def test_the_type_of_the_answer_is_the_type_that_was_requested() -> None:
    assert _exchanged().issued_type.endswith(":access_token")
    identity = _exchanged(requested=ID_TOKEN, scope="openid")
    assert (identity.issued_type, identity.openid) == (ID_TOKEN, False)
    assert _exchanged(scope="openid").openid


def test_the_model_and_the_callers_have_the_same_names_and_the_same_first_version() -> None:
    ours = (GRANT_TYPE, ACCESS_TOKEN, ENABLED, SINCE)
    assert ours == (exchange.GRANT_TYPE, exchange.ACCESS_TOKEN, exchange.ATTRIBUTE, exchange.SINCE)


def test_the_token_of_any_user_is_for_the_client_that_exchanges_it_and_has_no_role() -> None:
    granted = _exchanged("alice", SubjectToken.of_any_user("alice"), scope="bob-aud")
    assert granted.claims["azp"] == "alice"
    assert "bob" in names_in(granted.claims["aud"])
    assert "realm_access" not in granted.claims


@pytest.mark.parametrize(
    ("claim", "names"),
    [
        ("bob", ["bob"]),
        (["bob", "al"], ["bob", "al"]),
        (("bob", 7, None), ["bob"]),
        (None, []),
        ({"bob": 1}, []),
        ("", [""]),
    ],
)
def test_the_names_in_aud_are_the_texts_in_it(claim: object, names: list[str]) -> None:
    assert names_in(claim) == names

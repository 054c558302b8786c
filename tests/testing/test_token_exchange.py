"""The embedded issuer exchanges tokens; ``tests/real/test_exchange_parity.py`` asks a real server the same."""

import time
from typing import Any

import pytest

from example_app.realm import claims_of
from s2s_fastapi.realm.exchange import GRANT_TYPE, ID_TOKEN
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.issued import IssuedToken, IssuedTokens
from tests.realm.exchanges import (
    NAME,
    IssuerAdministrator,
    answers,
    document,
    exchange_form,
    login_form,
    post_to,
    service_form,
)
from tests.testing.asking import body, get

BAD = "invalid_request"
INVALID = (400, BAD, "Invalid token")
NOT_ENABLED = (400, BAD, "Standard token exchange is not enabled for the requested client")
UNSUPPORTED = (400, BAD, "requested_token_type unsupported")
TYPE_NEEDED = (400, BAD, "Parameter 'subject_token' supports access tokens only")
WRONG = "Invalid client or Invalid client credentials"
PUBLIC = (400, "invalid_client", "Public client is not allowed to exchange token")
NO_AUDIENCE = (400, "invalid_client", "Audience not found")
OUTSIDE = (403, "access_denied", "Client is not within the token audience")
NO_SESSION = "Refresh token not valid as requested_token_type because creating a new session is needed"
DISABLED = (400, "invalid_client", "Client disabled")

REFUSALS = {
    "client disabled": NOT_ENABLED,
    "client disabled, another subject, no subject": (
        400,
        BAD,
        "Parameter 'requested_subject' is not supported for standard token exchange",
    ),
    "another subject": (400, BAD, "Parameter 'requested_subject' is not supported for standard token exchange"),
    "another issuer": (400, BAD, "Parameter 'requested_issuer' is not supported for standard token exchange"),
    "a subject of another issuer": (
        400,
        BAD,
        "Parameter 'subject_issuer' is not supported for standard token exchange",
    ),
    "no subject": (400, BAD, "Parameter 'subject_token' required for standard token exchange"),
    "no type": (400, BAD, "Parameter 'subject_token_type' required for standard token exchange"),
    "the type of a JWT": TYPE_NEEDED,
    "an empty subject": INVALID,
    "garbage": INVALID,
    "an ID token as the subject": INVALID,
    "a refresh token as the subject": INVALID,
    "a user through front-sid": INVALID,
    "a user through front-azp": INVALID,
    "the user is enabled: False": INVALID,
    "the client of the log-in is enabled: False": INVALID,
    "the client of the service is enabled: False": INVALID,
    "the user's token after a log-out": INVALID,
    "the user's exchanged token after a log-out": INVALID,
    "the user's offline token after a log-out": INVALID,
    "after a log-out, without exchange": NOT_ENABLED,
    "public, garbage": INVALID,
    "a JWT": UNSUPPORTED,
    "a refresh token": UNSUPPORTED,
    "an empty type": UNSUPPORTED,
    "chain, not in aud, a JWT": UNSUPPORTED,
    "a SAML assertion and nothing else": UNSUPPORTED,
    "a SAML assertion": (400, "invalid_scope", "Invalid scopes: nope"),
    "an unknown audience": NO_AUDIENCE,
    "an empty audience": NO_AUDIENCE,
    "a custom audience by name": NO_AUDIENCE,
    "chain, not in aud, unknown audience": NO_AUDIENCE,
    "public": PUBLIC,
    "a disabled audience": DISABLED,
    "chain, not in aud, disabled audience": DISABLED,
    "chain, not in aud": OUTSIDE,
    "chain, not in aud, a SAML assertion": OUTSIDE,
    "a user through front-light": OUTSIDE,
    "the service svc-light": OUTSIDE,
    "an unknown scope": (400, "invalid_scope", "Invalid scopes: nope"),
    "an empty scope": (400, "invalid_scope", "Invalid scopes: "),
    "consenting, unknown scope": (400, "invalid_scope", "Invalid scopes: nope"),
    "consenting": (400, "invalid_scope", "Missing consents for Token Exchange in client consenting"),
    "an offline session, a refresh token": (400, BAD, NO_SESSION),
    "the service svc, a refresh token": (400, BAD, NO_SESSION),
    "refreshing, offline_access and a refresh token": (
        400,
        BAD,
        "Scope offline_access not allowed for token exchange",
    ),
    "an audience that no mapper gives": (400, BAD, "Requested audience not available: bob"),
    "two audiences, one is not there": (400, BAD, "Requested audience not available: charles"),
    "itself": (400, BAD, "Requested audience not available: alice"),
    "a wrong secret": (401, "unauthorized_client", WRONG),
    "an unknown client": (401, "invalid_client", WRONG),
    "a scope twice": (400, BAD, "duplicated parameter"),
    "bound": (400, BAD, "DPoP proof is missing"),
    "light, an audience": (400, BAD, "Requested audience not available: bob"),
}


@pytest.fixture(scope="module")
def answered() -> dict[str, Any]:
    """Give every answer of the issuer by its question."""
    issuer = EmbeddedIssuer(document())
    return answers(post_to(issuer), IssuerAdministrator(issuer))


def test_each_refusal_has_keycloaks_status_and_words_and_everything_else_is_granted(answered: dict[str, Any]) -> None:
    refused = {
        what: (answer[0], answer[1]["error"], answer[1]["error_description"])
        for what, answer in answered.items()
        if isinstance(answer, tuple)
    }
    assert refused == REFUSALS


def test_the_answer_has_the_members_of_an_exchange_and_no_refresh_token(answered: dict[str, Any]) -> None:
    of_user = ["access_token", "expires_in", "refresh_expires_in", "token_type", "session_state", "scope"]
    assert answered["a scope"]["members"] == [*of_user, "issued_token_type"]
    assert answered["a scope"]["session"]
    assert "session_state" not in answered["the service svc"]["members"]
    assert answered["a scope"]["token_type"] == "Bearer"
    assert answered["a scope"]["issued_token_type"] == "urn:ietf:params:oauth:token-type:access_token"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("nothing", (None, "ntrtte")),
        ("a scope", ("bob", "ntrtte")),
        ("two scopes and one audience", ("bob", "ntrtte")),
        ("two audiences", (["bob", "charles"], "ntrtte")),
        ("a custom audience", ("u:x", "ntrtte")),
        ("a scope for holders of a role", ("bob", "ntrtte")),
        ("ben has no role", (None, "ntrtte")),
        ("the service svc", ("bob", "trrtte")),
        ("a user's token in a chain", ("charles", "ntrtte")),
        ("a service's token in a chain", ("charles", "trrtte")),
        ("a user's exchanged token again", ("bob", "ntrtte")),
        ("a user who logged in through the requester", ("bob", "onrtte")),
        ("refreshing, a refresh token", ("bob", "onrtte")),
        ("an offline session", ("bob", "ftrtte")),
        ("light", (None, "ntltte")),
        ("mtls", ("bob", "ntrtte")),
    ],
)
def test_the_requesters_scopes_decide_about_the_audience_and_the_id_tells_the_exchange(
    answered: dict[str, Any], what: str, expected: tuple[object, str]
) -> None:
    claims = answered[what]["access_token"]
    assert (claims.get("aud"), claims["jti"]) == expected


def test_the_token_is_the_users_and_names_the_requester(answered: dict[str, Any]) -> None:
    plain, named = answered["a scope"]["access_token"], answered["profile"]["access_token"]
    assert (plain["sub"], plain["sid"], plain["azp"]) == ("the subject's", "the subject's", "alice")
    assert not {"client_id", "act", "name"} & plain.keys()
    assert named["name"] == "ann"
    service = answered["the service svc"]["access_token"]
    assert service["sub"] == "the subject's"
    assert not {"client_id", "sid"} & service.keys()


def test_the_subject_is_in_every_token_unless_the_requester_takes_part_in_the_session(answered: dict[str, Any]) -> None:
    assert answered["no-scopes"]["access_token"]["sub"] == "the subject's"
    assert "sub" not in answered["no-scopes, a refresh token"]["access_token"]


def test_a_service_with_a_session_is_named_in_the_token_that_another_gets_for_it(answered: dict[str, Any]) -> None:
    claims = answered["the service svc-session"]["access_token"]
    assert (claims["azp"], claims["client_id"], claims["sid"]) == ("alice", "svc-session", "the subject's")


def test_an_audience_narrows_client_roles_and_leaves_realm_roles_and_other_claims(answered: dict[str, Any]) -> None:
    wide, narrowed = answered["roles"]["access_token"], answered["roles, one audience"]["access_token"]
    assert set(wide["resource_access"]) == {"alice", "bob", "charles"}
    assert narrowed["resource_access"] == {"charles": {"roles": ["writer"]}}
    assert wide["realm_access"] == narrowed["realm_access"] == {"roles": ["boss", "offline_access"]}
    assert answered["narrow, one audience"]["access_token"]["myroles"] == ["own", "reader", "writer"]


def test_the_requesters_own_lifespan_counts_also_beyond_that_of_the_subject(answered: dict[str, Any]) -> None:
    assert answered["roles"]["access_token"]["life"] == answered["roles"]["expires_in"] == 3600


def test_openid_brings_an_id_token_beside_the_token_and_its_type_brings_one_instead(answered: dict[str, Any]) -> None:
    beside, instead = answered["openid"], answered["an ID token"]
    assert (beside["access_token"]["typ"], beside["id_token"]["typ"], beside["id_token"]["aud"]) == (
        "Bearer",
        "ID",
        "alice",
    )
    assert (instead["token_type"], instead["access_token"]["typ"], instead["issued_token_type"]) == (
        "N_A",
        "ID",
        ID_TOKEN,
    )
    assert "id_token" not in instead


# What ends it


def _token(issuer: EmbeddedIssuer, form: str) -> str:
    status, answer = post_to(issuer)(form)
    assert status == 200, answer
    text: str = answer["access_token"]
    return text


def _status(issuer: EmbeddedIssuer, subject: str, realm: str = NAME) -> int:
    return post_to(issuer, realm)(exchange_form(subject, scope="bob-aud"))[0]


def test_a_token_is_exchanged_until_it_expires() -> None:
    issuer = EmbeddedIssuer(document(), clock=lambda: 1_800_000_000.0)
    subject = _token(issuer, login_form())
    issuer.time.forward(300)
    assert _status(issuer, subject) == 200
    issuer.time.forward(1)
    assert _status(issuer, subject) == 400


def test_a_logout_ends_the_sessions_of_one_user_and_nobody_elses_and_a_new_login_is_good_at_once() -> None:
    issuer = EmbeddedIssuer(document())
    first, second, ben = (_token(issuer, login_form(username=name)) for name in ("ann", "ann", "ben"))
    service = _token(issuer, service_form("svc"))
    assert issuer.logout("Ann") == 2
    assert [_status(issuer, one) for one in (first, second, ben, service)] == [400, 400, 200, 200]
    assert _status(issuer, _token(issuer, login_form())) == 200
    assert issuer.logout("nobody") == 0


def test_a_logout_revokes_older_tokens_of_a_service_account_that_have_no_session() -> None:
    issuer = EmbeddedIssuer(document(), clock=lambda: 1_800_000_000.0)
    service = _token(issuer, service_form("svc"))
    assert issuer.logout("service-account-svc") == 0
    assert _status(issuer, service) == 200  # of the same second, as with Keycloak
    issuer.time.forward(1)
    issuer.logout("service-account-svc")
    assert _status(issuer, service) == 400
    status, answer = post_to(issuer)(service_form("svc"))
    assert (status, answer["not-before-policy"]) == (200, 1_800_000_001)


def test_a_revocation_of_the_realm_or_of_the_client_ends_it() -> None:
    issuer = EmbeddedIssuer(document(), clock=lambda: 1_800_000_000.0)
    subject = _token(issuer, login_form())
    issuer.set_not_before(NAME, 1_800_000_001)
    assert _status(issuer, subject) == 400
    issuer.set_not_before(NAME, 0)
    assert _status(issuer, subject) == 200
    revoked = document()
    next(client for client in revoked["clients"] if client["clientId"] == "front")["notBefore"] = 1_800_000_001
    issuer.reload(revoked)
    assert _status(issuer, subject) == 400


def test_a_token_of_another_realm_is_none() -> None:
    issuer = EmbeddedIssuer(document(), {**document(), "realm": "other"})
    subject = _token(issuer, login_form())
    assert (_status(issuer, subject), _status(issuer, subject, "other")) == (200, 400)


def test_a_token_that_somebody_changed_is_none() -> None:
    issuer = EmbeddedIssuer(document())
    subject = _token(issuer, login_form())
    head, claims, signature = subject.split(".")
    other = _token(issuer, login_form(username="ben")).split(".")[1]
    assert [_status(issuer, ".".join(parts)) for parts in ((head, other, signature), (head, claims, ""))] == [400, 400]


def test_only_the_newest_tokens_are_remembered() -> None:
    granted = EmbeddedIssuer(document())._realm(NAME).model.password("ann", via="front")
    now = int(time.time())
    claims = {"typ": "Bearer", "azp": "front", "sid": "s", "iat": now, "exp": now + 300}
    issued = IssuedToken.of(claims, granted, session="s", named=None)  # type: ignore[arg-type] # it is granted
    assert issued is not None
    tokens = IssuedTokens(kept=2)
    for name in ("a", "b", "c"):
        tokens.add(name, issued, now=now)
    assert [tokens.find(name, now=now) is not None for name in ("a", "b", "c")] == [False, True, True]
    tokens.add("d", issued, now=now + 301)
    assert tokens.find("c", now=now) is None


# Without a realm file


@pytest.fixture
def named() -> EmbeddedIssuer:
    issuer = EmbeddedIssuer.for_tests()
    issuer.credentials("test", "alice")
    return issuer


def _named_form(issuer: EmbeddedIssuer, subject: str, client_id: str = "alice", **members: Any) -> str:
    return exchange_form(subject, client_id, client_secret=issuer.secrets("test")[client_id], **members)


def test_without_a_realm_file_a_named_client_exchanges_the_token_of_a_named_user(named: EmbeddedIssuer) -> None:
    subject = named.as_user("ann", via="front", audience="alice", roles={"bob": "reader"}).token
    status, answer = post_to(named, "test")(_named_form(named, subject))
    assert status == 200
    claims, own = claims_of(answer["access_token"]), claims_of(subject)
    assert (claims["sub"], claims["sid"], claims["azp"]) == (own["sub"], own["sid"], "alice")
    assert (claims["preferred_username"], claims["resource_access"]) == ("ann", {"bob": {"roles": ["reader"]}})
    other = named.as_user("ann", via="front", audience="alice").token
    _, without = post_to(named, "test")(_named_form(named, other))
    assert "resource_access" not in claims_of(without["access_token"])


def test_without_a_realm_file_the_subject_must_be_for_the_requester_too(named: EmbeddedIssuer) -> None:
    subject = named.as_user("ann", via="front", audience="bob").token
    assert post_to(named, "test")(_named_form(named, subject))[0] == 403
    service = named.as_service("agent", audience="alice").token
    status, answer = post_to(named, "test")(_named_form(named, service))
    assert status == 200
    assert claims_of(answer["access_token"])["sub"] == claims_of(service)["sub"]


@pytest.mark.parametrize("audience", [5, [5], {}, None])
def test_a_token_may_have_any_audience_and_is_exchanged_for_none_of_them(named: EmbeddedIssuer, audience: Any) -> None:
    subject = named.as_user("ann", via="front", audience="alice", claims={"aud": audience}).token
    assert post_to(named, "test")(_named_form(named, subject))[0] == 403


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"issuer": "http://keycloak.test/realms/other"}, "Invalid token"),
        ({"key": "foreign"}, "Invalid token"),
        ({"key": "forged"}, "Invalid token"),
        ({"expires_in": -60}, "Invalid token"),
        ({"claims": {"typ": "ID"}}, "Invalid token"),
        ({"claims": {"sid": "of-somebody-else"}}, "Invalid token"),
        ({"claims": {"sid": None}}, "Invalid token"),
        ({"claims": {"azp": "alice"}}, "Invalid token"),
        ({"claims": {"nbf": 4_000_000_000}}, "Invalid token"),
        ({"claims": {"exp": "soon"}}, "Invalid token"),
        (
            {"dpop": True},
            "Sender-constrained token exchange rejected as the token was not issued for the requesting client",
        ),
    ],
)
def test_what_a_test_breaks_in_a_token_is_not_exchanged(
    named: EmbeddedIssuer, options: dict[str, Any], said: str
) -> None:
    subject = named.as_user("ann", via="front", audience="alice", **options).token
    status, answer = post_to(named, "test")(_named_form(named, subject))
    assert (status, answer["error"], answer["error_description"]) == (400, "invalid_request", said)


def test_a_logout_ends_the_sessions_of_a_named_user(named: EmbeddedIssuer) -> None:
    subject = named.as_user("ann", via="front", audience="alice").token
    assert named.logout("ann") == 1
    assert post_to(named, "test")(_named_form(named, subject))[0] == 400


# Versions


def test_a_release_without_exchange_does_not_offer_it() -> None:
    path = f"/realms/{NAME}/.well-known/openid-configuration"
    for version, offered in (("26.7.3", True), ("26.2.0", True), ("26.1.5", False), ("26.0.8", False)):
        issuer = EmbeddedIssuer(document(), version=version)
        assert (GRANT_TYPE in body(get(issuer, path))["grant_types_supported"]) is offered
        status, answer = post_to(issuer)(exchange_form("abc", "nobody"))
        assert (status, answer["error"]) == ((401, "invalid_client") if offered else (400, "unsupported_grant_type"))

"""A token whose signature holds is refused for each claim that is missing, of the wrong type, of another time or for somebody else."""

import dataclasses
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import AuthenticationError, ConfigurationError
from s2s_fastapi.principal import Payload, Principal, frozen
from s2s_fastapi.requirement.require import require_service
from s2s_fastapi.verifier.checks import CHECKS
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verdict import Verdict
from tests.kit.missing import MISSING
from tests.kit.realm import Clock, Realm, judged, settings, token_verifier

REALM = Realm()
CLOCK = Clock()
NOW = int(CLOCK.now)
LEEWAY = 30
DAY = 24 * 3600
VERIFIER = token_verifier(REALM, clock=CLOCK)
WRONG_NAMES: list[Any] = [None, "", 0, 1, True, 1.5, [], ["a"], {}, "a\nb", "a\x00", "\u202e", "\u2028"]
WRONG_DATES: list[Any] = [
    *(None, "", "300", "never", True, False, 0, -1, 0.0, -0.0, 0.5, 1.5, [], [NOW], {}, {"seconds": NOW}),
    *(2**53, 2**63, 10**30, -(2**63), 1e30, -1e30, float(NOW) + 0.25, str(NOW)),
]


def token(*, realm: Realm = REALM, **changes: Any) -> str:
    """Return a good token of this very second with some claims replaced; MISSING leaves one out, None is null."""
    claims = {**realm.claims(iat=NOW, exp=NOW + 300), **changes}
    return realm.sign({name: value for name, value in claims.items() if value is not MISSING})


def principal(verifier: TokenVerifier = VERIFIER, **changes: Any) -> Principal:
    verdict = judged(verifier, token(**changes))
    assert verdict.decision.reason is Reason.ALLOWED, verdict.decision.cure
    assert verdict.principal is not None
    return verdict.principal


def refused(verifier: TokenVerifier = VERIFIER, **changes: Any) -> Reason:
    """Return why a token with these claims is refused, after a look at the whole answer."""
    signed = token(**changes)
    decision = judged(verifier, signed).decision
    assert decision.reason is not Reason.ALLOWED
    with pytest.raises(AuthenticationError) as caught:
        verifier.verify(signed)
    error = caught.value
    assert (error.code, error.status_code, error.detail) == (decision.reason, 401, decision.reason.detail)
    description = ', error_description="The access token expired."' if decision.reason is Reason.EXPIRED else ""
    assert error.challenge == f'Bearer error="invalid_token"{description}'
    assert error.headers == {"WWW-Authenticate": error.challenge}
    assert signed not in str(error)
    assert decision.cure
    assert "\n" not in str(error)
    assert len(str(error)) < 1500
    return decision.reason


def test_a_good_token_is_accepted_so_that_each_row_below_has_one_fault() -> None:
    caller = principal()
    assert (caller.client_id, caller.kind, caller.issuer) == ("chat-app-service", "service", REALM.issuer)
    assert (caller.issued_at, caller.expires_at) == (NOW, NOW + 300)
    assert caller.audiences == {"crm-api-gateway"}
    assert caller.scopes == {"profile", "email"}


# Issuer

SERVER = "http://keycloak.test"


@pytest.mark.parametrize(
    "issuer",
    [
        f"{SERVER}/realms/corp/",
        f"{SERVER}/realms/corp ",
        f" {SERVER}/realms/corp",
        f"{SERVER}/realms/cor",
        f"{SERVER}/realms/corp2",
        f"{SERVER}/realms/Corp",
        f"{SERVER}/realms/corp/../corp",
        f"{SERVER}/realms/corp?",
        f"{SERVER}/realms/corp#",
        f"{SERVER}/realms/%63orp",
        f"{SERVER}/realms/master",
        f"{SERVER}/auth/realms/corp",
        f"{SERVER}:80/realms/corp",
        f"{SERVER}./realms/corp",
        f"{SERVER}//realms/corp",
        SERVER,
        "https://keycloak.test/realms/corp",
        "HTTP://keycloak.test/realms/corp",
        "http://KEYCLOAK.test/realms/corp",
        "http://keycloak.test@evil.example/realms/corp",
        "http://evil.example/?http://keycloak.test/realms/corp",
        "http://keycloak.test.evil.example/realms/corp",
        "http://evil.example/http://keycloak.test/realms/corp",
        "keycloak.test/realms/corp",
        "http://key\u0441loak.test/realms/corp",
        "corp",
        "*",
    ],
)
def test_an_issuer_that_only_looks_like_ours_is_another(issuer: str) -> None:
    assert refused(iss=issuer) is Reason.WRONG_ISSUER


@pytest.mark.parametrize(
    "issuer", [MISSING, *WRONG_NAMES, [f"{SERVER}/realms/corp"], {"iss": f"{SERVER}/realms/corp"}], ids=repr
)
def test_an_issuer_is_one_string(issuer: Any) -> None:
    assert refused(iss=issuer) is Reason.MALFORMED_CLAIMS


def test_the_issuer_is_the_public_one_where_the_addresses_differ() -> None:
    verifier = token_verifier(REALM, clock=CLOCK, given=settings(public_url="https://sso.example.com"))
    assert (
        principal(verifier, iss="https://sso.example.com/realms/corp").issuer == "https://sso.example.com/realms/corp"
    )
    assert refused(verifier) is Reason.WRONG_ISSUER


# Audience


@pytest.mark.parametrize(
    "audience",
    ["crm-api-gateway", ["crm-api-gateway"], ["account", "crm-api-gateway"], ["crm-api-gateway", "crm-api-gateway"]],
    ids=repr,
)
def test_a_token_for_us_is_accepted_alone_or_in_company(audience: Any) -> None:
    assert "crm-api-gateway" in principal(aud=audience).audiences


@pytest.mark.parametrize(
    "audience",
    [
        *(
            MISSING,
            [],
            "account",
            ["account"],
            ["account", "orders"],
            "crm",
            "crm-api",
            "crm-api-gateway2",
            "crm-api-gateway/",
        ),
        *(
            "CRM-API-GATEWAY",
            "crm-api-gateway ",
            " crm-api-gateway",
            "crm-api-gateway,account",
            "crm-api-gateway account",
        ),
        *("https://crm-api-gateway", "*", "crm-api-g\u0430teway", ["crm", "api", "gateway"], "chat-app-service"),
    ],
    ids=repr,
)
def test_a_token_for_nobody_or_somebody_else_is_refused(audience: Any) -> None:
    assert refused(aud=audience) is Reason.WRONG_AUDIENCE


@pytest.mark.parametrize(
    "audience",
    [
        *(None, "", 0, 7, True, 1.5, {}, {"crm-api-gateway": 1}, [""], ["crm-api-gateway", ""], ["crm-api-gateway", 1]),
        *(
            ["crm-api-gateway", None],
            ["crm-api-gateway", ["account"]],
            [["crm-api-gateway"]],
            [{"aud": "crm-api-gateway"}],
        ),
    ],
    ids=repr,
)
def test_an_audience_is_a_string_or_a_list_of_strings_even_if_ours_is_among_them(audience: Any) -> None:
    assert refused(aud=audience) is Reason.MALFORMED_CLAIMS


def test_the_cure_of_a_wrong_audience_names_the_steps_that_are_missing_and_not_the_token() -> None:
    decision = judged(VERIFIER, token(aud="account")).decision
    assert decision.cure.startswith("token of chat-app-service has aud [account], expected crm-api-gateway. ")
    assert "(A)" not in decision.cure  # the token says client_id: it has a service account
    for step in (
        "(B) a client crm-api-gateway",
        "(C) a client scope",
        "(D) that scope assigned",
    ):
        assert step in decision.cure


def test_a_service_with_several_audiences_accepts_each_and_only_those() -> None:
    verifier = token_verifier(REALM, clock=CLOCK, audience=["tickets", "https://crm.example"])
    assert principal(verifier, aud="tickets").audiences == {"tickets"}
    assert principal(verifier, aud=["account", "https://crm.example"]).kind == "service"
    assert refused(verifier) is Reason.WRONG_AUDIENCE


def test_skipping_the_audience_skips_nothing_else() -> None:
    verifier = token_verifier(REALM, clock=CLOCK, insecure_skip_audience=True)
    assert principal(verifier, aud=MISSING).audiences == frozenset()
    assert principal(verifier, aud="account").audiences == {"account"}
    assert refused(verifier, aud=[1]) is Reason.MALFORMED_CLAIMS
    assert refused(verifier, typ="ID") is Reason.WRONG_TYPE
    assert refused(verifier, exp=NOW - LEEWAY) is Reason.EXPIRED
    assert refused(verifier, iss="http://evil.example") is Reason.WRONG_ISSUER


# Type


@pytest.mark.parametrize("kind", ["Bearer", "bearer", "BEARER"])
def test_an_access_token_says_bearer_in_any_case(kind: str) -> None:
    assert principal(typ=kind).kind == "service"


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "ID",
            "Refresh",
            "Offline",
            "Logout",
            "Serialized-ID",
            "DPoP",
            "JWT",
            "at+jwt",
            "Bearer ",
            "Bear",
            "Bearers",
            "",
        ),
        *(MISSING, None, 0, True, [], ["Bearer"], {"typ": "Bearer"}, "Be\u0430rer"),
    ],
    ids=repr,
)
def test_every_other_token_of_the_realm_is_refused(kind: Any) -> None:
    assert refused(typ=kind) is Reason.WRONG_TYPE


def test_an_id_token_for_our_own_client_is_no_access_token() -> None:
    assert (
        refused(typ="ID", azp="crm-api-gateway", client_id=MISSING, sid="s", nonce="n", at_hash="h")
        is Reason.WRONG_TYPE
    )


@pytest.mark.parametrize(
    "confirmation",
    [{"jkt": "0ZcOCORZ"}, {"x5t#S256": "bwcK0esc"}, {"kid": "k"}, {"new": 1}, {}, [], "", 0, False],
    ids=repr,
)
def test_a_token_that_is_bound_to_a_key_is_no_bearer_token(confirmation: Any) -> None:
    assert refused(cnf=confirmation) is Reason.SENDER_CONSTRAINED


# Time


@pytest.mark.parametrize("name", ["exp", "iat"])
@pytest.mark.parametrize("value", [MISSING, *WRONG_DATES], ids=repr)
def test_a_date_is_a_whole_number_of_seconds_and_must_be_there(name: str, value: Any) -> None:
    assert refused(**{name: value}) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize("value", [date for date in WRONG_DATES if date != 0 or date is False], ids=repr)
def test_nbf_is_a_date_too_where_it_is_there(value: Any) -> None:
    assert refused(nbf=value) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize("nbf", [MISSING, 0, 0.0, 1, NOW - 300, NOW, NOW + LEEWAY, float(NOW)], ids=repr)
def test_a_token_without_nbf_or_with_one_that_has_come_is_accepted(nbf: Any) -> None:
    assert principal(nbf=nbf).kind == "service"


def test_a_date_may_be_written_as_a_float_without_a_fraction() -> None:
    caller = principal(exp=float(NOW + 300), iat=float(NOW))
    assert (caller.issued_at, caller.expires_at) == (NOW, NOW + 300)
    assert isinstance(caller.issued_at, int)
    assert isinstance(caller.expires_at, int)


@pytest.fixture
def at() -> Any:
    """Move the shared clock for one test."""
    yield lambda second: setattr(CLOCK, "now", second)
    CLOCK.now = float(NOW)


def test_a_token_is_valid_until_its_expiry_plus_the_leeway_and_not_a_moment_longer(at: Any) -> None:
    at(NOW + 300 + LEEWAY - 0.001)
    assert principal(exp=NOW + 300).kind == "service"
    at(NOW + 300 + LEEWAY)
    assert refused(exp=NOW + 300) is Reason.EXPIRED


def test_without_leeway_a_token_expires_in_its_very_second(at: Any) -> None:
    verifier = token_verifier(REALM, clock=CLOCK, given=settings(leeway=0))
    at(NOW + 299.999)
    assert principal(verifier).kind == "service"
    at(NOW + 300)
    assert refused(verifier) is Reason.EXPIRED


def test_nbf_and_iat_may_lie_in_the_future_by_the_leeway_and_not_by_a_second_more() -> None:
    assert principal(nbf=NOW + LEEWAY).kind == "service"
    assert refused(nbf=NOW + LEEWAY + 1) is Reason.NOT_YET_VALID
    assert principal(iat=NOW + LEEWAY).kind == "service"
    assert refused(iat=NOW + LEEWAY + 1) is Reason.NOT_YET_VALID


def test_the_leeway_is_the_setting() -> None:
    verifier = token_verifier(REALM, clock=CLOCK, given=settings(leeway=60))
    assert principal(verifier, iat=NOW + 60).kind == "service"
    assert refused(verifier, iat=NOW + 61) is Reason.NOT_YET_VALID


def test_a_token_may_live_a_day_and_not_a_second_more() -> None:
    assert principal(iat=NOW - 60, exp=NOW - 60 + DAY).kind == "service"
    assert refused(iat=NOW - 60, exp=NOW - 60 + DAY + 1) is Reason.LIFETIME_TOO_LONG
    assert refused(exp=NOW + 10 * 365 * DAY) is Reason.LIFETIME_TOO_LONG
    assert refused(exp=2**53 - 1) is Reason.LIFETIME_TOO_LONG


@pytest.mark.parametrize(
    ("limit", "said"), [(600, "longer than 600 s"), (8 * 3600.0, "longer than 8 h"), (48 * 3600, "longer than 48 h")]
)
def test_a_service_may_set_another_limit_for_the_life_of_tokens(limit: float, said: str) -> None:
    verifier = token_verifier(REALM, clock=CLOCK, max_lifetime=limit)
    assert principal(verifier, exp=NOW + int(limit)).kind == "service"
    assert refused(verifier, exp=NOW + int(limit) + 1) is Reason.LIFETIME_TOO_LONG
    cure = judged(verifier, token(exp=NOW + int(limit) + 1)).decision.cure
    assert f"{said}, the max_lifetime of this service. Shorten “Access Token Lifespan”" in cure


@pytest.mark.parametrize(
    "limit", [59, 0, -1, 30 * DAY + 1, float("nan"), float("inf"), True, None, "3600", timedelta(hours=1)]
)
def test_a_limit_that_is_no_number_of_seconds_from_a_minute_to_a_month_is_an_error(limit: Any) -> None:
    with pytest.raises(
        ConfigurationError, match=r"max_lifetime takes a number of seconds from 60 to 2592000 \(30 days\)"
    ):
        TokenVerifier(settings(), max_lifetime=limit).verify("a.b.c")


def test_revoke_all_refuses_what_was_issued_before_and_nothing_else() -> None:
    realm = Realm()
    realm.not_before = NOW - 10
    verifier = token_verifier(realm, clock=CLOCK)
    before = judged(verifier, token(realm=realm, iat=NOW - 11)).decision
    assert (before.reason, before.status) == (Reason.REVOKED, 401)
    assert judged(verifier, token(realm=realm, iat=NOW - 10)).decision.reason is Reason.ALLOWED


# Who


@pytest.mark.parametrize("azp", [MISSING, *WRONG_NAMES, ["chat-app-service"]], ids=repr)
def test_the_caller_is_one_name_and_must_be_there(azp: Any) -> None:
    assert refused(azp=azp) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", [value for value in WRONG_NAMES if value != ""], ids=repr)
def test_subject_and_token_id_are_strings_on_one_line_where_they_are_there(name: str, value: Any) -> None:
    assert refused(**{name: value}) is Reason.MALFORMED_CLAIMS


def test_subject_and_token_id_may_be_missing() -> None:
    caller = principal(sub=MISSING, jti=MISSING)
    assert (caller.subject, caller.token_id, caller.identity) == ("", "", "chat-app-service")


A, B = "chat-app-service", "billing"


@pytest.mark.parametrize(
    ("client_id", "sid", "kind"),
    [
        (A, MISSING, "service"),
        (MISSING, "s", "user"),
        (MISSING, MISSING, "unknown"),
        (A, "s", "unknown"),
        (B, MISSING, "unknown"),
        (B, "s", "unknown"),
        (None, "s", "unknown"),
        ("", "s", "unknown"),
        (None, MISSING, "unknown"),
        ("", MISSING, "unknown"),
        ([A], MISSING, "unknown"),
        ({A: 1}, MISSING, "unknown"),
        (True, MISSING, "unknown"),
        (f"{A} ", MISSING, "unknown"),
        (A.upper(), MISSING, "unknown"),
        (A, "", "unknown"),
        (A, None, "unknown"),
        (A, 0, "unknown"),
        (MISSING, "", "unknown"),
        (MISSING, None, "unknown"),
        (MISSING, 0, "unknown"),
        (MISSING, ["s"], "unknown"),
        (MISSING, True, "unknown"),
    ],
    ids=repr,
)
def test_who_calls_is_told_by_client_id_and_sid_and_by_nothing_else(client_id: Any, sid: Any, kind: str) -> None:
    for name in (MISSING, f"service-account-{A}", "alice"):
        caller = principal(azp=A, client_id=client_id, sid=sid, preferred_username=name, clientId=A, clientHost="::1")
        assert (caller.kind, caller.client_id) == (kind, A)


@pytest.mark.parametrize("who", [{"client_id": A}, {"client_id": MISSING, "sid": "s"}, {"client_id": MISSING}])
@pytest.mark.parametrize("tickets", [{"permissions": [{"rsid": "1", "rsname": "tickets"}]}, {}, [], None, "x"])
def test_a_uma_ticket_names_us_without_a_scope_for_it_and_is_nobodys_own_token(who: Any, tickets: Any) -> None:
    caller = principal(**who, authorization=tickets)
    assert caller.kind == "unknown"
    decision = require_service().judge(caller)
    assert decision.reason is Reason.UNKNOWN_KIND
    assert "is a UMA ticket" in decision.cure


# What


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (MISSING, set()),
        ("", set()),
        ("  ", set()),
        ("a", {"a"}),
        (" a  b a ", {"a", "b"}),
        ("notifications:send", {"notifications:send"}),
        ("a,b", {"a,b"}),
        ("a\tb", {"a\tb"}),
        ("a\nb", {"a\nb"}),
        ("a\u00a0b", {"a\u00a0b"}),
        ("a\u2003b\x1cc", {"a\u2003b\x1cc"}),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
def test_scopes_are_parted_by_spaces_and_by_nothing_else(scope: Any, names: set[str]) -> None:
    assert principal(scope=scope).scopes == names


@pytest.mark.parametrize("scope", [None, 0, True, [], ["a"], ["a b"], {}, {"a": 1}], ids=repr)
def test_scopes_are_one_string(scope: Any) -> None:
    assert refused(scope=scope) is Reason.MALFORMED_CLAIMS


WRONG_LISTS: list[Any] = [
    None,
    "",
    "admin",
    0,
    True,
    {},
    {"admin": True},
    [1],
    ["admin", 1],
    ["admin", None],
    [["admin"]],
    [{}],
]


@pytest.mark.parametrize("roles", WRONG_LISTS, ids=repr)
def test_roles_are_a_list_of_strings_so_that_a_word_never_becomes_its_letters(roles: Any) -> None:
    assert refused(realm_access={"roles": roles}) is Reason.MALFORMED_CLAIMS
    assert refused(resource_access={"crm-api-gateway": {"roles": roles}}) is Reason.MALFORMED_CLAIMS
    assert refused(resource_access={"other": {"roles": roles}}) is Reason.MALFORMED_CLAIMS


@pytest.mark.parametrize("access", [None, "", "admin", 0, True, [], ["admin"], [{"roles": ["admin"]}]], ids=repr)
def test_access_is_an_object(access: Any) -> None:
    assert refused(realm_access=access) is Reason.MALFORMED_CLAIMS
    assert refused(resource_access=access) is Reason.MALFORMED_CLAIMS
    assert refused(resource_access={"crm-api-gateway": access}) is Reason.MALFORMED_CLAIMS


def test_roles_belong_to_the_realm_or_to_one_client_and_are_taken_letter_by_letter() -> None:
    names = ["admin", "a,b", "a\nb", "", "ADMIN", "\u0430dmin"]
    caller = principal(
        realm_access={"roles": names},
        resource_access={
            "crm-api-gateway": {"roles": ["viewer"]},
            "crm-api-gateway ": {"roles": ["editor"]},
            "empty": {},
        },
    )
    assert caller.realm_roles == set(names)
    assert caller.client_roles == {"crm-api-gateway": {"viewer"}, "crm-api-gateway ": {"editor"}, "empty": frozenset()}


def test_a_token_without_roles_has_none() -> None:
    caller = principal(realm_access={}, resource_access={})
    assert (caller.realm_roles, dict(caller.client_roles)) == (frozenset(), {})


def test_the_name_of_a_client_with_bad_roles_is_told_on_one_line() -> None:
    decision = judged(VERIFIER, token(resource_access={"a\n\x1b[0m" + "b" * 900: 1})).decision
    assert decision.reason is Reason.MALFORMED_CLAIMS
    assert decision.cure.isprintable()
    assert len(decision.cure) < 600
    assert 'the claim "resource_access.a' in decision.cure


# The principal

RICH: dict[str, Any] = {
    "realm_access": {"roles": ["admin"]},
    "resource_access": {"crm-api-gateway": {"roles": ["viewer"]}},
    "nested": {"list": [{"deep": [1, [2]]}], "empty": []},
}


def test_nothing_in_a_principal_can_be_changed() -> None:
    caller = principal(**RICH)
    for field in dataclasses.fields(caller):
        with pytest.raises((AttributeError, TypeError)):
            setattr(caller, field.name, "x")
        with pytest.raises((AttributeError, TypeError)):
            delattr(caller, field.name)
    with pytest.raises((AttributeError, TypeError)):
        caller.extra = 1  # type: ignore[attr-defined]

    def walk(value: Any) -> None:
        assert isinstance(value, str | int | float | tuple | frozenset | Mapping | None)
        if isinstance(value, Mapping):
            with pytest.raises(TypeError):
                value["x"] = 1  # type: ignore[index]
            assert not hasattr(value, "update")
            for member in value.values():
                walk(member)
        elif isinstance(value, tuple | frozenset):
            for member in value:
                walk(member)

    for field in dataclasses.fields(caller):
        walk(getattr(caller, field.name))
    assert caller.claims["nested"]["list"][0]["deep"] == (1, (2,))
    assert caller.claims["realm_access"]["roles"] == ("admin",)


def test_two_verdicts_on_one_token_share_nothing_that_can_be_changed() -> None:
    signed = token(**RICH)
    first, second = VERIFIER.decide(signed), VERIFIER.decide(signed)
    assert isinstance(first, Verdict)
    assert first == second
    assert hash(first.principal) == hash(second.principal)
    assert len({first.principal, second.principal}) == 1


def test_a_principal_is_hashable_with_and_without_its_claims_and_equal_only_to_its_equal() -> None:
    caller = principal(**RICH)
    assert isinstance(hash(caller), int)
    bare = Principal(client_id="a", kind="service", issuer="i", issued_at=1, expires_at=2)
    assert hash(bare) == hash(dataclasses.replace(bare))
    assert caller != dataclasses.replace(caller, kind="user")
    assert caller != dataclasses.replace(caller, client_roles={})


def test_a_principal_shows_no_claims_but_who_it_is() -> None:
    caller = principal(email="alice@example.com")
    assert "chat-app-service" in repr(caller)
    assert "alice@example.com" not in repr(caller)
    assert caller.is_authenticated is True
    assert caller.display_name == "chat-app-service"
    assert caller.identity == caller.subject


@pytest.mark.parametrize(
    ("claims", "username", "email"),
    [
        ({"preferred_username": "ann", "email": "ann@example.com", "email_verified": True}, "ann", "ann@example.com"),
        ({"email": "ann@example.com", "email_verified": False}, None, None),
        ({"email": "ann@example.com"}, None, None),
        ({"email": "ann@example.com", "email_verified": "true"}, None, None),
        ({"email": "ann@example.com", "email_verified": 1}, None, None),
        ({"email": "ann@example.com", "email_verified": [True]}, None, None),
        ({"email": "", "email_verified": True, "preferred_username": ""}, None, None),
        ({"email": ["ann@example.com"], "email_verified": True, "preferred_username": 1}, None, None),
    ],
    ids=str,
)
def test_an_address_counts_only_if_keycloak_says_that_it_is_verified(
    claims: dict[str, Any], username: str | None, email: str | None
) -> None:
    bare = {"preferred_username": MISSING, "email": MISSING, "email_verified": MISSING}
    caller = principal(**{**bare, **claims})
    assert (caller.username, caller.email) == (username, email)


def test_the_named_fields_are_json_in_a_fixed_order_and_other_claims_are_left_out() -> None:
    caller = principal(
        secret="private",
        aud=["z", "crm-api-gateway"],
        scope="b a",
        resource_access={"z": {"roles": ["b", "a"]}, "a": {"roles": ["c"]}},
        realm_access={"roles": ["y", "x"]},
        preferred_username="ann",
        email="ann@example.com",
        email_verified=False,
    )
    fields = json.loads(json.dumps(caller.as_dict()))
    assert fields == {
        "client_id": "chat-app-service",
        "kind": "service",
        "issuer": REALM.issuer,
        "realm": "corp",
        "subject": caller.subject,
        "username": "ann",
        "email": None,
        "issued_at": NOW,
        "expires_at": NOW + 300,
        "token_id": caller.token_id,
        "audiences": ["crm-api-gateway", "z"],
        "scopes": ["a", "b"],
        "realm_roles": ["x", "y"],
        "binding": "",
        "client_roles": {"a": ["c"], "z": ["a", "b"]},
    }
    assert list(fields["client_roles"]) == ["a", "z"]
    assert {field.name for field in dataclasses.fields(Principal)} - {"claims", "other_realm"} <= fields.keys()


@pytest.mark.parametrize("shape", [Principal, list[Principal], Principal | None, dict[str, Principal]], ids=str)
def test_a_principal_is_never_read_from_a_request(shape: Any) -> None:
    with pytest.raises(TypeError, match="Principal is not request data"):
        TypeAdapter(shape)
    with pytest.raises(TypeError, match="Principal is not request data"):
        type("Body", (BaseModel,), {"__annotations__": {"caller": shape}})


def test_the_claims_are_read_when_somebody_looks_at_them_and_only_once() -> None:
    read: list[bytes] = []

    def reading(octets: bytes) -> dict[str, Any]:
        read.append(octets)
        return {"aud": ["a"]}

    payload = Payload(b"the payload", reading)
    caller = dataclasses.replace(principal(), claims=payload)
    assert caller.audiences == {"crm-api-gateway"}
    assert read == []
    assert payload["aud"] == ("a",)
    assert (payload.get("sub"), len(payload), dict(payload), "aud" in payload) == (None, 1, {"aud": ("a",)}, True)
    assert repr(payload) == repr(frozen({"aud": ["a"]}))
    assert payload == frozen({"aud": ["a"]})
    assert frozen({"aud": ["a"]}) == payload
    assert read == [b"the payload"]


def test_the_claims_of_a_principal_are_the_whole_payload() -> None:
    claims = REALM.claims(iat=NOW, exp=NOW + 300, **RICH)
    caller = VERIFIER.verify(REALM.sign(claims))

    def thawed(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: thawed(member) for name, member in value.items()}
        return [thawed(member) for member in value] if isinstance(value, tuple) else value

    assert json.dumps(thawed(caller.claims)) == json.dumps(claims)


def test_the_reasons_stand_in_the_order_of_the_checks() -> None:
    in_order = list(dict.fromkeys(reason for reason, _ in CHECKS))

    assert in_order == [reason for reason in Reason if reason in set(in_order)]


def test_claims_are_joined_and_copied_as_dicts_are() -> None:
    claims = Payload(b"", lambda _: {"a": 1, "b": 2})

    assert claims.copy() == {"a": 1, "b": 2}
    assert claims | {"b": 3} == {"a": 1, "b": 3}
    assert {"b": 3, "c": 4} | claims == {"a": 1, "b": 2, "c": 4}
    assert list(reversed(claims)) == ["b", "a"]

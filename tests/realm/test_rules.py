"""The rules by which Keycloak computes a client-credentials token, each stated and proved on a realm of a few lines.

Their numbers are the ones in the comments of the model. ``tests/real/test_parity.py`` asks real servers about the same realms.
"""

import copy
import json
import threading
from typing import Any

import pytest

from s2s_fastapi import ConfigurationError
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from tests.realm.realms import (
    BASIC,
    REALMS,
    REFUSED,
    ROLES,
    SERVICE_ACCOUNT,
    Representation,
    audience,
    caller,
    claim,
    mapper,
    realm,
    role_claim,
    scope,
    service_account,
    user,
)

NEW, OLD = "26.7.3", "26.0.8"
TARGET = {"clientId": "target", "secret": "s", "publicClient": False}
LIGHT = {"client.use.lightweight.access.token.enabled": "true"}


def granted(document: Representation, client: str = "c", asked: str | None = None, version: str = NEW) -> Granted:
    answer = RealmModel.read(document, version=version).client_credentials(client, "s", scope=asked)
    assert isinstance(answer, Granted), answer
    return answer


def refused(
    document: Representation,
    client: str = "c",
    asked: str | None = None,
    *,
    secret: str | None = "s",
    version: str = NEW,
) -> tuple[int, str, str]:
    answer = RealmModel.read(document, version=version).client_credentials(client, secret, scope=asked)
    assert isinstance(answer, Denied), answer
    return answer.status, answer.error, answer.description


def aud(token: Granted) -> set[str]:
    found = token.claims.get("aud", [])
    return {found} if isinstance(found, str) else set(found)


def roles(token: Granted) -> set[str]:
    realm_roles = token.claims.get("realm_access", {}).get("roles", [])
    by_client = token.claims.get("resource_access", {})
    return {*realm_roles, *(f"{client}/{role}" for client, held in by_client.items() for role in held["roles"])}


def with_scopes(*scopes: Representation, **members: Any) -> Representation:
    """A realm with an array `clientScopes`: these, and the ones that a service's token is usually made of."""
    return realm(clientScopes=[BASIC, ROLES, SERVICE_ACCOUNT, *scopes], **members)


def _holding(client: Representation, *names: str, **members: Any) -> dict[str, Any]:
    """A client with an account that is listed and holds roles of ``target``."""
    return {
        "clients": [client, TARGET],
        "users": [service_account(client["clientId"], clientRoles={"target": [*names]})],
        **members,
    }


# Rule 1: refusals, in their order


def _rule_1() -> Representation:
    return realm(
        clients=[
            caller("c"),
            caller("off", enabled=False),
            caller("bearer", bearerOnly=True),
            caller("public", publicClient=True),
            caller("no-account", serviceAccountsEnabled=False),
            caller("blocked"),
            caller("saml", protocol="saml"),
            caller("jwt", clientAuthenticatorType="client-jwt"),
            caller("x509", clientAuthenticatorType="client-x509"),
            {**caller("unsaid"), "secret": None},
            {**caller("masked"), "secret": "**********"},
        ],
        users=[service_account("blocked", enabled=False)],
    )


CREDENTIALS = "Invalid client or Invalid client credentials"


@pytest.mark.parametrize(
    ("client", "secret", "asked", "expected"),
    [
        ("none", "s", "nope", (401, "invalid_client", CREDENTIALS)),
        ("off", "wrong", "nope", (401, "invalid_client", CREDENTIALS)),
        ("c", "wrong", "nope", (401, "unauthorized_client", CREDENTIALS)),
        ("c", "", "nope", (401, "unauthorized_client", CREDENTIALS)),
        ("c", None, "nope", (401, "unauthorized_client", CREDENTIALS)),
        ("bearer", "wrong", "nope", (401, "unauthorized_client", CREDENTIALS)),
        ("bearer", "s", "nope", (400, "invalid_client", "Bearer-only not allowed")),
        ("saml", "s", "nope", (400, "invalid_client", "Wrong client protocol.")),
        ("jwt", "s", "nope", (400, "invalid_client", "Parameter client_assertion_type is missing")),
        ("x509", "s", "nope", (401, "invalid_client", CREDENTIALS)),
        ("public", None, "nope", (401, "unauthorized_client", "Public client not allowed to retrieve service account")),
        ("no-account", "s", "nope", (401, "unauthorized_client", "Client not enabled to retrieve service account")),
        ("blocked", "s", "nope", (401, "invalid_request", "User 'service-account-blocked' disabled")),
        ("c", "s", "nope", (400, "invalid_scope", "Invalid scopes: nope")),
        ("unsaid", "s", None, (401, "unauthorized_client", CREDENTIALS)),
        ("masked", "**********", None, (401, "unauthorized_client", CREDENTIALS)),
    ],
)
def test_rule_01_the_first_thing_wrong_is_what_is_said(
    client: str, secret: str | None, asked: str | None, expected: tuple[int, str, str]
) -> None:
    assert refused(_rule_1(), client, asked, secret=secret) == expected


def test_rule_01_a_realm_that_is_off_says_so_before_anything_else() -> None:
    for enabled in (False, None):
        assert refused({**_rule_1(), "enabled": enabled}, "none") == (403, "access_denied", "Realm not enabled")


def test_rule_01_a_bearer_only_client_has_no_right_secret_on_the_old_version() -> None:
    assert refused(_rule_1(), "bearer", version=OLD) == (401, "unauthorized_client", CREDENTIALS)


# Rules 2 and 3: the scope parameter


@pytest.mark.parametrize("asked", ["email", "email ", "email  ", "email email", " ", "   ", None])
def test_rule_02_spaces_at_the_end_vanish(asked: str | None) -> None:
    assert set(granted(realm(clients=[caller("c")]), asked=asked).scope.split()) == {"email", "profile"}


@pytest.mark.parametrize("asked", ["", " email", "email  phone", "email\tphone", "\t", "nope", "EMAIL", "email,phone"])
def test_rule_02_any_other_space_makes_an_empty_word(asked: str) -> None:
    said = asked.replace("\t", "")
    assert refused(realm(clients=[caller("c")]), asked=asked) == (400, "invalid_scope", f"Invalid scopes: {said}")
    assert refused(realm(clients=[caller("c")]), asked=asked, version=OLD)[2] == f"Invalid scopes: {asked}"


def test_rule_03_openid_needs_no_assignment_and_brings_an_id_token() -> None:
    document = realm(clients=[caller("c", defaultClientScopes=[], optionalClientScopes=[])])
    with_it, without = granted(document, asked="openid"), granted(document)
    assert (with_it.scope, with_it.openid) == ("openid", True)
    assert (without.scope, without.openid) == ("", False)
    assert {**with_it.claims, "scope": ""} == without.claims
    assert refused(document, asked="OPENID")[1] == "invalid_scope"


def test_rule_03_asking_for_a_default_scope_changes_nothing() -> None:
    document = realm(clients=[caller("c")])
    assert granted(document, asked="roles email").claims == granted(document).claims


# Rule 4: whose account it is


def test_rule_04_an_account_that_the_server_makes_has_default_roles_and_groups() -> None:
    document = realm(
        clients=[caller("c"), TARGET],
        groups=[{"name": "g", "clientRoles": {"target": ["read"]}}],
        defaultGroups=["/g"],
    )
    token = granted(document)
    assert aud(token) == {"account", "target"}
    assert {"default-roles-made", "target/read", "account/manage-account-links"} <= roles(token)
    assert token.claims["client_id"] == "c"
    assert token.claims["preferred_username"] == "service-account-c"


def test_rule_04_an_account_that_is_listed_has_what_is_listed_and_no_client_id() -> None:
    document = realm(clients=[caller("c")], users=[service_account("c", realmRoles=["one"])])
    token = granted(document)
    assert aud(token) == set()
    assert roles(token) == {"one"}
    assert "client_id" not in token.claims
    assert granted(document, version=OLD).claims["client_id"] == "c"


@pytest.mark.parametrize("lists", [{}, {"defaultClientScopes": []}, {"optionalClientScopes": ["service_account"]}])
def test_rule_04_the_server_adds_service_account_whatever_the_lists_say(lists: dict[str, Any]) -> None:
    assert granted(with_scopes(clients=[caller("c", **lists)])).claims["client_id"] == "c"


def test_rule_04_but_only_if_the_realm_has_such_a_scope() -> None:
    document = realm(clientScopes=[], clients=[caller("c")])
    assert "client_id" not in granted(document).claims
    assert granted(document, version=OLD).claims["client_id"] == "c"


def test_rule_04_an_account_whose_entry_does_not_say_enabled_is_not() -> None:
    document = realm(clients=[caller("c")], users=[service_account("c", enabled=None)])
    assert refused(document)[:2] == (401, "invalid_request")


# Rule 5: lists


def test_rule_05_an_array_of_scopes_replaces_the_built_in_ones() -> None:
    document = realm(clientScopes=[scope("mine")], clients=[caller("c")])
    assert granted(document).scope == ""
    assert granted(document, asked="offline_access").scope == "offline_access"
    assert refused(document, asked="mine")[1] == refused(document, asked="profile")[1] == "invalid_scope"


def test_rule_05_the_realms_own_lists_are_for_clients_without_any() -> None:
    document = with_scopes(
        scope("d"),
        scope("o"),
        defaultDefaultClientScopes=["d"],
        defaultOptionalClientScopes=["o"],
        clients=[caller("c"), caller("given", defaultClientScopes=["o"])],
    )
    assert granted(document, asked="o").scope == "d o"
    assert granted(document, "given").scope == "o"
    assert refused(document, "given", "d")[1] == "invalid_scope"


def test_rule_05_if_one_list_is_given_the_other_is_empty_and_both_is_default() -> None:
    model = RealmModel.read(
        realm(
            clients=[
                caller("default", defaultClientScopes=["email", "none"]),
                caller("optional", optionalClientScopes=["email"]),
                caller("both", defaultClientScopes=["email"], optionalClientScopes=["email", "phone"]),
            ]
        )
    )
    assert (model.default_scopes("default"), model.optional_scopes("default")) == (("email", "service_account"), ())
    assert (model.default_scopes("optional"), model.optional_scopes("optional")) == (("service_account",), ("email",))
    assert (model.default_scopes("both"), model.optional_scopes("both")) == (("email", "service_account"), ("phone",))


def test_rule_05_a_space_in_a_name_becomes_an_underscore_and_references_are_dropped() -> None:
    document = with_scopes(
        scope("a b"), clients=[caller("c", optionalClientScopes=["a b"]), caller("d", optionalClientScopes=["a_b"])]
    )
    assert RealmModel.read(document).optional_scopes("c") == ()
    assert granted(document, "d", "a_b").scope == "a_b"


def test_rule_05_a_scope_of_another_protocol_is_none() -> None:
    document = with_scopes(scope("s", protocol="saml"), clients=[caller("c", defaultClientScopes=["s"])])
    assert granted(document).scope == ""


# Rule 6: drop-out


def _rule_6(*held: str, mapped: str = "read", default: bool = False, hard: bool = False) -> Representation:
    hardcoded = [mapper("hardcoded-role", role="target.read")] * hard
    lists = {"defaultClientScopes" if default else "optionalClientScopes": ["s"]}
    return with_scopes(
        scope("s", audience(None, "https://aud")),
        clientScopeMappings={"target": [{"clientScope": "s", "roles": [mapped]}]},
        roles={
            "client": {"target": [{"name": "read"}, {"name": "all", "composites": {"client": {"target": ["read"]}}}]}
        },
        **_holding(caller("c", protocolMappers=hardcoded, **lists), *held),
    )


@pytest.mark.parametrize(("held", "mapped"), [("read", "read"), ("all", "read"), ("read", "all"), ("all", "all")])
def test_rule_06_a_scope_stays_if_any_of_its_roles_is_held_composites_opened_on_both_sides(
    held: str, mapped: str
) -> None:
    token = granted(_rule_6(held, mapped=mapped), asked="s")
    assert (token.scope, aud(token)) == ("s", {"https://aud"})


@pytest.mark.parametrize("default", [False, True])
def test_rule_06_otherwise_it_drops_out_whole_silently_and_a_hardcoded_role_does_not_help(default: bool) -> None:
    token = granted(_rule_6("other", default=default, hard=True), asked="s")
    assert (token.scope, aud(token)) == ("", set())


def test_rule_06_offline_access_drops_out_without_default_roles() -> None:
    document = realm(clients=[caller("made"), caller("listed")], users=[service_account("listed")])
    assert "offline_access" in granted(document, "made", "offline_access").scope
    assert "offline_access" not in granted(document, "listed", "offline_access").scope


# Rule 7: full and narrow


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ({}, True),
        ({"fullScopeAllowed": False}, False),
        ({"consentRequired": True}, False),
        ({"consentRequired": True, "fullScopeAllowed": True}, True),
    ],
)
def test_rule_07_full_scope_is_the_default_but_not_with_consent(given: dict[str, Any], full: bool) -> None:
    assert aud(granted(realm(clients=[caller("c", **given)]))) == ({"account"} if full else set())


def test_rule_07_a_narrow_client_reaches_its_own_roles_its_mappings_and_those_of_the_scopes_in_effect() -> None:
    document = with_scopes(
        scope("wide"),
        roles={
            "client": {
                "c": [{"name": "own", "composites": {"client": {"target": ["by-own"]}}}],
                "target": [{"name": "by-own"}],
            }
        },
        clientScopeMappings={
            "target": [{"client": "c", "roles": ["by-client"]}, {"clientScope": "wide", "roles": ["by-scope"]}]
        },
        **_holding(
            caller("c", fullScopeAllowed=False, defaultClientScopes=["roles"], optionalClientScopes=["wide"]),
            "by-own",
            "by-client",
            "by-scope",
            "beyond",
        ),
    )
    document["users"][0]["clientRoles"]["c"] = ["own", "undeclared"]
    narrow = {"c/own", "c/undeclared", "target/by-own", "target/by-client"}
    assert roles(granted(document)) == narrow
    assert roles(granted(document, asked="wide")) == narrow | {"target/by-scope"}


# Rule 8: groups and composites


def test_rule_08_a_group_gives_the_roles_of_all_above_it_and_composites_cross_realm_and_clients() -> None:
    document = realm(
        roles={
            "realm": [
                {"name": "outer", "composites": {"realm": ["inner"], "client": {"target": ["deep"]}}},
                {"name": "inner"},
            ],
            "client": {"target": [{"name": "deep", "composites": {"realm": ["outer"]}}]},  # a circle
        },
        groups=[
            {
                "name": "a",
                "realmRoles": ["outer"],
                "subGroups": [{"name": "b", "subGroups": [{"name": "c", "realmRoles": ["c"]}]}],
            }
        ],
        clients=[caller("c"), TARGET],
        users=[service_account("c", groups=["a/b/c"])],
    )
    assert roles(granted(document)) == {"outer", "inner", "c", "target/deep"}


# Rule 9: the order of the mappers


def test_rule_09_hardcoded_roles_reach_aud_and_claims_without_their_composites_whatever_the_flags_are() -> None:
    hard = [
        mapper("hardcoded-role", role=name, access_token_claim="false") for name in ("target.all", "none.none", "alone")
    ]
    document = with_scopes(
        roles={
            "client": {"target": [{"name": "read"}, {"name": "all", "composites": {"client": {"target": ["read"]}}}]}
        },
        **_holding(caller("c", fullScopeAllowed=False, defaultClientScopes=["roles"], protocolMappers=hard)),
    )
    token = granted(document)
    assert roles(token) == {"target/all", "none/none", "alone"}
    assert aud(token) == {"target", "none"}


def test_rule_09_role_names_change_before_hardcoded_roles_come_and_before_audiences_are_resolved() -> None:
    renames = [
        mapper("role-name", role="target.read", new_role_name="other.seen", access_token_claim="false"),
        mapper("role-name", role="target.hard", new_role_name="other.never"),
        mapper("hardcoded-role", role="target.hard"),
    ]
    token = granted(realm(**_holding(caller("c", protocolMappers=renames), "read")))
    assert roles(token) == {"other/seen", "target/hard"}
    assert aud(token) == {"other", "target"}


def test_rule_09_a_role_of_a_client_is_named_up_to_the_last_dot() -> None:
    token = granted(
        realm(
            clients=[caller("c", protocolMappers=[mapper("hardcoded-role", role="a.b.c")])],
            users=[service_account("c")],
        )
    )
    assert token.claims["resource_access"] == {"a.b": {"roles": ["c"]}}


# Rule 10: audiences


@pytest.mark.parametrize(
    ("mappers", "expected"),
    [
        ([audience("target")], {"target"}),
        ([audience("target", "https://x")], {"target"}),
        ([audience("", "https://x")], {"https://x"}),
        ([audience(), audience("", "")], set()),
        ([audience("none"), audience("TARGET"), audience("off")], {"none", "TARGET", "off"}),
        ([audience("target"), audience(None, "target")], {"target"}),
        ([audience("target"), audience(None, "https://x")], {"target", "https://x"}),
        ([audience("target", access_token_claim="True")], set()),
        ([audience("target", access_token_claim="false")], set()),
        ([audience("target", access_token_claim=None)], set()),
        ([{**audience("target"), "protocol": "saml"}], set()),
        ([audience("c")], {"c"}),
    ],
)
@pytest.mark.parametrize("on", ["client", "scope"])
def test_rule_10_every_shape_of_an_audience_mapper(mappers: list[Representation], expected: set[str], on: str) -> None:
    client = caller("c", **({"protocolMappers": mappers} if on == "client" else {"defaultClientScopes": ["s"]}))
    document = with_scopes(scope("s", *mappers), clients=[client, TARGET, caller("off", enabled=False)])
    assert aud(granted(document)) == expected


def test_rule_10_one_audience_is_a_string_and_several_are_a_list() -> None:
    document = realm(
        clients=[
            caller("c", defaultClientScopes=[], protocolMappers=[audience("b"), audience("a")]),
            caller("one", defaultClientScopes=[], protocolMappers=[audience("a")]),
        ]
    )
    assert granted(document).claims["aud"] == ["a", "b"]
    assert granted(document, "one").claims["aud"] == "a"


def test_rule_10_audience_resolve_names_every_client_but_the_one_that_asks() -> None:
    document = realm(**_holding(caller("c"), "read"))
    document["users"][0]["clientRoles"]["c"] = ["own"]
    assert aud(granted(document)) == {"target"}
    assert "c/own" in roles(granted(document))


def test_rule_10_resolve_and_web_origins_work_without_the_flag_and_no_other_kind_does() -> None:
    kinds = [
        mapper(kind, access_token_claim=None) for kind in ("audience-resolve", "allowed-origins", "acr", "full-name")
    ]
    document = realm(
        **_holding(caller("c", defaultClientScopes=[], webOrigins=["http://w"], protocolMappers=kinds), "read")
    )
    assert granted(document).claims.keys() == {"sub", "typ", "azp", "scope", "aud", "allowed-origins"}


# Rule 11: hardcoded claims


def test_rule_11_a_hardcoded_claim_can_be_azp_sub_sid_and_nbf_but_not_what_the_server_alone_says() -> None:
    names = ("azp", "sub", "sid", "nbf", "scope", "typ", "iss", "exp", "iat", "jti")
    document = realm(
        clients=[caller("c", defaultClientScopes=[], protocolMappers=[claim(name, "1") for name in names])]
    )
    changed = {"azp": "1", "sub": "1", "sid": "1", "nbf": "1"}
    assert granted(document).claims == {**changed, "scope": "", "typ": "Bearer", "client_id": "c"}


def test_rule_11_a_name_with_dots_leads_into_objects_and_a_type_is_kept() -> None:
    given = [
        claim("a.b", "1", "long"),
        claim("a.c", "true", "boolean"),
        claim("d\\.e", "x"),
        claim("f", '{"g": [1]}', "JSON"),
        claim("h", ""),
    ]
    document = realm(clientScopes=[], clients=[caller("c", protocolMappers=given)])
    told = granted(document).claims
    assert {name: told[name] for name in told.keys() - {"sub", "typ", "azp", "scope"}} == {
        "a": {"b": 1, "c": True},
        "d.e": "x",
        "f": {"g": [1]},
    }


@pytest.mark.parametrize(
    ("mappers", "name"),
    [
        ([claim("aud", "hard"), audience("target")], "aud"),
        ([audience("target"), claim("aud", "hard")], "aud"),
        ([claim("client_id", "hard")], "client_id"),
        ([claim("sub", "hard")], "sub"),
        ([claim("x", "1"), claim("x", "2")], "x"),
        ([claim("x", "1"), claim("x.y", "2")], "x.y"),
        ([claim("resource_access", "1")], "resource_access"),
    ],
)
def test_rule_11_a_claim_that_two_mappers_write_is_not_known(mappers: list[Representation], name: str) -> None:
    token = granted(realm(clients=[caller("c", protocolMappers=mappers), TARGET]))
    assert any(repr(name) in reason for reason in token.unknown), token.unknown


def test_rule_11_a_hardcoded_aud_alone_is_known_and_what_is_resolved_comes_to_it() -> None:
    token = granted(realm(clients=[caller("c", protocolMappers=[claim("aud", "hard")])]))
    assert (aud(token), token.unknown) == ({"hard", "account"}, ())


# Rule 12: what is empty is absent


def test_rule_12_an_empty_claim_is_absent_but_sub_is_always_there() -> None:
    document = with_scopes(**_holding(caller("c", defaultClientScopes=["roles"])))
    assert granted(document).claims.keys() == {"sub", "typ", "azp", "scope"}


def test_rule_12_a_claim_that_several_role_mappers_share_is_joined() -> None:
    flat = [role_claim("realm", "roles"), role_claim("client", "roles")]
    document = realm(**_holding(caller("c", defaultClientScopes=[], protocolMappers=flat), "read", "write"))
    document["users"][0]["realmRoles"] = ["read"]
    assert sorted(granted(document).claims["roles"]) == ["read", "read", "write"]


# Rule 13: lightweight


def test_rule_13_a_lightweight_token_has_what_is_flagged_for_it() -> None:
    document = realm(
        clients=[
            TARGET,
            caller(
                "c", attributes=LIGHT, protocolMappers=[audience("target", lightweight_claim="true"), audience("x")]
            ),
        ]
    )
    token = granted(document)
    assert token.claims.keys() == {"sub", "typ", "azp", "scope", "aud"}
    assert aud(token) == {"target"}


# Rule 14: life


@pytest.mark.parametrize(
    ("attributes", "asked", "seconds"),
    [
        ({}, None, 300),
        ({"access.token.lifespan": "60"}, None, 60),
        ({"access.token.lifespan": " "}, None, 300),
        ({"access.token.lifespan": "-1"}, None, 1000),
        ({"access.token.lifespan": "9999"}, None, 1000),
        ({"access.token.lifespan": "9999"}, "offline_access", 9999),
        ({"access.token.lifespan": "9999", "client.session.max.lifespan": "70"}, None, 70),
        ({"client.session.max.lifespan": "70"}, "offline_access", 300),
        ({"client.offline.session.max.lifespan": "80"}, "offline_access", 80),
    ],
)
def test_rule_14_a_token_lives_as_client_or_realm_say_and_no_longer_than_a_session(
    attributes: dict[str, str], asked: str | None, seconds: int
) -> None:
    document = realm(ssoSessionMaxLifespan=1000, clients=[caller("c", attributes=attributes)])
    assert granted(document, asked=asked).lifespan == seconds


# Rules 15 to 19


def test_rule_15_with_a_refresh_token_comes_a_session() -> None:
    token = granted(realm(clients=[caller("c", attributes={"client_credentials.use_refresh_token": "true"})]))
    assert (token.claims["sid"], token.claims["client_id"], token.refresh) == ("", "c", True)


def test_rule_16_a_default_role_that_is_not_named_as_one_is_an_ordinary_role() -> None:
    document = realm(roles={"realm": [{"name": "default-roles-made"}]}, clients=[caller("c")])
    assert "default-roles-made-1" in roles(granted(document))
    assert "default-roles-made" not in roles(granted(document))


@pytest.mark.parametrize("reason", REFUSED)
def test_rule_16_what_keycloak_does_not_import_is_not_read(reason: str) -> None:
    with pytest.raises(ConfigurationError, match="Keycloak does not import realm 'refused': "):
        RealmModel.read(REFUSED[reason])


@pytest.mark.parametrize("via", ["ui", "both"])
def test_rule_17_a_users_token_has_the_audience_of_a_services_but_no_client_id(via: str) -> None:
    front = {"clientId": "ui", "publicClient": True, "directAccessGrantsEnabled": True}
    both = caller("both", directAccessGrantsEnabled=True)  # its own tokens have client_id: see rule 4
    document = realm(clients=[front, both, TARGET], users=[user("Dora", clientRoles={"target": ["read"]})])
    token = RealmModel.read(document).password("dora", via=via)
    assert isinstance(token, Granted)
    assert aud(token) == {"target"}
    assert token.claims["sid"] == ""
    assert "client_id" not in token.claims
    assert token.claims["preferred_username"] == "dora"


@pytest.mark.parametrize(
    ("username", "via", "asked", "expected"),
    [
        ("dora", "none", None, (401, "invalid_client")),
        ("dora", "target", None, (400, "unauthorized_client")),
        ("dora", "consent", None, (400, "invalid_client")),
        ("nobody", "ui", "nope", (400, "invalid_scope")),
        ("nobody", "ui", None, (400, "invalid_grant")),
        ("service-account-c", "ui", None, (400, "invalid_grant")),
        ("off", "ui", None, (400, "invalid_grant")),
        ("nameless", "ui", None, (400, "invalid_grant")),
        ("busy", "ui", None, (400, "invalid_grant")),
        ("dora", "ui", "offline_access", (400, "not_allowed")),
    ],
)
def test_rule_17_a_login_is_refused_for_the_first_thing_wrong(
    username: str, via: str, asked: str | None, expected: tuple[int, str]
) -> None:
    front = {"publicClient": True, "directAccessGrantsEnabled": True}
    document = realm(
        clients=[
            {"clientId": "ui", **front},
            {"clientId": "consent", "consentRequired": True, **front},
            caller("c"),
            TARGET,
        ],
        users=[
            user("dora"),
            user("off", enabled=False),
            user("nameless", firstName=None),
            user("busy", requiredActions=["X"]),
            service_account("c"),
        ],
    )
    answer = RealmModel.read(document).password(username, via=via, scope=asked)
    assert isinstance(answer, Denied)
    assert (answer.status, answer.error) == expected


def test_rule_18_an_export_is_read_and_its_masked_secrets_open_nothing() -> None:
    document = {**_rule_1(), "keycloakVersion": NEW}
    model = RealmModel.read(document)
    assert isinstance(model.client_credentials("masked", "**********"), Denied)
    assert isinstance(model.service_token("masked"), Granted)


def test_rule_19_web_origins_come_from_redirects_if_the_client_says_so() -> None:
    redirects = {"redirectUris": ["http://y:8080/*", "/rel/*"], "rootUrl": "http://root:1/x"}
    clients = [
        caller("plus", webOrigins=["+", "http://w"], **redirects),
        caller("unsaid", **redirects),
        caller("none", webOrigins=[], **redirects),
    ]
    document = realm(clients=clients)
    assert granted(document, "plus").claims["allowed-origins"] == ["http://root:1", "http://w", "http://y:8080"]
    assert granted(document, "unsaid").claims["allowed-origins"] == ["http://y:8080"]
    assert "allowed-origins" not in granted(document, "none").claims
    empty = realm(clients=[caller("c", webOrigins=["", "http://w"], redirectUris=["myapp://y"])])
    assert granted(empty).claims["allowed-origins"] == ["http://w"]
    assert granted(empty, version=OLD).claims["allowed-origins"] == ["", "http://w"]
    app = realm(clients=[caller("c", redirectUris=["myapp://y", "https://a"])])
    assert granted(app).claims["allowed-origins"] == ["https://a"]


@pytest.mark.parametrize("target", ["missing", "off"])
def test_rule_19_a_newer_version_answers_as_the_newest_known_and_says_where_it_may_differ(target: str) -> None:
    document = realm(
        clients=[caller("c", protocolMappers=[audience(target)]), caller("off", enabled=False), caller("plain")]
    )
    assert aud(granted(document, version="26.9.1")) == aud(granted(document)) == {"account", target}
    assert granted(document).unknown == ()
    assert any(repr(target) in reason for reason in granted(document, version="26.9.1").unknown)
    assert granted(document, "plain", version="27.0") == granted(document, "plain")


# What the model cannot know


@pytest.mark.parametrize(
    ("members", "client"),
    [
        ({}, {"protocolMappers": [mapper("script-x.js")]}),
        ({}, {"protocolMappers": [claim("n", "{", "JSON")]}),
        ({}, {"protocolMappers": [mapper("hardcoded-role")]}),
        ({}, {"protocolMappers": [mapper("role-name", role="r")]}),
        ({}, {"protocolMappers": [mapper("usermodel-property", user_attribute="createdTimestamp", claim_name="t")]}),
        ({}, {"protocolMappers": [mapper("usersessionmodel-note", user_session_note="clientHost", claim_name="from")]}),
        ({}, {"protocolMappers": [role_claim("realm", "one", multivalued="false")]}),
        ({}, {"attributes": {"acr.loa.map": '{"silver": 1, "bronze": 1}'}}),
        ({"clientPolicies": {"policies": [{"name": "p", "enabled": True}]}}, {}),
        ({"organizationsEnabled": True}, {"defaultClientScopes": ["organization"]}),
    ],
)
def test_what_cannot_be_known_is_said(members: dict[str, Any], client: dict[str, Any]) -> None:
    assert len(granted(realm(clients=[caller("c", **client)], **members)).unknown) == 1


# The answer, and the model itself


def test_the_answer_has_what_goes_with_the_token() -> None:
    attributes = {"access.token.signed.response.alg": "ES256", "access.token.header.type.rfc9068": "true"}
    document = realm(
        notBefore=5,
        clients=[caller("c", notBefore=7, attributes=attributes), caller("plain")],
        defaultSignatureAlgorithm="PS256",
    )
    token, plain = granted(document), granted(document, "plain")
    assert (token.algorithm, token.header_type, token.not_before) == ("ES256", "at+jwt", 7)
    assert (plain.algorithm, plain.header_type, plain.not_before) == ("PS256", "JWT", 5)
    assert (RealmModel.read(document).name, RealmModel.read(document).not_before) == ("made", 5)


def test_every_combination_can_be_enumerated() -> None:
    model = RealmModel.read(
        with_scopes(
            scope("x"), scope("y"), scope("z"), clients=[caller("c", optionalClientScopes=["x", "y", "z"]), TARGET]
        )
    )
    assert list(model.scope_requests("c")) == [None, "x", "y", "z", "x y", "x z", "y z", "x y z"]
    assert list(model.scope_requests("none")) == [None]
    assert model.service_client_ids == ("c",)
    assert {"c", "target", "account", "realm-management"} <= set(model.client_ids)


@pytest.mark.parametrize(
    "document",
    [
        {}, {"realm": ""}, {"realm": 1}, [], None, "realm", {"clients": []},
        {"realm": "r", "clients": {"clientId": "c"}}, {"realm": "r", "clients": [{}]}, {"realm": "r", "clients": ["c"]},
        {"realm": "r", "users": [{}]}, {"realm": "r", "roles": ["x"]}, {"realm": "r", "groups": [{"name": "g", "subGroups": ["h"]}]},
        {"realm": "r", "accessTokenLifespan": "long"}, {"realm": "r", "clientScopes": [{"protocol": "openid-connect"}]},
        {"realm": "r", "clients": [{"clientId": "c", "attributes": {"access.token.lifespan": "long"}}]},
    ],
)  # fmt: skip
def test_what_is_no_realm_is_refused_in_one_sentence(document: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        RealmModel.read(document)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("version", ["", "new", "v26"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(ConfigurationError, match="is no version of Keycloak"):
        RealmModel.read(realm(), version=version)


def test_no_secret_is_in_a_repr() -> None:
    document = realm(clients=[caller("c", secret="very-secret")])
    model = RealmModel.read(document)
    assert "very-secret" not in repr(model)
    assert "very-secret" not in repr(model._realm)


def test_the_model_neither_keeps_nor_changes_its_document_and_its_answers() -> None:
    document = REALMS["builtin"]()
    before = copy.deepcopy(document)
    model = RealmModel.read(document)

    def answers() -> str:
        every = [(c, s, model.service_token(c, scope=s)) for c in model.client_ids for s in model.scope_requests(c)]
        return repr(every)

    first = answers()
    assert document == before
    for name in list(document):
        document[name] = None
    token = model.service_token("made")
    assert isinstance(token, Granted)
    token.claims["resource_access"].clear()  # plain JSON, and the caller's own
    json.dumps(token.claims)
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(answers())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [first] * 3

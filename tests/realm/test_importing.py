"""What Keycloak changes and adds while it imports a realm, each rule stated and proved on a realm of a few lines.

Their numbers are the ones in the comments of the model.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import ConfigurationError
from s2s_fastapi.realm.importing import _MIGRATIONS
from s2s_fastapi.realm.model import Denied, Granted, RealmModel
from tests.realm.realms import (
    ROLES,
    Representation,
    audience,
    caller,
    claim,
    mapper,
    realm,
    scope,
    service_account,
    user,
)
from tests.realm.test_rules import CREDENTIALS, OLD, aud, granted, refused, roles, with_scopes

SETTINGS: Representation = {"resources": [], "policies": [], "scopes": []}
FRONT = {"clientId": "ui", "publicClient": True, "directAccessGrantsEnabled": True}


# Rule 19: JSON becomes the type of its field


@pytest.mark.parametrize("flag", [True, "true"])
def test_rule_19_a_mapper_is_on_whether_its_flag_is_a_boolean_or_a_text(flag: object) -> None:
    mappers = [audience(None, "x", access_token_claim=flag)]
    assert aud(granted(realm(clients=[caller("c", protocolMappers=mappers)]))) == {"x", "account"}


@pytest.mark.parametrize("flag", [False, "false"])
def test_rule_19_a_mapper_is_off_whether_its_flag_is_a_boolean_or_a_text(flag: object) -> None:
    mappers = [audience(None, "x", access_token_claim=flag)]
    assert aud(granted(realm(clients=[caller("c", protocolMappers=mappers)]))) == {"account"}


@pytest.mark.parametrize(
    ("member", "refusal"),
    [
        ({"serviceAccountsEnabled": "false"}, "Client not enabled to retrieve service account"),
        ({"publicClient": "true"}, "Public client not allowed to retrieve service account"),
        ({"enabled": "False"}, CREDENTIALS),
        ({"bearerOnly": 1}, "Bearer-only not allowed"),
    ],
)
def test_rule_19_a_text_or_a_number_is_a_boolean(member: dict[str, Any], refusal: str) -> None:
    assert refused(realm(clients=[caller("c", **member)]))[2] == refusal


@pytest.mark.parametrize("word", ["false", "FALSE", " false "])
def test_rule_19_a_text_that_says_false_is_not_true(word: str) -> None:
    client = caller("c", publicClient=word, fullScopeAllowed=word, bearerOnly=word)
    assert aud(granted(realm(clients=[client]))) == set()


@pytest.mark.parametrize(
    "attribute", ["token.response.type.bearer.lower-case", "client.use.lightweight.access.token.enabled"]
)
def test_rule_19_an_attribute_is_a_text(attribute: str) -> None:
    as_text, as_boolean = (
        granted(realm(clients=[caller("c", attributes={attribute: value})])) for value in ("true", True)
    )
    assert as_text == as_boolean != granted(realm(clients=[caller("c")]))


def test_rule_19_a_secret_is_a_text() -> None:
    model = RealmModel.read(realm(clients=[caller("c", secret=12)]))
    assert isinstance(model.client_credentials("c", "12"), Granted)


def test_rule_19_a_number_may_be_a_text_and_has_no_fraction() -> None:
    document = realm(accessTokenLifespan="60", clients=[caller("c")])
    assert granted(document).lifespan == 60
    assert granted({**document, "accessTokenLifespan": 60.9}).lifespan == 60
    assert granted({**document, "accessTokenLifespan": ""}).lifespan == 300


def test_rule_19_an_attribute_of_a_user_may_be_one_text_instead_of_a_list() -> None:
    mappers = [mapper("usermodel-attribute", user_attribute="team", claim_name="team")]
    document = realm(
        clients=[caller("c", protocolMappers=mappers)], users=[service_account("c", attributes={"team": "blue"})]
    )
    assert granted(document).claims["team"] == "blue"


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"clients": {"clientId": "c"}}, "`clients` must be a list"),
        ({"clients": ["c"]}, "`clients[0]` must be an object"),
        ({"authenticationFlows": [None]}, "`authenticationFlows[0]` must be an object"),
        ({"smtpServer": "x"}, "`smtpServer` must be an object"),
        ({"accessTokenLifespan": "long"}, "`accessTokenLifespan` must be a whole number"),
        ({"accessTokenLifespan": True}, "`accessTokenLifespan` must be a whole number"),
        ({"accessTokenLifespan": float("inf")}, "`accessTokenLifespan` must be a whole number"),
        ({"accessTokenLifespan": float("nan")}, "`accessTokenLifespan` must be a whole number"),
        ({"groups": [{"name": "g", "subGroups": ["h"]}]}, r"`groups\[g\].subGroups\[0\]` must be an object"),
    ],
)
def test_rule_19_a_value_that_has_no_such_type_is_named_with_its_place(members: dict[str, Any], sentence: str) -> None:
    with pytest.raises(
        ConfigurationError, match=sentence.replace("[0]`", r"\[0\]`") if "\\" not in sentence else sentence
    ):
        RealmModel.read(realm(**members))


def test_a_client_without_an_id_is_named_by_its_position() -> None:
    with pytest.raises(ConfigurationError, match="the client number 2 has no clientId"):
        RealmModel.read(realm(clients=[caller("c"), {"name": "nameless", "secret": "hunter2"}]))


# Rule 20: a scope without a protocol


@pytest.mark.parametrize("protocol", [{}, {"protocol": None}])
def test_rule_20_a_scope_without_a_protocol_is_for_openid_connect(protocol: dict[str, Any]) -> None:
    given = scope("s", audience(None, "y"))
    del given["protocol"]
    document = with_scopes(given | protocol, clients=[caller("c", optionalClientScopes=["s"])])
    assert (granted(document, asked="s").scope, aud(granted(document, asked="s"))) == ("s", {"y"})


def test_rule_20_on_26_0_a_scope_without_a_protocol_cannot_be_requested() -> None:
    given = scope("s", audience(None, "y"))
    del given["protocol"]
    document = with_scopes(given, clients=[caller("c", optionalClientScopes=["s"])])
    answer = RealmModel.read(document, version="26.0.8").service_token("c", scope="s")

    assert isinstance(answer, Denied)
    assert answer.error == "invalid_scope"


# Rule 21: authorization services


def _authorization(**members: Any) -> Representation:
    return realm(clientScopes=[ROLES], clients=[caller("c", **{"defaultClientScopes": ["roles"], **members})])


@pytest.mark.parametrize(
    "written",
    [
        {"authorizationServicesEnabled": True},
        {"authorizationServicesEnabled": False, "authorizationSettings": SETTINGS},
        {"authorizationSettings": {}},
    ],
)
@pytest.mark.parametrize("flags", [{}, {"serviceAccountsEnabled": False}, {"bearerOnly": True}])
def test_rule_21_authorization_services_make_a_service_that_has_uma_protection(
    written: dict[str, Any], flags: dict[str, Any]
) -> None:
    token = granted(_authorization(**written, **flags))
    assert "c/uma_protection" in roles(token)
    assert "default-roles-made" in roles(token)
    assert aud(token) == {"account"}  # roles of the client itself add no audience


def test_rule_21_without_authorization_services_there_is_no_such_role() -> None:
    document = _authorization(authorizationServicesEnabled=False)
    assert "c/uma_protection" not in roles(granted(document))


def test_rule_21_the_role_fits_a_client_with_a_narrow_scope() -> None:
    document = _authorization(authorizationServicesEnabled=True, fullScopeAllowed=False)
    assert roles(granted(document)) == {"c/uma_protection"}


def test_rule_21_an_account_that_the_document_lists_gets_nothing() -> None:
    document = _authorization(authorizationServicesEnabled=True)
    assert roles(granted({**document, "users": [service_account("c")]})) == set()


def test_rule_21_a_client_that_is_written_as_public_becomes_a_service_that_nobody_can_use() -> None:
    document = _authorization(authorizationServicesEnabled=True, publicClient=True)
    assert refused(document) == (401, "unauthorized_client", CREDENTIALS)
    model = RealmModel.read(document, new_secret=lambda client_id: "made")
    assert isinstance(model.client_credentials("c", "made"), Denied)
    assert isinstance(model.service_token("c"), Granted)


# Rule 22: the export of an older server


def _export(version: str | None, *, scopes: list[Representation] | None = None, **members: Any) -> RealmModel:
    clients = [caller("c", **{"defaultClientScopes": ["x"], **members}), {"clientId": "account", "publicClient": True}]
    document = realm(keycloakVersion=version, clientScopes=[scope("x"), *(scopes or [])], clients=clients)
    return RealmModel.read(document)


@pytest.mark.parametrize(
    ("version", "default", "optional"),
    [
        ("3.4.3", {"x", "roles", "web-origins", "acr", "basic"}, {"offline_access", "microprofile-jwt"}),
        ("4.0.0", {"x", "roles", "web-origins", "acr", "basic"}, {"microprofile-jwt"}),
        ("4.5.9", {"x", "roles", "web-origins", "acr", "basic"}, {"microprofile-jwt"}),
        ("4.6.0", {"x", "acr", "basic"}, {"microprofile-jwt"}),
        ("5.0.0", {"x", "acr", "basic"}, {"microprofile-jwt"}),
        ("6.0.0", {"x", "acr", "basic"}, set()),
        ("17.0.1", {"x", "acr", "basic"}, set()),
        ("17.0.1.redhat-00001", {"x", "acr", "basic"}, set()),
        ("17.0.1-SNAPSHOT", {"x", "acr", "basic"}, set()),
        ("18.0.0", {"x", "basic"}, set()),
        ("24.0.5", {"x", "basic"}, set()),
        ("25", {"x"}, set()),
        ("26.7.3", {"x"}, set()),
        (None, {"x"}, set()),
        ("unreadable", {"x", "roles", "web-origins", "acr", "basic"}, {"offline_access", "microprofile-jwt"}),
        ("", {"x", "roles", "web-origins", "acr", "basic"}, {"offline_access", "microprofile-jwt"}),
    ],
)
def test_rule_22_clients_get_the_scopes_that_are_newer_than_the_export(
    version: str | None, default: set[str], optional: set[str]
) -> None:
    model = _export(version)
    assert set(model.default_scopes("c")) == default
    assert set(model.optional_scopes("c")) == optional


def test_rule_22_the_scope_service_account_comes_too_late_for_the_clients_of_the_file() -> None:
    old, new = _export("26.0.8"), _export("26.1.0", scopes=[scope("service_account", shown="false")])
    assert "service_account" not in old.default_scopes("c")
    assert "service_account" in new.default_scopes("c")


def test_rule_22_a_scope_that_the_export_has_is_assigned_to_nobody() -> None:
    for protocol in ("openid-connect", "saml"):
        model = _export("17.0.1", scopes=[scope("acr", protocol=protocol), scope("basic")])
        assert model.default_scopes("c") == ("x",)


def test_rule_22_a_reference_to_a_scope_that_did_not_exist_does_not_count() -> None:
    model = _export("5.0.0", optionalClientScopes=["acr"], defaultClientScopes=["x", "microprofile-jwt"])
    assert set(model.default_scopes("c")) == {"x", "acr", "basic"}
    assert model.optional_scopes("c") == ("microprofile-jwt",)


@pytest.mark.parametrize(
    "members",
    [
        {"fullScopeAllowed": False},
        {"consentRequired": True},
        {"bearerOnly": True},
        {"protocol": "saml"},
        {"defaultClientScopes": None},
    ],
)
def test_rule_22_offline_access_is_for_wide_clients_with_lists(members: dict[str, Any]) -> None:
    assert "offline_access" in _export("3.4.3").optional_scopes("c")
    assert "offline_access" in _export("3.4.3", consentRequired=True, fullScopeAllowed=True).optional_scopes("c")
    given = _export("4.0.0", **members).optional_scopes("c")
    assert set(_export("3.4.3", **members).optional_scopes("c")) == set(given)


def test_rule_22_a_reference_to_the_scope_service_account_is_void_if_the_export_does_not_have_it() -> None:
    model = _export("8.0.1", optionalClientScopes=["service_account"])
    assert "service_account" not in (*model.optional_scopes("c"), *model.default_scopes("c"))


def test_rule_22_clients_without_lists_get_the_new_scopes_from_the_realm() -> None:
    document = realm(
        keycloakVersion="17.0.1",
        clientScopes=[scope("x"), scope("y")],
        defaultDefaultClientScopes=["x"],
        defaultOptionalClientScopes=["y"],
        clients=[caller("c")],
    )
    model = RealmModel.read(document)
    assert set(model.default_scopes("c")) == {"x", "acr", "basic"}
    assert set(model.optional_scopes("c")) == {"y", "offline_access"}


@pytest.mark.parametrize("member", [{"bearerOnly": True}, {"protocol": "saml"}])
def test_rule_22_clients_of_another_kind_get_no_scope(member: dict[str, Any]) -> None:
    assert _export("17.0.1", **member).default_scopes("c") == ("x",)


def test_rule_22_without_an_array_of_scopes_no_list_changes() -> None:
    document = realm(keycloakVersion="17.0.1", clients=[caller("c", defaultClientScopes=["roles"])])
    assert set(RealmModel.read(document).default_scopes("c")) == {"roles", "service_account"}


def test_rule_22_account_console_is_made_for_the_oldest_exports() -> None:
    assert "account-console" in _export("8.0.0").client_ids
    assert "account-console" not in _export("9.0.0").client_ids


def test_rule_22_an_account_console_of_the_file_stays() -> None:
    clients = [{"clientId": "account", "publicClient": True}, caller("account-console")]
    document = realm(keycloakVersion="8.0.0", clientScopes=[scope("x")], clients=clients)
    assert granted(document, "account-console").claims["azp"] == "account-console"


@pytest.mark.parametrize(("version", "lightweight"), [("25.0.6", True), ("26.0.0", False)])
def test_rule_22_the_consoles_get_lightweight_tokens(version: str, lightweight: bool) -> None:
    document = realm(
        keycloakVersion=version, clientScopes=[scope("x", audience(None, "y"))], clients=[caller("admin-cli")]
    )
    document["clients"][0] |= {"defaultClientScopes": ["x"], "attributes": {"access.token.lifespan": "60"}}
    assert granted(document, "admin-cli").lifespan == 60
    assert aud(granted(document, "admin-cli")) == (set() if lightweight else {"y"})


def test_rule_22_an_older_server_adds_only_what_it_has() -> None:
    document = realm(keycloakVersion="25.0.0", clientScopes=[scope("x")], clients=[caller("c")])
    assert "service_account" not in RealmModel.read(document, version=OLD).default_scopes("c")
    old = {**document, "keycloakVersion": "16.0.0"}
    assert "basic" in RealmModel.read(old, version="26").default_scopes("c")
    assert RealmModel.read(old, version="18.0.0").default_scopes("c") == ("acr",)


def test_rule_22_what_a_migration_adds_is_no_target_of_the_file() -> None:
    document = realm(
        keycloakVersion="17.0.1",
        clientScopes=[scope("x")],
        clients=[caller("c")],
        scopeMappings=[{"clientScope": "acr", "roles": ["r"]}],
    )
    with pytest.raises(ConfigurationError, match="there is no client scope 'acr'"):
        RealmModel.read(document)


def test_rule_22_is_what_the_documentation_says() -> None:
    page = (Path(__file__).parents[2] / "docs" / "realm-export.md").read_text()
    rows = re.findall(r"^\| (\d+)\.(\d+)\.(\d+) \| (.+) \|$", page, re.MULTILINE)
    assert [tuple(map(int, row[:3])) for row in rows] == [below for below, _ in _MIGRATIONS]
    for (_, step), row in zip(_MIGRATIONS, rows, strict=True):
        for name in getattr(step, "keywords", {}).get("names", ()):
            assert f"`{name}`" in row[3]


# Rule 23: uma_authorization


@pytest.mark.parametrize(
    "members",
    [
        {"users": [user("u", realmRoles=["uma_authorization"])]},
        {"groups": [{"name": "g", "subGroups": [{"name": "h", "realmRoles": ["uma_authorization"]}]}]},
        {"scopeMappings": [{"client": "c", "roles": ["uma_authorization"]}]},
        {"roles": {"realm": [{"name": "uma_authorization"}]}},
    ],
)
def test_rule_23_uma_authorization_is_no_default_role_if_the_file_names_it_anywhere(members: dict[str, Any]) -> None:
    held = roles(granted(realm(clients=[caller("c")], **members)))
    assert "uma_authorization" not in held
    assert "offline_access" in held


def test_rule_23_otherwise_it_is_one() -> None:
    document = realm(clients=[caller("c")], users=[user("u", realmRoles=["other"])])
    assert "uma_authorization" in roles(granted(document))


# Rule 24: realm-management


@pytest.mark.parametrize("listed", [True, False])
def test_rule_24_realm_management_has_all_roles_also_if_the_file_lists_it(listed: bool) -> None:
    management = "realm-management"
    declared = [
        {"name": "realm-admin", "composites": {"client": {management: ["view-users", "own"]}}},
        *({"name": name} for name in ("view-users", "view-clients", "own")),
    ]
    document = realm(
        clients=[caller("c"), *([{"clientId": management, "bearerOnly": True}] if listed else [])],
        roles={"client": {management: declared}},
        users=[service_account("c", clientRoles={management: ["realm-admin"]})],
    )
    held = roles(granted(document))
    expected = ("manage-organizations", "query-organizations", "query-users", "query-clients", "manage-realm", "own")
    assert {f"{management}/{name}" for name in expected} <= held


def test_rule_24_the_roles_of_account_are_as_listed() -> None:
    document = realm(
        clients=[caller("c"), {"clientId": "account", "publicClient": True}],
        roles={"client": {"account": [{"name": "manage-account"}]}},
        users=[service_account("c", clientRoles={"account": ["manage-account"]})],
    )
    assert roles(granted(document)) == {"account/manage-account"}


# Rule 25: admin permissions


def test_rule_25_a_realm_with_admin_permissions_has_their_client() -> None:
    document = realm(adminPermissionsEnabled=True, clients=[caller("c")])
    assert refused(document, "admin-permissions") == (401, "unauthorized_client", CREDENTIALS)
    assert refused(document, "admin-permissions", version=OLD)[1] == "invalid_client"
    without = realm(adminPermissionsEnabled="false", clients=[caller("c")])
    assert refused(without, "admin-permissions")[1] == "invalid_client"


# Rule 26: claims beside the token


def test_rule_26_a_mapper_may_write_its_claim_into_the_answer_too() -> None:
    note = {"user_session_note": "client_id", "access_tokenResponse_claim": "true"}
    mappers = [
        mapper("usersessionmodel-note", "own id", claim_name="who", **note),
        claim("tenant.name", "t1", access_token_claim=None, access_tokenResponse_claim="true"),
        claim("token-only", "t2"),
        mapper("usermodel-attribute", user_attribute="username", claim_name="name", access_tokenResponse_claim="true"),
    ]
    for attributes in ({}, {"client.use.lightweight.access.token.enabled": "true"}):
        token = granted(realm(clients=[caller("c", protocolMappers=mappers, attributes=attributes)]))
        assert token.response == {"who": "c", "tenant": {"name": "t1"}}
        assert "tenant" not in token.claims
        assert ("who" in token.claims) == (not attributes)


# Rule 27: roles in a hardcoded claim


def test_rule_27_hardcoded_roles_are_joined_with_those_of_the_account() -> None:
    mappers = [
        claim("realm_access", '{"roles": ["root"]}', "JSON"),
        claim("resource_access.target.roles", '["fire"]', "JSON"),
        claim("resource_access.other.roles", '["burn"]', "JSON"),
    ]
    document = realm(
        clients=[caller("c", protocolMappers=mappers), caller("target")],
        users=[service_account("c", realmRoles=["one"], clientRoles={"target": ["read"]})],
    )
    token = granted(document)
    assert roles(token) == {"root", "one", "target/fire", "target/read", "other/burn"}
    assert aud(token) == {"target"}  # written, not held: a claim resolves to no audience
    assert token.unknown == ()
    assert any("realm_access" in reason for reason in granted(document, version=OLD).unknown)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("resource_access", '{"target": {"roles": ["fire"]}}'),
        ("realm_access", '{"roles": ["root"], "more": 1}'),
        ("realm_access", '{"roles": "root"}'),
        ("realm_access", '{"roles": [1]}'),
        ("resource_access.target.more", "[1]"),
    ],
)
def test_rule_27_any_other_claim_in_that_place_is_said_to_be_there_twice(name: str, value: str) -> None:
    document = realm(clients=[caller("c", protocolMappers=[claim(name, value, "JSON")])])
    assert [name.partition(".")[0] in reason for reason in granted(document).unknown] == [True]


# Rule 28: attributes of groups, and amr


def _colour(groups: dict[str, list[str]], **members: Any) -> Granted:
    mappers = [mapper("usermodel-attribute", user_attribute="colour", claim_name="colour", **members.pop("config", {}))]
    return granted(
        realm(
            clients=[caller("c", protocolMappers=mappers)],
            groups=[
                {"name": name, "attributes": {"colour": colours}, "subGroups": [{"name": "below"}]}
                for name, colours in groups.items()
            ],
            users=[service_account("c", groups=[f"/{name}/below" for name in groups], **members)],
        )
    )


def test_rule_28_an_account_has_the_attributes_of_its_groups_and_of_those_above() -> None:
    assert _colour({"a": ["red"]}).claims["colour"] == "red"
    assert _colour({"a": ["red"]}).unknown == ()
    assert _colour({"a": ["red"]}, attributes={"colour": ["blue"]}).claims["colour"] == "blue"
    assert _colour({"a": ["red"]}, attributes={"colour": ["blue"]}).unknown == ()


def test_rule_28_the_nearest_group_wins() -> None:
    groups = [
        {
            "name": "above",
            "attributes": {"colour": ["red"]},
            "subGroups": [{"name": "below", "attributes": {"colour": ["green"]}}],
        }
    ]
    colour = mapper("usermodel-attribute", user_attribute="colour", claim_name="colour")
    document = realm(
        clients=[caller("c", protocolMappers=[colour])],
        groups=groups,
        users=[service_account("c", groups=["/above/below"])],
    )
    assert granted(document).claims["colour"] == "green"


def test_rule_28_which_of_two_groups_wins_is_not_known() -> None:
    assert "'colour'" in _colour({"a": ["red"], "b": ["green"]}).unknown[0]
    assert _colour({"a": ["red"], "b": ["red"]}).unknown == ()
    both = {"aggregate_attrs": "true", "multivalued": "true"}
    assert _colour({"a": ["red"]}, attributes={"colour": ["blue"]}, config=both).unknown


def test_rule_28_these_grants_have_no_method_of_authentication() -> None:
    document = realm(
        clients=[caller("c", protocolMappers=[mapper("amr"), mapper("amr", "off", access_token_claim=None)])]
    )
    assert (granted(document).claims["amr"], granted(document).unknown) == ([], ())


# Rule 29: scopes of organizations


@pytest.mark.parametrize("asked", ["organization:acme", "organization:*"])
def test_rule_29_a_scope_that_names_an_organization_has_no_effect_in_a_realm_without_them(asked: str) -> None:
    document = realm(clients=[caller("c"), caller("without", optionalClientScopes=["email"])])
    assert granted(document, asked=asked) == granted(document)
    assert refused(document, "without", asked)[1] == "invalid_scope"
    assert refused(document, asked="email:acme")[1] == "invalid_scope"
    assert refused(document, asked=asked, version=OLD)[1] == "invalid_scope"
    with_organizations = {**document, "organizationsEnabled": True}
    assert refused(with_organizations, asked="organization:acme")[1] == "invalid_scope"
    assert granted(with_organizations, asked="organization:*").scope == granted(document).scope


def test_rule_29_a_scope_is_one_of_organizations_by_its_mapper_and_not_by_its_name() -> None:
    members = mapper("organization-membership", claim_name="organization")
    scopes = [scope("mine", members), scope("organization"), scope("x")]
    document = realm(
        clientScopes=scopes,
        clients=[
            caller("c", defaultClientScopes=["x"], optionalClientScopes=["mine", "organization"]),
            caller("d", defaultClientScopes=["mine"], optionalClientScopes=["x"]),
        ],
    )
    assert granted(document, asked="mine").scope == granted(document, asked="mine:acme").scope == "x"
    assert granted(document, asked="organization").scope == "x organization"
    assert refused(document, asked="organization:acme")[1] == "invalid_scope"
    assert refused(document, asked="mine:")[1] == "invalid_scope"
    assert granted(document, asked="mine", version=OLD).scope == "x mine"
    assert granted(document, "d").scope == granted(document, "d", "mine").scope == "mine"
    assert granted(document, "d", "mine:acme x").scope == "x"


# Rule 30: bound tokens


def test_rule_30_a_client_with_bound_tokens_needs_a_proof_and_this_model_never_has_a_certificate() -> None:
    dpop, mtls = {"dpop.bound.access.tokens": True}, {"tls.client.certificate.bound.access.tokens": "true"}
    document = realm(
        clients=[
            caller("dpop", attributes=dpop, serviceAccountsEnabled=False),
            caller("mtls", attributes=mtls),
            caller("off", attributes={**dict.fromkeys((*dpop, *mtls), "false")}),
            {**FRONT, "attributes": dpop},
        ],
        users=[user("dora")],
    )
    proof = (400, "invalid_request", "DPoP proof is missing")
    assert refused(document, "dpop", "nope") == proof
    assert refused(document, "dpop", version=OLD)[1] == "unauthorized_client"
    assert refused(document, "mtls", "nope")[1] == "invalid_scope"
    assert refused(document, "mtls")[2] == "Client Certification missing for MTLS HoK Token Binding"
    assert granted(document, "off").claims["azp"] == "off"
    login = RealmModel.read(document).password("dora", via="ui")
    assert isinstance(login, Denied)
    assert login.description == proof[2]


# Rule 42: a proof binds every token of the request to its key, whatever the client is set to


def test_rule_42_a_proof_binds_the_token_to_its_key() -> None:
    dpop, lower = {"dpop.bound.access.tokens": "true"}, {"token.response.type.bearer.lower-case": "true"}
    typ = claim("typ", "X")
    clients = [
        caller("must", attributes=dpop, protocolMappers=[typ]),
        caller("may"),
        caller("lower", attributes=lower),
        {**FRONT, "attributes": dpop},
    ]
    model = RealmModel.read(realm(clients=clients, users=[user("dora")]))
    for client_id, token_type in (("must", "DPoP"), ("may", "DPoP"), ("lower", "dpop")):
        token = model.service_token(client_id, jkt="thumb")
        assert isinstance(token, Granted)
        assert (token.token_type, token.claims["typ"]) == (token_type, "DPoP")
        assert token.claims["cnf"] == {"jkt": "thumb", "kc-jkt-type": "DPoP"}
        assert token.as_subject().bound == "thumb"
    login = model.password("dora", via="ui", jkt="thumb")
    assert isinstance(login, Granted)
    assert login.claims["cnf"]["jkt"] == "thumb"
    plain = model.service_token("may")
    assert isinstance(plain, Granted)
    assert (plain.token_type, "cnf" in plain.claims, plain.as_subject().bound) == ("Bearer", False, "")


@pytest.mark.parametrize(("version", "binds"), [("26.0.8", False), ("26.3.9", False), ("26.4", True), ("26.4.0", True)])
def test_rule_42_before_26_4_attribute_and_proof_are_ignored(version: str, binds: bool) -> None:
    model = RealmModel.read(
        realm(clients=[caller("c", attributes={"dpop.bound.access.tokens": "true"})]), version=version
    )
    assert model.binds is binds
    assert (model.proof_missing("c") is not None) is binds
    assert isinstance(model.service_token("c"), Denied if binds else Granted)
    token = model.service_token("c", jkt="thumb")
    assert isinstance(token, Granted)
    assert ("cnf" in token.claims, token.token_type) == ((True, "DPoP") if binds else (False, "Bearer"))


# Rule 31: the address of the client


def test_rule_31_the_address_of_the_client_is_in_its_token_if_the_issuer_knows_it() -> None:
    elsewhere = mapper("usersessionmodel-note", user_session_note="clientHost", claim_name="from.host")
    model = RealmModel.read(realm(clients=[caller("c", protocolMappers=[elsewhere])]))
    token = model.service_token("c", peer="192.0.2.7")
    assert isinstance(token, Granted)
    assert token.claims["clientHost"] == token.claims["clientAddress"] == token.claims["from"]["host"] == "192.0.2.7"
    assert token.unknown == ()


# Rule 15: how long a refresh token is valid


_REFRESH = {"client_credentials.use_refresh_token": "true"}


@pytest.mark.parametrize(
    ("members", "attributes", "online", "offline"),
    [
        ({}, {}, 1800, 0),
        ({"ssoSessionIdleTimeout": 100}, {}, 100, 0),
        ({"ssoSessionMaxLifespan": 100}, {}, 100, 0),
        ({"clientSessionIdleTimeout": 50}, {}, 50, 0),
        ({"clientSessionMaxLifespan": 60}, {}, 60, 0),
        ({}, {"client.session.idle.timeout": "70"}, 70, 0),
        ({}, {"client.session.max.lifespan": "80"}, 80, 0),
        ({"offlineSessionMaxLifespanEnabled": True, "offlineSessionMaxLifespan": 1000}, {}, 1800, 1000),
        ({"offlineSessionMaxLifespanEnabled": True, "offlineSessionIdleTimeout": 500}, {}, 1800, 500),
        ({"offlineSessionMaxLifespanEnabled": True, "clientOfflineSessionIdleTimeout": 400}, {}, 1800, 400),
        ({"offlineSessionMaxLifespanEnabled": True}, {"client.offline.session.idle.timeout": "90"}, 1800, 90),
        ({}, {"client.offline.session.idle.timeout": "90"}, 1800, 0),
    ],
)
def test_rule_15_a_refresh_token_ends_with_the_first_limit_of_its_session(
    members: dict[str, Any], attributes: dict[str, str], online: int, offline: int
) -> None:
    document = realm(clients=[caller("c", attributes=_REFRESH | attributes), caller("plain")], **members)
    assert granted(document).refresh_lifespan == online
    assert granted(document, asked="offline_access").refresh_lifespan == offline
    assert granted(document, "plain").refresh_lifespan == 0
    sessions = [granted(document, asked=asked).offline for asked in (None, "offline_access")]
    assert sessions == [False, True]


def test_rule_15_an_idle_time_that_is_no_number_is_no_realm() -> None:
    with pytest.raises(ConfigurationError, match="five"):
        RealmModel.read(realm(clients=[caller("c", attributes={"client.session.idle.timeout": "five"})]))


def test_rule_12_a_service_with_a_session_has_a_sub_only_by_a_mapper() -> None:
    clients = [
        caller("c", attributes=_REFRESH, optionalClientScopes=["basic"]),
        caller("plain", defaultClientScopes=[]),
    ]
    document = realm(clients=clients)
    assert "sub" not in granted(document).claims
    assert granted(document, asked="basic").claims["sub"]
    assert granted(document, "plain").claims["sub"]


# Rule 24: what the import adds to realm-management


def test_rule_24_realm_admin_does_not_get_the_roles_that_the_file_has_made() -> None:
    management = {"clientId": "realm-management", "bearerOnly": True}
    document = realm(
        clients=[caller("c"), management],
        roles={"client": {"realm-management": [{"name": "realm-admin"}, {"name": "view-users"}]}},
        groups=[{"name": "g", "clientRoles": {"realm-management": ["view-realm"]}}],
        clientScopeMappings={"realm-management": [{"client": "c", "roles": ["manage-users"]}]},
        users=[
            service_account("c", clientRoles={"realm-management": ["realm-admin"]}),
            user("u", clientRoles={"realm-management": ["view-events"]}),
        ],
    )
    held = set(granted(document).claims["resource_access"]["realm-management"]["roles"])
    assert held.isdisjoint({"view-users", "view-realm", "manage-users", "view-events"})
    assert {"realm-admin", "manage-realm", "query-organizations"} <= held


# Rule 32: who can log in at once


def _login(user_members: dict[str, Any], **members: Any) -> str:
    document = realm(clients=[FRONT], users=[user("dora", **user_members)], **members)
    answer = RealmModel.read(document).password("dora", via="ui")
    return answer.description if isinstance(answer, Denied) else "a token"


_NOT_READY = "Account is not fully set up"
_BARE = {"email": None, "firstName": None, "lastName": None}
_ACTION = {"alias": "VERIFY_PROFILE", "enabled": True}


def _profile(*attributes: Representation) -> Representation:
    config = {"kc.user.profile.config": [json.dumps({"attributes": [{"name": "username"}, *attributes]})]}
    return {"org.keycloak.userprofile.UserProfileProvider": [{"config": config}]}


@pytest.mark.parametrize(
    ("user_members", "members", "answer"),
    [
        ({}, {}, "a token"),
        (_BARE, {}, _NOT_READY),
        ({"email": "no address"}, {}, _NOT_READY),
        ({"firstName": "<b>"}, {}, _NOT_READY),
        ({"lastName": "O'Brien-Ünal"}, {}, "a token"),
        (_BARE, {"requiredActions": []}, "a token"),
        (_BARE, {"requiredActions": [{**_ACTION, "enabled": False}]}, "a token"),
        (_BARE, {"requiredActions": [_ACTION]}, _NOT_READY),
        (_BARE, {"components": _profile({"name": "email"})}, "a token"),
        (_BARE, {"components": _profile({"name": "email", "required": {"roles": ["admin"]}})}, "a token"),
        (_BARE, {"components": _profile({"name": "email", "required": {"roles": ["user"]}})}, _NOT_READY),
        (_BARE, {"components": _profile({"name": "email", "required": {}})}, _NOT_READY),
        ({}, {"components": _profile({"name": "dept", "required": {}})}, _NOT_READY),
        ({"attributes": {"dept": ["x"]}}, {"components": _profile({"name": "dept", "required": {}})}, "a token"),
        ({}, {"verifyEmail": True}, _NOT_READY),
        ({"emailVerified": True}, {"verifyEmail": True}, "a token"),
        ({"requiredActions": ["UPDATE_PASSWORD"]}, {"requiredActions": []}, _NOT_READY),
        ({"credentials": [{"type": "password", "value": "p", "temporary": True}]}, {}, "a token"),
    ],
)
def test_rule_32_a_user_whose_profile_is_not_complete_cannot_log_in(
    user_members: dict[str, Any], members: dict[str, Any], answer: str
) -> None:
    assert _login(user_members, **members) == answer


# Rule 33: names of the level of authentication


@pytest.mark.parametrize(
    ("of_realm", "attributes", "acr"),
    [
        (None, {}, "1"),
        ('{"gold": 2}', {}, "1"),
        ('{"gold": "2", "silver": "1"}', {}, "silver"),
        ('{"silver": 1}', {"acr.loa.map": '{"low": 1}'}, "low"),
        ('{"silver": 1}', {"acr.loa.map": "{}"}, "silver"),
        ('{"silver": 1}', {"acr.loa.map": '{"high": 2}'}, "1"),
        (None, {"acr.loa.map": '{"a": 1, "b": 1, "c": 2}', "default.acr.values": "c##b"}, "b"),
    ],
)
def test_rule_33_acr_is_the_name_that_the_level_has_in_the_client_or_else_in_the_realm(
    of_realm: str | None, attributes: dict[str, str], acr: str
) -> None:
    document = realm(clients=[caller("c", attributes=attributes)], attributes={"acr.loa.map": of_realm})
    assert granted(document).claims["acr"] == acr
    assert granted(document).unknown == ()


# Rule 34: the scopes of Keycloak's own clients


def test_rule_34_own_clients_get_no_scope_of_the_file_but_those_of_a_migration() -> None:
    document = realm(clientScopes=[scope("x"), ROLES], defaultDefaultClientScopes=["x"], clients=[caller("c")])
    assert "x" in RealmModel.read(document).default_scopes("c")
    model = RealmModel.read(document)
    assert model.default_scopes("admin-cli") == model.optional_scopes("admin-cli") == ()
    old = RealmModel.read({**document, "keycloakVersion": "9.0.0"})
    assert set(old.default_scopes("admin-cli")) == {"acr", "basic"}
    assert old.default_scopes("realm-management") == ()
    listed = {**document, "clients": [{"clientId": "admin-cli", "publicClient": True}]}
    assert RealmModel.read(listed).default_scopes("admin-cli") == ("x",)


def test_rule_34_offline_access_is_no_default_scope_unless_the_file_describes_it() -> None:
    document = realm(
        clientScopes=[scope("x")], defaultDefaultClientScopes=["x", "offline_access"], clients=[caller("c")]
    )
    assert RealmModel.read(document).default_scopes("c") == ("x",)
    described = {**document, "clientScopes": [scope("x"), scope("offline_access")]}
    assert set(RealmModel.read(described).default_scopes("c")) == {"x", "offline_access"}


# Rule 35: ids


def test_rule_35_a_pairwise_sub_is_a_hash_of_the_host_the_id_and_the_salt() -> None:
    pairwise = mapper("sha256-pairwise-sub", "p", pairwiseSubAlgorithmSalt="salt", access_token_claim=None)
    client = caller("c", redirectUris=["/x", "https://x.example:8443/*"], protocolMappers=[pairwise])
    account = service_account("c", id="f8f09e40-b8c4-4a06-8c42-6a426e265f8d")
    # As 26.7.3 answered for this id.
    assert granted(realm(clients=[client], users=[account])).claims["sub"] == "4512fad8-7eb0-3ded-ab0f-e5fd0e5122eb"


def test_rule_35_a_mapper_writes_the_id_of_the_account_and_of_the_session() -> None:
    mappers = [mapper("usermodel-property", user_attribute="id", claim_name="me"), mapper("session-state", "s")]
    claims = granted(realm(clients=[caller("c", protocolMappers=mappers)])).claims
    assert claims["me"] == claims["sub"]
    assert claims["session_state"] == ""
    assert "sid" not in claims


# Rule 36: values and their types


@pytest.mark.parametrize(
    ("value", "kind", "written"),
    [
        ("5", "int", 5),
        ("-5", "int", -5),
        ("2147483648", "int", None),
        ("2147483648", "long", 2147483648),
        ("9223372036854775808", "long", None),
        (" 5", "int", None),
        ("1.5", "int", None),
        ("many", "long", None),
    ],
)
def test_rule_36_a_text_that_is_no_number_of_its_type_is_left_out(value: str, kind: str, written: int | None) -> None:
    token = granted(realm(clients=[caller("c", protocolMappers=[claim("n", value, kind)])]))
    assert token.claims.get("n") == written
    assert token.unknown == ()
    old = granted(realm(clients=[caller("c", protocolMappers=[claim("n", value, kind)])]), version=OLD)
    assert bool(old.unknown) is (written is None)


def test_rule_36_json_as_audience_is_its_text() -> None:
    client = caller("c", defaultClientScopes=[], protocolMappers=[claim("aud", '["x", "y"]', "JSON")])
    assert aud(granted(realm(clients=[client]))) == {'["x","y"]'}

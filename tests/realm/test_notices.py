"""What is said about a realm file: why Keycloak refuses it, and how its answers may differ from those of the model."""

import json
from typing import Any

import pytest

from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.realm.notices import Notice, notices
from tests.realm.realms import REALMS, Representation, caller, claim, mapper, realm, scope, service_account, user


def said(document: Representation, version: str = "26.7.3") -> tuple[Notice, ...]:
    return notices(document, RealmModel.read(document, version=version))


def with_policy(**policy: Any) -> dict[str, Any]:
    settings = {"policies": [{"name": "Default Policy", **policy}]}
    return {"clients": [caller("c", authorizationSettings=settings)], "users": [user("dora", id="d-1")]}


def with_provider(url: str, **members: Any) -> dict[str, Any]:
    return {"identityProviders": [{"alias": "x", "config": {"tokenUrl": url}}], **members}


MAPPER = claim("a", "1")
UNKNOWN_PLACES = [
    ({"foo": 1}, "foo"),
    ({"clients": [caller("c", foo=1)]}, "clients[c].foo"),
    ({"clients": [caller("c", protocolMappers=[{**MAPPER, "foo": 1}])]}, "clients[c].protocolMappers[claim a].foo"),
    ({"users": [user("dora", foo=1)]}, "users[dora].foo"),
    ({"roles": {"client": {}, "foo": []}}, "roles.foo"),
    ({"components": {"kind": [{"name": "k", "foo": 1}]}}, "components.kind[k].foo"),
]


@pytest.mark.parametrize(("members", "place"), UNKNOWN_PLACES, ids=[place for _, place in UNKNOWN_PLACES])
def test_a_field_that_keycloak_does_not_know_is_named_with_its_place(members: dict[str, Any], place: str) -> None:
    (notice,) = said(realm(**members))
    assert notice == Notice("made", f"it does not know the field `{place}`", refused=True)
    assert str(notice) == f"realm made: Keycloak does not import this file: it does not know the field `{place}`."


def test_an_older_server_knows_fewer_fields() -> None:
    document = realm(adminPermissionsEnabled=False)
    assert said(document) == ()
    assert said(document, "26.4.0") == ()  # which version brought the field is not known
    assert [notice.sentence for notice in said(document, "26.0.8")] == [
        "it does not know the field `adminPermissionsEnabled`"
    ]


def test_a_name_from_the_file_cannot_imitate_a_line() -> None:
    (notice,) = said(realm() | {"foo\n2026 ERROR": 1})
    assert "\n" not in str(notice)


PAIRWISE = mapper("sha256-pairwise-sub", "p")

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "script policy": (with_policy(type="js"), 'the policy "Default Policy" of the client c is a script (`type: js`)'),
    "policy of no user": (
        with_policy(type="user", config={"users": json.dumps(["Dora", "d-1", "nobody"])}),
        "names the user nobody, and there is none",
    ),
    "policy of no client": (
        with_policy(type="client", config={"clients": json.dumps(["c", "account", "none"])}),
        "names the client none, and there is none",
    ),
    "provider over http": (with_provider("http://idp"), "the identity provider x has an http URL in `tokenUrl`"),
    "provider over http, all": (with_provider("http://idp", sslRequired="ALL"), "Use https, or set `sslRequired`"),
    "no flow": ({"browserFlow": "own"}, "`browserFlow` names the flow own"),
    "denylist": ({"passwordPolicy": "length(8) and passwordBlacklist(x.txt)"}, "a file with denied passwords"),
    "mapper twice": (
        {"clients": [caller("c", protocolMappers=[MAPPER, MAPPER])]},
        'the mapper "claim a" of the client c is there twice',
    ),
    "flow of a client": (
        {"clients": [caller("c", authenticationFlowBindingOverrides={"browser": "mine"})]},
        "the client c names the flow mine for `browser`",
    ),
    "protocol": ({"clients": [caller("c", protocol="docker-v2")]}, "the client c has the protocol docker-v2"),
    **{
        f"URL: {url}": ({"clients": [caller("c", redirectUris=[url])]}, "which it does not accept")
        for url in ("http://a/#x", "JavaScript:x", "data:x", "http://a b/*", "http://a/${X}", "http://a/%zz", "http:")
    },
    **{
        f"{member}: {url}": ({"clients": [caller("c", **{member: url})]}, "which it does not accept")
        for member, url in (
            ("rootUrl", "localhost:3000"),
            ("rootUrl", "www.x.example"),
            ("rootUrl", "myapp://x"),
            ("rootUrl", "${env}"),
            ("rootUrl", "http://a/#x"),
            ("baseUrl", "realms/x"),
            ("adminUrl", "x y"),
        )
    },
    **{
        f"{name}: {value}": (
            {"clients": [caller("c", attributes={name: value})]},
            "of the client c" if "acr" in name else "which it does not accept",
        )
        for name, value in (
            ("post.logout.redirect.uris", "http://a##http://b/#x"),
            ("backchannel.logout.url", "nope"),
            ("jwks.url", "nope"),
            ("policyUri", "x y"),
            ("acr.loa.map", "x"),
            ("acr.loa.map", '{"a": "x"}'),
            ("default.acr.values", "gold"),
            ("minimum.acr.value", "gold"),
        )
    },
    "session of a client": (
        {"clients": [caller("c", attributes={"client.session.idle.timeout": "1801"})]},
        "`client.session.idle.timeout` of the client c is longer than `ssoSessionIdleTimeout`",
    ),
    "pairwise without a host": ({"clients": [caller("c", protocolMappers=[PAIRWISE])]}, "redirect URIs of one host"),
    "pairwise with two hosts": (
        {"clients": [caller("c", redirectUris=["https://a/*", "https://b/*"], protocolMappers=[PAIRWISE])]},
        "redirect URIs of one host",
    ),
    "pairwise with a sector": (
        {
            "clients": [
                caller("c", protocolMappers=[mapper("sha256-pairwise-sub", "p", sectorIdentifierUri="https://s")])
            ]
        },
        "which the server fetches when it imports the file",
    ),
    "mapper without protocol": (
        {"clientScopes": [scope("s", {**MAPPER, "protocol": None})]},
        'the mapper "claim a" of the client scope s has no protocol',
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_why_keycloak_refuses_a_file_is_said(case: str) -> None:
    members, sentence = REFUSED[case]
    found = [notice.sentence for notice in said(realm(**members)) if notice.refused]
    assert len(found) == 1
    assert sentence in found[0]


@pytest.mark.parametrize("case", ["protocol", "session of a client", "URL: http://a/#x"])
def test_an_older_server_has_fewer_reasons(case: str) -> None:
    document = realm(**REFUSED[case][0])
    old = notices(document, RealmModel.read(document, version="26.0.8"))
    assert any(notice.refused for notice in old) is case.startswith("URL")


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "disabled": ({"enabled": None}, "the realm is not enabled"),
    "https only": ({"sslRequired": "ALL"}, "`sslRequired` is all"),
    "frontend URL": ({"attributes": {"frontendUrl": "https://sso/auth"}}, "`frontendUrl` makes https://sso/auth"),
    "masked secret": (
        {"clients": [caller(name, secret="**********") for name in "abcde"]},
        "the mask ********** as the secret of a, b, c and 2 more",
    ),
    "mTLS": (
        {"clients": [caller("c", attributes={"tls.client.certificate.bound.access.tokens": "true"})]},
        "a client certificate from c",
    ),
    "empty secret": ({"clients": [caller("c", secret="")]}, "the secret of c is empty"),
    "user profile": (
        {
            "components": {
                "org.keycloak.userprofile.UserProfileProvider": [
                    {
                        "config": {
                            "kc.user.profile.config": [
                                '{"attributes": [{"name": "plate", "validations": {"pattern": {}}}, {"name": "x", "validations": {"length": {}}}]}'
                            ]
                        }
                    }
                ]
            }
        },
        "the user profile has rules for plate",
    ),
    "hash": ({"users": [user("dora", credentials=[{"type": "password", "secretData": "x"}])]}, "password of dora"),
    "second factor": (
        {"users": [user("dora", credentials=[{"type": "password", "value": "p"}, {"type": "otp"}])]},
        "it asks dora for more than a password",
    ),
    "login flow": (
        {"directGrantFlow": "own", "authenticationFlows": [{"alias": "own"}]},
        '`directGrantFlow` is own. The embedded issuer does what the flow "direct grant" does',
    ),
    "client flow": (
        {"clientAuthenticationFlow": "own", "authenticationFlows": [{"alias": "own"}]},
        "`clientAuthenticationFlow` is own.",
    ),
    "login flow of a client": (
        {
            "clients": [caller("c", authenticationFlowBindingOverrides={"direct_grant": "id"})],
            "authenticationFlows": [{"id": "id", "alias": "own"}],
        },
        "c has a flow of its own for logins",
    ),
    "LDAP": ({"components": {"org.keycloak.storage.UserStorageProvider": [{"name": "ldap"}]}}, "such as LDAP"),
    "organizations": ({"organizationsEnabled": True}, "it has organizations"),
    "applications": ({"applications": [{"name": "a"}]}, "`applications` is a form of very old exports"),
    "application roles": ({"roles": {"application": {"a": [{"name": "r"}]}}}, "`roles.application` is a form"),
    "application roles of a user": (
        {"users": [user("dora", applicationRoles={"a": ["r"]})]},
        "`applicationRoles` is a form",
    ),
    "config-cli": ({"clients": [caller("c", secret="$(env:X)")]}, "placeholder of keycloak-config-cli"),
    "unknown mapper": (
        {"clients": [caller(name, protocolMappers=[mapper("script-x.js", "s")]) for name in "ab"]},
        "tokens of a, b: the mapper 's' is of the kind",
    ),
    "unknown mapper in an optional scope": (
        {
            "clientScopes": [scope("s", mapper("script-x.js", "s"))],
            "clients": [caller("c", optionalClientScopes=["s", "offline_access"])],
        },
        "tokens of c: the mapper 's'",
    ),
    "unknown mapper for users": (
        {
            "clients": [
                {
                    "clientId": "ui",
                    "publicClient": True,
                    "directAccessGrantsEnabled": True,
                    "protocolMappers": [mapper("script-x.js", "s")],
                },
                caller("c"),
            ],
            "users": [service_account("c"), user("dora")],
        },
        "tokens of ui: the mapper 's'",
    ),
    "client policy": (
        {"clients": [caller("c")], "clientPolicies": {"policies": [{"name": "p", "enabled": True}]}},
        "the client policy 'p' may refuse a request",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_how_keycloak_may_answer_otherwise_is_said_once(case: str) -> None:
    members, sentence = DIFFERENT[case]
    (found,) = said(realm(**members))
    assert sentence in str(found)
    assert not found.refused
    assert str(found).startswith("realm made: Keycloak may answer in another way: ")


@pytest.mark.parametrize(
    "members",
    [
        with_policy(type="role"),
        with_policy(type="user", config={"users": "no JSON"}),
        with_provider("https://idp"),
        with_provider("http://idp", sslRequired="NONE"),
        {"browserFlow": "browser", "directGrantFlow": "direct grant", "clientAuthenticationFlow": "clients"},
        {
            "clients": [
                caller("c", authenticationFlowBindingOverrides={"browser": "id"}, attributes={"acr.loa.map": "{}"})
            ],
            "authenticationFlows": [{"id": "id", "alias": "own"}],
        },
        {"clients": [caller("c", authenticationFlowBindingOverrides={"browser": ""}, protocol="saml")]},
        {
            "clients": [
                caller("c", redirectUris=["*", "/x", "", "http://*", "myapp://x", "http://ä/ü", "http://a:80*/"])
            ]
        },
        {"clients": [caller("c", rootUrl="${authBaseUrl}", baseUrl="/x", adminUrl="/y")]},
        {"clients": [caller("c", attributes={"logoUri": "http://a#x", "post.logout.redirect.uris": "+"})]},
        {"clients": [caller("c", attributes={"acr.loa.map": '{"a": "1"}', "default.acr.values": "a##2"})]},
        {
            "clients": [caller("c", attributes={"minimum.acr.value": "gold"})],
            "attributes": {"acr.loa.map": '{"gold":2}'},
        },
        {"clients": [caller("c", attributes={"client.session.idle.timeout": "1800"})]},
        {
            "rememberMe": True,
            "ssoSessionIdleTimeoutRememberMe": 4000,
            "clients": [caller("c", attributes={"client.session.idle.timeout": "4000"})],
        },
        {"attributes": {"acr.loa.map": "[]"}, "clients": [caller("c")]},
        {"clients": [caller("c", redirectUris=["https://a/x", "https://a/y"], protocolMappers=[PAIRWISE])]},
        {"users": [user("dora", credentials=[{"value": "p"}])]},
        {"browserFlow": "own", "authenticationFlows": [{"alias": "own"}]},
        {"passwordPolicy": "length(8)"},
        {"sslRequired": "external"},
        {"clients": [caller("c", secret="s*")]},
        {"clients": [caller("c", attributes={"dpop.bound.access.tokens": "false"})]},
        {"clients": [caller("c", attributes={"dpop.bound.access.tokens": True})]},
    ],
)
def test_of_what_is_right_nothing_is_said(members: dict[str, Any]) -> None:
    assert said(realm(**members)) == ()


def test_before_26_4_a_client_that_must_prove_its_key_gets_tokens_without_one() -> None:
    document = realm(clients=[caller("c", attributes={"dpop.bound.access.tokens": True}), caller("d")])
    for version, told in (("26.0.8", True), ("26.3.5", True), ("26.4.0", False), ("26.7.3", False)):
        found = notices(document, RealmModel.read(document, version=version))
        assert [("binds tokens of c to a key" in str(notice), notice.refused) for notice in found] == [
            (True, False)
        ] * told


OWN = [scope("own"), scope("with space")]
EXPORT = {"keycloakVersion": "24.0.0", "clientScopes": OWN}
MISSING: dict[str, tuple[dict[str, Any], Any, str]] = {
    "default": (
        {"clientScopes": OWN},
        "owm",
        "it knows no client scope owm, so the tokens of c lack what that would bring",
    ),
    "built-in": ({"clientScopes": OWN}, "email", "has the list `clientScopes`, so the realm has only the scopes in it"),
    "without the array": ({}, "owm", "it knows no client scope owm"),
    "null": ({}, None, "it knows no client scope None"),
    "a scope of the file": ({"clientScopes": OWN}, "own", ""),
    "a name with a space": ({"clientScopes": OWN}, "with_space", ""),
    "offline_access": ({"clientScopes": OWN}, "offline_access", ""),
    "built-in without the array": ({}, "service_account", ""),
    "built-in of SAML": ({}, "role_list", ""),
    "what a migration adds": (EXPORT, "basic", ""),
}


@pytest.mark.parametrize("key", ["defaultClientScopes", "optionalClientScopes"])
@pytest.mark.parametrize("case", MISSING)
def test_a_client_scope_that_is_not_there_is_said_to_be_ignored(case: str, key: str) -> None:
    members, name, sentence = MISSING[case]
    found = said(realm(**members, clients=[caller("c", **{key: [name]})]))

    assert [sentence in notice.sentence for notice in found] == [True] * bool(sentence)
    assert all(str(notice).startswith("realm made: Keycloak ignores a part of this file: it ") for notice in found)


def test_clients_that_lack_the_same_scopes_are_in_one_sentence() -> None:
    clients = [caller(name, defaultClientScopes=["x", "y"]) for name in "ab"]
    (notice,) = said(realm(clients=[*clients, caller("c", defaultClientScopes=["email"])]))

    assert notice.sentence == "it knows no client scope x, y, so the tokens of a, b lack what that would bring"


def test_26_0_needs_no_scope_for_the_claim_client_id() -> None:
    document = realm(clientScopes=OWN, clients=[caller("c", defaultClientScopes=["service_account"])])

    assert (len(said(document)), said(document, "26.0.8")) == (1, ())


@pytest.mark.parametrize("name", REALMS)
def test_no_field_of_our_own_realms_is_unknown(name: str) -> None:
    assert not any(notice.refused for notice in said(REALMS[name]()))


def test_no_secret_is_in_a_notice() -> None:
    clients = [caller("c", secret="hunter2", foo="hunter2", registrationAccessToken="hunter2")]
    users = [user("dora", credentials=[{"type": "password", "value": "hunter2", "bar": "hunter2"}])]
    assert len(said(realm(clients=clients, users=users))) == 2
    assert "hunter2" not in repr(said(realm(clients=clients, users=users)))

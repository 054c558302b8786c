"""Realms that exercise the rules of a token, small enough to read: the model is asked about them here, and real servers elsewhere.

Every secret is "s", and every password "p".
"""

from collections.abc import Mapping
from typing import Any

__all__ = [
    "ODD_SCOPES",
    "REALMS",
    "REFUSED",
    "audience",
    "caller",
    "claim",
    "mapper",
    "realm",
    "role_claim",
    "scope",
    "service_account",
]

Representation = dict[str, Any]
ON = {"access.token.claim": "true"}

ODD_SCOPES = [
    "",
    " ",
    "   ",
    "openid",
    "openid ",
    " openid",
    "openid  openid",
    "openid openid",
    "OPENID",
    "\t",
    "nope",
    "openid nope",
]
"""Asked of every client."""


def realm(name: str = "made", **members: Any) -> Representation:
    return {"realm": name, "enabled": True, **members}


def caller(client_id: str, **members: Any) -> Representation:
    """A confidential client with a service account."""
    return {"clientId": client_id, "secret": "s", "publicClient": False, "serviceAccountsEnabled": True, **members}


def service_account(client_id: str, **members: Any) -> Representation:
    username = f"service-account-{client_id.lower()}"
    return {"username": username, "enabled": True, "serviceAccountClientId": client_id, **members}


def user(username: str, **members: Any) -> Representation:
    names = {"email": f"{username}@example.org", "firstName": "First", "lastName": "Last"}
    credentials = [{"type": "password", "value": "p", "temporary": False}]
    return {"username": username, "enabled": True, **names, "credentials": credentials, **members}


def mapper(kind: str, name: str = "", /, **config: Any) -> Representation:
    """A protocol mapper; ``config`` has underscores for dots, and what is in `ON` unless it says otherwise."""
    given = {**ON, **{key.replace("_", "."): value for key, value in config.items()}}
    return {
        "name": name or f"{kind} {sorted(config.items(), key=str)}",
        "protocol": "openid-connect",
        "protocolMapper": f"oidc-{kind}-mapper",
        "config": {key: value for key, value in given.items() if value is not None},
    }


def audience(client: str | None = None, custom: str | None = None, **config: Any) -> Representation:
    return mapper("audience", included_client_audience=client, included_custom_audience=custom, **config)


def claim(name: str, value: str, kind: str = "String", **config: Any) -> Representation:
    return mapper("hardcoded-claim", f"claim {name}", claim_name=name, claim_value=value, jsonType_label=kind, **config)


def role_claim(whose: str, name: str, **config: Any) -> Representation:
    given = {"claim_name": name, "multivalued": "true", "jsonType_label": "String", **config}
    return mapper(f"usermodel-{whose}-role", f"{whose} roles as {name} {sorted(config.items())}", **given)


def scope(name: str, *mappers: Representation, shown: str | None = "true", **members: Any) -> Representation:
    attributes = {} if shown is None else {"include.in.token.scope": shown}
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": attributes,
        "protocolMappers": list(mappers),
        **members,
    }


BASIC = scope("basic", mapper("sub", "sub"), shown="false")
ROLES = scope(
    "roles",
    role_claim("realm", "realm_access.roles"),
    role_claim("client", "resource_access.${client_id}.roles"),
    mapper("audience-resolve", "audience resolve"),
    shown="false",
)
SERVICE_ACCOUNT = scope(
    "service_account",
    mapper("usersessionmodel-note", "Client ID", user_session_note="client_id", claim_name="client_id"),
    shown="false",
)


def _several(prefix: str, **clients: Mapping[str, Any]) -> list[Representation]:
    return [caller(f"{prefix}-{name.replace('_', '-')}", **members) for name, members in clients.items()]


def built_in() -> Representation:
    """No array ``clientScopes``: all built-ins are there. Mappers sit on the clients."""
    light = {"client.use.lightweight.access.token.enabled": "true"}
    token = role_claim("client", "resource_access.${client_id}.roles")
    only = {"defaultClientScopes": ["roles"]}
    return realm(
        "builtin",
        accessTokenLifespan=120,
        ssoSessionMaxLifespan=5000,
        roles={
            "realm": [
                {"name": "plain"},
                {"name": "inner"},
                {"name": "outer", "composites": {"realm": ["inner"], "client": {"target": ["deep"]}}},
                {"name": "dot.ted"},
            ],
            "client": {
                "target": [
                    {"name": "read"},
                    {"name": "write"},
                    {"name": "deep"},
                    {"name": "admin", "composites": {"client": {"target": ["read", "write"]}}},
                ],
                "other": [{"name": "x", "composites": {"realm": ["plain"]}}],
                "dotted.client": [{"name": "r"}],
                "own-roles": [
                    {"name": "mine", "composites": {"client": {"target": ["read"]}}},
                    {"name": "unused", "composites": {"client": {"target": ["write"]}}},
                ],
            },
        },
        groups=[
            {
                "name": "teams",
                "realmRoles": ["plain"],
                "attributes": {"colour": ["red"]},
                "subGroups": [
                    {"name": "core", "clientRoles": {"target": ["admin"]}, "subGroups": [{"name": "inside"}]}
                ],
            },
            {"name": "everyone", "clientRoles": {"other": ["x"]}},
        ],
        defaultGroups=["/everyone"],
        clients=[
            {"clientId": "target", "secret": "s", "publicClient": False},
            {"clientId": "other", "secret": "s", "publicClient": False},
            {"clientId": "dotted.client", "secret": "s", "publicClient": False},
            {"clientId": "off", "secret": "s", "enabled": False, "publicClient": False, "serviceAccountsEnabled": True},
            {"clientId": "bearer", "secret": "s", "bearerOnly": True, "serviceAccountsEnabled": True},
            {
                "clientId": "public",
                "publicClient": True,
                "serviceAccountsEnabled": True,
                "directAccessGrantsEnabled": True,
            },
            {
                "clientId": "saml",
                "protocol": "saml",
                "secret": "s",
                "publicClient": False,
                "serviceAccountsEnabled": True,
            },
            caller("jwt", clientAuthenticatorType="client-jwt"),
            caller("secret-jwt", clientAuthenticatorType="client-secret-jwt"),
            caller("x509", clientAuthenticatorType="client-x509"),
            caller("made"),
            caller("made-narrow", fullScopeAllowed=False),
            caller("MixedCase.Svc"),
            caller("consent", consentRequired=True),
            caller("consent-full", consentRequired=True, fullScopeAllowed=True),
            caller("not-before", notBefore=1000),
            caller("listed"),
            caller("listed-empty"),
            caller("listed-narrow", fullScopeAllowed=False),
            caller("listed-off"),
            caller("listed-unsaid"),
            caller("own-roles", fullScopeAllowed=False),
            caller("mapped", fullScopeAllowed=False),
            caller("grouped"),
            caller("undeclared"),
            caller("dotted.roles"),
            # Rule 5
            caller("default-only", defaultClientScopes=["roles", "no such scope"]),
            caller("optional-only", optionalClientScopes=["roles", "email", "microprofile-jwt", "organization"]),
            caller("both-lists", defaultClientScopes=["email"], optionalClientScopes=["email", "address", "phone"]),
            caller("no-scopes", defaultClientScopes=[], optionalClientScopes=[]),
            caller("listed-no-scopes", defaultClientScopes=[], optionalClientScopes=[]),
            caller("service-account-optional", defaultClientScopes=["basic"], optionalClientScopes=["service_account"]),
            caller("organization-default", defaultClientScopes=["organization", "address"]),
            # Rule 10
            *_several(
                "aud",
                client={"protocolMappers": [audience("target")]},
                both={"protocolMappers": [audience("target", "https://custom")]},
                empty={"protocolMappers": [audience("", "https://custom")]},
                none={"protocolMappers": [audience(), audience("", "")]},
                missing={
                    "protocolMappers": [
                        audience("no-such-client"),
                        audience("TARGET"),
                        audience("off"),
                        audience("a b"),
                    ]
                },
                flag={
                    "protocolMappers": [
                        audience("target", access_token_claim="True"),
                        audience("other", access_token_claim="false"),
                        audience("dotted.client", access_token_claim=None, id_token_claim="true"),
                    ]
                },
                self={"protocolMappers": [audience("aud-self")]},
                twice={"protocolMappers": [audience("target"), audience(None, "target")]},
                saml={"protocolMappers": [{**audience("target"), "protocol": "saml"}]},
                resolved_self={"fullScopeAllowed": True},
            ),
            # Rule 9
            *_several(
                "hard",
                role={"protocolMappers": [mapper("hardcoded-role", role="target.read")], "fullScopeAllowed": False},
                composite={"protocolMappers": [mapper("hardcoded-role", role="target.admin")]},
                missing={
                    "protocolMappers": [
                        mapper("hardcoded-role", role="target.nope"),
                        mapper("hardcoded-role", role="nope.nope"),
                    ]
                },
                realm={
                    "protocolMappers": [mapper("hardcoded-role", role="plain"), mapper("hardcoded-role", role="outer")]
                },
                dotted={
                    "protocolMappers": [
                        mapper("hardcoded-role", role="dotted.client.r"),
                        mapper("hardcoded-role", role="dot.ted"),
                    ]
                },
                self={"protocolMappers": [mapper("hardcoded-role", role="hard-self.read")]},
                flag={"protocolMappers": [mapper("hardcoded-role", role="target.read", access_token_claim="false")]},
                light={
                    "protocolMappers": [
                        mapper("hardcoded-role", role="target.read"),
                        {**token, "config": {**token["config"], "lightweight.claim": "true"}},
                        mapper("audience-resolve", lightweight_claim="true"),
                    ],
                    "attributes": light,
                },
                renamed={
                    "protocolMappers": [
                        mapper("hardcoded-role", role="target.read"),
                        mapper("role-name", role="target.read", new_role_name="target.renamed"),
                    ]
                },
            ),
            *_several(
                "name",
                moved={
                    "protocolMappers": [mapper("role-name", role="account.view-profile", new_role_name="other.seen")]
                },
                to_realm={"protocolMappers": [mapper("role-name", role="account.view-profile", new_role_name="seen")]},
                realm={"protocolMappers": [mapper("role-name", role="plain", new_role_name="target.from-realm")]},
                emptied={
                    "protocolMappers": [
                        mapper("role-name", role="other.x", new_role_name="y", access_token_claim="false")
                    ]
                },
                absent={"protocolMappers": [mapper("role-name", role="target.read", new_role_name="target.never")]},
            ),
            # Rules 11 and 12
            *_several(
                "claim",
                azp={"protocolMappers": [claim("azp", "somebody")]},
                sub={"protocolMappers": [claim("sub", "subject")], "defaultClientScopes": []},
                sid={"protocolMappers": [claim("sid", "session"), claim("nbf", "1", "long")]},
                fixed={
                    "protocolMappers": [claim(name, "changed") for name in ("scope", "typ", "iss", "exp", "iat", "jti")]
                },
                aud={"protocolMappers": [claim("aud", "hard")], "defaultClientScopes": []},
                aud_resolved={"protocolMappers": [claim("aud", "hard")]},
                nested={
                    "protocolMappers": [
                        claim("a.b.c", "1"),
                        claim("a.b.d", "2"),
                        claim("e\\.f", "3"),
                        claim("azp.x", "4"),
                    ]
                },
                typed={
                    "protocolMappers": [
                        claim("long", "12", "long"),
                        claim("int", "-3", "int"),
                        claim("yes", "TRUE", "boolean"),
                        claim("no", "yes", "boolean"),
                        claim("json", '{"a": [1, null]}', "JSON"),
                        claim("list", '["a", "b"]', "JSON"),
                        claim("text", "12"),
                        claim("odd", "12", "something"),
                        claim("empty", ""),
                    ]
                },
                off={
                    "protocolMappers": [
                        claim("off", "1", access_token_claim="false"),
                        claim("id", "1", access_token_claim=None, id_token_claim="true"),
                    ]
                },
                flat={"protocolMappers": [role_claim("realm", "roles"), role_claim("client", "roles")], **only},
                prefixed={
                    "protocolMappers": [
                        role_claim("realm", "r", usermodel_realmRoleMapping_rolePrefix="realm:"),
                        role_claim(
                            "client",
                            "c",
                            usermodel_clientRoleMapping_clientId="account",
                            usermodel_clientRoleMapping_rolePrefix="acc_",
                        ),
                    ]
                },
                client_prefix={
                    "protocolMappers": [
                        role_claim("client", "c", usermodel_clientRoleMapping_rolePrefix="${client_id}/")
                    ]
                },
                single={
                    "protocolMappers": [
                        role_claim("client", "one", usermodel_clientRoleMapping_clientId="other", multivalued="false")
                    ]
                },
                unmapped={
                    "protocolMappers": [role_claim("client", "none", usermodel_clientRoleMapping_clientId="target")]
                },
                attributes={
                    "protocolMappers": [
                        mapper("usermodel-attribute", user_attribute="username", claim_name="me"),
                        mapper("usermodel-attribute", user_attribute="team", claim_name="team", multivalued="true"),
                        mapper("usermodel-attribute", user_attribute="team", claim_name="first"),
                        mapper("usermodel-attribute", user_attribute="level", claim_name="level", jsonType_label="int"),
                        mapper("usermodel-attribute", user_attribute="nothing", claim_name="nothing"),
                        mapper(
                            "usermodel-property", user_attribute="enabled", claim_name="on", jsonType_label="boolean"
                        ),
                        mapper("usermodel-property", user_attribute="username", claim_name="name_of"),
                        mapper("group-membership", "groups", claim_name="paths", full_path="true"),
                        mapper("group-membership", "names", claim_name="names", full_path="false"),
                    ]
                },
                notes={
                    "protocolMappers": [
                        mapper("usersessionmodel-note", user_session_note=note, claim_name=f"note {note}")
                        for note in ("clientId", "client_id", "AUTH_TIME", "nothing")
                    ]
                },
                unflagged={
                    "protocolMappers": [
                        mapper(kind, access_token_claim=None)
                        for kind in ("acr", "allowed-origins", "audience-resolve", "sub", "full-name")
                    ],
                    "webOrigins": ["http://w"],
                    "defaultClientScopes": [],
                },
            ),
            # Rule 13
            *_several(
                "light",
                plain={"attributes": light},
                flagged={
                    "attributes": light,
                    "protocolMappers": [
                        audience("target", lightweight_claim="true"),
                        audience("other"),
                        audience("off", access_token_claim=None, lightweight_claim="true"),
                        claim("x", "1", lightweight_claim="true"),
                    ],
                },
                no_scopes={"attributes": light, "defaultClientScopes": []},
            ),
            # Rule 14
            *_several(
                "life",
                own={"attributes": {"access.token.lifespan": "60"}},
                blank={"attributes": {"access.token.lifespan": " "}},
                session={"attributes": {"access.token.lifespan": "-1"}},
                capped={"attributes": {"access.token.lifespan": "100000"}},
                client_capped={"attributes": {"access.token.lifespan": "100000", "client.session.max.lifespan": "70"}},
                below={"attributes": {"client.session.max.lifespan": "4000"}},
            ),
            # The answer
            caller("refresh", attributes={"client_credentials.use_refresh_token": "true"}),
            caller("refresh-listed", attributes={"client_credentials.use_refresh_token": "true"}),
            caller("header", attributes={"access.token.header.type.rfc9068": "true"}),
            caller("lower", attributes={"token.response.type.bearer.lower-case": "true"}),
            caller("es256", attributes={"access.token.signed.response.alg": "ES256"}),
            *_several(
                "origins",
                listed={"webOrigins": ["http://a", "http://b"]},
                plus={
                    "webOrigins": ["+", "http://w"],
                    "redirectUris": ["http://y:8080/*", "https://z/a", "/rel/*"],
                    "rootUrl": "http://root:1/x",
                },
                redirects={"redirectUris": ["http://y:8080/*", "/rel/*"], "rootUrl": "http://root:1"},
                empty={"webOrigins": [], "redirectUris": ["http://y:8080/*"]},
            ),
            # Users
            caller("login", directAccessGrantsEnabled=True),
            caller("login-narrow", directAccessGrantsEnabled=True, fullScopeAllowed=False),
            caller("login-no-scopes", directAccessGrantsEnabled=True, defaultClientScopes=[]),
            caller("login-no-refresh", directAccessGrantsEnabled=True, attributes={"use.refresh.tokens": "false"}),
            caller("login-consent", directAccessGrantsEnabled=True, consentRequired=True),
            caller("login-light", directAccessGrantsEnabled=True, attributes=light),
        ],
        clientScopeMappings={
            "target": [{"client": "mapped", "roles": ["admin"]}],
            "account": [{"client": "mapped", "roles": ["manage-account"]}],
        },
        scopeMappings=[{"client": "mapped", "roles": ["outer"]}, {"client": "login-narrow", "roles": ["plain"]}],
        users=[
            service_account("listed", realmRoles=["outer"], clientRoles={"target": ["admin"], "other": ["x"]}),
            service_account("listed-empty"),
            service_account("listed-narrow", realmRoles=["outer"], clientRoles={"target": ["admin"]}),
            service_account("listed-off", enabled=False),
            {"username": "service-account-listed-unsaid", "serviceAccountClientId": "listed-unsaid"},
            service_account("own-roles", clientRoles={"own-roles": ["mine"], "target": ["read", "write"]}),
            service_account(
                "mapped",
                realmRoles=["inner", "plain"],
                clientRoles={"target": ["read", "deep"], "account": ["manage-account", "view-profile"]},
            ),
            service_account("grouped", groups=["/teams/core/inside", "/everyone"]),
            service_account("undeclared", realmRoles=["from-nowhere"], clientRoles={"target": ["nobody-declared"]}),
            service_account("dotted.roles", realmRoles=["dot.ted"], clientRoles={"dotted.client": ["r"]}),
            service_account("listed-no-scopes", realmRoles=["plain"]),
            service_account("refresh-listed"),
            service_account(
                "claim-attributes", attributes={"team": ["a", "b"], "level": ["7"]}, groups=["/teams/core"]
            ),
            user(
                "dora",
                realmRoles=["plain"],
                clientRoles={"target": ["read"]},
                attributes={"locale": ["de"]},
                emailVerified=True,
            ),
            user("Upper", realmRoles=["default-roles-builtin"]),
            user("blocked", enabled=False),
            user("to-do", requiredActions=["UPDATE_PASSWORD"]),
            user("nameless", firstName=None),
        ],
    )


def listed() -> Representation:
    """An array ``clientScopes``: nothing but what it lists, and offline_access."""
    return realm(
        "listed",
        accessTokenLifespan=200,
        notBefore=77,
        defaultDefaultClientScopes=["basic", "roles", "shown", "no such scope"],
        defaultOptionalClientScopes=["hidden", "by-role"],
        clientScopes=[
            BASIC,
            ROLES,
            SERVICE_ACCOUNT,
            scope("shown"),
            scope("hidden", audience("target"), shown="false"),
            scope("unsaid", shown=None),
            scope("with space", audience("target")),
            scope("by-role", audience("target")),
            scope("by-composite", audience("target", "https://x")),
            scope("by-inner", audience(None, "https://inner")),
            scope("by-realm-role", audience(None, "https://realm")),
            scope("by-two", audience(None, "https://two")),
            scope("widening"),
            scope("two-audiences", audience("target"), audience(None, "https://y")),
            scope("saml", protocol="saml"),
            {**scope("protocol-less", audience("target")), "protocol": None},
            scope("more-roles", role_claim("client", "resource_access.${client_id}.roles")),
            scope("hard-role", mapper("hardcoded-role", role="target.read")),
        ],
        roles={
            "realm": [{"name": "plain"}, {"name": "inner"}, {"name": "outer", "composites": {"realm": ["inner"]}}],
            "client": {
                "target": [
                    {"name": "read"},
                    {"name": "write"},
                    {"name": "admin", "composites": {"client": {"target": ["read", "write"]}}},
                ]
            },
        },
        scopeMappings=[
            {"clientScope": "by-realm-role", "roles": ["plain"]},
            {"clientScope": "by-inner", "roles": ["inner"]},
            {"clientScope": "by-two", "roles": ["plain", "outer"]},
        ],
        clientScopeMappings={
            "target": [
                {"clientScope": "by-role", "roles": ["read"]},
                {"clientScope": "by-composite", "roles": ["admin"]},
                {"clientScope": "widening", "roles": ["admin"]},
            ]
        },
        clients=[
            {"clientId": "target", "secret": "s", "publicClient": False},
            caller("no-lists"),
            caller("no-lists-listed"),
            caller("empty-lists", defaultClientScopes=[], optionalClientScopes=[]),
            caller("empty-lists-listed", defaultClientScopes=[], optionalClientScopes=[]),
            *(
                caller(
                    f"{name}{'-narrow' if narrow else ''}",
                    fullScopeAllowed=not narrow,
                    defaultClientScopes=["basic", "roles"],
                    optionalClientScopes=[
                        "by-role",
                        "by-composite",
                        "by-inner",
                        "by-realm-role",
                        "by-two",
                        "widening",
                        "offline_access",
                    ],
                )
                for name in ("nobody", "reader", "composed")
                for narrow in (False, True)
            ),
            caller("defaults-drop", defaultClientScopes=["basic", "by-role", "by-realm-role", "service_account"]),
            caller(
                "no-roles-scope",
                defaultClientScopes=["basic", "service_account"],
                optionalClientScopes=["by-role", "widening"],
            ),
            caller(
                "names",
                optionalClientScopes=[
                    "with space",
                    "with_space",
                    "saml",
                    "protocol-less",
                    "unsaid",
                    "hidden",
                    "two-audiences",
                ],
            ),
            caller("extra", defaultClientScopes=["more-roles"], optionalClientScopes=["hard-role", "roles"]),
            caller("login", directAccessGrantsEnabled=True, optionalClientScopes=["by-role", "offline_access"]),
        ],
        users=[
            service_account("no-lists-listed", clientRoles={"target": ["read"]}),
            service_account("empty-lists-listed", clientRoles={"target": ["read"]}),
            *(service_account(f"nobody{narrow}") for narrow in ("", "-narrow")),
            *(
                service_account(f"reader{narrow}", realmRoles=["inner"], clientRoles={"target": ["read"]})
                for narrow in ("", "-narrow")
            ),
            *(
                service_account(
                    f"composed{narrow}",
                    realmRoles=["outer", "plain", "offline_access"],
                    clientRoles={"target": ["admin"]},
                )
                for narrow in ("", "-narrow")
            ),
            service_account("defaults-drop", realmRoles=["plain"]),
            service_account("no-roles-scope", clientRoles={"target": ["admin"]}),
            user("dora", clientRoles={"target": ["read"]}),
            user("old-hand", realmRoles=["default-roles-listed"]),
        ],
    )


def bare() -> Representation:
    """No scopes at all, and a default role that is declared without being named as one (rule 16)."""
    return realm(
        "bare",
        clientScopes=[],
        roles={
            "realm": [
                {"name": "default-roles-bare", "composites": {"realm": ["own-default"]}},
                {"name": "own-default"},
                {"name": "uma_authorization"},
            ]
        },
        clients=[
            caller("no-lists", protocolMappers=[role_claim("realm", "roles")]),
            caller("no-lists-listed", protocolMappers=[role_claim("realm", "roles")]),
            caller("asks", defaultClientScopes=["basic"], optionalClientScopes=["roles", "offline_access"]),
        ],
        users=[service_account("no-lists-listed", realmRoles=["default-roles-bare"])],
    )


def own_defaults() -> Representation:
    """The default role named and described, and Keycloak's own scope and client listed by hand."""
    return realm(
        "own",
        defaultRole={"name": "everybody"},
        clientScopes=[ROLES, scope("offline_access"), scope("plain")],
        defaultDefaultClientScopes=["roles", "offline_access"],
        roles={
            "realm": [
                {"name": "everybody", "composites": {"realm": ["member"], "client": {"account": ["view-profile"]}}},
                {"name": "member"},
                {"name": "offline_access"},
            ],
            "client": {"account": [{"name": "view-profile"}, {"name": "manage-account"}]},
        },
        clients=[
            {"clientId": "account", "publicClient": True, "fullScopeAllowed": False},
            caller("made"),
            caller("listed"),
        ],
        users=[service_account("listed", realmRoles=["everybody"])],
    )


def lives(name: str = "lives", **members: Any) -> Representation:
    """Rule 14 at its edges, and a realm that signs with another algorithm."""
    offline, own = "client.offline.session.max.lifespan", "client.session.max.lifespan"
    given = {
        "realm": {},
        "session": {"access.token.lifespan": "-1"},
        "none": {"access.token.lifespan": "0"},
        "blank": {"access.token.lifespan": " ", own: " "},
        "long": {"access.token.lifespan": "100000", own: "650", offline: "90"},
        "unset": {own: "0", offline: "-3"},
        "short": {own: "50", offline: "60"},
    }
    return realm(
        name,
        **members,
        accessTokenLifespan=100000,
        ssoSessionMaxLifespan=700,
        clientSessionMaxLifespan=600,
        clientOfflineSessionMaxLifespan=500,
        defaultSignatureAlgorithm="PS256",
        organizationsEnabled=True,
        clientScopes=[ROLES, scope("organization")],
        clients=[
            *(
                caller(name, attributes=attributes, optionalClientScopes=["offline_access"])
                for name, attributes in given.items()
            ),
            caller("made", optionalClientScopes=["organization"]),
        ],
    )


def offline_lives() -> Representation:
    """The same, where an offline session has an end."""
    return lives("offline", offlineSessionMaxLifespanEnabled=True, offlineSessionMaxLifespan=650)


REALMS = {
    "builtin": built_in,
    "listed": listed,
    "bare": bare,
    "own": own_defaults,
    "lives": lives,
    "offline": offline_lives,
}

_C = [caller("c")]
_R = [{"name": "r"}]
_REFUSED: dict[str, Representation] = {
    "two clients of one name": {"clients": [*_C, *_C]},
    "two scopes of one name": {"clientScopes": [scope("a"), scope("a")]},
    "two users of one name": {"users": [user("a"), user("A")]},
    "two accounts of one client": {"users": [service_account("c"), service_account("c", username="other")]},
    "a user in the way of a service account": {"users": [user("service-account-c")]},
    "an account of no client": {"users": [service_account("none")]},
    "an account's role of no client": {"users": [service_account("c", clientRoles={"none": ["r"]})]},
    "a group's role of no client": {"groups": [{"name": "g", "clientRoles": {"none": ["r"]}}]},
    "a role of no client": {"roles": {"client": {"none": _R}}},
    "a role inside that no client has": {
        "roles": {"realm": [{"name": "a", "composites": {"client": {"c": ["none"]}}}]}
    },
    "a role inside of no client": {"roles": {"realm": [{"name": "a", "composites": {"client": {"none": ["r"]}}}]}},
    "a role inside that the realm lacks": {"roles": {"realm": [{"name": "a", "composites": {"realm": ["none"]}}]}},
    "a mapping from no client": {"clientScopeMappings": {"none": [{"client": "c", "roles": ["r"]}]}},
    "a mapping to no client": {"clientScopeMappings": {"c": [{"client": "none", "roles": ["r"]}]}},
    "a mapping to no scope": {"scopeMappings": [{"clientScope": "none", "roles": ["r"]}]},
    "a mapping to a scope that the import renames": {
        "clientScopes": [scope("a b")],
        "scopeMappings": [{"clientScope": "a b", "roles": ["r"]}],
    },
    "a role inside that only an account's client has": {
        "roles": {"realm": [{"name": "a", "composites": {"client": {"account": ["none"]}}}]}
    },
    "a role inside of a listed account": {
        "clients": [*_C, {"clientId": "account", "publicClient": True}],
        "roles": {"realm": [{"name": "a", "composites": {"client": {"account": ["view-profile"]}}}]},
    },
    "uma_authorization inside, and not declared": {
        "roles": {"realm": [{"name": "a", "composites": {"realm": ["uma_authorization"]}}]}
    },
    "a scope in both lists": {
        "clientScopes": [scope("a")],
        "defaultDefaultClientScopes": ["a"],
        "defaultOptionalClientScopes": ["a"],
    },
    "a scope twice in a list": {"clientScopes": [scope("a")], "defaultOptionalClientScopes": ["a", "a"]},
    "a user of no group": {"users": [service_account("c", groups=["/none"])]},
    "no default group": {"groups": [{"name": "g"}], "defaultGroups": ["/none"]},
}
REFUSED = {reason: realm("refused", **{"clients": _C, **members}) for reason, members in _REFUSED.items()}
"""Documents that Keycloak does not import, by what is wrong with them."""

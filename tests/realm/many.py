"""Many realm files, as strangers write and export them: for the comparison of the realm model with real servers.

They are written by hand, for the rules of an import and for ordinary shapes, or made by a seed. Every secret is "s", and every password
"p", unless a file is about secrets and passwords. A file with ``refused`` is one that Keycloak does not import.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.realm.realms import (
    BASIC,
    ROLES,
    SERVICE_ACCOUNT,
    Representation,
    audience,
    caller,
    claim,
    mapper,
    role_claim,
    scope,
    service_account,
    user,
)

__all__ = ["FILES", "RealmFile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RealmFile:
    """A realm file of the comparison."""

    name: str
    what: str
    document: Representation = field(repr=False)
    said: tuple[str, ...] = ()
    """Parts of the notices that say how Keycloak answers in another way. Without them every answer must be equal."""
    refused: bool = False
    """Whether 26.7.3 does not import it."""

    def __str__(self) -> str:
        return self.name


def _file(
    name: str, what: str, /, *said: str, refused: bool = False, realm: str | None = None, **members: Any
) -> RealmFile:
    document = {"realm": name if realm is None else realm, "enabled": True, **members}
    return RealmFile(name=name, what=what, document=document, said=said, refused=refused)


def _without(document: Representation, *names: str) -> Representation:
    return {name: value for name, value in document.items() if name not in names}


def _role(name: str, /, realm: tuple[str, ...] = (), **client: list[str]) -> Representation:
    """A role; ``realm`` and ``client`` are what it contains, with underscores for dashes in the names of clients."""
    if not realm and not client:
        return {"name": name}
    inside = {"realm": list(realm), "client": {key.replace("_", "-"): value for key, value in client.items()}}
    return {"name": name, "composite": True, "composites": inside}


def _composite(name: str, **composites: Any) -> Representation:
    return {"name": name, "composite": True, "composites": composites}


def _login(client_id: str = "front", **members: Any) -> Representation:
    """A public client through which users log in with a password."""
    given = {"publicClient": True, "directAccessGrantsEnabled": True, "redirectUris": ["http://localhost:3000/*"]}
    return {"clientId": client_id, **given, "webOrigins": ["+"], **members}


def _policy(kind: str, name: str, **config: str) -> Representation:
    return {"name": name, "type": kind, "logic": "POSITIVE", "decisionStrategy": "UNANIMOUS", "config": config}


_USERS = [
    user("ann", realmRoles=["user"], clientRoles={"orders": ["read"]}, attributes={"team": ["blue", "green"]}),
    user("Bob.B", realmRoles=["user", "admin"], clientRoles={"orders": ["read", "write"]}, emailVerified=True),
    user("carol", groups=["/staff/leads"]),
    user("dark", enabled=False),
]


# Ordinary shapes


def _ordinary() -> Iterator[RealmFile]:
    yield _file("one-client", "one client, nothing else", clients=[caller("svc")])
    yield _file("no-clients", "no member but the name")
    yield _file(
        "services",
        "services with an audience scope for each",
        clientScopes=[
            BASIC,
            ROLES,
            SERVICE_ACCOUNT,
            *(scope(f"to-{name}", audience(name)) for name in ("orders", "stock", "mail")),
        ],
        defaultDefaultClientScopes=["basic", "roles"],
        clients=[
            caller("orders", defaultClientScopes=["basic", "roles", "to-stock"], optionalClientScopes=["to-mail"]),
            caller("stock", defaultClientScopes=["basic", "to-mail"], optionalClientScopes=["to-orders"]),
            caller("mail", optionalClientScopes=["to-orders", "to-stock"]),
            caller("new"),
            {"clientId": "api", "bearerOnly": True},
        ],
    )
    yield _file(
        "audience-mappers",
        "audience mappers by client and by name, in scopes and on clients",
        clientScopes=[
            BASIC,
            scope("both", audience("a", "https://ignored"), audience(None, "https://api.example.org/v1")),
            scope("gone", audience("no-such-client")),
            scope("off", audience("a", access_token_claim="false", id_token_claim="true")),
            scope("light", audience("a", lightweight_claim="true")),
        ],
        clients=[
            caller("a", optionalClientScopes=["both", "gone", "off", "light"], protocolMappers=[audience("a")]),
            caller("b", defaultClientScopes=["both", "gone"], protocolMappers=[audience(None, "a"), audience("b")]),
            caller("c", defaultClientScopes=["light"], protocolMappers=[audience(None, "urn:x y")]),
        ],
    )
    yield _file(
        "front-end",
        "a front end with users, roles of the realm and of a client, groups",
        clients=[
            _login(),
            caller("orders", directAccessGrantsEnabled=True),
            caller("batch", fullScopeAllowed=False),
            _login("narrow", fullScopeAllowed=False),
        ],
        roles={
            "realm": [_role("user"), _composite("admin", realm=["user"], client={"orders": ["write"]})],
            "client": {"orders": [_role("read"), _role("write"), _role("approve")]},
        },
        groups=[
            {
                "name": "staff",
                "realmRoles": ["user"],
                "subGroups": [{"name": "leads", "clientRoles": {"orders": ["approve"]}}],
            }
        ],
        users=_USERS,
    )
    yield _file(
        "everything-in-lists",
        "all scopes listed in the file, with users, and lists on each client",
        clientScopes=[
            BASIC,
            ROLES,
            SERVICE_ACCOUNT,
            scope("profile", mapper("usermodel-attribute", user_attribute="username", claim_name="preferred_username")),
            scope("email", mapper("usermodel-property", user_attribute="email", claim_name="email")),
            scope("groups", mapper("group-membership", claim_name="groups", full_path="false")),
            scope("teams", mapper("usermodel-attribute", user_attribute="team", claim_name="team", multivalued="true")),
        ],
        defaultDefaultClientScopes=["basic", "roles", "profile"],
        defaultOptionalClientScopes=["email", "groups", "offline_access"],
        clients=[
            _login(),
            caller("orders", directAccessGrantsEnabled=True, defaultClientScopes=["roles", "teams"]),
            caller("batch", optionalClientScopes=["email", "offline_access"]),
        ],
        roles={"realm": [_role("user"), _role("admin")], "client": {"orders": [_role("read"), _role("write")]}},
        groups=[{"name": "staff", "subGroups": [{"name": "leads"}]}],
        users=_USERS,
    )
    yield _file(
        "roles-and-composites",
        "composite roles across clients and the realm, in a circle too",
        clients=[caller("a"), caller("b", fullScopeAllowed=False), caller("c", fullScopeAllowed=False)],
        roles={
            "realm": [_composite("x", realm=["y"]), _composite("y", realm=["x"], client={"a": ["r"]}), _role("z")],
            "client": {"a": [_role("r"), _composite("all", client={"a": ["r"], "b": ["s"]})], "b": [_role("s")]},
        },
        clientScopeMappings={"a": [{"client": "c", "roles": ["all"]}]},
        scopeMappings=[{"client": "b", "roles": ["x"]}],
        users=[
            service_account("a", realmRoles=["x"]),
            service_account("b", realmRoles=["y", "z"], clientRoles={"a": ["all"]}),
            service_account("c", clientRoles={"a": ["all"], "b": ["s"]}),
        ],
    )
    yield _file(
        "groups",
        "groups inside groups, default groups, attributes of groups, roles by group",
        clients=[
            caller("made"),
            caller("listed"),
            _login(protocolMappers=[mapper("group-membership", claim_name="g", full_path="true"), *_ATTRIBUTES]),
        ],
        roles={"realm": [_role("in"), _role("deep")]},
        groups=[
            {
                "name": "top",
                "realmRoles": ["in"],
                "attributes": {"team": ["t"]},
                "subGroups": [
                    {
                        "name": "a b",
                        "realmRoles": ["deep"],
                        "attributes": {"level": ["9"]},
                        "subGroups": [{"name": "low"}],
                    }
                ],
            },
            {
                "name": "other",
                "path": "/other",
                "attributes": {"team": ["o"]},
                "realmRoles": [],
                "clientRoles": {},
                "subGroups": [],
            },
        ],
        defaultGroups=["/top/a b"],
        users=[
            service_account("listed", groups=["/top/a b/low"]),
            user("ann", groups=["/top/a b/low"]),
            user("bob", groups=["other"], attributes={"team": ["own"]}),
            user("cleo"),
        ],
    )
    yield _file(
        "odd-names",
        "names with spaces, dots, umlauts, slashes and upper case",
        realm="Odd Names.1",
        clients=[
            caller("My Service"),
            caller("https://api.example.org/v1"),
            caller("dotted.name.svc", protocolMappers=[audience("My Service")]),
            caller("ümläut"),
            caller("UPPER", fullScopeAllowed=False),
        ],
        roles={
            "realm": [_role("a b"), _role("ROLE_X"), _role("urn:x:y")],
            "client": {"dotted.name.svc": [_role("x.y"), _role("a/b")], "My Service": [_role("r w")]},
        },
        users=[
            service_account(
                "My Service", realmRoles=["a b", "urn:x:y"], clientRoles={"dotted.name.svc": ["x.y", "a/b"]}
            ),
            service_account("UPPER", clientRoles={"My Service": ["r w"], "UPPER": ["own"]}),
        ],
    )
    yield _file(
        "service-accounts",
        "accounts of services that the file lists: named in their own way, disabled, without the flag, in groups",
        clients=[
            caller("made"),
            caller("named"),
            caller("off"),
            {**caller("flagless"), "serviceAccountsEnabled": False},
            caller("grouped"),
            caller("attributes", protocolMappers=[*_ATTRIBUTES]),
            caller("MiXed"),
        ],
        groups=[{"name": "g", "realmRoles": ["in-group"]}],
        roles={"realm": [_role("in-group")]},
        users=[
            service_account("named", username="robot"),
            service_account("off", enabled=False),
            service_account("flagless", realmRoles=["in-group"]),
            service_account("grouped", groups=["/g"]),
            service_account("attributes", attributes={"team": ["x", "y"], "level": ["3"]}),
            service_account("MiXed", realmRoles=["uma_authorization", "offline_access"]),
        ],
    )
    yield _file(
        "client-flags",
        "clients that are public, bearer-only, disabled, for SAML, with consent, with other ways to authenticate",
        clients=[
            caller("public", publicClient=True),
            caller("bearer", bearerOnly=True),
            caller("off", enabled=False),
            caller("saml", protocol="saml"),
            caller("consent", consentRequired=True),
            caller("jwt", clientAuthenticatorType="client-jwt"),
            caller("secret-jwt", clientAuthenticatorType="client-secret-jwt"),
            caller("x509", clientAuthenticatorType="client-x509", attributes={"x509.subjectdn": "CN=x"}),
            {"clientId": "no-service", "secret": "s"},
            {"clientId": "nothing"},
            caller("no-standard-flow", standardFlowEnabled=False, implicitFlowEnabled=True),
            caller("always-in-console", alwaysDisplayInConsole=True, surrogateAuthRequired=True),
            caller(
                "full",
                name="${client_full}",
                description="x",
                baseUrl="/x",
                adminUrl="http://a",
                rootUrl="${authBaseUrl}",
            ),
        ],
    )
    yield _file(
        "lives",
        "lifespans of the realm and of clients, offline sessions with an end",
        accessTokenLifespan=600,
        ssoSessionIdleTimeout=300,
        ssoSessionMaxLifespan=400,
        offlineSessionMaxLifespanEnabled=True,
        offlineSessionMaxLifespan=350,
        revokeRefreshToken=True,
        clients=[
            caller("realm"),
            caller("own", attributes={"access.token.lifespan": "77"}),
            caller(
                "refresh", attributes={"client_credentials.use_refresh_token": "true", "access.token.lifespan": "-1"}
            ),
            caller("empty", attributes={"access.token.lifespan": "", "client.session.max.lifespan": ""}),
            _login(attributes={"client.session.max.lifespan": "120", "client.session.idle.timeout": "60"}),
            _login("unrefreshed", attributes={"use.refresh.tokens": "false"}),
        ],
        users=[user("ann", realmRoles=["offline_access"]), user("bob")],
    )
    yield _file(
        "signatures",
        "a realm that signs with ES256, and clients with their own algorithms",
        defaultSignatureAlgorithm="ES256",
        clients=[
            caller("realm"),
            *(
                caller(name, attributes={"access.token.signed.response.alg": name})
                for name in ("RS512", "PS256", "EdDSA")
            ),
            caller("at-jwt", attributes={"access.token.header.type.rfc9068": "true"}),
            caller("hs", attributes={"access.token.signed.response.alg": "HS256"}),
            caller(
                "empty", attributes={"access.token.signed.response.alg": "", "id.token.signed.response.alg": "RS256"}
            ),
        ],
    )
    yield _file(
        "light",
        "lightweight tokens, on clients with mappers and without",
        clientScopes=[
            BASIC,
            {
                **ROLES,
                "protocolMappers": [
                    {**one, "config": {**one["config"], "lightweight.claim": "true"}}
                    for one in ROLES["protocolMappers"]
                ],
            },
            scope("aud", audience("plain", lightweight_claim="true"), audience("light")),
        ],
        defaultDefaultClientScopes=["basic", "roles"],
        clients=[
            caller("plain", optionalClientScopes=["aud"]),
            caller("light", attributes=_LIGHT, optionalClientScopes=["aud", "roles"]),
            _login(attributes=_LIGHT),
        ],
        roles={"client": {"plain": [_role("r")]}},
        users=[service_account("light", clientRoles={"plain": ["r"]}), user("ann", clientRoles={"plain": ["r"]})],
    )
    yield _file(
        "origins",
        "web origins of every form",
        clients=[
            caller("star", webOrigins=["*"]),
            caller(
                "plus",
                webOrigins=["+"],
                redirectUris=["https://a.example/*", "http://b.example:81/x", "/y"],
                rootUrl="https://r.example/z",
            ),
            caller("listed", webOrigins=["https://x", ""], redirectUris=["*"]),
            caller("redirects", redirectUris=["https://a.example/cb", "myapp://callback"]),
            caller("root", webOrigins=["+"], rootUrl="http://root:8", redirectUris=["/*"]),
            _login(redirectUris=["http://localhost:3000/*"], webOrigins=["+"]),
        ],
        users=[user("ann")],
    )
    yield _file(
        "built-in-clients",
        "Keycloak's own clients listed and changed",
        clients=[
            {"clientId": "admin-cli", "secret": "s", "serviceAccountsEnabled": True, "publicClient": False},
            {"clientId": "account", "publicClient": True, "fullScopeAllowed": True, "directAccessGrantsEnabled": True},
            {"clientId": "broker", "secret": "s", "serviceAccountsEnabled": True},
            {"clientId": "security-admin-console", "publicClient": True, "directAccessGrantsEnabled": True},
            caller("svc"),
        ],
        users=[user("ann", clientRoles={"account": ["manage-account"], "broker": ["read-token"]})],
    )
    yield _file(
        "accounts-of-users",
        "users without a mail or a name, with things to do, with temporary or no passwords",
        clients=[_login()],
        users=[
            user("complete"),
            user("no-mail", email=None),
            user("no-names", firstName=None, lastName=""),
            user("to-do", requiredActions=["UPDATE_PASSWORD"]),
            user("verify", requiredActions=["VERIFY_EMAIL"]),
            user("temporary", credentials=[{"type": "password", "value": "p", "temporary": True}]),
            user("Upper", email="UPPER@Example.org"),
            user("ids", id="11111111-2222-3333-4444-555555555555"),
            _without(user("enabled-unsaid"), "enabled"),
        ],
    )
    for name, members in {"mail-login": True, "mail-login-off": False}.items():
        yield _file(
            name,
            f"users who log in with their mail address: {members}",
            loginWithEmailAllowed=members,
            clients=[_login()],
            users=[user("ann"), user("bob", email="Bob@Example.org")],
        )
    yield _file(
        "password-policy",
        "a password policy, brute force detection, mail as user name",
        passwordPolicy="length(1) and notUsername(undefined)",
        bruteForceProtected=True,
        registrationEmailAsUsername=True,
        loginWithEmailAllowed=True,
        duplicateEmailsAllowed=False,
        resetPasswordAllowed=True,
        verifyEmail=False,
        clients=[_login()],
        users=[user("ann"), user("bob@example.org", email="bob@example.org")],
    )
    yield _file(
        "verify-mail",
        "a realm that verifies mail addresses",
        verifyEmail=True,
        clients=[_login()],
        users=[user("yes", emailVerified=True), user("no")],
    )
    yield _file(
        "actions",
        "required actions listed, as old exports do",
        requiredActions=[
            {
                "alias": alias,
                "name": alias,
                "providerId": alias,
                "enabled": enabled,
                "defaultAction": default,
                "priority": 10,
            }
            for alias, enabled, default in (
                ("CONFIGURE_TOTP", True, False),
                ("UPDATE_PASSWORD", True, True),
                ("VERIFY_PROFILE", False, False),
            )
        ],
        clients=[_login()],
        users=[user("ann"), user("bare", email=None, firstName=None, lastName=None)],
    )
    yield _file(
        "user-profile",
        "a user profile that requires no names",
        components={
            "org.keycloak.userprofile.UserProfileProvider": [
                {
                    "providerId": "declarative-user-profile",
                    "config": {
                        "kc.user.profile.config": [
                            '{"attributes":[{"name":"username"},{"name":"email"}],"unmanagedAttributePolicy":"ENABLED"}'
                        ]
                    },
                }
            ]
        },
        clients=[_login()],
        users=[user("ann"), user("bare", email=None, firstName=None, lastName=None)],
    )
    yield _file(
        "registration-names",
        "users in old forms: hashed passwords, federated identities, client consents",
        "by its hash",
        clients=[_login()],
        users=[
            user(
                "hashed",
                credentials=[
                    {
                        "type": "password",
                        "secretData": '{"value":"x","salt":"eA=="}',
                        "credentialData": '{"hashIterations":27500,"algorithm":"pbkdf2-sha256"}',
                    }
                ],
            ),
            user(
                "ann",
                federatedIdentities=[],
                clientConsents=[],
                notBefore=0,
                totp=False,
                disableableCredentialTypes=["password"],
                createdTimestamp=1600000000000,
            ),
        ],
    )


_LIGHT = {"client.use.lightweight.access.token.enabled": "true"}
_ATTRIBUTES = [
    mapper("usermodel-attribute", "team", user_attribute="team", claim_name="team", multivalued="true"),
    mapper("usermodel-attribute", "level", user_attribute="level", claim_name="level", jsonType_label="int"),
    mapper("usermodel-attribute", "first", user_attribute="team", claim_name="nested.first"),
]


# Mappers


def _mappers() -> Iterator[RealmFile]:
    yield _file(
        "every-mapper",
        "a scope for each kind of mapper",
        clientScopes=[BASIC, ROLES, *_EVERY_KIND],
        clients=[
            caller(
                "svc",
                webOrigins=["http://w"],
                defaultClientScopes=["basic", "roles"],
                optionalClientScopes=[one["name"] for one in _EVERY_KIND],
            ),
            _login(
                webOrigins=["http://w"],
                defaultClientScopes=["basic", "roles"],
                optionalClientScopes=[one["name"] for one in _EVERY_KIND],
            ),
        ],
        roles={"realm": [_role("r")], "client": {"svc": [_role("own")]}},
        groups=[{"name": "g"}],
        users=[
            service_account("svc", realmRoles=["r"], groups=["/g"], attributes={"team": ["x"]}),
            user(
                "ann",
                realmRoles=["r"],
                clientRoles={"svc": ["own"]},
                groups=["/g"],
                attributes={"team": ["x"], "street": ["Road 1"]},
            ),
        ],
    )
    yield _file(
        "hardcoded-claims",
        "hardcoded claims of every type, nested and reserved",
        clients=[
            caller(
                "types",
                protocolMappers=[
                    claim(f"c{n}", value, kind)
                    for n, (value, kind) in enumerate(
                        (
                            ("1", "int"),
                            ("12345678901", "long"),
                            ("true", "boolean"),
                            ('{"a":[1,2.5,null]}', "JSON"),
                            ("x", "String"),
                            ("7", ""),
                        )
                    )
                ],
            ),
            caller("nested", protocolMappers=[claim("a.b", "1"), claim("a.c", "2"), claim(r"https://x\.y/z", "3")]),
            caller(
                "reserved",
                protocolMappers=[
                    claim(name, "v") for name in ("iss", "typ", "azp", "sid", "acr", "scope", "client_id")
                ],
            ),
            caller("roles", protocolMappers=[claim("realm_access", '{"roles":["root"]}', "JSON")]),
            caller("roles-of", protocolMappers=[claim("resource_access.types.roles", '["root"]', "JSON")]),
            caller("audience", protocolMappers=[claim("aud", '["x","y"]', "JSON")]),
            caller("audience-one", protocolMappers=[claim("aud", "x")]),
            caller("not-json", protocolMappers=[claim("a", "{", "JSON")]),
            caller("not-int", protocolMappers=[claim("a", "x1", "int")]),
            caller("decimal", protocolMappers=[claim("a", "1.5", "int"), claim("b", "99999999999", "int")]),
            caller(
                "wide", protocolMappers=[claim("a", "", "JSON"), claim("b", " 5 ", "int"), claim("c", "null", "JSON")]
            ),
            caller(
                "numbers",
                protocolMappers=[claim("n", "12", "JSON"), claim("t", '"x"', "JSON"), claim("f", "2.50", "JSON")],
            ),
        ],
    )
    yield _file(
        "hardcoded-roles",
        "hardcoded roles and renamed roles",
        clients=[
            caller(
                "a",
                protocolMappers=[mapper("hardcoded-role", role="b.given"), mapper("hardcoded-role", role="granted")],
            ),
            caller("b", protocolMappers=[mapper("role-name", role="b.own", new_role_name="renamed")]),
            caller(
                "c",
                fullScopeAllowed=False,
                protocolMappers=[
                    mapper("hardcoded-role", role="c.self"),
                    mapper("role-name", role="offline_access", new_role_name="b.off"),
                ],
            ),
            caller("broken", protocolMappers=[mapper("hardcoded-role"), mapper("role-name", role="x")]),
        ],
        roles={"realm": [_role("granted")], "client": {"b": [_role("given"), _role("own")]}},
        users=[service_account("b", clientRoles={"b": ["own", "given"]})],
    )
    yield _file(
        "role-claims",
        "roles in claims of other names, with prefixes, flat, of one client",
        clientScopes=[
            BASIC,
            scope("flat", role_claim("realm", "roles"), role_claim("client", "roles")),
            scope("groups", role_claim("realm", "groups")),
            scope("spring", role_claim("realm", "authorities", usermodel_realmRoleMapping_rolePrefix="ROLE_")),
            scope("one", role_claim("client", "mine", usermodel_clientRoleMapping_clientId="api")),
            scope("each", role_claim("client", "by.${client_id}")),
            scope("unnamed", role_claim("client", "", claim_name=None), role_claim("realm", "", claim_name=None)),
            scope(
                "single", role_claim("client", "first", usermodel_clientRoleMapping_clientId="api", multivalued="false")
            ),
            scope("custom", mapper("audience-resolve", "resolve")),
        ],
        clients=[
            caller("api"),
            caller(
                "svc", optionalClientScopes=["flat", "groups", "spring", "one", "each", "unnamed", "single", "custom"]
            ),
        ],
        roles={"realm": [_role("r1"), _role("r2")], "client": {"api": [_role("read")], "svc": [_role("s")]}},
        users=[service_account("svc", realmRoles=["r1", "r2"], clientRoles={"api": ["read"], "svc": ["s"]})],
    )
    yield _file(
        "scopes-by-role",
        "scopes that need a role, with audience resolve, on wide and narrow clients",
        clientScopes=[
            BASIC,
            ROLES,
            scope("read"),
            scope("write"),
            scope("any"),
            scope("hidden", shown="false"),
            scope("said", shown="TRUE"),
            scope("unsaid", shown=None),
        ],
        clients=[
            caller("api"),
            *(
                caller(
                    f"{who}{'-narrow' * narrow}",
                    fullScopeAllowed=not narrow,
                    defaultClientScopes=["roles"],
                    optionalClientScopes=["read", "write", "any", "hidden", "said", "unsaid"],
                )
                for who in ("reader", "nobody")
                for narrow in (False, True)
            ),
        ],
        roles={
            "client": {"api": [_role("read"), _role("write")]},
            "realm": [_composite("both", client={"api": ["read", "write"]})],
        },
        clientScopeMappings={
            "api": [{"clientScope": "read", "roles": ["read"]}, {"clientScope": "write", "roles": ["write"]}]
        },
        scopeMappings=[{"clientScope": "any", "roles": ["both"]}],
        users=[*(service_account(f"reader{end}", clientRoles={"api": ["read"]}) for end in ("", "-narrow"))],
    )
    yield _file(
        "pairwise",
        "a pairwise sub",
        clients=[
            caller(
                "svc",
                protocolMappers=[mapper("sha256-pairwise-sub", "pairwise", pairwiseSubAlgorithmSalt="salt")],
                redirectUris=["https://x.example/*"],
            ),
            _login(
                redirectUris=["https://x.example/*"],
                protocolMappers=[mapper("sha256-pairwise-sub", "pairwise", pairwiseSubAlgorithmSalt="salt")],
            ),
        ],
        users=[user("ann")],
    )
    yield _file(
        "foreign-mappers",
        "mappers that Keycloak does not have: scripts and extensions",
        "not known here",
        clients=[
            caller(
                "script",
                protocolMappers=[
                    {
                        **mapper("x", "script"),
                        "protocolMapper": "oidc-script-based-protocol-mapper",
                        "config": {"script": "1"},
                    }
                ],
            ),
            caller("extension", protocolMappers=[{**mapper("x", "vendor"), "protocolMapper": "acme-tenant-mapper"}]),
            caller("plain"),
        ],
    )
    yield _file(
        "answer-claims",
        "mappers that also write into the answer",
        clients=[
            caller(
                "svc",
                protocolMappers=[
                    claim("tenant", "t1", access_tokenResponse_claim="true"),
                    claim("only.answer", "t2", access_token_claim="false", access_tokenResponse_claim="true"),
                    mapper(
                        "usersessionmodel-note",
                        user_session_note="client_id",
                        claim_name="who",
                        access_tokenResponse_claim="true",
                    ),
                    claim("access_token", "no", access_tokenResponse_claim="true"),
                ],
            ),
        ],
    )


_EVERY_KIND = [
    scope("m-audience", audience("svc")),
    scope("m-resolve", mapper("audience-resolve", "x")),
    scope("m-attribute", mapper("usermodel-attribute", user_attribute="team", claim_name="team")),
    scope("m-property", mapper("usermodel-property", user_attribute="username", claim_name="name_")),
    scope("m-property-first", mapper("usermodel-property", user_attribute="firstName", claim_name="first")),
    scope("m-id", mapper("usermodel-property", user_attribute="id", claim_name="user_id")),
    scope("m-full-name", mapper("full-name", "x")),
    scope("m-groups", mapper("group-membership", claim_name="groups", full_path="true")),
    scope("m-address", mapper("address", "x")),
    scope("m-acr", mapper("acr", "x")),
    scope("m-amr", mapper("amr", "x")),
    scope("m-sub", mapper("sub", "x")),
    scope("m-session", mapper("session-state", "x")),
    scope("m-origins", mapper("allowed-origins", "x")),
    scope("m-nonce", mapper("nonce-backwards-compatible", "x")),
    scope("m-organization", mapper("organization-membership", claim_name="organization", jsonType_label="String")),
    scope("m-organization-groups", mapper("organization-group-membership", "x")),
    scope("m-params", mapper("claims-param-token", "x")),
    scope("m-params-value", mapper("claims-param-value-idtoken", claim_name="v")),
    scope("m-hard", claim("h", "v")),
    scope("m-hard-role", mapper("hardcoded-role", role="svc.hard")),
    scope("m-role-name", mapper("role-name", role="r", new_role_name="svc.renamed")),
    scope("m-realm-roles", role_claim("realm", "rr")),
    scope("m-client-roles", role_claim("client", "cr")),
    scope("m-note", mapper("usersessionmodel-note", user_session_note="clientId", claim_name="note")),
    scope("m-host", mapper("usersessionmodel-note", user_session_note="clientHost", claim_name="clientHost")),
]


# Rules of an import


def _imports() -> Iterator[RealmFile]:
    settings = {
        "allowRemoteResourceManagement": True,
        "policyEnforcementMode": "ENFORCING",
        "resources": [],
        "policies": [],
        "scopes": [],
    }
    yield _file(
        "authorization",
        "authorization services: by flag, by settings, on public and bearer-only clients, with listed accounts",
        clientScopes=[BASIC, ROLES],
        defaultDefaultClientScopes=["basic", "roles"],
        clients=[
            caller("flag", authorizationServicesEnabled=True),
            caller("flag-off", authorizationServicesEnabled=False, authorizationSettings=settings),
            {"clientId": "no-account", "secret": "s", "authorizationServicesEnabled": True},
            {"clientId": "public", "publicClient": True, "authorizationServicesEnabled": True, "secret": "s"},
            {"clientId": "bearer", "bearerOnly": True, "authorizationServicesEnabled": True, "secret": "s"},
            caller("listed", authorizationServicesEnabled=True),
            caller("narrow", authorizationServicesEnabled=True, fullScopeAllowed=False),
            caller("plain"),
        ],
        users=[service_account("listed")],
    )
    yield _file(
        "authorization-full",
        "authorization services with resources, scopes, role and time policies, and declared roles",
        clients=[
            caller(
                "api",
                authorizationServicesEnabled=True,
                authorizationSettings={
                    **settings,
                    "resources": [
                        {
                            "name": "Default Resource",
                            "type": "urn:api:resources:default",
                            "ownerManagedAccess": False,
                            "attributes": {},
                            "uris": ["/*"],
                        }
                    ],
                    "scopes": [{"name": "view"}],
                    "policies": [
                        _policy("role", "Only admins", roles='[{"id":"admin","required":true}]'),
                        _policy("time", "Later", nbf="2020-01-01 00:00:00"),
                        _policy(
                            "resource",
                            "Default Permission",
                            defaultResourceType="urn:api:resources:default",
                            applyPolicies='["Only admins"]',
                        ),
                    ],
                },
            ),
        ],
        roles={"realm": [_role("admin")], "client": {"api": [_role("uma_protection"), _role("x")]}},
    )
    named_by: dict[str, dict[str, Any]] = {
        "user": {"users": [user("any", realmRoles=["uma_authorization"])]},
        "group": {"groups": [{"name": "g", "subGroups": [{"name": "h", "realmRoles": ["uma_authorization"]}]}]},
        "mapping": {"scopeMappings": [{"client": "svc", "roles": ["uma_authorization"]}]},
        "composite": {"roles": {"realm": [_composite("c", realm=["uma_authorization"]), _role("uma_authorization")]}},
    }
    for holder, members in named_by.items():
        yield _file(f"uma-by-{holder}", f"uma_authorization named by a {holder}", clients=[caller("svc")], **members)
    yield _file(
        "default-roles",
        "default roles in the form of before Keycloak 13",
        defaultRoles=["offline_access", "member"],
        roles={
            "realm": [_role("member"), _role("offline_access")],
            "client": {"svc": [_role("auto"), _role("manual")]},
        },
        clients=[caller("svc", defaultRoles=["auto"]), caller("listed"), _login()],
        users=[service_account("listed"), user("ann")],
    )
    yield _file(
        "default-role-named",
        "a default role with a name of its own",
        defaultRole={"name": "everybody", "description": "x", "composite": True, "clientRole": False},
        roles={
            "realm": [
                _composite("everybody", realm=["member", "offline_access"], client={"account": ["view-profile"]}),
                _role("member"),
                _role("offline_access"),
            ]
        },
        clients=[caller("svc"), _login()],
        users=[user("ann"), user("bob", realmRoles=["everybody"])],
    )
    yield _file(
        "management",
        "realm-management with a part of its roles, given to services",
        clients=[
            caller("admin"),
            caller("viewer", fullScopeAllowed=False),
            {"clientId": "realm-management", "bearerOnly": True},
        ],
        roles={
            "client": {
                "realm-management": [
                    _composite("realm-admin", client={"realm-management": ["view-users"]}),
                    _role("view-users"),
                ]
            }
        },
        users=[
            service_account("admin", clientRoles={"realm-management": ["realm-admin"]}),
            service_account("viewer", clientRoles={"realm-management": ["view-users", "view-clients", "manage-users"]}),
        ],
    )
    yield _file(
        "management-unlisted",
        "roles of realm-management and account, given to services and users, without listing these clients",
        clients=[caller("admin"), caller("keeper"), _login()],
        users=[
            service_account("admin", clientRoles={"realm-management": ["realm-admin"]}),
            service_account(
                "keeper",
                clientRoles={"realm-management": ["manage-realm", "view-users"], "account": ["manage-account"]},
            ),
            user(
                "ann",
                clientRoles={
                    "account": ["view-profile", "manage-account", "manage-consent"],
                    "realm-management": ["view-clients"],
                },
            ),
        ],
    )
    yield _file(
        "admin-permissions", "fine-grained admin permissions", adminPermissionsEnabled=True, clients=[caller("svc")]
    )
    yield _file(
        "typed-as-texts",
        "texts, numbers and booleans in place of each other",
        accessTokenLifespan="120",
        clients=[
            caller("flags", publicClient="false", serviceAccountsEnabled="true", fullScopeAllowed="False"),
            caller("number", secret=12345),
            caller(
                "mapper",
                protocolMappers=[
                    audience(None, "x", access_token_claim=True),
                    claim("n", "5", "int", access_token_claim="True"),
                ],
            ),
            caller(
                "attributes", attributes={"access.token.lifespan": 60, "client_credentials.use_refresh_token": True}
            ),
            caller("null", attributes=None, protocolMappers=None, defaultClientScopes=None, redirectUris=None),
            caller("zero", bearerOnly=0, enabled=1),
        ],
        users=[service_account("flags", enabled="true", attributes={"team": "x"})],
    )
    yield _file(
        "nulls",
        "null for every list",
        clients=[caller("svc", redirectUris=None, webOrigins=None)],
        users=None,
        roles=None,
        groups=None,
        clientScopes=None,
        scopeMappings=None,
        clientScopeMappings=None,
        defaultRoles=None,
        attributes=None,
        identityProviders=None,
    )
    yield _file(
        "scopes-without-protocol",
        "client scopes without a protocol and for SAML",
        clientScopes=[
            BASIC,
            _without(scope("bare", audience("x")), "protocol", "attributes"),
            scope("saml", audience("y"), protocol="saml"),
            scope("with space", audience("z")),
        ],
        clients=[
            caller("svc", defaultClientScopes=["bare", "saml", "with space"], optionalClientScopes=["with_space"]),
            caller("other", optionalClientScopes=["bare", "saml", "with_space"]),
            caller("unlisted"),
        ],
    )
    yield _file(
        "empty-scopes",
        "an empty list of client scopes",
        clientScopes=[],
        clients=[
            caller("svc"),
            caller("asks", defaultClientScopes=["basic"], optionalClientScopes=["email"]),
            _login(),
        ],
        users=[user("ann")],
    )
    yield _file(
        "lists-without-scopes",
        "lists of default scopes, but no client scopes in the file",
        defaultDefaultClientScopes=["roles"],
        defaultOptionalClientScopes=["email"],
        clients=[
            caller("svc"),
            caller(
                "own",
                defaultClientScopes=["web-origins", "roles", "profile"],
                optionalClientScopes=["address", "phone", "offline_access", "microprofile-jwt"],
            ),
            _login(),
        ],
        users=[user("ann", attributes={"phoneNumber": ["1"], "phoneNumberVerified": ["true"], "locale": ["de"]})],
    )
    yield _file(
        "front-end-url",
        "frontendUrl",
        "keeps its own address",
        attributes={"frontendUrl": "https://sso.example.org/auth"},
        clients=[caller("svc")],
    )
    yield _file("ssl-all", "sslRequired is all", "refuses plain http", sslRequired="all", clients=[caller("svc")])
    yield _file("ssl-none", "sslRequired is NONE", sslRequired="NONE", clients=[caller("svc")])
    yield _file(
        "dark", "a realm that is not enabled", enabled=False, clients=[caller("svc"), _login()], users=[user("ann")]
    )
    yield _file(
        "masked", "masked secrets", "as the secret of", clients=[caller("svc", secret="**********"), caller("plain")]
    )
    yield _file(
        "no-secrets",
        "no secrets at all",
        "is empty",
        clients=[_without(caller("svc"), "secret"), caller("empty", secret=""), caller("null", secret=None)],
    )
    yield _file(
        "bound",
        "clients whose tokens are bound",
        clients=[
            caller("dpop", attributes={"dpop.bound.access.tokens": "true"}),
            caller("mtls", attributes={"tls.client.certificate.bound.access.tokens": "true"}),
            caller(
                "both",
                attributes={"dpop.bound.access.tokens": "true", "tls.client.certificate.bound.access.tokens": "true"},
            ),
            _login(attributes={"dpop.bound.access.tokens": "true"}),
            _login("mtls-front", attributes={"tls.client.certificate.bound.access.tokens": "true"}),
            caller("plain", attributes={"dpop.bound.access.tokens": "false"}),
        ],
        users=[user("ann")],
    )
    yield _file(
        "levels",
        "levels of authentication of a client and of the realm",
        attributes={"acr.loa.map": '{"gold":"2","silver":"1"}'},
        clients=[
            caller("svc"),
            caller("own", attributes={"acr.loa.map": '{"low":"1","zero":"0","high":"3"}'}),
            caller("empty", attributes={"acr.loa.map": "{}"}),
            caller("default", attributes={"default.acr.values": "x", "acr.loa.map": '{"x":"5"}'}),
            caller("minimum", attributes={"minimum.acr.value": "gold"}),
            _login(attributes={"acr.loa.map": '{"basic":"0","mid":"1"}'}),
            _login("of-realm"),
        ],
        users=[user("ann")],
    )
    yield _file(
        "client-policies",
        "client policies",
        "client policy",
        clientProfiles={
            "profiles": [
                {
                    "name": "strict",
                    "executors": [
                        {
                            "executor": "secure-client-authenticator",
                            "configuration": {
                                "allowed-client-authenticators": ["client-jwt"],
                                "default-client-authenticator": "client-jwt",
                            },
                        }
                    ],
                }
            ]
        },
        clientPolicies={
            "policies": [
                {
                    "name": "all",
                    "enabled": True,
                    "conditions": [{"condition": "any-client", "configuration": {}}],
                    "profiles": ["strict"],
                }
            ]
        },
        clients=[caller("svc")],
    )
    yield _file(
        "client-policies-off",
        "client policies that are disabled, empty, or without a profile",
        clientProfiles={"profiles": []},
        clientPolicies={
            "policies": [
                {
                    "name": "off",
                    "enabled": False,
                    "conditions": [{"condition": "any-client"}],
                    "profiles": ["fapi-1-baseline"],
                }
            ]
        },
        clients=[caller("svc")],
    )
    yield _file(
        "organizations",
        "organizations with members",
        "has organizations",
        organizationsEnabled=True,
        organizations=[
            {
                "name": "acme",
                "alias": "acme",
                "enabled": True,
                "domains": [{"name": "acme.example", "verified": False}],
                "members": [{"username": "ann"}],
            }
        ],
        clients=[caller("svc"), _login()],
        users=[user("ann")],
    )
    yield _file(
        "smtp-and-co",
        "mail server, languages, headers, events, themes, as a full export has them",
        clients=[caller("svc")],
        **_FULL,
    )
    yield _file(
        "keys",
        "signing keys of other kinds and priorities among the components",
        components={
            "org.keycloak.keys.KeyProvider": [
                {
                    "name": "rsa",
                    "providerId": "rsa-generated",
                    "subComponents": {},
                    "config": {"priority": ["100"], "keySize": ["2048"]},
                },
                {
                    "name": "ec",
                    "providerId": "ecdsa-generated",
                    "subComponents": {},
                    "config": {"priority": ["90"], "ecdsaEllipticCurveKey": ["P-256"]},
                },
                {
                    "name": "hmac",
                    "providerId": "hmac-generated",
                    "subComponents": {},
                    "config": {"priority": ["100"], "algorithm": ["HS256"]},
                },
                {"name": "aes", "providerId": "aes-generated", "subComponents": {}, "config": {"priority": ["100"]}},
            ]
        },
        clients=[caller("svc"), caller("es", attributes={"access.token.signed.response.alg": "ES256"}), _login()],
        users=[user("ann")],
    )
    yield _file(
        "providers",
        "identity providers, their mappers, and user federation that is off",
        "users of another directory",
        identityProviders=[
            {
                "alias": "google",
                "providerId": "google",
                "enabled": True,
                "config": {"clientId": "x", "clientSecret": "**********", "useJwksUrl": "true"},
            },
            {
                "alias": "corp",
                "providerId": "oidc",
                "enabled": True,
                "config": {
                    "authorizationUrl": "https://i/a",
                    "tokenUrl": "https://i/t",
                    "clientId": "x",
                    "clientSecret": "y",
                },
            },
        ],
        identityProviderMappers=[
            {
                "name": "m",
                "identityProviderAlias": "corp",
                "identityProviderMapper": "oidc-hardcoded-role-idp-mapper",
                "config": {"role": "x", "syncMode": "INHERIT"},
            }
        ],
        components={
            "org.keycloak.storage.UserStorageProvider": [
                {
                    "name": "ldap",
                    "providerId": "ldap",
                    "subComponents": {},
                    "config": {
                        "enabled": ["false"],
                        "priority": ["1"],
                        "vendor": ["other"],
                        "connectionUrl": ["ldap://127.0.0.1:1"],
                        "usersDn": ["ou=x"],
                        "bindDn": ["cn=a"],
                        "bindCredential": ["b"],
                        "authType": ["simple"],
                        "usernameLDAPAttribute": ["uid"],
                        "rdnLDAPAttribute": ["uid"],
                        "uuidLDAPAttribute": ["entryUUID"],
                        "userObjectClasses": ["inetOrgPerson"],
                        "editMode": ["READ_ONLY"],
                        "searchScope": ["1"],
                        "importEnabled": ["true"],
                        "pagination": ["false"],
                        "trustEmail": ["false"],
                        "fullSyncPeriod": ["-1"],
                        "changedSyncPeriod": ["-1"],
                        "batchSizeForSync": ["1"],
                    },
                }
            ]
        },
        clients=[caller("svc")],
        roles={"realm": [_role("x")]},
    )
    yield _file(
        "own-flow",
        "a login flow of its own for passwords, that the realm and a client use",
        "`directGrantFlow`",
        "a flow of its own",
        authenticationFlows=[
            {
                "id": "0b4a9d0e-0000-4000-8000-000000000001",
                "alias": "mine",
                "providerId": "basic-flow",
                "topLevel": True,
                "builtIn": False,
                "authenticationExecutions": [
                    {
                        "authenticator": "direct-grant-validate-username",
                        "requirement": "REQUIRED",
                        "priority": 10,
                        "authenticatorFlow": False,
                        "userSetupAllowed": False,
                    }
                ],
            }
        ],
        directGrantFlow="mine",
        clients=[
            caller("svc"),
            _login(),
            _login(
                "bound", authenticationFlowBindingOverrides={"direct_grant": "0b4a9d0e-0000-4000-8000-000000000001"}
            ),
        ],
        users=[user("ann")],
    )


_FULL: Representation = {
    "id": "5f3c3a1e-6f7c-4b5f-9a55-0d6f5b4c3a21",
    "displayName": "Full",
    "displayNameHtml": "<b>Full</b>",
    "notBefore": 0,
    "registrationAllowed": True,
    "rememberMe": True,
    "internationalizationEnabled": True,
    "supportedLocales": ["en", "de"],
    "defaultLocale": "en",
    "loginTheme": "keycloak",
    "requiredCredentials": ["password"],
    "otpPolicyType": "totp",
    "otpPolicyAlgorithm": "HmacSHA1",
    "otpPolicyDigits": 6,
    "otpSupportedApplications": ["totpAppFreeOTPName"],
    "webAuthnPolicyRpEntityName": "keycloak",
    "webAuthnPolicySignatureAlgorithms": ["ES256"],
    "browserSecurityHeaders": {"xFrameOptions": "SAMEORIGIN", "contentSecurityPolicy": "frame-src 'self'"},
    "smtpServer": {"host": "mail.example.org", "from": "a@example.org", "port": 25, "auth": False},
    "eventsEnabled": True,
    "eventsListeners": ["jboss-logging"],
    "enabledEventTypes": ["LOGIN"],
    "adminEventsEnabled": False,
    "userManagedAccessAllowed": True,
    "attributes": {
        "cibaBackchannelTokenDeliveryMode": "poll",
        "parRequestUriLifespan": "60",
        "realmReusableOtpCode": "false",
        "clientSessionIdleTimeout": "0",
        "custom": 5,
    },
    "authenticatorConfig": [{"alias": "x", "config": {"a": "b"}}],
    "scopeMappings": [{"clientScope": "offline_access", "roles": ["offline_access"]}],
    "localizationTexts": {"en": {"a": "b"}},
    "browserFlow": "browser",
    "registrationFlow": "registration",
    "directGrantFlow": "direct grant",
    "resetCredentialsFlow": "reset credentials",
    "clientAuthenticationFlow": "clients",
    "dockerAuthenticationFlow": "docker auth",
}


# Exports of older versions


def _exports() -> Iterator[RealmFile]:
    for version in (
        "3.4.3.Final",
        "4.5.0.Final",
        "5.0.0",
        "6.0.1",
        "8.0.2.redhat-00001",
        "12.0.4",
        "17.0.1",
        "18.0.0",
        "24.0.5",
        "25.0.6",
        "26.0.8",
        "26.1.0",
        "26.7.3",
        "999.0.0-SNAPSHOT",
        "unreadable",
    ):
        yield _export(version)
    yield _file(
        "export-8-complete",
        "an export of 8.0.1 that has the later scopes under other protocols and in its lists",
        keycloakVersion="8.0.1",
        clientScopes=[scope("acr", protocol="saml"), scope("microprofile-jwt"), scope("roles", audience("x"))],
        defaultDefaultClientScopes=["roles", "basic"],
        defaultOptionalClientScopes=["acr", "microprofile-jwt"],
        clients=[
            caller(
                "lists",
                defaultClientScopes=["roles", "acr"],
                optionalClientScopes=["basic", "web-origins", "service_account"],
            ),
            caller("none"),
            caller("empty", defaultClientScopes=[], optionalClientScopes=[]),
            {"clientId": "account", "publicClient": True},
        ],
    )
    yield _file(
        "export-9-no-scopes",
        "an export of 9.0.0 without client scopes, clients or roles (partial)",
        keycloakVersion="9.0.0",
        clients=[caller("svc"), _login()],
        users=[user("ann"), service_account("svc")],
    )


def _export(version: str) -> RealmFile:
    name = f"export-{version.lower()}"
    profile = scope(
        "profile", mapper("usermodel-property", "username", user_attribute="username", claim_name="preferred_username")
    )
    return _file(
        name,
        f"an export of {version}",
        keycloakVersion=version,
        id=name,
        requiredCredentials=["password"],
        defaultRoles=["offline_access", "uma_authorization"],
        roles={
            "realm": [
                _role("offline_access"),
                _role("uma_authorization"),
                _composite("boss", realm=["staff"], client={"svc": ["do"]}),
                _role("staff"),
            ],
            "client": {
                "svc": [_role("do")],
                "account": [
                    _composite("manage-account", client={"account": ["manage-account-links"]}),
                    _role("view-profile"),
                    _role("manage-account-links"),
                ],
            },
        },
        clientScopes=[
            profile,
            scope("offline_access"),
            scope("role_list", protocol="saml"),
            scope("to-svc", audience("svc")),
        ],
        defaultDefaultClientScopes=["role_list", "profile"],
        defaultOptionalClientScopes=["offline_access"],
        clients=[
            caller(
                "svc", defaultClientScopes=["role_list", "profile"], optionalClientScopes=["offline_access", "to-svc"]
            ),
            caller(
                "listed",
                defaultClientScopes=["profile", "to-svc"],
                optionalClientScopes=["offline_access"],
                fullScopeAllowed=False,
            ),
            caller("unlisted"),
            caller("off", enabled=False, defaultClientScopes=["profile"]),
            {"clientId": "bearer", "bearerOnly": True, "secret": "s", "defaultClientScopes": ["profile"]},
            {
                "clientId": "account",
                "publicClient": True,
                "defaultRoles": ["view-profile", "manage-account"],
                "defaultClientScopes": ["profile"],
            },
            {
                "clientId": "admin-cli",
                "publicClient": True,
                "directAccessGrantsEnabled": True,
                "defaultClientScopes": ["profile"],
            },
            _login(defaultClientScopes=["role_list", "profile"], optionalClientScopes=["to-svc"]),
        ],
        scopeMappings=[{"clientScope": "offline_access", "roles": ["offline_access"]}],
        users=[
            service_account("listed", realmRoles=["offline_access", "boss"], clientRoles={"account": ["view-profile"]}),
            user(
                "ann",
                realmRoles=["staff", "offline_access", "uma_authorization"],
                clientRoles={"account": ["manage-account", "view-profile"]},
            ),
        ],
    )


# What Keycloak refuses


def _refused() -> Iterator[RealmFile]:
    svc = [caller("svc")]

    def refused(name: str, what: str, **members: Any) -> RealmFile:
        return _file(f"refused-{name}", what, refused=True, **{"clients": svc, **members})

    yield refused("field", "an unknown field of the realm", usersManagedAccess=True)
    yield refused("client-field", "an unknown field of a client", clients=[caller("svc", grantTypes=["x"])])
    yield refused(
        "mapper-field",
        "an unknown field of a mapper",
        clients=[caller("svc", protocolMappers=[{**audience("svc"), "protocl": "x"}])],
    )
    yield refused("list", "a text in place of a list", clients=[caller("svc", redirectUris={"a": "b"})])
    yield refused(
        "js",
        "a policy that is a script",
        clients=[
            caller(
                "svc",
                authorizationSettings={"policies": [_policy("js", "Default Policy", code="$evaluation.grant();")]},
            )
        ],
    )
    yield refused(
        "user-policy",
        "a policy that names a user who is not there",
        clients=[caller("svc", authorizationSettings={"policies": [_policy("user", "Ann", users='["ann"]')]})],
    )
    yield refused(
        "http-provider",
        "an identity provider with an http URL",
        identityProviders=[
            {
                "alias": "x",
                "providerId": "oidc",
                "config": {"clientId": "x", "authorizationUrl": "http://i/a", "tokenUrl": "http://i/t"},
            }
        ],
    )
    yield refused("flow", "a flow that is missing", browserFlow="my browser")
    yield refused(
        "mapper-twice",
        "two mappers of one name",
        clients=[caller("svc", protocolMappers=[audience("svc"), audience("svc")])],
    )
    yield refused(
        "mapper-protocol",
        "a mapper without a protocol",
        clients=[caller("svc", protocolMappers=[_without(audience("svc"), "protocol")])],
    )
    yield refused("denylist", "a password policy with a file", passwordPolicy="passwordBlacklist(common.txt)")
    yield refused(
        "composite",
        "a composite role that contains a role that is missing",
        roles={"realm": [_composite("a", realm=["b"])]},
    )
    yield refused("group", "a user of a group that is missing", users=[user("ann", groups=["/none"])])
    urls: list[dict[str, Any]] = [
        {"redirectUris": ["http://a/#x"]},
        {"redirectUris": ["http://a/${X}/*"]},
        {"redirectUris": ["javascript:x"]},
        {"rootUrl": "localhost:3000"},
        {"baseUrl": "realms/x"},
    ]
    for number, url in enumerate(urls, start=1):
        yield refused(f"url-{number}", f"an address that is not valid: `{url}`", clients=[caller("svc", **url)])
    yield refused("protocol", "a client with another protocol", clients=[caller("svc", protocol="docker-v2")])
    yield refused(
        "level", "a level that has no name", clients=[caller("svc", attributes={"default.acr.values": "gold"})]
    )
    yield refused(
        "session",
        "a session of a client that is longer than the realm's",
        clients=[caller("svc", attributes={"client.session.idle.timeout": "1801"})],
    )
    yield refused(
        "sector",
        "a pairwise sub for two hosts",
        clients=[
            caller(
                "svc", redirectUris=["https://a/*", "https://b/*"], protocolMappers=[mapper("sha256-pairwise-sub", "p")]
            )
        ],
    )
    yield refused(
        "flow-of-client",
        "a client that names a flow by its alias",
        clients=[caller("svc", authenticationFlowBindingOverrides={"browser": "browser"})],
    )
    yield refused(
        "lists",
        "a client scope in both lists of the realm",
        clientScopes=[scope("a")],
        defaultDefaultClientScopes=["a"],
        defaultOptionalClientScopes=["a"],
    )
    yield refused(
        "uma",
        "uma_authorization in a composite role, and not declared",
        roles={"realm": [_composite("a", realm=["uma_authorization"])]},
    )
    yield refused(
        "account",
        "a role of a listed account that is not declared",
        clients=[caller("svc"), {"clientId": "account", "publicClient": True}],
        roles={"realm": [_composite("a", client={"account": ["view-profile"]})]},
    )
    yield refused("twice", "two clients of one name", clients=[caller("svc"), caller("svc")])


# Made by a seed


def _made(seed: int) -> RealmFile:
    """A realm in which everything is drawn: scopes with mappers and roles, clients, groups, users, lists."""
    draw = Random(seed)
    names = [f"c{n}" for n in range(draw.randint(2, 5))]
    roles = {name: [f"r{n}" for n in range(draw.randint(0, 3))] for name in names}
    every = [(client, role) for client, held in roles.items() for role in held]
    realm_roles = [f"q{n}" for n in range(draw.randint(1, 4))]

    def some(of: list[Any], most: int = 3) -> list[Any]:
        return draw.sample(of, draw.randint(0, min(most, len(of))))

    def holder() -> Representation:
        held: dict[str, list[str]] = {}
        for client, role in some(every):
            held.setdefault(client, []).append(role)
        return {"realmRoles": some(realm_roles), "clientRoles": held}

    def mappers(where: str) -> list[Representation]:
        kinds = [
            audience(draw.choice([*names, "nobody"])),
            audience(None, draw.choice(["https://x", "c0", "urn:y"])),
            claim(f"k.{where}", draw.choice(["1", "0"]), draw.choice(["int", "String", "boolean", "JSON"])),
            role_claim("client", draw.choice(["roles", "cr.${client_id}", "resource_access.${client_id}.roles"])),
            role_claim("realm", draw.choice(["roles", "realm_access.roles"])),
            mapper("hardcoded-role", role=draw.choice([f"{client}.{role}" for client, role in every] or ["q0"])),
            mapper("audience-resolve", "resolve"),
            mapper("group-membership", claim_name=f"g.{where}", full_path=draw.choice(["true", "false"])),
            mapper("usermodel-attribute", user_attribute="team", claim_name=f"t.{where}", multivalued="true"),
            mapper("role-name", role=draw.choice(realm_roles), new_role_name=draw.choice(["new", "c0.new"])),
        ]
        return draw.sample(kinds, draw.randint(0, 2))

    scopes = [
        scope(f"s{n}", *mappers(f"s{n}"), shown=draw.choice(["true", "false", None])) for n in range(draw.randint(2, 5))
    ]
    built_in = draw.random() < 0.3
    offered = [one["name"] for one in scopes] + ["basic", "roles", "service_account", "offline_access"]
    if built_in:
        offered = ["basic", "roles", "email", "microprofile-jwt", "web-origins", "acr", "offline_access"]

    def lists() -> Representation:
        if draw.random() < 0.4:
            return {}
        return {"defaultClientScopes": some(offered, 4), "optionalClientScopes": some(offered, 4)}

    def attributes() -> Representation:
        drawn = {
            "client.use.lightweight.access.token.enabled": draw.choice(["true", "false", "false", "false"]),
            "access.token.lifespan": draw.choice(["", "90"]),
            "client_credentials.use_refresh_token": draw.choice(["true", "false", "false"]),
        }
        return {key: value for key, value in drawn.items() if draw.random() < 0.5}

    groups = [
        {"name": f"g{n}", **holder(), "attributes": {"team": [f"t{n}"]}, "subGroups": [{"name": "in", **holder()}]}
        for n in range(draw.randint(0, 2))
    ]
    paths = [path for group in groups for path in (f"/{group['name']}", f"/{group['name']}/in")]
    clients = [
        caller(
            name,
            fullScopeAllowed=draw.random() < 0.6,
            directAccessGrantsEnabled=draw.random() < 0.5,
            consentRequired=draw.random() < 0.1,
            authorizationServicesEnabled=draw.random() < 0.15,
            protocolMappers=mappers(name),
            attributes=attributes(),
            **lists(),
        )
        for name in names
    ]
    mappings: dict[str, list[Representation]] = {}
    for client, role in some(every):
        target = (
            {"clientScope": draw.choice(scopes)["name"]}
            if not built_in and draw.random() < 0.6
            else {"client": draw.choice(names)}
        )
        mappings.setdefault(client, []).append({**target, "roles": [role]})
    inside = [
        _composite(f"x{n}", realm=some(realm_roles, 2), client={client: [role] for client, role in some(every, 2)})
        for n in range(draw.randint(0, 2))
    ]
    listed = some(names)
    members: Representation = {
        "clients": clients,
        "roles": {
            "realm": [_role(name) for name in realm_roles] + inside,
            "client": {client: [_role(name) for name in held] for client, held in roles.items()},
        },
        "groups": groups,
        "defaultGroups": some(paths, 1),
        "clientScopeMappings": mappings,
        "users": [
            *(
                service_account(name, **holder(), groups=some(paths, 1), attributes={"team": ["svc"]})
                for name in listed
            ),
            *(user(name, **holder(), groups=some(paths, 1), attributes={"team": [name]}) for name in ("ann", "bob")),
        ],
    }
    if inside:
        members["users"][-1]["realmRoles"].append(inside[0]["name"])
    if not built_in:
        members["clientScopes"] = [BASIC, ROLES, *([SERVICE_ACCOUNT] if draw.random() < 0.5 else []), *scopes]
        members["defaultDefaultClientScopes"] = some(offered, 4)
        members["defaultOptionalClientScopes"] = some(offered, 3)
    if draw.random() < 0.4:
        members["keycloakVersion"] = draw.choice(["7.0.0", "15.0.2", "19.0.3", "23.0.7", "25.0.0", "26.0.0", "26.2.5"])
    return _file(f"made-{seed}", "drawn by a seed", **members)


def _all() -> Iterator[RealmFile]:
    yield from _refused()
    yield from _ordinary()
    yield from _mappers()
    yield from _imports()
    yield from _exports()
    yield from (_made(seed) for seed in range(1, 15))


FILES = {file.name: file for file in _all()}
"""All files, by name."""

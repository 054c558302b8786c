"""What the realms of the stories put into a token, asked with plain httpx: the ground the stories stand on.

Nothing of the package is used here, so that a story that fails tells whether Keycloak or the package changed its mind.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from example_app.realm import REALMS, Realm, claims_of, filled, fresh_secrets
from tests.real.server import Keycloak

RealmOf = Callable[[str], Realm]


@dataclass(frozen=True)
class Row:
    """One line of a story: who asks for what, and what the token then says."""

    realm: str
    client: str
    says: str
    user: str | None = None
    ask: str | None = None
    aud: tuple[str, ...] = ()
    scope: str = ""
    roles: tuple[str, ...] = ()
    """Client roles as ``client/role``."""

    def __str__(self) -> str:
        return f"{self.realm}: {self.says}"


ALICE_BOTH_ROLES = ("bob/common-client-role", "charles/charles-role")
BY_ROLES = "auto-add-audience another-scope-to-include-charles"
# What an account that the server itself made gets from the realm's default roles.
ACCOUNT = ("account/manage-account", "account/manage-account-links", "account/view-profile")

ROWS = [
    # Story 1
    Row(
        "corp",
        "chat-app-service",
        "with the scope it is for the gateway",
        aud=("crm-api-gateway",),
        scope="crm-audience",
    ),
    Row("corp", "chat-app-unassigned", "before the scope is assigned it is not", aud=("account",), roles=ACCOUNT),
    Row("corp", "billing", "another caller's is for the gateway too", aud=("crm-api-gateway",), scope="crm-audience"),
    # Story 2
    Row(
        "techstore",
        "shop-api",
        "the allowed caller, with scope and role",
        aud=("notification-service",),
        scope="notification-audience notifications:send",
        roles=("notification-service/notifications:send",),
    ),
    Row(
        "techstore",
        "inventory-service",
        "another service has the audience, neither scope nor role",
        aud=("notification-service",),
        scope="notification-audience",
    ),
    Row(
        "techstore",
        "shop-ui",
        "a user through the front end has audience, scope and role",
        user="customer",
        aud=("notification-service",),
        scope="notification-audience notifications:send profile",
        roles=("notification-service/notifications:send",),
    ),
    Row(
        "techstore",
        "shop-api",
        "a user through shop-api has its azp, audience, scope and role",
        user="customer",
        aud=("notification-service",),
        scope="notification-audience notifications:send",
        roles=("notification-service/notifications:send",),
    ),
    # Story 3: audience mappers
    Row("abc", "alice", "without a scope it is for nobody"),
    Row("abc", "alice", "one scope, bob", ask="untrusted-audience", aud=("bob",), scope="untrusted-audience"),
    Row("abc", "alice", "one scope, charles", ask="charles-audience", aud=("charles",), scope="charles-audience"),
    Row(
        "abc",
        "alice",
        "two scopes requested together",
        ask="untrusted-audience charles-audience",
        aud=("bob", "charles"),
        scope="untrusted-audience charles-audience",
    ),
    Row(
        "abc", "alice", "two mappers in one scope", ask="both-audiences", aud=("bob", "charles"), scope="both-audiences"
    ),
    Row(
        "abc",
        "alice",
        "a custom audience, a URL",
        ask="bob-url-audience",
        aud=("https://bob.abc.example/api",),
        scope="bob-url-audience",
    ),
    # Story 3: Audience Resolve
    Row(
        "abc",
        "alice",
        "resolved, bob",
        ask="auto-add-audience",
        aud=("bob",),
        scope="auto-add-audience",
        roles=ALICE_BOTH_ROLES[:1],
    ),
    Row(
        "abc",
        "alice",
        "resolved, charles",
        ask="another-scope-to-include-charles",
        aud=("charles",),
        scope="another-scope-to-include-charles",
        roles=ALICE_BOTH_ROLES[1:],
    ),
    Row(
        "abc",
        "alice",
        "resolved, two scopes",
        ask=BY_ROLES,
        aud=("bob", "charles"),
        scope=BY_ROLES,
        roles=ALICE_BOTH_ROLES,
    ),
    Row(
        "abc",
        "alice",
        "resolved, two role mappings in one scope",
        ask="auto-add-both-audiences",
        aud=("bob", "charles"),
        scope="auto-add-both-audiences",
        roles=ALICE_BOTH_ROLES,
    ),
    # Story 3: each condition missing. Keycloak says 200 to all of them.
    Row("abc", "alice-without-role", "the account lacks the role: the scope drops out", ask="auto-add-audience"),
    Row("abc", "alice-without-role", "the account lacks the roles: both scopes drop out", ask=BY_ROLES),
    Row("abc", "alice", "no role is mapped to the scope", ask="auto-add-without-role", scope="auto-add-without-role"),
    Row("abc", "alice-without-roles-scope", "the built-in scope roles is missing", ask=BY_ROLES, scope=BY_ROLES),
    Row("abc", "alice-without-roles-scope", "nothing asked of a client without roles"),
    # Story 3: the opening scene
    Row("abc", "abc-ui", "a user's, addressed to nobody", user="dora", scope="profile"),
    Row(
        "abc",
        "abc-ui",
        "a user's for the untrusted service",
        user="dora",
        ask="untrusted-audience",
        aud=("bob",),
        scope="profile untrusted-audience",
    ),
    Row(
        "abc",
        "abc-ui",
        "a user's for the trusted service",
        user="dora",
        ask="charles-audience",
        aud=("charles",),
        scope="charles-audience profile",
    ),
]


@pytest.fixture(scope="module", params=["--import-realm", "POST /admin/realms"])
def realm_of(every_keycloak: Keycloak, request: pytest.FixtureRequest) -> Iterator[RealmOf]:
    if request.param == "--import-realm":
        yield every_keycloak.realm
        return
    with ExitStack() as stack:
        posted = {name: stack.enter_context(every_keycloak.copy_of(name)) for name in REALMS}
        yield posted.__getitem__


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_token_says_what_its_story_says(realm_of: RealmOf, row: Row) -> None:
    realm = realm_of(row.realm)
    token = (
        realm.service_token(row.client, row.ask)
        if row.user is None
        else realm.user_token(row.user, via=row.client, scope=row.ask)
    )
    claims = claims_of(token)
    assert claims["iss"] == realm.issuer
    assert claims["typ"] == "Bearer"
    assert claims["azp"] == row.client
    # A server reads its clock once for iat and again for exp; a second may turn between the two.
    assert claims["exp"] - claims["iat"] in (300, 301)
    assert claims["sub"]
    assert sorted(claims["scope"].split()) == sorted(row.scope.split())
    assert _audiences(claims) == sorted(row.aud)
    assert _client_roles(claims) == sorted(row.roles)
    if row.user is None:
        assert claims["client_id"] == row.client
        assert "sid" not in claims
    else:
        assert claims["sid"]
        assert "client_id" not in claims


@pytest.mark.parametrize(
    ("realm", "client", "scope", "status", "error"),
    [
        pytest.param("corp", "crm-api-gateway", None, 401, "unauthorized_client", id="a receiver asks for no token"),
        pytest.param(
            "corp", "chat-app-unassigned", "crm-audience", 400, "invalid_scope", id="a scope that is not assigned"
        ),
        pytest.param(
            "techstore", "inventory-service", "notifications:send", 400, "invalid_scope", id="nor taken by asking"
        ),
        pytest.param(
            "abc", "alice-without-role", "untrusted-audience", 400, "invalid_scope", id="a scope of another client"
        ),
    ],
)
def test_keycloak_refuses(
    realm_of: RealmOf, *, realm: str, client: str, scope: str | None, status: int, error: str
) -> None:
    at = realm_of(realm)
    asked = {} if scope is None else {"scope": scope}
    answer = at.ask(grant_type="client_credentials", client_id=client, client_secret=at.secret(client), **asked)
    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_audience_in_the_request_adds_nothing(realm_of: RealmOf) -> None:
    realm = realm_of("abc")
    answer = realm.ask(
        grant_type="client_credentials", client_id="alice", client_secret=realm.secret("alice"), audience="bob"
    )
    assert answer.status_code == 200
    assert "aud" not in claims_of(answer.json()["access_token"])


def test_assigning_the_scope_is_the_step_that_was_missing(every_keycloak: Keycloak) -> None:
    with every_keycloak.copy_of("corp") as corp:
        every_keycloak.admin.assign_scope(corp.name, "chat-app-unassigned", "crm-audience")
        every_keycloak.admin.remove_scope(corp.name, "chat-app-service", "crm-audience")
        assert _audiences(claims_of(corp.service_token("chat-app-unassigned"))) == ["account", "crm-api-gateway"]
        assert "aud" not in claims_of(corp.service_token("chat-app-service"))


@pytest.mark.parametrize("name", REALMS)
def test_no_secret_stands_in_a_realm_file(name: str) -> None:
    values = fresh_secrets()
    secrets = [client["secret"] for client in filled(name, values)["clients"] if "secret" in client]
    passwords = [
        credential["value"]
        for user in filled(name, values).get("users", [])
        for credential in user.get("credentials", [])
    ]
    assert set(secrets + passwords) <= set(values.values())
    assert len(set(secrets + passwords)) == len(secrets + passwords)


@pytest.mark.parametrize("name", REALMS)
def test_every_caller_lists_the_scopes_that_an_import_leaves_out(name: str) -> None:
    # An account that comes with a users entry gets no service_account scope from the server, and with it no client_id claim.
    for client in filled(name, fresh_secrets())["clients"]:
        if client["serviceAccountsEnabled"]:
            assert {"basic", "service_account"} <= set(client["defaultClientScopes"]), client["clientId"]


def _audiences(claims: dict[str, Any]) -> list[str]:
    if "aud" not in claims:
        return []
    aud = claims["aud"]
    if isinstance(aud, str):
        return [aud]
    assert len(aud) > 1, "one audience is a string, not a list"
    return sorted(aud)


def _client_roles(claims: dict[str, Any]) -> list[str]:
    return sorted(
        f"{client}/{role}" for client, held in claims.get("resource_access", {}).items() for role in held["roles"]
    )

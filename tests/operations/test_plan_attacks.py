"""Access files of teams that want admin power, or another app's audience. Each asks in a way that reads like an honest app."""

from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.wanted import Severity
from s2s_fastapi.realm.entities import Role
from tests.kit.admin_rest import FakeKeycloak
from tests.operations.landscape import app, call, file, route
from tests.operations.planning import plan_for, steps_of

SHARED = "https://api.example"
HONEST = app("crm", route("/notes", {"caller": ["chat"]}))
CHAT = app("chat", calls=[call("crm")], receives=False)


def realm() -> FakeKeycloak:
    """Return a realm with a payroll whose file is not given, and a deployer with admin power."""
    server = FakeKeycloak()
    server.add_client(clientId="payroll")
    server.add_scope("payroll-audience", "payroll")
    server.add_scope("payroll:admin", "payroll", SHARED)
    server.add_scope("shared:admin", SHARED)
    server.add_client(
        clientId="boss",
        serviceAccountsEnabled=True,
        optionalClientScopes=["payroll-audience", "payroll:admin", "shared:admin"],
    )
    server.add_client(clientId="deployer", serviceAccountsEnabled=True, defaultClientScopes=["basic", "roles"])
    admin = next(uuid for uuid, role in server.roles.items() if role["name"] == "realm-admin")
    server.granted[server.account_of("deployer")] |= {admin}
    # A role of the attackers' own client, made into admin power by somebody who may edit it.
    server.add_client(clientId="evil", serviceAccountsEnabled=True, fullScopeAllowed=False)
    server.inside[server.add_role("evil", "helper")] = {admin}
    return server


def _roles(*names: str, of: str = "", client: str = "mallory") -> dict[str, Any]:
    return {"and": [{"caller": [client]}, {"role": list(names), **({"client": of} if of else {})}]}


ATTACKS: dict[str, list[Any]] = {
    "admin power, as a role of its own client, of Keycloak's, and of the realm": [
        app(
            "evil",
            route("/helper", _roles("helper")),
            route("/users", _roles("manage-users", of="realm-management")),
            route("/capitals", _roles("manage-users", of="Realm-Management")),
            route("/realm", {"and": [{"caller": ["mallory"]}, {"realm_role": ["admin"]}]}),
        ),
        app("mallory", calls=[call("evil", "roles", "offline_access")], receives=False),
    ],
    "the place of a client of Keycloak's": [
        app("admin-cli", route("/x", {"caller": ["mallory"]}), calls=[call("crm")]),
        app("Realm-Management", route("/x", {"caller": ["mallory"]})),
        app("mallory", calls=[call("realm-management"), call("Realm-Management"), call("admin-cli")], receives=False),
    ],
    "payroll's audience, by saying that it is payroll": [
        {**app("evil", route("/x", {"caller": ["mallory"]})), "requires": {"and": [{"audience": ["payroll"]}, {"service": "any"}]}},
        app("mallory", calls=[call("payroll"), call("payroll", "payroll-audience")], receives=False),
    ],
    "payroll's audience, by scopes and by a role of payroll": [
        app("evil", route("/x", {"caller": ["mallory"]}), route("/y", _roles("reader", of="payroll"))),
        app("mallory", calls=[call("evil", "payroll-audience"), call("evil", "payroll:admin")], receives=False),
    ],
    "a permission of another app, by an audience that both answer to": [
        {**app("evil", route("/x", {"caller": ["mallory"]})), "requires": {"and": [{"audience": [SHARED]}, {"service": "any"}]}},
        app("mallory", calls=[call(SHARED), call(SHARED, "shared:admin")], receives=False),
    ],
}  # fmt: skip
HARMLESS = {SHARED, "crm", "evil"}


@pytest.mark.parametrize("what", ATTACKS)
def test_a_file_that_wants_more_gets_no_admin_power_and_no_other_apps_audience(what: str) -> None:
    server = realm()
    apps = file(*ATTACKS[what], HONEST, CHAT).apps
    with server.api() as api:
        plan = plan_for(api, *apps)

    for token in plan.tokens:
        assert _audiences(token.after) <= HARMLESS
        assert not {"payroll:admin", "shared:admin", "payroll-audience"} & set(
            str(token.after.get("scope", "")).split()
        )
        assert not token.after.get("realm_access")
        assert token.after.get("resource_access", {}).keys() <= {"evil"}
    assert not [step for step in plan.steps if getattr(step, "client", "") in _KEYCLOAKS]
    assert not [step for step in plan.steps if Role(getattr(step, "owner", ""), getattr(step, "role", "")) in _POWER]
    assert "Make the client chat" in "".join(steps_of(plan))  # the honest ones are planned beside it
    assert _loud(plan)


_KEYCLOAKS = {"admin-cli", "realm-management", "Realm-Management"}
_POWER = {
    Role("realm-management", "manage-users"),
    Role("", "admin"),
    Role("evil", "helper"),
    Role("payroll", "reader"),
}


def _audiences(claims: Any) -> set[str]:
    found = claims.get("aud", [])
    return {found} if isinstance(found, str) else set(found)


def _loud(plan: Plan) -> bool:
    """Return whether somebody who reads the plan learns of it."""
    return any("mallory" in one.text and one.level in (Severity.FORBIDDEN, Severity.OPEN) for one in plan.findings)


def test_a_caller_that_has_admin_power_does_not_show_it_to_a_new_receiver_in_silence() -> None:
    server = realm()
    apps = file(
        app("evil", route("/x", {"caller": ["deployer"]})), app("deployer", calls=[call("evil")], receives=False)
    ).apps
    with server.api() as api:
        plan = plan_for(api, *apps)

    said = "\n".join(one.text for one in plan.findings if one.level is Severity.OPEN)
    assert "The token of deployer is also for realm-management, and no access file asks for that" in said


def test_the_files_of_the_attacks_are_access_files(tmp_path: Path) -> None:
    for number, apps in enumerate(ATTACKS.values()):
        path = tmp_path / f"{number}.json"
        path.write_text(file(*apps).text)
        assert len(AccessFile.read(path).apps) == len(apps)


USERS_FLOWS = {
    "oauth2.device.authorization.grant.enabled": "OAuth 2.0 Device Authorization Grant",
    "oidc.ciba.grant.enabled": "OIDC CIBA Grant",
    "standard.token.exchange.enabled": "Standard Token Exchange",
    "oauth2.jwt.authorization.grant.enabled": "JWT Authorization Grant",
}


def there(server: FakeKeycloak, **more: Any) -> FakeKeycloak:
    server.add_client(clientId="crm")
    lists = {"defaultClientScopes": ["basic", "roles", "service_account"]}
    server.add_client(
        **{"clientId": "chat", "serviceAccountsEnabled": True, "fullScopeAllowed": False, **lists, **more}
    )
    return server


def sentences(plan: Plan, level: Severity) -> str:
    return "\n".join(one.text for one in plan.findings if one.level is level)


@pytest.mark.parametrize("attribute", USERS_FLOWS)
def test_a_client_that_gets_tokens_of_users_by_whatever_flow_gets_nothing_into_them_without_a_grant(
    attribute: str,
) -> None:
    crm = app("crm", route("/notes", {"and": [{"caller": ["chat"]}, {"scope": ["crm:x"]}]}))
    server = there(FakeKeycloak(), attributes={attribute: "true"})
    with server.api() as api:
        plan = plan_for(api, *file(crm, CHAT).apps)
        granted = plan_for(api, *file(crm, CHAT).apps, grant=("chat:audience=crm", "chat:scope=crm:x"))
        server.client("chat")["attributes"][attribute] = "false"
        off = plan_for(api, *file(crm, CHAT).apps)

    assert not [step for step in steps_of(plan) if "to chat" in step]
    assert f"has login flows on ({USERS_FLOWS[attribute]})" in sentences(plan, Severity.NOTE)
    assert "--grant chat:audience=crm" in sentences(plan, Severity.OPEN)
    for other in (granted, off):
        assert "Assign the client scope crm-audience to chat as Default" in steps_of(other)
    assert off.hash != plan.hash


@pytest.mark.parametrize("switch", ["lightweight.claim", "introspection.token.claim", "id.token.claim"])
@pytest.mark.parametrize("kind", ["client", "custom"])
def test_a_scope_that_brings_another_audience_into_any_kind_of_token_is_not_given(kind: str, switch: str) -> None:
    server = there(FakeKeycloak())
    server.add_scope("crm-audience", "crm")
    config = {f"included.{kind}.audience": "payroll", "access.token.claim": "false", switch: "true"}
    server.scope("crm-audience")["protocolMappers"].append(
        {
            "id": "m",
            "name": "m",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": config,
        }
    )
    with server.api() as api:
        plan = plan_for(api, *file(HONEST, CHAT).apps)

    assert "Assign the client scope crm-audience-2 to chat as Default" in steps_of(plan)
    assert (
        "The client scope crm-audience is not used for the audience crm of chat: it also brings the audience payroll. In its place"
        " crm-audience-2 brings it."
    ) in sentences(plan, Severity.NOTE)


def test_a_scope_that_counts_for_some_callers_only_is_named_with_the_one_that_is_made_in_its_place() -> None:
    server = there(FakeKeycloak())
    server.mapped[server.add_scope("crm-audience", "crm")] = {server.add_role("", "vip")}
    with server.api() as api:
        plan = plan_for(api, *file(HONEST, CHAT).apps)

    assert "crm-audience is not used for the audience crm of chat: it counts only for callers with certain roles" in (
        sentences(plan, Severity.NOTE)
    )


def test_a_scope_of_keycloaks_own_name_that_somebody_made_or_changed_is_not_given() -> None:
    old = there(FakeKeycloak(old=True))
    old.add_scope("service_account", "payroll")
    roles = there(FakeKeycloak(), defaultClientScopes=["basic", "service_account"])
    mapper = {
        "id": "q",
        "name": "power",
        "protocolMapper": "oidc-hardcoded-role-mapper",
        "config": {"role": "payroll.admin"},
    }
    roles.scope("roles")["protocolMappers"].append(mapper)
    crm = app("crm", route("/notes", _roles("w", client="chat")))
    for server, said in (
        (
            old,
            'chat needs the client scope service_account, which has mappers that Keycloak does not make there ("audience payroll")',
        ),
        (roles, "chat needs the client scope roles, which has mappers that Keycloak does not make there (power)"),
    ):
        with server.api() as api:
            plan = plan_for(api, *file(crm, CHAT).apps)
        assert said in sentences(plan, Severity.OPEN)
        assert not [step for step in steps_of(plan) if "client scope service_account" in step or "scope roles" in step]


def test_no_service_account_is_made_if_the_scope_that_keycloak_gives_it_has_more() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    server.scope("service_account")["protocolMappers"].append(
        {
            "id": "q",
            "name": "q",
            "protocolMapper": "oidc-audience-mapper",
            "config": {"included.client.audience": "payroll"},
        }
    )
    with server.api() as api:
        plan = plan_for(api, *file(HONEST, CHAT).apps)

    assert steps_of(plan) == []
    assert "chat has no service account yet, and it would have the client scope service_account" in (
        sentences(plan, Severity.OPEN)
    )


def test_a_new_scope_and_a_new_realm_role_are_said_and_need_a_grant_if_an_app_without_a_file_would_see_them() -> None:
    crm = app(
        "crm",
        route("/x", {"and": [{"caller": ["chat"]}, {"scope": ["payroll:admin"]}, {"realm_role": ["payroll-admin"]}]}),
    )
    server = there(FakeKeycloak())
    with server.api() as api:
        alone = plan_for(api, *file(crm, CHAT).apps)
        server.client("chat")["defaultClientScopes"].append("payroll-audience")
        server.add_scope("payroll-audience", "payroll")
        beyond = plan_for(api, *file(crm, CHAT).apps)
        granted = plan_for(
            api, *file(crm, CHAT).apps, grant=("chat:scope=payroll:admin", "chat:realm-role=payroll-admin")
        )

    for what in ("client scope payroll:admin", "realm role payroll-admin"):
        assert f"CHECK THIS: the {what} is new." in sentences(alone, Severity.NOTE)
        assert f"Make the {what}" in steps_of(alone)
        assert f"Make the {what}" in steps_of(granted)
        assert f"Make the {what}" not in steps_of(beyond)
        assert f"chat shall have the new {what}, and it has the audience payroll" in sentences(beyond, Severity.OPEN)


@pytest.mark.parametrize("more", [{}, {"serviceAccountsEnabled": False}], ids=["service account", "none yet"])
def test_a_client_that_was_there_and_gets_its_first_audience_is_said(more: dict[str, Any]) -> None:
    said = "CHECK THIS: the client chat was there, and gets its first audience or role."
    server = there(FakeKeycloak(), **more)
    with server.api() as api:
        assert said in sentences(plan_for(api, *file(HONEST, CHAT).apps), Severity.NOTE)
        server.add_scope("crm-audience", "crm")
        server.client("chat")["defaultClientScopes"].append("crm-audience")
        assert said not in sentences(plan_for(api, *file(HONEST, CHAT).apps), Severity.NOTE)
    with FakeKeycloak().api() as api:
        assert "was there, and gets" not in sentences(plan_for(api, *file(HONEST, CHAT).apps), Severity.NOTE)

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

"""Plans on real servers: an empty realm becomes one in which the declared calls of the stories work, and stays so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from example_app.stage import Stage, free_port
from s2s_fastapi import require_caller, require_role, require_scope
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.admin import AdminError, AdminTarget
from s2s_fastapi.operations.app_processes import AppTarget, read_apps
from s2s_fastapi.operations.steps import AssignScope
from tests.kit.declaring import caller, receiver
from tests.real.operating import RIGHTS, Secrets, applied, empty_realm, environment_of, issued, plan_for, predicted
from tests.real.server import NEWEST, Keycloak

APPS = {
    "crm_gateway": "crm-api-gateway",
    "chat_app": "chat-app-service",
    "notification_service": "notification-service",
    "shop_api": "shop-api",
    "alice": "alice",
    "bob": "bob",
    "charles": "charles",
}
LEDGER = (
    receiver(
        "ledger",
        require_caller("reporter") & require_role("read") & require_scope("ledger:read"),
        require_caller("reporter", "auditor"),
    ),
    caller("reporter", "ledger"),
    caller("auditor", "ledger", scope="for-the-ledger"),
)


@pytest.fixture(scope="module")
def declared() -> tuple[AppAccess, ...]:
    """Give what the example apps declare, as `access` reads it."""
    read = read_apps([AppTarget(f"example_app.{name}:app", client_id) for name, client_id in APPS.items()])
    assert [app.problem for app in read if app.problem] == []
    return tuple(app.access for app in read if app.access is not None)


def test_an_empty_realm_gets_what_the_example_apps_declare_and_the_next_plan_is_empty(
    keycloak: Keycloak, declared: tuple[AppAccess, ...], tmp_path: Path
) -> None:
    secrets = Secrets(tmp_path)
    with empty_realm(keycloak) as target:
        plan = applied(target, *declared, secrets=secrets)
        after = plan_for(target, *declared, secrets=secrets)

        assert after.steps == ()
        assert not after.open
        tokens = predicted(plan)
        assert tokens == issued(target, tokens, secrets)
        assert len(tokens) == 4
        if keycloak.version == NEWEST:
            _play(target, secrets)


def _play(target: AdminTarget, secrets: Secrets) -> None:
    """Make each declared call of the stories, from the services themselves."""
    ports = {name: free_port() for name in APPS}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    others = {"CRM_URL": urls["crm_gateway"], "NOTIFICATIONS_URL": urls["notification_service"]}
    others |= {"BOB_URL": urls["bob"], "CHARLES_URL": urls["charles"]}
    with Stage() as stage:
        for name, client_id in APPS.items():
            stage.add(name, {**environment_of(target, client_id, secrets), **others}, port=ports[name])
        stage.wait()
        calls = {
            ("chat_app", "/escalate"): "crm_gateway",
            ("shop_api", "/checkout"): "notification_service",
            ("alice", "/messages/bob"): "bob",
            ("alice", "/messages/charles"): "charles",
        }
        seen = {call: stage.ask(call[0], "POST", call[1], log_of=to) for call, to in calls.items()}
        # Bob sends on what Alice sent him: the token is not for Charles.
        stage["charles"].forget()
        stage["alice"].ask("POST", "/replays")
        refused = stage["charles"].decision()[0]

    assert {call: (answer.status, answer.reason) for call, answer in seen.items()} == dict.fromkeys(
        calls, (200, "allowed")
    )
    assert refused == "wrong_audience"


@pytest.mark.parametrize(("version", "number"), [(NEWEST, 60), (OLDEST, 15)], ids=str)
def test_a_landscape_gets_what_it_declares_and_each_token_is_as_predicted(
    version: str, number: int, keycloaks: Callable[[str], Keycloak], tmp_path: Path
) -> None:
    keycloak, landscape = keycloaks(version), generated(number)
    secrets = Secrets(tmp_path, landscape.secrets)
    declared: Any = {"grants": landscape.grants, "secrets": secrets}
    with empty_realm(keycloak, rights=(*RIGHTS, "manage-realm"), more=landscape.realm) as target:
        for scope in landscape.scopes:
            keycloak.admin.request("POST", f"/{target.realm}/client-scopes", scope)
        for client_id, name, optional in landscape.held:
            keycloak.admin.assign_scope(target.realm, client_id, name, optional=optional)
        plan = plan_for(target, *landscape.apps, **declared)
        there = {key: claims for key, claims in predicted(plan, before=True).items() if key[0] in landscape.secrets}
        assert there == issued(target, there, secrets)
        assert any(claims["aud"] for claims in there.values())

        wire = Watched()
        carried_out(plan, target, secrets, wire)
        again = plan_for(target, *landscape.apps, **declared)

        assert again.steps == ()
        (refused,) = (found.text for found in again.findings if found.level is not Severity.NOTE)
        assert refused.startswith(f"{STRANGER} calls ")
        tokens = predicted(plan)
        assert tokens == issued(target, tokens, secrets)
        assert {app.client_id for app in landscape.apps if app.calls} == {caller for caller, _ in tokens} | {STRANGER}
        # Each step is one request, and the realm is read a second time to look at the result.
        assert wire.writes == len(plan.steps) > 4 * number
        assert wire.calls < 3 * len(plan.steps) + 50


def _delete_mapper(keycloak: Keycloak, realm: str) -> None:
    scope = keycloak.admin.scope(realm, "for-the-ledger")
    keycloak.admin.request(
        "DELETE", f"/{realm}/client-scopes/{scope['id']}/protocol-mappers/models/{scope['protocolMappers'][0]['id']}"
    )


def _delete_scope(keycloak: Keycloak, realm: str) -> None:
    keycloak.admin.request("DELETE", f"/{realm}/client-scopes/{keycloak.admin.scope(realm, 'for-the-ledger')['id']}")


def _take_role(keycloak: Keycloak, realm: str) -> None:
    ledger, role, account = _role(keycloak, realm)
    keycloak.admin.request("DELETE", f"/{realm}/users/{account}/role-mappings/clients/{ledger}", [role])


def _take_mapping(keycloak: Keycloak, realm: str) -> None:
    ledger, role, _ = _role(keycloak, realm)
    reporter = keycloak.admin.client(realm, "reporter")["id"]
    keycloak.admin.request("DELETE", f"/{realm}/clients/{reporter}/scope-mappings/clients/{ledger}", [role])


def _delete_role(keycloak: Keycloak, realm: str) -> None:
    ledger, role, _ = _role(keycloak, realm)
    keycloak.admin.request("DELETE", f"/{realm}/clients/{ledger}/roles/{role['name']}")


def _role(keycloak: Keycloak, realm: str) -> tuple[str, dict[str, Any], str]:
    ledger, reporter = (keycloak.admin.client(realm, name)["id"] for name in ("ledger", "reporter"))
    role = keycloak.admin.get(f"/{realm}/clients/{ledger}/roles/read")
    return ledger, role, keycloak.admin.get(f"/{realm}/clients/{reporter}/service-account-user")["id"]


def _switch_off(keycloak: Keycloak, realm: str) -> None:
    keycloak.admin.update_client(realm, "reporter", serviceAccountsEnabled=False)


def _delete_client(keycloak: Keycloak, realm: str) -> None:
    keycloak.admin.request("DELETE", f"/{realm}/clients/{keycloak.admin.client(realm, 'auditor')['id']}")


IMPLIED = (AssignScope(client="reporter", scope="service_account"),)
"""What newer servers take away together with the service account."""
BY_HAND: dict[Callable[[Keycloak, str], None], list[str]] = {
    _delete_mapper: ["add_audience"],
    _delete_scope: ["make_scope", "assign_scope", "assign_scope"],
    lambda keycloak, realm: keycloak.admin.remove_scope(realm, "reporter", "for-the-ledger"): ["assign_scope"],
    lambda keycloak, realm: keycloak.admin.remove_scope(realm, "auditor", "for-the-ledger", optional=True): [
        "assign_scope"
    ],
    lambda keycloak, realm: keycloak.admin.remove_scope(realm, "reporter", "basic"): ["assign_scope"],
    _take_role: ["grant_role"],
    _take_mapping: ["map_role"],
    _delete_role: ["make_role", "map_role", "grant_role"],
    _switch_off: ["enable_service_account", "grant_role"],
    _delete_client: ["make_client"],
}

OLDEST = [(change, BY_HAND[change]) for change in (_delete_mapper, _switch_off, _delete_client)]
"""What is also tried on the oldest server: each takes seconds."""


def test_what_is_changed_by_hand_is_exactly_what_the_plan_names_and_mends(keycloak: Keycloak, tmp_path: Path) -> None:
    with empty_realm(keycloak) as target:
        first = applied(target, *LEDGER, secrets=tmp_path)
        tokens = {(token.caller, token.request): comparable(token.after) for token in first.tokens}
        assert tokens["reporter", None]["resource_access"] == {"ledger": {"roles": ["read"]}}
        assert "resource_access" not in tokens["auditor", "for-the-ledger"]
        changes = list(BY_HAND.items()) if keycloak.version == NEWEST else OLDEST
        for number, (change, expected) in enumerate(changes):
            change(keycloak, target.realm)
            secrets = tmp_path / str(number)
            plan = applied(target, *LEDGER, secrets=secrets)

            assert [step.do for step in plan.steps if step not in IMPLIED] == expected, change
            again = plan_for(target, *LEDGER, secrets=secrets)
            assert again.steps == (), change
            for file in secrets.glob("*.secret"):  # of a client that was made anew
                file.replace(tmp_path / file.name)
            assert tokens == {key: issued(target, *key, secrets=tmp_path) for key in tokens}, change


def test_a_right_that_is_missing_is_named(keycloaks: Callable[[str], Keycloak], tmp_path: Path) -> None:
    keycloak = keycloaks(NEWEST)
    for right, rights in {"view-clients": ("view-realm",), "manage-users": RIGHTS[:-1]}.items():
        with (
            empty_realm(keycloak, rights=rights) as target,
            pytest.raises(AdminError, match=f"the role {right} of the client realm-management"),
        ):
            applied(target, *LEDGER, secrets=tmp_path / right)

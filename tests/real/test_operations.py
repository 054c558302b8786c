"""Plans on real servers: an empty realm becomes one in which the declared calls of the stories work, and stays so."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from example_app.realm import claims_of, filled, fresh_secrets
from example_app.stage import Stage, free_port
from s2s_fastapi import (
    KeycloakSettings,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
    require_user,
)
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.errors import TokenRequestError
from s2s_fastapi.keycloak.client_authentication import ByFederation, TrustedProvider
from s2s_fastapi.operations.admin import AdminApi, AdminError, AdminForbidden, AdminTarget
from s2s_fastapi.operations.app_processes import AppTarget, read_apps
from s2s_fastapi.operations.checks.table import examined
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Checked, Seen
from s2s_fastapi.operations.predicted import same_claims
from s2s_fastapi.operations.steps import AssignScope, MakeProvider
from s2s_fastapi.operations.tokens import requested
from s2s_fastapi.operations.wanted import Severity
from s2s_fastapi.realm.exchange import ACCESS_TOKEN, GRANT_TYPE
from tests.kit.declaring import bound, caller, on_behalf, receiver, with_users
from tests.real.admin import PLAIN
from tests.real.federation import Cluster, Projection
from tests.real.landscape import STRANGER, generated
from tests.real.operating import (
    RIGHTS,
    Secrets,
    Watched,
    applied,
    carried_out,
    empty_realm,
    environment_of,
    issued,
    plan_for,
    predicted,
)
from tests.real.server import NEWEST, VERSIONS, Keycloak

APPS = {
    "crm_gateway": "crm-api-gateway",
    "chat_app": "chat-app-service",
    "notification_service": "notification-service",
    "shop_api": "shop-api",
    "alice": "alice",
    "bob": "bob",
    "charles": "charles",
}
STORIES = {
    "corp": {"crm-api-gateway", "chat-app-service"},
    "techstore": {"notification-service", "shop-api"},
    "abc": {"alice", "bob", "charles"},
}
LEDGER = (
    receiver(
        "ledger",
        require_caller("reporter") & require_role("read") & require_scope("ledger:read"),
        require_caller("reporter", "auditor"),
        require_caller("auditor") & require_realm_role("partner"),
    ),
    caller("reporter", "ledger"),
    caller("auditor", "ledger", scope="for-the-ledger"),
)
GRANTS = ("auditor:realm-role=partner",)


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

    assert {call: (answer.status, answer.reason) for call, answer in seen.items()} == {
        **dict.fromkeys(calls, (200, "allowed")),
        ("chat_app", "/escalate"): (201, "allowed"),
    }
    assert refused == "wrong_audience"


@pytest.mark.parametrize(("version", "number"), [(NEWEST, 60), (VERSIONS[-1], 12)], ids=str)
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
        findings = [found.text for found in again.findings if found.level is not Severity.NOTE]
        assert sorted(text.partition(",")[0] for text in findings) == [
            *(f"The token of {name} is also for service-00" for name in landscape.wide),
            f"{STRANGER} calls service-00",
        ]
        tokens = predicted(plan)
        assert tokens == issued(target, tokens, secrets)
        assert {app.client_id for app in landscape.apps if app.calls} == {caller for caller, _ in tokens} | {STRANGER}
        # Each step is a request, or two if a scope moves from one list to the other.
        assert 4 * number < len(plan.steps) <= wire.writes < 1.1 * len(plan.steps)
        assert wire.calls < 3 * len(plan.steps) + 50


def _delete_mapper(keycloak: Keycloak, realm: str) -> None:
    scope = keycloak.admin.scope(realm, "for-the-ledger")
    keycloak.admin.request(
        "DELETE", f"/{realm}/client-scopes/{scope['id']}/protocol-mappers/models/{scope['protocolMappers'][0]['id']}"
    )


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


def _move(client_id: str, scope: str, *, optional: bool) -> "_Change":
    def change(keycloak: Keycloak, realm: str) -> None:
        keycloak.admin.remove_scope(realm, client_id, scope, optional=not optional)
        keycloak.admin.assign_scope(realm, client_id, scope, optional=optional)

    return change


def _unassign(client_id: str, scope: str, *, optional: bool = False) -> "_Change":
    return lambda keycloak, realm: keycloak.admin.remove_scope(realm, client_id, scope, optional=optional)


def _update(client_id: str, **members: Any) -> "_Change":
    return lambda keycloak, realm: keycloak.admin.update_client(realm, client_id, **members)


def _set_mapper(**config: str) -> "_Change":
    def change(keycloak: Keycloak, realm: str) -> None:
        scope = keycloak.admin.scope(realm, "for-the-ledger")
        (mapper,) = (one for one in scope["protocolMappers"] if one["name"] == "audience ledger")
        path = f"/{realm}/client-scopes/{scope['id']}/protocol-mappers/models/{mapper['id']}"
        keycloak.admin.request("PUT", path, {**mapper, "config": {**mapper["config"], **config}})

    return change


def _show_scope(shown: str) -> "_Change":
    def change(keycloak: Keycloak, realm: str) -> None:
        scope = keycloak.admin.scope(realm, "ledger:read")
        attributes = {**scope["attributes"], "include.in.token.scope": shown}
        keycloak.admin.request("PUT", f"/{realm}/client-scopes/{scope['id']}", {**scope, "attributes": attributes})

    return change


def _take_realm_role(keycloak: Keycloak, realm: str) -> None:
    auditor = keycloak.admin.client(realm, "auditor")["id"]
    account = keycloak.admin.get(f"/{realm}/clients/{auditor}/service-account-user")["id"]
    role = keycloak.admin.get(f"/{realm}/roles/partner")
    keycloak.admin.request("DELETE", f"/{realm}/users/{account}/role-mappings/realm", [role])


def _delete(kind: str, name: str) -> "_Change":
    def change(keycloak: Keycloak, realm: str) -> None:
        found = {"scope": keycloak.admin.scope, "client": keycloak.admin.client}[kind](realm, name)
        keycloak.admin.request("DELETE", f"/{realm}/{'client-scopes' if kind == 'scope' else 'clients'}/{found['id']}")

    return change


def _write_audience(keycloak: Keycloak, realm: str) -> None:
    """Add a mapper to the client itself that writes an audience which nobody declares."""
    config = {"included.custom.audience": "elsewhere", "access.token.claim": "true"}
    mapper = {"name": "more", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper", "config": config}
    reporter = keycloak.admin.client(realm, "reporter")["id"]
    keycloak.admin.request("POST", f"/{realm}/clients/{reporter}/protocol-mappers/models", mapper)


def _take_own_mappers(keycloak: Keycloak, realm: str) -> None:
    reporter = keycloak.admin.client(realm, "reporter")
    for mapper in reporter["protocolMappers"]:
        path = f"/{realm}/clients/{reporter['id']}/protocol-mappers/models/{mapper['id']}"
        keycloak.admin.request("DELETE", path)


_Change = Callable[[Keycloak, str], None]
IMPLIED = (AssignScope(client="reporter", scope="service_account"),)
"""What newer servers take away together with the service account."""
MENDED: tuple[dict[_Change, list[str]], ...] = (
    {
        _delete_mapper: ["add_audience"],
        _update("reporter", serviceAccountsEnabled=False): ["enable_service_account", "grant_role"],
    },
    {_delete("client", "auditor"): ["make_client", "map_role", "grant_role"]},
    {
        _set_mapper(**{"access.token.claim": "false"}): ["add_audience"],
        _move("reporter", "ledger:read", optional=True): ["assign_scope"],
        _unassign("reporter", "basic"): ["assign_scope"],
        _take_role: ["grant_role"],
        _take_realm_role: ["grant_role"],
    },
    {
        _delete("scope", "for-the-ledger"): ["make_scope", "assign_scope", "assign_scope"],
        _unassign("reporter", "roles"): ["assign_scope"],
        _take_mapping: ["map_role"],
    },
    {
        _unassign("reporter", "for-the-ledger"): ["assign_scope"],
        _unassign("auditor", "for-the-ledger", optional=True): ["assign_scope"],
        _delete("scope", "ledger:read"): ["make_scope", "assign_scope"],
        _delete_role: ["make_role", "map_role", "grant_role"],
    },
    {_move("reporter", "for-the-ledger", optional=True): ["assign_scope"]},
)
"""What a plan mends, some at a time, with the steps for each. The first two are also tried on the oldest server."""
SAID: tuple[tuple[list[str], dict[_Change, tuple[str, _Change]]], ...] = (
    (
        [],
        {
            _move("auditor", "for-the-ledger", optional=False): (
                "The client scope for-the-ledger is a Default one of auditor",
                _move("auditor", "for-the-ledger", optional=True),
            ),
            _show_scope("false"): (
                "its token would lack the client scope ledger:read, because “Include in token scope” is off",
                _show_scope("true"),
            ),
            _update("reporter", fullScopeAllowed=True): (
                "“Full scope allowed” of the client reporter is on",
                _update("reporter", fullScopeAllowed=False),
            ),
            _write_audience: ("The token of reporter is also for elsewhere", _take_own_mappers),
        },
    ),
    (
        ["make_scope", "assign_scope"],
        {
            _set_mapper(**{"included.client.audience": "reporter"}): (
                "for-the-ledger for ledger. It also brings the audience reporter, so it is not extended",
                _set_mapper(**{"included.client.audience": "ledger"}),
            )
        },
    ),
    (
        [],
        {
            _update(name, enabled=False): (f"The client {name} is disabled", _update(name, enabled=True))
            for name in ("reporter", "ledger")
        },
    ),
)
"""What a plan does not change, some at a time: the steps all the same, and for each change what the plan says and how it is undone."""


def test_what_is_changed_by_hand_is_exactly_what_the_plan_names_and_mends(keycloak: Keycloak, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path)
    declared: Any = {"secrets": secrets, "grants": GRANTS}
    with empty_realm(keycloak, rights=(*RIGHTS, "manage-realm")) as target:
        tokens = predicted(applied(target, *LEDGER, **declared))
        assert tokens["reporter", None]["resource_access"] == {"ledger": {"roles": ["read"]}}
        assert tokens["auditor", "for-the-ledger"]["realm_access"] == {"roles": ["partner"]}
        assert "resource_access" not in tokens["auditor", "for-the-ledger"]

        for changes in MENDED if keycloak.version == NEWEST else MENDED[:2]:
            for change in changes:
                change(keycloak, target.realm)
            plan = applied(target, *LEDGER, **declared)
            expected = sorted(do for steps in changes.values() for do in steps)
            assert sorted(step.do for step in plan.steps if step not in IMPLIED) == expected
            assert tokens == issued(target, tokens, secrets), expected
        usual = plan_for(target, *LEDGER, **declared)
        assert usual.steps == ()

        for steps, said in SAID if keycloak.version == NEWEST else ():
            for change in said:
                change(keycloak, target.realm)
            plan = plan_for(target, *LEDGER, **declared)
            assert [step.do for step in plan.steps] == steps
            for text, _ in said.values():
                assert [one for one in plan.findings if text in one.text and one not in usual.findings], text
            before = predicted(plan, before=True)
            assert before == issued(target, before, secrets)
            for _, undo in said.values():
                undo(keycloak, target.realm)
        again = plan_for(target, *LEDGER, **declared)
        assert (again.steps, again.findings) == ((), usual.findings)


def test_a_second_caller_that_is_named_for_a_role_leaves_the_token_of_the_first_as_it_was(
    keycloak: Keycloak, tmp_path: Path
) -> None:
    secrets, both = Secrets(tmp_path), require_caller("reporter", "auditor")
    callers = (caller("reporter", "ledger"), caller("auditor", "ledger"))
    with empty_realm(keycloak) as target:
        tokens = predicted(applied(target, receiver("ledger", both), *callers, secrets=secrets))
        before = issued(target, tokens, secrets)
        named = require_caller("reporter") & require_role("read")
        applied(target, receiver("ledger", both, named), *callers, secrets=secrets)
        after = issued(target, tokens, secrets)

    assert after["auditor", None] == before["auditor", None] == tokens["auditor", None]
    assert after["reporter", None] == {**before["reporter", None], "resource_access": {"ledger": {"roles": ["read"]}}}


@pytest.mark.parametrize("realm", STORIES)
def test_the_realms_of_the_stories_have_all_that_the_example_apps_declare(
    realm: str, keycloak: Keycloak, declared: tuple[AppAccess, ...], tmp_path: Path
) -> None:
    apps = [app for app in declared if app.client_id in STORIES[realm]]
    assert len(apps) == len(STORIES[realm])
    with empty_realm(keycloak, more=filled(realm, fresh_secrets())) as target:
        plan = plan_for(target, *apps, secrets=Secrets(tmp_path))

    assert plan.steps == ()
    assert [finding.text for finding in plan.findings if finding.level is not Severity.NOTE] == []
    assert plan.tokens


def test_who_may_only_read_makes_plans_and_carries_none_out(
    keycloaks: Callable[[str], Keycloak], tmp_path: Path
) -> None:
    keycloak, secrets = keycloaks(NEWEST), Secrets(tmp_path)
    with empty_realm(keycloak, rights=RIGHTS[:3]) as target:
        plan = plan_for(target, *LEDGER, secrets=secrets, grants=GRANTS)
        assert "make_role" in [step.do for step in plan.steps]
        wire = Watched()
        with pytest.raises(AdminForbidden, match="the role manage-clients of the client realm-management"):
            carried_out(plan, target, secrets, wire)
        assert wire.done == 0


def test_a_right_that_is_missing_is_named(keycloaks: Callable[[str], Keycloak], tmp_path: Path) -> None:
    keycloak = keycloaks(NEWEST)
    for right, rights in {
        "view-clients": ("view-realm",),
        "manage-users": (*RIGHTS[:-1], "manage-realm"),
        "manage-realm": RIGHTS,
    }.items():
        wire, secrets = Watched(), Secrets(tmp_path / right)
        with (
            empty_realm(keycloak, rights=rights) as target,
            pytest.raises(AdminError, match=f"the role {right} of the client realm-management"),
        ):
            carried_out(plan_for(target, *LEDGER, secrets=secrets, grants=GRANTS), target, secrets, wire)
        assert wire.writes == 0, right


def test_calls_on_behalf_of_users_get_what_the_plan_says_and_the_next_plan_is_empty(
    keycloak: Keycloak, tmp_path: Path
) -> None:
    secrets = Secrets(tmp_path)
    url = "https://tools.example.com/mcp"
    receivers = (
        with_users(receiver("crm", require_user("shop-api"))),
        replace(with_users(receiver(url, require_user("shop-api"))), client_id="tools"),
    )
    shop = on_behalf("shop-api", "crm")
    shop = replace(shop, calls=(*shop.calls, *on_behalf("shop-api", url, scope="for-tools").calls))
    with empty_realm(keycloak) as target:
        plan = applied(target, *receivers, shop, secrets=secrets)
        again = plan_for(target, *receivers, shop, secrets=secrets)

        assert again.steps == ()
        if keycloak.version != NEWEST:
            assert any("26.2 or newer" in finding.text for finding in plan.findings)
            return
        assert not again.open
        (own,) = {secrets.of("shop-api")}
        client = {"client_id": "shop-api", "client_secret": own}
        subject = ask_token({**client, "grant_type": "client_credentials"}, target)
        for token in plan.tokens:
            form = {
                **client,
                "grant_type": GRANT_TYPE,
                "subject_token": subject,
                "subject_token_type": ACCESS_TOKEN,
                **({"scope": token.request} if token.request else {}),
            }
            claims = claims_of(ask_token(form, target))
            assert same_claims({**claims, "client_id": None}, {**token.after, "client_id": None})


def ask_token(form: dict[str, str], target: AdminTarget) -> str:
    answer = httpx.post(
        f"{target.issuer}/protocol/openid-connect/token", data=form, timeout=30, trust_env=False, verify=PLAIN
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


# Bound tokens

BOUND = (replace(receiver("crm", require_caller("billing")), dpop="accepted"), bound("billing", "crm"))
FORCED = "dpop.bound.access.tokens"
FOR_CRM = Wanted(frozenset({"crm"}), frozenset())


def _examined(target: AdminTarget, settings: KeycloakSettings, *, admin: bool) -> dict[str, Checked]:
    with AdminApi(target, transport=Watched()) as api:
        report = examined(Facts(apps=BOUND, files=("access.json",), settings=settings, admin=api if admin else None))
    return {check.name: check for check in report.checks}


def test_a_caller_that_binds_every_token_gets_no_other_ones_and_doctor_says_so(
    keycloak: Keycloak, tmp_path: Path
) -> None:
    secrets = Secrets(tmp_path)
    with empty_realm(keycloak) as target:
        plan = applied(target, *BOUND, secrets=secrets)
        (token,) = plan.tokens
        settings = KeycloakSettings(
            url=keycloak.url, realm=target.realm, client_id="billing", client_secret=secrets.of("billing")
        )
        granted = requested(settings, FOR_CRM, dpop=True)
        if keycloak.version != NEWEST:
            assert isinstance(granted, TokenRequestError)
            assert "Keycloak ignored the proof" in str(granted)
            assert any("billing calls with bound tokens (DPoP)" in each.text for each in plan.findings)
            assert not any("DPoP" in str(step) for step in plan.steps)
            for admin in (False, True):
                (finding,) = _examined(target, settings, admin=admin)["bound"].findings
                assert finding.seen == "This Keycloak binds no tokens."
            return

        assert isinstance(granted, GrantedToken)
        claims = claims_of(granted.value)
        assert set(claims["cnf"]) == {"jkt", "kc-jkt-type"}
        shown = {name: claims[name] for name in token.after if name != "cnf"}
        assert same_claims({**shown, "cnf": {}}, token.after)
        refused = requested(settings, FOR_CRM, dpop=False)
        assert isinstance(refused, TokenRequestError)
        assert "KEYCLOAK_DPOP" in refused.cure
        assert not plan_for(target, *BOUND, secrets=secrets).open
        checks = _examined(target, settings, admin=True)
        assert {name: check.findings for name, check in checks.items() if check.findings} == {}
        assert Seen("Keycloak gives billing bound tokens only.") in checks["bound"].results

        # Somebody switches it off: the plan and doctor name the same change, and the change that doctor names is enough.
        keycloak.admin.update_client(target.realm, "billing", attributes={FORCED: "false"})
        again = plan_for(target, *BOUND, secrets=secrets)
        assert [str(step) for step in again.steps] == ["Switch “Require DPoP bound tokens” of the client billing on."]
        (finding,) = _examined(target, settings, admin=True)["bound"].findings
        for change in finding.changes:
            keycloak.admin.request(change.method, change.path.removeprefix("/admin/realms"), change.body)
        assert not plan_for(target, *BOUND, secrets=secrets).open
        keycloak.admin.update_client(target.realm, "billing", attributes={FORCED: "false"})
        carried_out(again, target, secrets)
        assert isinstance(requested(settings, FOR_CRM, dpop=False), TokenRequestError)
        assert isinstance(requested(settings, FOR_CRM, dpop=True), GrantedToken)


@pytest.mark.parametrize("version", [NEWEST], ids=str)
def test_a_planned_client_of_a_cluster_gets_its_token_and_no_other_identity_provider_changes(
    version: str, keycloaks: Callable[[str], Keycloak], tmp_path: Path
) -> None:
    keycloak, secrets = keycloaks(version), Secrets(tmp_path)
    rights = (*RIGHTS, "view-identity-providers", "manage-identity-providers")
    others = {
        "alias": "corporate",
        "providerId": "oidc",
        "enabled": True,
        "config": {"issuer": "https://login.corp.example"},
    }
    with Cluster() as cluster, empty_realm(keycloak, rights=rights, more={"identityProviders": [others]}) as target:
        pages = f"/{target.realm}/identity-provider/instances"
        before = keycloak.admin.get(f"{pages}/corporate")
        apps = (receiver("crm", require_caller("billing")), _federated(cluster.url, "billing"))
        plan = applied(target, *apps, secrets=secrets)

        assert [str(step) for step in plan.steps if isinstance(step, MakeProvider)]
        assert secrets.of("billing") == ""
        assert keycloak.admin.get(f"{pages}/corporate") == before
        made = keycloak.admin.get(f"{pages}/cluster")
        assert (made["hideOnLogin"], made["linkOnly"]) == (True, True)
        assert plan_for(target, *apps, secrets=secrets).steps == ()
        projection = Projection(tmp_path)
        projection.write(cluster.token(target.issuer, sub=SUBJECT))
        settings = KeycloakSettings(
            url=target.server,
            realm=target.realm,
            client_id="billing",
            client_auth="federated_jwt",
            client_assertion_file=projection.file,
        )
        granted = requested(settings, Wanted())
        assert isinstance(granted, GrantedToken)
        assert claims_of(granted.value)["azp"] == "billing"

        again = plan_for(target, *apps, _federated(cluster.url, "auditor"), secrets=secrets)
        assert again.forbidden


SUBJECT = "system:serviceaccount:prod:billing"


def _federated(issuer: str, client_id: str) -> AppAccess:
    provider = TrustedProvider(alias="cluster", kind="kubernetes", issuer=issuer)
    how = ByFederation(provider=provider, subject=SUBJECT)
    return replace(caller(client_id, "crm"), client_authentication=how)

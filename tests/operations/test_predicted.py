"""What a plan says of the tokens that it predicts: what they lack after all steps, and what they have that nobody asked for."""

from typing import Any

import pytest

from s2s_fastapi import require_caller, require_role, require_scope
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.wanted import Severity
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import plan_for, steps_of

CRM = receiver("crm", require_caller("chat") & require_scope("crm:export"), require_caller("chat"))
CHAT = caller("chat", "crm")


def said(plan: Plan, level: Severity = Severity.OPEN) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def realm(**client: Any) -> FakeKeycloak:
    """Return a realm in which `chat` has all that it needs, unless ``client`` says otherwise."""
    server = FakeKeycloak()
    server.add_client(clientId="crm", fullScopeAllowed=False)
    server.add_scope("crm-audience", "crm")
    server.add_scope("crm:export")
    scopes = ["basic", "service_account", "roles", "crm-audience", "crm:export"]
    usual = {"fullScopeAllowed": False, "serviceAccountsEnabled": True, "defaultClientScopes": scopes}
    server.add_client(clientId="chat", **{**usual, **client})
    return server


def give(server: FakeKeycloak, role: str, client: str = "chat") -> None:
    server.granted[server.account_of(client)] |= {role}


def test_in_a_realm_that_has_all_there_is_nothing_to_say() -> None:
    with realm().api() as api:
        assert not plan_for(api, CRM, CHAT).open


def test_a_required_scope_that_counts_only_with_a_role_drops_out_and_that_is_said() -> None:
    server = realm()
    operator = server.add_role("", "operator")
    server.mapped[server.scope_id("crm:export")] = {operator}
    with server.api() as api:
        lacks = plan_for(api, CRM, CHAT)
        give(server, operator)
        has = plan_for(api, CRM, CHAT)

    assert "would lack the client scope crm:export, because it counts only for callers with certain roles" in said(
        lacks
    )
    assert "crm:export" not in lacks.tokens[0].after["scope"]
    assert "crm:export" in has.tokens[0].after["scope"]
    assert not said(has)


def test_a_required_scope_that_tokens_do_not_show_is_said() -> None:
    server = realm()
    server.scope("crm:export")["attributes"] = {"include.in.token.scope": "false"}
    with server.api() as api:
        plan = plan_for(api, CRM, CHAT)

    assert "would lack the client scope crm:export, because “Include in token scope” is off" in said(plan)


def test_a_role_that_no_mapper_puts_into_the_token_is_said() -> None:
    server = realm()
    server.scope("roles")["protocolMappers"] = []
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat") & require_role("write")), CHAT)

    assert "would lack the role write, because no mapper puts it there" in said(plan)


def test_an_audience_that_comes_by_a_role_and_that_nobody_asked_for_is_a_finding_with_its_source() -> None:
    server = realm(fullScopeAllowed=True)
    server.add_client(clientId="payroll")
    give(server, server.add_role("payroll", "reader"))
    with server.api() as api:
        plan = plan_for(api, CRM, CHAT)

    assert plan.tokens[0].after["aud"] == ["crm", "payroll"]
    assert "The token of chat is also for payroll, and no access file asks for that" in said(plan)
    assert 'by the mapper "audience resolve" of the client scope roles. Take it away there' in said(plan)


def test_an_audience_of_a_mapper_that_nobody_asked_for_is_one_finding_for_all_requests() -> None:
    server = realm()
    server.add_scope("wide", "payroll")
    server.client("chat")["defaultClientScopes"].append("wide")
    server.add_scope("pay", "crm")
    server.client("chat")["optionalClientScopes"].append("pay")
    both = type(CHAT)("chat", None, calls=(*CHAT.calls, *caller("chat", "crm", scope="pay").calls))
    with server.api() as api:
        plan = plan_for(api, CRM, both)
        declared = plan_for(api, CRM, receiver("payroll", require_caller("chat")), caller("chat", "crm", "payroll"))

    assert said(plan).count("is also for payroll") == 1
    assert 'the mapper "audience payroll" of the client scope wide' in said(plan)
    assert "payroll" not in said(declared)


def test_the_audience_account_that_nearly_every_token_has_is_a_note() -> None:
    server = realm(fullScopeAllowed=True)
    give(server, server.add_role("account", "view-profile"))
    with server.api() as api:
        plan = plan_for(api, CRM, CHAT)

    assert "is also for account" in said(plan, Severity.NOTE)
    assert not said(plan)


def test_the_audience_of_an_admin_client_is_a_finding() -> None:
    server = realm(fullScopeAllowed=True)
    give(server, next(uuid for uuid, role in server.roles.items() if role["name"] == "manage-users"))
    with server.api() as api:
        plan = plan_for(api, CRM, CHAT)

    assert "is also for realm-management" in said(plan)


def test_an_audience_that_comes_with_a_role_that_the_plan_grants_is_a_note() -> None:
    server = realm(fullScopeAllowed=True)
    server.add_client(clientId="payroll")
    url = "https://payroll.example.com"
    payroll = receiver("payroll", require_caller("chat") & require_role("reader"), audience=url)
    with server.api() as api:
        plan = plan_for(api, CRM, payroll, caller("chat", "crm", url))

    assert plan.tokens[0].after["aud"] == ["crm", url, "payroll"]
    assert "is also for payroll" in said(plan, Severity.NOTE)
    assert "chat has the role reader of it, as it shall." in said(plan, Severity.NOTE)
    assert not said(plan)

    server.inside[server.add_role("payroll", "reader")] = {server.add_role("payroll", "more")}
    server.add_scope("wide", "payroll")
    server.client("chat")["defaultClientScopes"].append("wide")
    with server.api() as api:
        plan = plan_for(api, CRM, payroll, caller("chat", "crm", url))

    assert "the role reader, which contains other roles" in said(plan)
    assert "client scope wide. Take it away there" in said(plan)


def test_an_audience_that_comes_with_a_role_granted_by_hand_is_a_note() -> None:
    server = realm()
    server.add_client(clientId="payroll")
    crm = receiver("crm", require_caller("chat") & require_role("reader", client="payroll"), require_caller("chat"))
    with server.api() as api:
        plan = plan_for(api, crm, CHAT, grant=("chat:role=payroll/reader",))

    assert "is also for payroll" in said(plan, Severity.NOTE)
    assert "is also for payroll" not in said(plan)


@pytest.mark.parametrize("there", [True, False], ids=["with the scope roles", "without the scope roles"])
def test_tokens_of_users_get_no_roles_because_their_client_also_calls_others(there: bool) -> None:
    scopes = ["basic", "service_account", *["roles"] * there, "crm-audience"]
    server = realm(standardFlowEnabled=True, defaultClientScopes=scopes)
    crm = receiver("crm", require_caller("chat") & require_role("write"))
    with server.api() as api:
        plan = plan_for(api, crm, CHAT)
        granted = plan_for(api, crm, CHAT, grant=("chat:role=crm/write",))

    assert "Give the role write of the client crm to the service account of chat" in steps_of(granted)
    assert ("so the tokens of its users hold no roles" in said(plan)) is not there
    assert (steps_of(plan) == steps_of(granted)) is there
    assert not plan.steps or there


# Groups


@pytest.mark.parametrize("above", [True, False], ids=["of the group above", "of the group"])
def test_a_role_that_comes_by_a_group_is_in_the_token_and_needs_no_step(above: bool) -> None:
    server = realm()
    write = server.add_role("crm", "write")
    server.mapped[server.client_id("chat")] = {write}
    crm = receiver("crm", require_caller("chat") & require_role("write"), require_caller("chat"))
    group = server.add_group("operators", write)
    inner = server.add_group("inner", inside=group) if above else group
    with server.api() as api:
        alone = plan_for(api, crm, CHAT)
        server.members[server.account_of("chat")] = [inner]
        member = plan_for(api, crm, CHAT)

    assert steps_of(alone) == ["Give the role write of the client crm to the service account of chat"]
    assert member.steps == ()
    assert member.tokens[0].before["resource_access"] == {"crm": {"roles": ["write"]}}
    assert member.hash != alone.hash


def test_a_role_that_nobody_names_the_caller_for_is_found_in_a_group_too() -> None:
    server = realm()
    server.members[server.account_of("chat")] = [server.add_group("operators", server.add_role("crm", "write"))]
    crm = receiver("crm", require_caller("billing") & require_role("write"), *(route.requires for route in CRM.routes))
    with server.api() as api:
        plan = plan_for(api, crm, CHAT)

    assert "chat has the role write, which a route requires, and no declaration names it for that" in said(plan)


def test_the_roles_of_a_group_are_read_once_for_all_of_its_members() -> None:
    server = realm()
    server.add_client(clientId="billing", serviceAccountsEnabled=True)
    group = server.add_group("operators")
    for name in ("chat", "billing"):
        server.members[server.account_of(name)] = [group]
    with server.api() as api:
        plan_for(api, CRM, CHAT, caller("billing", "crm"))

    assert len([path for _, path, _ in server.calls if path.endswith(f"groups/{group}/role-mappings")]) == 1


def test_lightweight_tokens_are_named_as_the_cause_of_what_is_missing() -> None:
    attributes = {"client.use.lightweight.access.token.enabled": "true"}
    with realm(attributes=attributes).api() as api:
        plan = plan_for(api, CRM, CHAT)

    assert plan.steps == ()
    assert (
        "still cannot call crm: its token would lack the audience crm, because “Always use lightweight access token” of the client chat is"
        " on: switch it off."
    ) in said(plan)

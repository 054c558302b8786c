"""The plan: what it makes of an empty realm, of one that is there, and of one in which somebody changed something by hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope, require_service, require_user
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.plan import Plan, read_plan
from s2s_fastapi.operations.plan import steps_of as steps_for
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.steps import AssignScope
from s2s_fastapi.operations.wanted import Severity
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import applied, plan_for, steps_of

CRM = receiver(
    "crm",
    require_caller("chat") & require_role("write"),
    require_caller("chat") & require_scope("crm:export"),
    require_caller("chat", "billing"),
)
BOB = receiver("bob", require_caller("alice"))
APPS = (CRM, BOB, caller("chat", "crm"), caller("billing", "crm"), caller("alice", "bob", scope="untrusted-audience"))


def said(plan: Plan, level: Severity) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def test_a_requested_scope_brings_what_every_call_that_requests_it_is_for_whoever_is_first() -> None:
    both = ("bob", "crm")
    for wider, narrower in (("aaron", "zoe"), ("zoe", "aaron")):
        apps = (
            receiver("crm", require_caller("aaron", "zoe")),
            receiver("bob", require_caller("aaron", "zoe")),
            AppAccess(wider, None, calls=(CallAccess(both, ("for-crm",)),)),
            caller(narrower, "crm", scope="for-crm"),
        )
        with FakeKeycloak().api() as api:
            plan = plan_for(api, *apps)

        assert "Make the client scope for-crm with an Audience mapper for crm" in steps_of(plan)
        assert not said(plan, Severity.OPEN)
        assert {token.caller: token.after["aud"] for token in plan.tokens} == {wider: list(both), narrower: "crm"}


def made(tmp_path: Path, *, old: bool = False) -> FakeKeycloak:
    server = FakeKeycloak(old=old)
    with server.api() as api:
        applied(api, *APPS, secrets=str(tmp_path))
    server.calls.clear()
    return server


def test_an_empty_realm_gets_scopes_then_clients_then_roles() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *APPS)

    assert steps_of(plan) == [
        "Make the client scope crm:export",
        "Make the client scope untrusted-audience with an Audience mapper for bob",
        "Make the client scope crm-audience with an Audience mapper for crm",
        "Make the client alice that calls others (service account on), without login flows, Full scope allowed off, default scopes basic, service_account, optional scopes untrusted-audience",
        "Make the client billing that calls others (service account on), without login flows, Full scope allowed off, default scopes basic, crm-audience, service_account",
        "Make the client bob that only receives, without login flows, Full scope allowed off, default scopes basic",
        "Make the client chat that calls others (service account on), without login flows, Full scope allowed off, default scopes basic, crm-audience, crm:export, roles, service_account",
        "Make the client crm that only receives, without login flows, Full scope allowed off, default scopes basic",
        "Make the role write of the client crm",
        "Let the role write of the client crm into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)",
        "Give the role write of the client crm to the service account of chat",
    ]
    assert plan.restarts == tuple((name, f"/nowhere/{name}.secret") for name in ("alice", "billing", "chat"))
    tokens = {token.caller: token.after for token in plan.tokens}
    assert tokens["chat"]["resource_access"] == {"crm": {"roles": ["write"]}}
    assert {name: tokens[name]["aud"] for name in tokens} == {"alice": "bob", "billing": "crm", "chat": "crm"}
    assert "resource_access" not in tokens["billing"]


@pytest.mark.parametrize("old", [False, True], ids=["26.7.3", "26.0.8"])
def test_after_it_was_carried_out_the_next_plan_is_empty(old: bool, tmp_path: Path) -> None:
    server = made(tmp_path, old=old)
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert plan.steps == ()
    assert not plan.open
    assert all(token.before == token.after and token.after["client_id"] == token.caller for token in plan.tokens)


def test_a_second_caller_that_is_named_for_a_role_changes_no_token_of_the_first(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        applied(
            api,
            receiver("crm", require_caller("chat", "billing")),
            caller("chat", "crm"),
            caller("billing", "crm"),
            secrets=str(tmp_path),
        )
        plan = plan_for(api, CRM, caller("chat", "crm"), caller("billing", "crm"))

    tokens = {token.caller: token for token in plan.tokens}
    assert tokens["billing"].before == tokens["billing"].after
    assert tokens["chat"].before != tokens["chat"].after
    assert not any("billing" in step for step in steps_of(plan))
    assert "Assign the client scope roles to chat as Default" in steps_of(plan)


def _unassign(server: FakeKeycloak) -> None:
    server.client("chat")["defaultClientScopes"].remove("crm-audience")


def _delete_mapper(server: FakeKeycloak) -> None:
    server.scope("untrusted-audience")["protocolMappers"].clear()


def _turn_the_mapper_off(server: FakeKeycloak) -> None:
    server.scope("untrusted-audience")["protocolMappers"][0]["config"]["access.token.claim"] = "false"


def _switch_off(server: FakeKeycloak) -> None:
    account = next(one for one, client in server.accounts.items() if client == server.client_id("billing"))
    del server.accounts[account], server.granted[account]
    server.client("billing")["serviceAccountsEnabled"] = False


def _take_the_role(server: FakeKeycloak) -> None:
    account = next(one for one, client in server.accounts.items() if client == server.client_id("chat"))
    server.granted[account] = {server.default_role}


def _delete_client(server: FakeKeycloak) -> None:
    del server.clients[server.client_id("bob")]


def _unassign_optional(server: FakeKeycloak) -> None:
    server.client("alice")["optionalClientScopes"].clear()


BY_HAND: dict[str, tuple[Callable[[FakeKeycloak], object], list[str]]] = {
    "a scope is unassigned": (_unassign, ["Assign the client scope crm-audience to chat as Default"]),
    "an optional scope is unassigned": (
        _unassign_optional,
        ["Assign the client scope untrusted-audience to alice as Optional"],
    ),
    "basic is unassigned": (
        lambda server: server.client("chat")["defaultClientScopes"].remove("basic"),
        ["Assign the client scope basic to chat as Default"],
    ),
    "service_account is unassigned": (
        lambda server: server.client("chat")["defaultClientScopes"].remove("service_account"),
        ["Assign the client scope service_account to chat as Default"],
    ),
    "roles is unassigned": (
        lambda server: server.client("chat")["defaultClientScopes"].remove("roles"),
        ["Assign the client scope roles to chat as Default"],
    ),
    "an Audience mapper is deleted": (
        _delete_mapper,
        ["Add an Audience mapper for bob to the client scope untrusted-audience"],
    ),
    "a scope is deleted": (
        lambda server: server.delete_scope("untrusted-audience"),
        [
            "Make the client scope untrusted-audience with an Audience mapper for bob",
            "Assign the client scope untrusted-audience to alice as Optional",
        ],
    ),
    "a required scope is deleted": (
        lambda server: server.delete_scope("crm:export"),
        ["Make the client scope crm:export", "Assign the client scope crm:export to chat as Default"],
    ),
    "a default scope is deleted": (
        lambda server: server.delete_scope("crm-audience"),
        [
            "Make the client scope crm-audience with an Audience mapper for crm",
            "Assign the client scope crm-audience to billing as Default",
            "Assign the client scope crm-audience to chat as Default",
        ],
    ),
    "a service account is switched off": (_switch_off, ["Switch “Service account roles” of the client billing on"]),
    "a role is taken from the account": (
        _take_the_role,
        ["Give the role write of the client crm to the service account of chat"],
    ),
    "a role is taken from the dedicated scope": (
        lambda server: server.mapped.clear(),
        [
            "Let the role write of the client crm into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)"
        ],
    ),
    "a role is deleted": (
        lambda server: server.delete_role("write"),
        [
            "Make the role write of the client crm",
            "Let the role write of the client crm into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)",
            "Give the role write of the client crm to the service account of chat",
        ],
    ),
    "a receiver is deleted": (
        _delete_client,
        ["Make the client bob that only receives, without login flows, Full scope allowed off, default scopes basic"],
    ),
}


@pytest.mark.parametrize("what", BY_HAND)
def test_what_somebody_changed_by_hand_is_exactly_what_the_plan_names_and_mends(what: str, tmp_path: Path) -> None:
    change, expected = BY_HAND[what]
    server = made(tmp_path)
    change(server)
    with server.api() as api:
        plan = applied(api, *APPS, secrets=str(tmp_path))
        after = plan_for(api, *APPS)

    assert steps_of(plan) == expected
    assert after.steps == ()


def test_a_scope_that_other_clients_hold_is_not_extended(tmp_path: Path) -> None:
    server = made(tmp_path)
    _delete_mapper(server)
    server.add_client(clientId="outside", optionalClientScopes=["untrusted-audience"])
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert plan.steps == ()
    assert "is not extended: outside would get it too" in said(plan, Severity.OPEN)


def test_a_scope_of_the_usual_name_that_others_hold_is_left_and_another_one_made() -> None:
    server = FakeKeycloak()
    server.add_scope("crm-audience")
    server.add_client(clientId="outside", defaultClientScopes=["crm-audience"])
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert steps_of(plan)[0] == "Make the client scope crm-audience-2 with an Audience mapper for crm"


def test_a_scope_is_found_by_its_mapper_whatever_its_name() -> None:
    server = FakeKeycloak()
    server.add_scope("for-the-crm", "crm")
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert "default scopes basic, for-the-crm, service_account" in steps_of(plan)[0]


@pytest.mark.parametrize("also", ["another audience", "another mapper", "a role"])
def test_a_scope_that_gives_more_is_not_assigned(also: str) -> None:
    server = FakeKeycloak()
    scope = server.add_scope("wide", "crm", *["payroll"] * (also == "another audience"))
    if also == "another mapper":
        server.scopes[scope]["protocolMappers"].append(
            {"name": "r", "protocolMapper": "oidc-hardcoded-role-mapper", "config": {"role": "admin"}}
        )
    if also == "a role":
        server.mapped[scope] = {server.add_role("", "operator")}
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert steps_of(plan)[0] == "Make the client scope crm-audience with an Audience mapper for crm"
    assert "wide" not in "".join(steps_of(plan))


def test_a_scope_that_the_code_requests_and_that_gives_more_is_a_finding() -> None:
    server = FakeKeycloak()
    server.add_scope("untrusted-audience", "bob", "payroll")
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert "It also brings the audience payroll, so it is not assigned" in said(plan, Severity.OPEN)
    assert not any("untrusted-audience" in step for step in steps_of(plan))


@pytest.mark.parametrize(
    "scopes", [("payroll:write",), ("bob-audience", "payroll:write")], ids=["alone", "beside another"]
)
@pytest.mark.parametrize("there", [True, False])
def test_a_scope_that_an_app_without_a_file_may_require_is_not_given_away(there: bool, scopes: tuple[str, ...]) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="alice", serviceAccountsEnabled=True)
    if there:
        server.add_scope("payroll:write")
    with server.api() as api:
        plan = plan_for(api, receiver("bob", require_service()), caller("alice", "bob", scope=scopes))

    if there or len(scopes) > 1:
        assert "--grant alice:scope=payroll:write assigns it" in said(plan, Severity.OPEN)
        assert "Assign the client scope payroll:write to alice as Optional" not in steps_of(plan)
    else:  # nobody can hold it yet, and it brings the audience
        assert "Make the client scope payroll:write with an Audience mapper for bob" in steps_of(plan)


def test_a_scope_that_a_route_requires_never_brings_an_audience() -> None:
    server = FakeKeycloak()
    server.add_scope("crm:export", "crm")
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert "Make the client scope crm-audience with an Audience mapper for crm" in steps_of(plan)
    billing = next(step for step in steps_of(plan) if "client billing" in step)
    assert "crm:export" not in billing


def test_a_url_as_audience_is_a_custom_one_and_needs_no_client() -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(
            api,
            receiver("crm", require_caller("chat"), audience="https://crm.example/api"),
            caller("chat", "https://crm.example/api"),
        )

    assert plan.as_json()["steps"][0] == {
        "do": "make_scope",
        "scope": "https://crm.example/api-audience",
        "audiences": ("https://crm.example/api",),
        "custom": ("https://crm.example/api",),
    }
    assert plan.tokens[0].after["aud"] == "https://crm.example/api"


def test_what_is_there_and_unusual_is_said_and_not_changed() -> None:
    server = FakeKeycloak()
    server.add_client(
        clientId="chat", serviceAccountsEnabled=True, directAccessGrantsEnabled=True, defaultClientScopes=["basic"]
    )
    server.add_client(clientId="crm", enabled=False)
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert "The client chat has login flows on (Direct access grants)" in said(plan, Severity.NOTE)
    assert "“Full scope allowed” of the client chat is on" in said(plan, Severity.NOTE)
    assert "The client crm is disabled" in said(plan, Severity.OPEN)
    assert "make_client" not in {step.do for step in plan.steps}


@pytest.mark.parametrize("kind", ["publicClient", "bearerOnly"])
def test_a_caller_that_cannot_have_a_service_account_is_a_finding(kind: str) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="chat", **{kind: True})
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert "so it cannot have a service account" in said(plan, Severity.OPEN)
    assert [step.do for step in plan.steps] == ["make_client"]


def test_a_role_that_contains_admin_power_is_forbidden_also_through_others() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    write, between = server.add_role("crm", "write"), server.add_role("", "between")
    server.inside[write] = {between}
    server.inside[between] = {next(uuid for uuid, role in server.roles.items() if role["name"] == "realm-admin")}
    with server.api() as api:
        plan = plan_for(api, CRM, caller("chat", "crm"), grant=("chat:write",))

    assert plan.forbidden
    assert "realm-management is a client of Keycloak itself" in said(plan, Severity.FORBIDDEN)
    assert not any("write" in step for step in steps_of(plan))


def test_a_role_that_contains_others_needs_a_grant() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    server.inside[server.add_role("crm", "write")] = {server.add_role("crm", "delete")}
    with server.api() as api:
        without = plan_for(api, CRM, caller("chat", "crm"))
        granted = plan_for(api, CRM, caller("chat", "crm"), grant=("chat:write",))

    assert "contains other roles (crm:delete): it is not granted" in said(without, Severity.OPEN)
    assert not any("role write" in step for step in steps_of(without))
    assert "Give the role write of the client crm to the service account of chat" in steps_of(granted)


def test_a_realm_role_is_granted_to_whom_a_declaration_names() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(
            api, receiver("crm", require_caller("chat") & require_realm_role("partner")), caller("chat", "crm")
        )

    assert steps_of(plan)[-3:] == [
        "Make the realm role partner",
        "Let the realm role partner into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)",
        "Give the realm role partner to the service account of chat",
    ]
    assert plan.tokens[0].after["realm_access"] == {"roles": ["partner"]}


def test_a_scope_that_moves_to_default_is_moved_and_one_that_is_default_already_is_not_narrowed(tmp_path: Path) -> None:
    server = made(tmp_path)
    client = server.client("alice")
    client["optionalClientScopes"], client["defaultClientScopes"] = (
        [],
        [*client["defaultClientScopes"], "untrusted-audience"],
    )
    with server.api() as api:
        narrower = plan_for(api, *APPS)
        moved = plan_for(api, BOB, caller("alice", "bob"))

    assert narrower.steps == ()
    assert "is a Default one of alice" in said(narrower, Severity.NOTE)
    assert moved.steps == ()
    client["optionalClientScopes"], client["defaultClientScopes"] = ["untrusted-audience"], ["basic", "service_account"]
    with server.api() as api:
        moved = applied(api, BOB, caller("alice", "bob"), secrets=str(tmp_path))
    assert steps_of(moved) == ["Assign the client scope untrusted-audience to alice as Default"]


def test_several_audiences_in_one_request_come_by_their_own_scopes_or_by_one() -> None:
    apps = [receiver(name, require_service()) for name in ("bob", "charles")]
    both = caller("alice", "bob")
    two = type(both)(
        "alice", None, calls=(type(both.calls[0])(("bob", "charles"), ("bob-audience", "charles-audience")),)
    )
    one = type(both)("alice", None, calls=(type(both.calls[0])(("bob", "charles"), ("both",)),))
    with FakeKeycloak().api() as api:
        by_two, by_one = (plan_for(api, *apps, app) for app in (two, one))

    assert steps_of(by_two)[:2] == [
        "Make the client scope bob-audience with an Audience mapper for bob",
        "Make the client scope charles-audience with an Audience mapper for charles",
    ]
    assert steps_of(by_one)[0] == "Make the client scope both with an Audience mapper for bob, charles"
    assert by_two.tokens[0].after["aud"] == by_one.tokens[0].after["aud"] == ["bob", "charles"]


def test_a_client_policy_makes_the_prediction_a_guess_and_that_is_said(tmp_path: Path) -> None:
    server = made(tmp_path)
    server.policies += [{"name": "strict", "enabled": True}, {"name": "off", "enabled": False}]
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert "the client policy strict may change tokens" in said(plan, Severity.NOTE)
    assert "client policy off" not in said(plan, Severity.NOTE)


def test_a_policy_that_rotates_secrets_is_said_if_a_client_is_changed(tmp_path: Path) -> None:
    server = made(tmp_path)
    server.profiles += [{"name": "rotate", "executors": [{"executor": "secret-rotation"}]}]
    server.policies += [{"name": "fresh", "enabled": True, "profiles": ["rotate"]}]
    with server.api() as api:
        unchanged = plan_for(api, *APPS)
        _switch_off(server)
        changed = plan_for(api, *APPS)

    with FakeKeycloak(profiles=server.profiles, policies=server.policies).api() as api:
        new = plan_for(api, *APPS)

    assert "The client policy fresh may let the new secret of alice, billing, chat expire" in said(new, Severity.NOTE)
    assert "client policy fresh may give" not in said(new, Severity.NOTE)
    assert "new secret" not in said(unchanged, Severity.NOTE)
    assert "The client policy fresh may give billing a new secret when it is changed" in said(changed, Severity.NOTE)


def test_a_saved_plan_is_read_as_it_was(tmp_path: Path) -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *APPS, receiver("admin-cli", require_service()))
    file = tmp_path / "plan.json"
    file.touch(0o600)
    file.write_text(json.dumps({**plan.as_json(), "made_from": ["files"]}))

    assert read_plan(file) == (plan, ["files"])
    assert plan.forbidden


def _as_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.chmod(0o660), "can be written by other users"),
        (lambda file: file.chmod(0o602), "can be written by other users"),
        (lambda file: file.rename(file.with_name("real")) and file.symlink_to("real"), "is a symbolic link"),
        (_as_pipe, "is no file"),
        (lambda file: file.unlink() or file.mkdir(), "cannot be read: is a directory"),
        (lambda file: file.unlink(), "cannot be read: no such file"),
        (lambda file: file.write_bytes(b"\xff"), "is not UTF-8 text"),
    ],
    ids=["group", "everybody", "link", "pipe", "folder", "nothing", "bytes"],
)
def test_a_saved_plan_that_somebody_else_may_have_written_is_not_read(
    change: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    file.touch(0o600)
    change(file)

    with pytest.raises(ConfigurationError, match=said):
        read_plan(file)


@pytest.mark.parametrize("damage", ["not JSON", "other kind", "newer", "unknown step", "wrong type", "missing"])
def test_a_plan_that_is_none_is_refused_in_a_sentence(damage: str, tmp_path: Path) -> None:
    with FakeKeycloak().api() as api:
        content = json.loads(json.dumps(plan_for(api, *APPS).as_json()))
    if damage == "other kind":
        content["kind"] = "other"
    elif damage == "newer":
        content["version"] += 1
    elif damage == "unknown step":
        content["steps"][0]["do"] = "delete_realm"
    elif damage == "wrong type":
        content["steps"][0]["scope"] = ["a"]
    elif damage == "missing":
        del content["hash"]
    file = tmp_path / "plan.json"
    file.touch(0o600)
    file.write_text("{" if damage == "not JSON" else json.dumps(content))

    with pytest.raises(ConfigurationError, match="plan"):
        read_plan(file)


# What only the realm shows


def test_an_audience_that_is_a_client_of_the_realm_is_not_opened_by_another_app() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="payroll")
    apps = (receiver("evil", require_caller("friend"), audience="payroll"), caller("friend", "payroll"))
    with server.api() as api:
        refused = plan_for(api, *apps)
        granted = plan_for(api, *apps, grant=("friend:audience=payroll",))
        honest = plan_for(api, receiver("payroll", require_caller("friend")), apps[1])

    assert "friend calls payroll, which is a client of the realm" in said(refused, Severity.OPEN)
    assert "--grant friend:audience=payroll grants the audience" in said(refused, Severity.OPEN)
    assert not any("payroll" in step for step in steps_of(refused))
    assert granted.tokens[0].after["aud"] == honest.tokens[0].after["aud"] == "payroll"


EVIL = (
    receiver("evil", require_caller("friend") & require_scope("payroll.admin") & require_realm_role("superuser")),
    caller("friend", "evil"),
)


def test_a_scope_that_others_hold_and_a_realm_role_that_is_there_need_a_grant() -> None:
    server = FakeKeycloak()
    server.add_scope("payroll.admin")
    server.add_role("", "superuser")
    server.add_client(clientId="boss", optionalClientScopes=["payroll.admin"])
    with server.api() as api:
        refused = plan_for(api, *EVIL)
        granted = plan_for(api, *EVIL, grant=("friend:scope=payroll.admin", "friend:realm-role=superuser"))

    assert "--grant friend:scope=payroll.admin assigns it" in said(refused, Severity.OPEN)
    assert "--grant friend:realm-role=superuser grants it" in said(refused, Severity.OPEN)
    assert not any("payroll.admin" in step or "superuser" in step for step in steps_of(refused))
    assert granted.tokens[0].after["realm_access"] == {"roles": ["superuser"]}
    assert "payroll.admin" in granted.tokens[0].after["scope"]


def test_a_scope_that_only_callers_of_the_same_app_hold_is_given_to_one_more(tmp_path: Path) -> None:
    server = made(tmp_path)
    crm = receiver(
        "crm",
        require_caller("chat", "billing") & require_scope("crm:export"),
        *(route.requires for route in CRM.routes),
    )
    with server.api() as api:
        plan = plan_for(api, crm, BOB, *APPS[2:])

    assert "Assign the client scope crm:export to billing as Default" in steps_of(plan)
    assert not said(plan, Severity.OPEN)


def test_a_scope_that_was_there_and_that_nobody_holds_is_said_in_capitals() -> None:
    server = FakeKeycloak()
    server.add_scope("crm:export")
    with server.api() as api:
        plan = plan_for(api, *APPS)

    assert "CHECK THIS: the client scope crm:export was there, and nobody held it" in said(plan, Severity.NOTE)
    assert not said(plan, Severity.OPEN)


def test_a_caller_that_holds_what_nobody_names_it_for_is_a_finding(tmp_path: Path) -> None:
    server = made(tmp_path)
    server.client("billing")["optionalClientScopes"].append("crm:export")
    account = next(one for one, client in server.accounts.items() if client == server.client_id("billing"))
    server.granted[account] |= {next(uuid for uuid, role in server.roles.items() if role["name"] == "write")}
    grants = ("billing:scope=crm:export", "billing:role=crm/write")
    with server.api() as api:
        plan = plan_for(api, *APPS)
        granted = plan_for(api, *APPS, grant=grants)

    assert all(f"--grant {grant} says that it is right" in said(plan, Severity.OPEN) for grant in grants)
    assert "chat has" not in said(plan, Severity.OPEN)
    assert not said(granted, Severity.OPEN)


def test_a_scope_that_brings_an_audience_granted_by_hand_needs_a_grant_of_its_own() -> None:
    server = FakeKeycloak()
    server.add_scope("payroll:write", "payroll")
    asks = caller("chat", "payroll", scope="payroll:write")
    with server.api() as api:
        refused = plan_for(api, asks, grant=("chat:audience=payroll",))
        both = plan_for(api, asks, grant=("chat:audience=payroll", "chat:scope=payroll:write"))
        given = plan_for(api, receiver("payroll", require_service()), asks, grant=("chat:audience=payroll",))
        default = plan_for(api, caller("chat", "payroll"), grant=("chat:audience=payroll",))

    assert "--grant chat:scope=payroll:write assigns it" in said(refused, Severity.OPEN)
    assert "payroll:write" not in "".join(steps_of(refused))
    assert "Make the client scope payroll-audience with an Audience mapper for payroll" in steps_of(default)
    for plan in (both, given):
        assert plan.tokens[0].after["aud"] == "payroll"
        assert not said(plan, Severity.OPEN)


def test_a_new_scope_that_only_the_caller_names_is_said_in_capitals() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *APPS)

    assert "CHECK THIS: only alice names the new client scope untrusted-audience" in said(plan, Severity.NOTE)
    assert "the new client scope crm:export" not in said(plan, Severity.NOTE)


@pytest.mark.parametrize("account", [True, False], ids=["with an account", "without an account"])
@pytest.mark.parametrize("flow", ["standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled"])
def test_a_client_that_logs_users_in_is_changed_only_with_a_grant(flow: str, account: bool) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="chat", serviceAccountsEnabled=account, defaultClientScopes=["basic"], **{flow: True})
    apps = (receiver("crm", require_caller("chat")), caller("chat", "crm"))
    with server.api() as api:
        refused = plan_for(api, *apps)
        granted = plan_for(api, *apps, grant=("chat:audience=crm",))

    assert "--grant chat:audience=crm" in said(refused, Severity.OPEN)
    assert {step.do for step in refused.steps} <= {"make_client", "assign_scope"}
    assert not any(token.after.get("aud") for token in refused.tokens)
    assert granted.tokens[0].after["aud"] == "crm"
    assert not said(granted, Severity.OPEN)


def test_a_scope_of_a_client_that_logs_users_in_is_not_extended_for_another_caller() -> None:
    server = FakeKeycloak()
    server.add_scope("shared")
    server.add_client(
        clientId="chat", serviceAccountsEnabled=True, standardFlowEnabled=True, defaultClientScopes=["basic", "shared"]
    )
    server.add_client(clientId="alice", serviceAccountsEnabled=True, optionalClientScopes=["shared"])
    apps = (receiver("crm", require_service()), caller("chat", "crm"), caller("alice", "crm", scope="shared"))
    with server.api() as api:
        refused = plan_for(api, *apps)
        granted = plan_for(api, *apps, grant=("chat:audience=crm",))

    assert "is not extended: chat would get it too" in said(refused, Severity.OPEN)
    assert "Add an Audience mapper for crm to the client scope shared" in steps_of(granted)


def test_a_realm_role_with_admin_power_stays_forbidden_whether_it_is_there_or_not() -> None:
    server = FakeKeycloak()
    power = server.add_role("", "superuser")
    server.inside[power] = {next(uuid for uuid, role in server.roles.items() if role["name"] == "realm-admin")}
    with server.api() as api:
        plans = [plan_for(api, *EVIL, grant=grant) for grant in ((), ("friend:realm-role=superuser",))]

    assert all(plan.forbidden for plan in plans)


def test_two_callers_that_request_one_new_scope_for_an_audience_granted_by_hand_both_get_it() -> None:
    apps = (caller("chat", "payroll", scope="pay"), caller("alice", "payroll", scope="pay"))
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *apps, grant=("chat:audience=payroll", "alice:audience=payroll"))

    assert [token.after["aud"] for token in plan.tokens] == ["payroll", "payroll"]


def test_a_disabled_client_gets_no_step(tmp_path: Path) -> None:
    server = made(tmp_path)
    _unassign(server)
    server.delete_role("write")
    server.client("chat")["enabled"] = False
    with server.api() as api:
        disabled = plan_for(api, *APPS)
        server.client("chat")["enabled"] = True
        server.client("crm")["enabled"] = False
        owner = plan_for(api, *APPS)

    assert disabled.steps == ()
    assert "The client chat is disabled" in said(disabled, Severity.OPEN)
    assert steps_of(owner) == ["Assign the client scope crm-audience to chat as Default"]


def test_a_realm_role_that_the_caller_has_already_needs_no_grant(tmp_path: Path) -> None:
    apps = (receiver("crm", require_caller("chat") & require_realm_role("partner")), caller("chat", "crm"))
    with FakeKeycloak().api() as api:
        applied(api, *apps, secrets=str(tmp_path))
        again = plan_for(api, *apps)

    assert not again.open


@pytest.mark.parametrize("scope", ["", "pay"])
def test_what_an_operator_granted_for_an_app_without_a_file_stays_as_it_is(scope: str, tmp_path: Path) -> None:
    asks, grant = caller("chat", "payroll", scope=(scope,) if scope else ()), ("chat:audience=payroll",)
    server = FakeKeycloak()
    with server.api() as api:
        applied(api, asks, secrets=str(tmp_path), grant=grant)
        again = plan_for(api, asks, grant=grant)
        server.client("chat")["defaultClientScopes"] = ["basic", "service_account"]
        unassigned = plan_for(api, asks, grant=grant)

    assert not again.open
    expected = [] if scope else ["Assign the client scope payroll-audience to chat as Default"]
    assert steps_of(unassigned) == expected


def test_a_scope_that_the_caller_has_as_optional_may_bring_an_audience_granted_by_hand() -> None:
    server = FakeKeycloak()
    server.add_scope("for-pay", "payroll")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["for-pay"])
    with server.api() as api:
        plan = plan_for(api, caller("chat", "payroll"), grant=("chat:audience=payroll",))

    assert "Assign the client scope for-pay to chat as Default" in steps_of(plan)


def test_a_scope_that_another_caller_has_by_hand_needs_a_grant() -> None:
    server = FakeKeycloak()
    server.add_scope("payroll.admin")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["payroll.admin"])
    with server.api() as api:
        plan = plan_for(api, *EVIL, caller("chat", scope="payroll.admin"), grant=("chat:scope=payroll.admin",))

    assert "others hold (chat)" in said(plan, Severity.OPEN)
    assert "payroll.admin" not in "".join(steps_of(plan))


def test_a_role_inside_of_another_one_is_held_too_and_keycloaks_own_scopes_are_no_finding() -> None:
    server = FakeKeycloak()
    inner, outer = server.add_role("", "partner"), server.add_role("", "outer")
    server.inside[outer] = {inner}
    server.add_client(clientId="chat", serviceAccountsEnabled=True, defaultClientScopes=["basic", "profile"])
    account = next(one for one, client in server.accounts.items() if client == server.client_id("chat"))
    server.granted[account] |= {outer}
    crm = receiver(
        "crm", require_caller("chat"), require_user("web") & require_scope("profile") & require_realm_role("partner")
    )
    with server.api() as api:
        plan = plan_for(api, crm, caller("chat", "crm"))

    assert "chat has the role partner, which a route requires" in said(plan, Severity.OPEN)
    assert "profile" not in said(plan, Severity.OPEN)


def test_a_client_that_logs_users_in_gets_no_service_account_because_it_declares_a_call() -> None:
    server = FakeKeycloak()
    server.add_client(clientId="web", standardFlowEnabled=True)
    with server.api() as api:
        plan = plan_for(api, caller("web", "crm"))

    assert plan.steps == ()
    assert "--grant web:audience=NAME switches the account on" in said(plan, Severity.OPEN)


def test_the_steps_of_apps_are_those_of_their_plan_and_none_for_a_caller_whose_receiver_is_not_given() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *APPS, secrets="")
        snapshot = read_snapshot(api, plan.question)

    assert [
        str(step).partition("; its new secret")[0].removesuffix(".") for step in steps_for(APPS, snapshot, "corp")
    ] == steps_of(plan)
    assert not [step for step in steps_for([caller("chat", "crm")], snapshot, "corp") if isinstance(step, AssignScope)]
    granted = steps_for([caller("chat", "crm")], snapshot, "corp", ["chat:audience=crm"])
    assert "crm-audience" in str(granted[0])

"""To whom: what a plan grants because apps declare it, and what it never grants."""

import pytest

from s2s_fastapi import (
    require_audience,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.operations.wanted import Severity, Wanted, WantedCall, WantedRole, WantedScope, wanted
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.requirement.requirement import AllOf, AnyOf
from tests.kit.declaring import caller, receiver


def of(*apps: AppAccess, grant: tuple[str, ...] = (), realm: str = "corp") -> tuple[Wanted, dict[Severity, str]]:
    found, findings = wanted(apps, grant, realm=realm)
    return found, {level: "\n".join(each.text for each in findings if each.level is level) for level in Severity}


def test_an_audience_is_granted_if_the_receiver_names_the_caller() -> None:
    found, said = of(receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert found.clients == {"chat": True, "crm": False}
    assert not any(said.values())


def test_who_wants_to_call_does_not_grant_it_to_itself() -> None:
    found, said = of(receiver("payroll", require_caller("hr")), caller("chat", "payroll"))

    assert found.calls == ()
    assert "chat calls payroll, and no route of payroll accepts chat" in said[Severity.OPEN]
    assert "--grant chat:payroll grants the audience" in said[Severity.OPEN]


def test_without_the_file_of_the_receiver_nothing_is_granted() -> None:
    found, said = of(caller("chat", "payroll"))

    assert found.calls == ()
    assert "no access file of the app that is payroll is given" in said[Severity.OPEN]


def test_an_operator_can_grant_what_only_the_caller_declares() -> None:
    found, said = of(
        caller("chat", "payroll", "https://hr.example/api"), grant=("chat:payroll", "chat:https://hr.example/api")
    )

    assert found.reach == {"chat": frozenset({"payroll", "https://hr.example/api"})}
    assert said[Severity.OPEN] == ""
    assert "because --grant says so" in said[Severity.NOTE]


def test_a_receiver_that_accepts_any_service_is_said_in_capitals() -> None:
    found, said = of(receiver("crm", require_service()), caller("chat", "crm"))

    assert found.reach == {"chat": frozenset({"crm"})}
    assert said[Severity.NOTE].startswith("ANY SERVICE may call crm")


def test_a_route_for_users_accepts_no_service() -> None:
    found, said = of(receiver("crm", require_user("chat")), caller("chat", "crm"))

    assert found.reach == {}
    assert "no route of crm accepts chat" in said[Severity.OPEN]


def test_a_route_that_requires_a_scope_or_a_role_is_not_open_to_any_service() -> None:
    for app in (receiver("payroll", require_scope("pay:read")), receiver("payroll", require_role("reader"))):
        found, said = of(app, caller("chat", "payroll"))
        assert found.reach == {}
        assert "no route of payroll accepts chat" in said[Severity.OPEN]
    found, _ = of(receiver("payroll", require_scope("pay:read")), caller("chat", "payroll"), grant=("chat:pay:read",))
    assert found.reach == {"chat": frozenset({"payroll"})}


def test_a_public_route_opens_nothing() -> None:
    app = receiver("crm", None)
    public = AppAccess(
        app.client_id,
        app.requires,
        tuple(type(route)(route.path, route.methods, public=route.methods) for route in app.routes),
    )

    assert of(public, caller("chat", "crm"))[0].reach == {}


def test_a_route_with_an_audience_of_its_own_grants_that_one() -> None:
    app = AppAccess(
        "crm", require_service(), receiver("crm", require_audience("crm-admin") & require_caller("chat")).routes
    )

    assert of(app, caller("chat", "crm-admin"))[0].reach == {"chat": frozenset({"crm-admin"})}
    assert of(app, caller("chat", "crm"))[0].reach == {}


def test_a_role_and_a_scope_are_granted_to_whom_one_declaration_names_with_them() -> None:
    crm = receiver(
        "crm",
        require_caller("chat") & require_role("write") & require_scope("crm:write"),
        require_caller("chat", "billing"),
    )
    found, said = of(crm, caller("chat", "crm"), caller("billing", "crm"))

    assert found.roles == (WantedRole(caller="chat", role=Role("crm", "write")),)
    assert found.scopes == (WantedScope(caller="chat", scope="crm:write", optional=False),)
    assert found.reach == {"chat": frozenset({"crm"}), "billing": frozenset({"crm"})}
    assert said[Severity.OPEN] == ""


def test_a_role_without_a_caller_beside_it_is_a_finding_and_no_grant() -> None:
    found, said = of(receiver("crm", require_role("write"), require_caller("chat")), caller("chat", "crm"))

    assert found.roles == ()
    assert (
        "requires the role write of crm, and no declaration names a caller beside it: --grant CALLER:write"
        in said[Severity.OPEN]
    )


def test_a_caller_that_requests_a_required_scope_does_not_grant_it_to_itself() -> None:
    crm = receiver("crm", require_scope("crm:write"), require_caller("chat"))
    found, said = of(crm, caller("chat", "crm", scope="crm:write"))

    assert found.scopes == ()
    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert "chat requests the scope crm:write, and no declaration names both" in said[Severity.OPEN]
    granted, said = of(crm, caller("chat", "crm", scope="crm:write"), grant=("chat:crm:write",))
    assert granted.scopes == (WantedScope(caller="chat", scope="crm:write", optional=True, by_hand=True),)
    assert said[Severity.OPEN] == ""


def test_naming_in_one_app_opens_no_other_app_that_requires_the_same_scope() -> None:
    named = receiver("crm", require_caller("chat") & require_scope("write"))
    other = receiver("payroll", require_scope("write"), require_caller("chat"))
    found, said = of(named, other, caller("chat", "crm", "payroll"))

    assert found.scopes == ()
    assert "chat requests the scope write, and no declaration names both" in said[Severity.OPEN]


def test_an_app_does_not_hand_out_roles_of_another_app() -> None:
    crm = receiver("crm", require_caller("chat") & require_role("admin", client="payroll"))
    found, said = of(crm, receiver("payroll", require_role("admin") & require_caller("hr")), caller("chat", "crm"))

    assert found.roles == ()
    assert "crm names chat for the role admin of payroll, which another app owns" in said[Severity.OPEN]


def test_a_scope_that_no_route_requires_may_bring_the_audience() -> None:
    found, _ = of(receiver("bob", require_service()), caller("alice", "bob", scope="untrusted-audience"))

    assert found.calls == (WantedCall(caller="alice", audiences=("bob",), carriers=("untrusted-audience",)),)
    assert found.calls[0].request == "untrusted-audience"


def test_a_scope_for_no_audience_needs_a_grant() -> None:
    found, said = of(caller("alice", scope="anything"))
    assert found.calls == ()
    assert "--grant alice:anything grants the scope" in said[Severity.OPEN]

    found, said = of(caller("alice", scope="anything"), grant=("alice:anything",))
    assert found.scopes == (WantedScope(caller="alice", scope="anything", optional=True, by_hand=True),)


FORBIDDEN = {
    "a role of realm-management": receiver(
        "crm", require_caller("chat") & require_role("manage-users", client="realm-management")
    ),
    "a role of realm-management for anybody": receiver(
        "crm", require_role("manage-users", client="realm-management"), require_caller("chat")
    ),
    "a role of account": receiver("crm", require_caller("chat") & require_role("manage-account", client="account")),
    "a role of broker": receiver("crm", require_caller("chat") & require_role("read-token", client="broker")),
    "the realm role admin": receiver("crm", require_caller("chat") & require_realm_role("admin")),
    "the default roles": receiver("crm", require_caller("chat") & require_realm_role("default-roles-corp")),
    "Keycloak's scope roles": receiver("crm", require_caller("chat") & require_scope("roles")),
    "Keycloak's scope profile": receiver("crm", require_caller("chat") & require_scope("profile")),
    "the client admin-cli": receiver("admin-cli", require_caller("chat")),
    "the client account": receiver("account", require_caller("chat")),
    "the client security-admin-console": receiver("security-admin-console", require_caller("chat")),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_plan_grants_what_is_of_keycloak_itself_and_no_option_lets_it_pass(what: str) -> None:
    app = FORBIDDEN[what]
    names = (
        "manage-users",
        "manage-account",
        "read-token",
        "admin",
        "default-roles-corp",
        "roles",
        "profile",
        "admin-cli",
        "account",
        "security-admin-console",
    )
    for grant in ((), tuple(f"chat:{name}" for name in names)):
        found, said = of(app, caller("chat", app.client_id), grant=grant)

        assert said[Severity.FORBIDDEN], what
        assert not found.roles
        assert not found.scopes
        assert found.clients.keys() <= {"chat", "crm"}
        assert found.reach.get("chat", frozenset()) <= {"crm"}


def test_an_audience_of_keycloak_itself_is_forbidden() -> None:
    found, said = of(caller("chat", "realm-management"), grant=("chat:realm-management",))
    assert found.calls == ()
    assert "realm-management is a client of Keycloak itself" in said[Severity.FORBIDDEN]


def test_the_clients_in_master_that_administer_other_realms_are_forbidden() -> None:
    assert of(caller("chat", "corp-realm"), grant=("chat:corp-realm",), realm="master")[1][Severity.FORBIDDEN]
    assert not of(caller("chat", "corp-realm"), grant=("chat:corp-realm",))[1][Severity.FORBIDDEN]


def test_two_apps_with_one_client_id_get_nothing_and_the_others_are_planned() -> None:
    found, said = of(
        receiver("crm", require_caller("chat")),
        receiver("crm", require_service()),
        caller("chat", "crm"),
        receiver("other"),
    )

    assert "2 apps that declare different things have the client id crm" in said[Severity.OPEN]
    assert found.clients == {"chat": True, "other": False}
    assert found.reach == {}


def test_the_same_app_in_two_files_is_one() -> None:
    app = receiver("crm", require_caller("chat"))
    assert of(app, app, caller("chat", "crm")) == of(app, caller("chat", "crm"))


def test_a_grant_for_nobody_or_for_nothing_is_a_finding() -> None:
    _, said = of(caller("chat"), grant=("nobody:crm", "chat:nothing"))

    assert "--grant nobody:crm names no caller" in said[Severity.OPEN]
    assert "no access file declares an audience, a scope or a role nothing" in said[Severity.OPEN]


def test_a_requirement_with_too_many_ways_is_a_finding_and_takes_no_time() -> None:
    many = AllOf(tuple(AnyOf(tuple(require_caller(f"{row}-{column}") for column in range(20))) for row in range(20)))
    found, said = of(receiver("crm", many), caller("chat", "crm"))

    assert "can be called in more than 5000 ways" in said[Severity.OPEN]
    assert found.reach == {}


def test_an_app_that_calls_and_receives_is_one_client_that_calls() -> None:
    both = receiver("crm", require_caller("chat"), calls=(CallAccess(("mail",)),))
    assert of(both, receiver("mail", require_caller("crm")))[0].clients == {"crm": True, "mail": False}

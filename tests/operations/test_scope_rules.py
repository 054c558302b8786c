"""Which client scopes a plan gives away: none that an app without a file may require, and none that gives more than what is granted."""

import pytest

from s2s_fastapi import require_caller, require_scope, require_service
from s2s_fastapi.operations.forbidden import forbidden_scope
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.scope_rules import scope_names
from s2s_fastapi.operations.steps import audience_mapper
from s2s_fastapi.operations.wanted import Severity
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import applied, plan_for, steps_of

API = "https://api.example"
SHARED = receiver("crm", require_caller("chat"), audience=API)
"""One of several apps that answer to one audience. The files of the others are not given."""


def said(plan: Plan, level: Severity = Severity.OPEN) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def permission(*audiences: str, **more: object) -> FakeKeycloak:
    """Return a realm in which an app without a file requires the scope ``admin``, and another client has it."""
    server = FakeKeycloak()
    server.add_scope("admin", *(audiences or (API,)), **more)
    server.add_client(clientId="boss", optionalClientScopes=["admin"])
    return server


def test_a_scope_for_a_shared_audience_that_may_be_a_permission_elsewhere_is_not_picked() -> None:
    with permission().api() as api:
        plan = plan_for(api, SHARED, caller("chat", API))

    assert f"Make the client scope {API}-audience with an Audience mapper for {API}" in steps_of(plan)
    assert "admin" not in "".join(steps_of(plan))
    assert "The client scope admin brings the audience" in said(plan, Severity.NOTE)
    assert not said(plan)
    assert plan.tokens[0].after["scope"] == f"{API}-audience"


def test_a_scope_whose_name_is_in_no_token_is_no_permission() -> None:
    with permission(attributes={"include.in.token.scope": "false"}).api() as api:
        plan = plan_for(api, SHARED, caller("chat", API))

    assert "default scopes admin, basic" in steps_of(plan)[0]


def test_a_scope_of_the_usual_name_is_shared_by_all_callers(tmp_path: object) -> None:
    server, crm = FakeKeycloak(), receiver("crm", require_caller("chat", "billing"), audience=API)
    with server.api() as api:
        applied(api, crm, caller("chat", API), secrets=str(tmp_path))
        plan = plan_for(api, crm, caller("billing", API))

    assert [step.do for step in plan.steps] == ["make_client"]
    assert f"{API}-audience" in steps_of(plan)[0]


def test_a_caller_does_not_get_a_permission_elsewhere_because_it_requests_it() -> None:
    asks = caller("chat", API, scope="admin")
    with permission().api() as api:
        refused = plan_for(api, SHARED, asks)
        granted = plan_for(api, SHARED, asks, grant=("chat:scope=admin",))

    assert "admin" not in "".join(steps_of(refused))
    assert "an app whose file is not given may require it, so it is not assigned" in said(refused)
    assert "--grant chat:scope=admin assigns it" in said(refused)
    assert granted.tokens[0].after["scope"] == "admin"
    assert not said(granted)


def test_a_scope_for_an_app_whose_file_is_given_is_shared_although_others_hold_it() -> None:
    server = permission("crm")
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm", scope="admin"))

    assert "optional scopes admin" in steps_of(plan)[0]
    assert not said(plan)


def test_a_scope_is_not_picked_if_another_audience_of_the_caller_may_be_of_an_app_without_a_file() -> None:
    apps = (receiver("crm", require_caller("chat")), SHARED, caller("chat", "crm", "payroll"))
    with permission("crm").api() as api:
        plan = plan_for(api, apps[0], apps[2], grant=("chat:audience=payroll",))

    assert "admin" not in "".join(steps_of(plan))
    assert "Make the client scope crm-audience with an Audience mapper for crm" in steps_of(plan)


@pytest.mark.parametrize("scope", ["", "admin"], ids=["picked", "requested"])
def test_a_scope_is_not_given_to_a_client_that_has_the_audience_of_an_app_without_a_file(scope: str) -> None:
    server = permission("crm")
    server.add_scope("payroll-audience", "payroll")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, defaultClientScopes=["basic", "payroll-audience"])
    apps = (receiver("crm", require_caller("chat")), caller("chat", "crm", scope=(scope,) if scope else ()))
    with server.api() as api:
        plan = plan_for(api, *apps)

    assert "Assign the client scope admin" not in "".join(steps_of(plan))


@pytest.mark.parametrize("also", ["a role", "another audience", "another mapper"])
def test_a_required_scope_that_gives_more_than_its_name_is_not_assigned(also: str) -> None:
    server = FakeKeycloak()
    scope = server.add_scope("crm:export", *["payroll"] * (also == "another audience"))
    if also == "a role":
        server.mapped[scope] = {server.add_role("", "operator")}
    if also == "another mapper":
        server.scopes[scope]["protocolMappers"].append({"name": "m", "protocolMapper": "oidc-hardcoded-role-mapper"})
    apps = (receiver("crm", require_caller("chat") & require_scope("crm:export")), caller("chat", "crm"))
    with server.api() as api:
        plan = plan_for(api, *apps)

    assert "--grant chat:scope=crm:export assigns it" in said(plan)
    assert "crm:export" not in "".join(steps_of(plan))


@pytest.mark.parametrize("requested", [True, False], ids=["requested", "not requested"])
def test_a_required_scope_is_in_no_token_of_users_without_a_grant(requested: bool) -> None:
    server = FakeKeycloak()
    server.add_scope("crm-audience", "crm")
    server.add_client(
        clientId="web",
        serviceAccountsEnabled=True,
        standardFlowEnabled=True,
        defaultClientScopes=["basic", "crm-audience"],
    )
    apps = (
        receiver("crm", require_caller("web") & require_scope("crm:export")),
        caller("web", "crm", scope="crm:export" if requested else ()),
    )
    with server.api() as api:
        plan = plan_for(api, *apps)
        granted = plan_for(api, *apps, grant=("web:scope=crm:export",))

    kind = "Optional" if requested else "Default"
    assert f"Assign the client scope crm:export to web as {kind}" in steps_of(granted)
    if requested:
        assert steps_of(plan) == steps_of(granted)
    else:
        assert "each of their tokens would get the client scope crm:export: it is not assigned" in said(plan)
        assert "crm:export" not in "".join(steps_of(plan))


def test_a_scope_that_the_caller_has_and_that_works_is_no_finding_whatever_else_it_does() -> None:
    server = FakeKeycloak()
    scope = server.add_scope("pay", "crm")
    server.scopes[scope]["protocolMappers"].append({"name": "m", "protocolMapper": "oidc-hardcoded-claim-mapper"})
    server.add_client(
        clientId="chat",
        serviceAccountsEnabled=True,
        fullScopeAllowed=False,
        defaultClientScopes=["basic", "service_account"],
        optionalClientScopes=["pay"],
    )
    server.add_client(clientId="crm", fullScopeAllowed=False)
    with server.api() as api:
        plan = plan_for(api, receiver("crm", require_caller("chat")), caller("chat", "crm", scope="pay"))

    assert not plan.open


# Names


@pytest.mark.parametrize("audience", [API, "a b", 'say "hi"', "a\\b", "ä" * 255, "https://x.example/" + "p" * 237])
def test_the_scope_for_an_audience_has_a_name_that_keycloak_takes(audience: str) -> None:
    for name in scope_names(audience):
        assert not forbidden_scope(name)
        assert len(name) <= 255
    assert len(audience_mapper(audience, custom=True)["name"]) <= 255


def test_two_audiences_never_share_a_name() -> None:
    audiences = ["a b", "a_b", "a\\b", "ä", "ö", "x" * 254, "x" * 255]
    assert len({scope_names(audience)[0] for audience in audiences}) == len(audiences)
    assert len({audience_mapper(audience, custom=True)["name"] for audience in audiences}) == len(audiences)
    assert scope_names("crm")[0] == "crm-audience"


def test_audiences_that_are_no_names_of_scopes_are_granted_beside_each_other() -> None:
    names = ["a b", "a_b"]
    apps = [receiver(f"app-{number}", require_service(), audience=name) for number, name in enumerate(names)]
    with FakeKeycloak().api() as api:
        plan = plan_for(api, *apps, caller("chat", *names))

    assert plan.tokens[0].after["aud"] == names
    assert not said(plan)

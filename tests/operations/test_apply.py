"""A plan is carried out: exactly it, only where it was made, and whatever happens in between the next plan completes it."""

import base64
import json
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from s2s_fastapi import require_caller, require_realm_role, require_role
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.admin import AdminError, AdminForbidden
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.plan import Plan
from s2s_fastapi.operations.steps import (
    AddAudience,
    AssignScope,
    EnableServiceAccount,
    GrantRole,
    MakeClient,
    MakeRole,
    MakeScope,
    MapRole,
    Step,
)
from s2s_fastapi.realm.entities import Role
from tests.kit.admin_rest import MANAGE, FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import applied, plan_for, steps_of

CRM = receiver("crm", require_caller("chat") & require_role("write"))
APPS = (CRM, caller("chat", "crm"))


def refused(server: FakeKeycloak, plan: Plan, match: str, kind: type[Exception] = ConfigurationError) -> None:
    with server.api() as api, pytest.raises(kind, match=match):
        apply_plan(plan, api)


def test_a_new_secret_is_in_a_file_of_its_owner_before_the_client_is_made(tmp_path: Path) -> None:
    server, file = FakeKeycloak(), tmp_path / "new" / "chat.secret"
    seen: list[bool] = []

    def look(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/clients"):
            seen.append(file.exists())

    server.before = look
    with server.api() as api:
        applied(api, *APPS, secrets=str(file.parent))

    assert seen[0]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert server.client("chat")["secret"] == file.read_text() != "made-by-keycloak"
    assert len(file.read_text()) >= 40


def test_a_secret_file_that_exists_is_never_used(tmp_path: Path) -> None:
    (tmp_path / "chat.secret").write_text("planted")
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    refused(server, plan, "exists, and a secret is never overwritten")

    assert not server.client_id("chat")
    assert (tmp_path / "chat.secret").read_text() == "planted"


@pytest.mark.parametrize("status", [403, 409])
def test_the_secret_file_goes_if_keycloak_made_no_client(status: int, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    server.before = lambda method, path: (
        httpx.Response(status, json={}) if method == "POST" and path.endswith("/clients") else None
    )
    refused(server, plan, "clients", AdminForbidden if status == 403 else AdminError)

    assert list(tmp_path.iterdir()) == []


def test_the_secret_file_stays_if_nobody_knows_whether_the_client_was_made(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    server.before = lambda method, path: httpx.Response(502) if method == "POST" and path.endswith("/clients") else None
    refused(server, plan, "502", AdminError)

    assert [file.name for file in tmp_path.iterdir()] == ["chat.secret"]


def _answering(status: int, server: FakeKeycloak, *, made: bool, readable: bool = True) -> None:
    """Answer the POST of the client `chat` with an error, although the client is made; or let nobody read it afterwards."""
    asked: list[str] = []

    def answer(method: str, path: str) -> httpx.Response | None:
        if asked and not readable and method == "GET":
            return httpx.Response(502)
        if method == "POST" and path.endswith("/clients") and server.calls[-1][2]["clientId"] == "chat":
            asked.append(path)
            if made:
                server.add_client(**server.calls[-1][2])
            return httpx.Response(status, json={})
        return None

    server.before = answer


@pytest.mark.parametrize("status", [409, 502], ids=["a proxy sent it twice", "the answer was lost"])
def test_a_client_that_has_our_secret_is_ours_whatever_the_answer_was(status: int, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
        _answering(status, server, made=True)
        apply_plan(plan, api)

    assert server.client("chat")["secret"] == (tmp_path / "chat.secret").read_text()
    assert ("crm", "write") in server.roles_of("chat")


@pytest.mark.parametrize("status", [409, 502])
def test_a_secret_is_kept_and_named_with_what_to_do_if_nobody_can_compare_it(status: int, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    _answering(status, server, made=True, readable=False)
    refused(
        server, plan, rf"whether the client chat has the secret in {tmp_path}/chat.secret, which is kept", AdminError
    )

    assert server.client("chat")["secret"] == (tmp_path / "chat.secret").read_text()


@pytest.mark.parametrize("rotates", [True, False])
def test_a_secret_that_a_policy_replaced_at_once_is_noticed(rotates: bool, tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.profiles += [{"name": "rotate", "executors": [{"executor": "secret-rotation"}]}]
    server.policies += [{"name": "fresh", "enabled": True, "profiles": ["rotate"]}]
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))

    def replace_it(method: str, path: str) -> httpx.Response | None:
        if method == "POST" and path.endswith("/clients") and server.calls[-1][2]["clientId"] == "chat":
            made = server.add_client(**{**server.calls[-1][2], **({"secret": "another"} if rotates else {})})
            return httpx.Response(201, headers={"Location": f"http://keycloak.test/{made}"})
        return None

    server.before = replace_it
    if rotates:
        refused(server, plan, "Keycloak changed the secret of the new client", AdminError)
    else:
        with server.api() as api:
            apply_plan(plan, api)


def test_a_folder_for_secrets_that_others_can_change_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("")
    for name, mode, said in (
        ("group", 0o720, "can be written by other users"),
        ("world", 0o702, "can be written by other users"),
        ("link", None, "is a symbolic link"),
        ("file", None, "is no folder"),
    ):
        folder = tmp_path / name
        if mode is not None:
            folder.mkdir()
            folder.chmod(mode)
        server = FakeKeycloak()
        with server.api() as api:
            plan = plan_for(api, *APPS, secrets=str(folder))
        refused(server, plan, f"The folder for new secrets {folder} {said}.* with --secrets. Nothing was changed")
        assert server.writes() == []


def test_a_folder_for_secrets_that_others_may_read_or_that_is_not_there_is_right(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    for folder in (tmp_path / "open", tmp_path / "new" / "below"):
        with FakeKeycloak().api() as api:
            applied(api, *APPS, secrets=str(folder))
        assert (folder / "chat.secret").exists()


def test_a_realm_that_changed_since_the_plan_is_not_touched(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    server.add_scope("elsewhere", "crm")
    server.calls.clear()
    refused(server, plan, "has changed since the plan was made")

    assert server.writes() == []


def test_a_change_that_the_plan_does_not_look_at_is_no_obstacle(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
        server.add_client(clientId="unrelated")
        apply_plan(plan, api)

    assert server.client_id("chat")


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("server", "server"),
        ("issuer", "issuer"),
        ("realm", "realm"),
        ("realm_id", "another realm"),
        ("keycloak", "Keycloak"),
    ],
)
def test_a_plan_is_carried_out_nowhere_but_where_it_was_made(field: str, said: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    changed: dict[str, Any] = {field: "elsewhere"}
    server.calls.clear()
    refused(server, replace(plan, **changed), said)

    assert server.writes() == []


FORBIDDEN: dict[str, Step] = {
    "an admin role": GrantRole(client="chat", owner="realm-management", role="manage-users"),
    "an admin role in tokens": MapRole(client="chat", owner="realm-management", role="manage-users"),
    "a role that was not read": GrantRole(client="chat", owner="crm", role="other"),
    "a role that contains an admin role": GrantRole(client="chat", owner="crm", role="write"),
    "a role of Keycloak's client": MakeRole(owner="account", role="new"),
    "a mapper in a scope of Keycloak's": AddAudience(scope="profile", audience="crm"),
    "a scope of Keycloak's name": MakeScope(scope="email", audiences=("crm",)),
    "an audience of Keycloak's client": MakeScope(scope="new", audiences=("realm-management",)),
    "a mapper in a scope that others hold": AddAudience(scope="shared", audience="crm"),
    "a scope of Keycloak's for a client": AssignScope(client="chat", scope="offline_access"),
    "a new client with a scope of Keycloak's": MakeClient(client="new", caller=True, optional=("offline_access",)),
    "a client of Keycloak's": EnableServiceAccount(client="admin-cli"),
    "a scope for a client of Keycloak's": AssignScope(client="admin-cli", scope="basic"),
    "a new client of Keycloak's name": MakeClient(client="broker", caller=True),
    "a new client of Keycloak's name in capitals": MakeClient(client="Admin-CLI", caller=True),
    "a scope of Keycloak's name in capitals": MakeScope(scope="eMail", audiences=("crm",)),
    "a default role in capitals": MakeRole(owner="", role="Default-Roles-corp"),
    "a realm role of Keycloak's in capitals": MakeRole(owner="", role="ADMIN"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_saved_plan_that_somebody_wrote_by_hand_grants_nothing_forbidden(what: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    write = server.add_role("crm", "write")
    server.inside[write] = {next(uuid for uuid, role in server.roles.items() if role["name"] == "realm-admin")}
    server.add_scope("shared", "crm")
    server.add_client(clientId="outside", defaultClientScopes=["shared"])
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
        server.calls.clear()
    question = replace(plan.question, roles=frozenset({Role("crm", "write"), Role("realm-management", "manage-users")}))
    refused(
        server,
        replace(plan, steps=(*plan.steps, FORBIDDEN[what]), findings=(), question=question),
        "changed|no plan has",
    )
    with server.api() as api:
        right = replace(plan, question=question)
        right = replace(right, hash=_hash_of(api, right))
    refused(server, replace(right, steps=(*plan.steps, FORBIDDEN[what]), findings=()), "a step that no plan has")

    assert server.writes() == []


def _hash_of(api: Any, plan: Plan) -> str:
    from s2s_fastapi.operations.snapshot import read_snapshot

    return read_snapshot(api, plan.question).hash


def test_a_plan_with_a_forbidden_finding_is_not_carried_out_at_all(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, receiver("account", require_caller("chat")), secrets=str(tmp_path))
    assert plan.steps
    server.calls.clear()
    refused(server, plan, "forbidden")

    assert server.writes() == []


def test_a_scope_is_taken_from_the_one_list_before_it_gets_into_the_other(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_scope("crm-audience", "crm")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["crm-audience"])
    with server.api() as api:
        applied(api, *APPS, secrets=str(tmp_path))

    links = [
        (call, path.rsplit("/", 2)[1])
        for call, path, _ in server.calls
        if server.scope_id("crm-audience") in path and "clients/" in path
    ]
    assert links == [("DELETE", "optional-client-scopes"), ("PUT", "default-client-scopes")]
    assert "crm-audience" in server.client("chat")["defaultClientScopes"]


def test_authorization_settings_of_a_client_are_kept_when_its_service_account_is_switched_on(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="chat", authorizationServicesEnabled=True, authorizationSettings={"policies": ["p"]})
    with server.api() as api:
        applied(api, *APPS, secrets=str(tmp_path))

    assert server.client("chat")["serviceAccountsEnabled"] is True
    assert server.client("chat")["authorizationServicesEnabled"] is True
    assert server.client("chat")["authorizationSettings"] == {"policies": ["p"]}


def test_a_client_is_only_found_by_exactly_its_id(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="CHAT")
    server.add_scope("crm-audience", "crm")
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
        plan = replace(plan, steps=(EnableServiceAccount(client="chat"),))
    refused(server, plan, "chat is not there any more", AdminError)
    assert server.writes() == []


def test_every_put_of_a_client_names_its_service_account_and_its_authorization_and_nothing_else(tmp_path: Path) -> None:
    server = FakeKeycloak(old=True)
    server.add_client(clientId="chat", description="as it was", attributes={"a": "b"})
    with server.api() as api:
        applied(api, *APPS, secrets=str(tmp_path))

    assert [body for method, path, body in server.calls if method == "PUT" and "scopes" not in path] == [
        {"clientId": "chat", "serviceAccountsEnabled": True, "authorizationServicesEnabled": False}
    ]
    assert server.client("chat")["description"] == "as it was"


@pytest.mark.parametrize("number", range(8))
def test_an_apply_that_ends_in_the_middle_leaves_a_realm_that_the_next_plan_completes(
    number: int, tmp_path: Path
) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="chat")
    server.add_role("crm", "x")
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    left = [number]

    def end(method: str, path: str) -> httpx.Response | None:
        if method == "GET":
            return None
        left[0] -= 1
        return httpx.Response(503) if left[0] < 0 else None

    server.before = end
    refused(server, plan, "503", AdminError)
    server.before = lambda method, path: None
    with server.api() as api:
        rest = applied(api, *APPS, secrets=str(tmp_path / "again"))
        assert plan_for(api, *APPS).steps == ()

    assert 0 < len(rest.steps) <= len(plan.steps)
    assert set(steps_of(rest)) <= set(steps_of(plan)) | {
        "Make the client crm that only receives, without login flows, Full scope allowed off, default scopes basic"
    }


def test_what_somebody_else_made_in_the_meantime_is_taken_if_it_is_the_same(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/client-scopes") and not server.scope_id("crm-audience"):
            server.add_scope("crm-audience", "crm")

    server.before = faster
    with server.api() as api:
        apply_plan(plan, api)

    assert server.client_id("chat")


MORE: dict[str, Callable[[FakeKeycloak], object]] = {
    "another audience too": lambda server: server.add_scope("crm-audience", "crm", "payroll"),
    "a mapper of another kind too": lambda server: (
        server.add_scope("crm-audience", "crm"),
        server.scope("crm-audience")["protocolMappers"].append(
            {"name": "m", "protocolMapper": "oidc-hardcoded-role-mapper"}
        ),
    ),
    "a role that it counts for": lambda server: server.mapped.update(
        {server.add_scope("crm-audience", "crm"): {server.default_role}}
    ),
    "another holder": lambda server: (
        server.add_scope("crm-audience", "crm"),
        server.add_client(clientId="outside", optionalClientScopes=["crm-audience"]),
    ),
    "a name that tokens do not show": lambda server: server.add_scope(
        "crm-audience", "crm", attributes={"include.in.token.scope": "false"}
    ),
    "another protocol": lambda server: (
        server.add_scope("crm-audience", "crm"),
        server.scope("crm-audience").update(protocol="saml"),
    ),
}


@pytest.mark.parametrize("more", MORE)
def test_what_somebody_else_made_in_the_meantime_and_gives_more_ends_it(more: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/client-scopes") and not server.scope_id("crm-audience"):
            MORE[more](server)

    server.before = faster
    refused(server, plan, "It is not what the plan makes", AdminError)
    assert not server.client_id("chat")


@pytest.mark.parametrize("inner", ["manage-users", "harmless"])
def test_a_role_that_somebody_else_made_in_the_meantime_and_contains_others_ends_it(inner: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_role("", "harmless")
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    inside = next(uuid for uuid, role in server.roles.items() if role["name"] == inner)

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/roles"):
            server.inside[server.add_role("crm", "write")] = {inside}

    server.before = faster
    refused(server, plan, "It is not what the plan makes", AdminError)
    assert ("crm", "write") not in server.roles_of("chat")


def test_what_is_forbidden_since_somebody_else_was_faster_ends_it(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    write = server.add_role("crm", "write")
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    admin = next(uuid for uuid, role in server.roles.items() if role["name"] == "manage-users")

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/client-scopes") and not server.scope_id("crm-audience"):
            server.add_scope("crm-audience", "crm")
            server.inside[write] = {admin}

    server.before = faster
    refused(server, plan, "It is not what the plan makes", AdminError)
    assert not server.client_id("chat")


def _moving(tmp_path: Path) -> tuple[FakeKeycloak, Plan]:
    server = FakeKeycloak()
    server.add_scope("crm-audience", "crm")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["crm-audience"])
    with server.api() as api:
        return server, plan_for(api, *APPS, secrets=str(tmp_path))


def test_a_scope_that_cannot_be_moved_is_put_back_and_that_is_said(tmp_path: Path) -> None:
    server, plan = _moving(tmp_path)
    server.before = lambda method, path: (
        httpx.Response(503) if method == "PUT" and "default-client-scopes" in path else None
    )
    refused(server, plan, "503 .* As before, the client scope crm-audience of chat is Optional", AdminError)

    assert server.client("chat")["optionalClientScopes"] == ["crm-audience"]


def test_a_scope_that_cannot_be_put_back_is_named_with_the_list_that_it_was_in(tmp_path: Path) -> None:
    server, plan = _moving(tmp_path)
    server.before = lambda method, path: httpx.Response(503) if method == "PUT" else None
    refused(server, plan, "503 .* is in neither list: assign it as Optional again", AdminError)


def test_a_scope_is_put_back_if_somebody_ends_the_command_while_it_is_moved(tmp_path: Path) -> None:
    server, plan = _moving(tmp_path)

    def end(method: str, path: str) -> None:
        if method == "PUT" and "default-client-scopes" in path:
            raise KeyboardInterrupt

    server.before = end
    with server.api() as api, pytest.raises(KeyboardInterrupt):
        apply_plan(plan, api)

    assert server.client("chat")["optionalClientScopes"] == ["crm-audience"]


def test_a_secret_file_with_an_odd_name_does_not_change_the_terminal(tmp_path: Path) -> None:
    step = MakeClient(client="chat", caller=True, secret_file=f"{tmp_path}/a\x1b[31m")
    assert str(step).isprintable()
    Path(step.secret_file).write_text("taken")
    server = FakeKeycloak()
    with server.api() as api:
        plan = replace(plan_for(api, *APPS, secrets=str(tmp_path)), steps=(step,))
        with pytest.raises(ConfigurationError, match="exists") as caught:
            apply_plan(plan, api)
    assert str(caught.value).isprintable()


def test_what_somebody_else_made_in_the_meantime_and_is_not_the_same_ends_it(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/client-scopes") and not server.scope_id("crm-audience"):
            server.add_scope("crm-audience", "payroll")

    server.before = faster
    refused(server, plan, "It is not what the plan makes", AdminError)
    assert not server.client_id("chat")


def test_a_client_that_somebody_else_made_in_the_meantime_has_another_secret_and_ends_it(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    made = next(step for step in plan.steps if isinstance(step, MakeClient) and step.client == "chat")

    def faster(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/clients") and not server.client_id("chat"):
            lists = {"defaultClientScopes": made.default, "optionalClientScopes": made.optional}
            server.add_client(clientId="chat", serviceAccountsEnabled=True, **lists)

    server.before = faster
    refused(server, plan, "It is not what the plan makes", AdminError)
    assert list(tmp_path.iterdir()) == []


def test_a_204_is_not_believed(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_scope("crm-audience", "crm")
    server.add_client(clientId="chat", serviceAccountsEnabled=True, optionalClientScopes=["crm-audience"])
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    server.before = lambda method, path: httpx.Response(204) if method == "DELETE" else None
    refused(
        server,
        plan,
        "does not have the result of 1: Assign the client scope crm-audience to chat as Default",
        AdminError,
    )


@pytest.mark.parametrize(("right", "what"), [("manage-clients", "client-scopes"), ("manage-users", "role-mappings")])
def test_a_right_that_is_missing_is_named_with_what_it_is_for(right: str, what: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    server.rights = MANAGE - {right}
    refused(
        server,
        plan,
        rf"planner has no right to POST .*{what}.*the role {right} of the client realm-management in the realm corp",
        AdminForbidden,
    )


def _token(owner: str, *roles: str) -> str:
    claims = {"resource_access": {owner: {"roles": roles}}}
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.mark.parametrize("right", ["manage-clients", "manage-users", "manage-realm"])
def test_a_right_that_the_admins_own_token_lacks_is_named_before_anything_is_written(
    right: str, tmp_path: Path
) -> None:
    server, ledger = FakeKeycloak(), receiver("ledger", require_caller("chat") & require_realm_role("partner"))
    with server.api() as api:
        plan = plan_for(
            api, CRM, ledger, caller("chat", "crm", "ledger"), grant=("chat:realm-role=partner",), secrets=str(tmp_path)
        )
    with (
        server.api(_token("realm-management", *MANAGE - {right})) as api,
        pytest.raises(AdminForbidden, match=rf"the role {right} of the client realm-management .* Nothing was changed"),
    ):
        apply_plan(plan, api)

    assert server.writes() == []
    assert not list(tmp_path.glob("*.secret"))


@pytest.mark.parametrize(
    ("token", "permissions"),
    [(_token("another", "manage-clients"), False), (_token("realm-management"), True), ("e30.e30.c2ln", False)],
    ids=["another client's roles", "fine-grained permissions", "no roles"],
)
def test_rights_that_the_admins_own_token_does_not_tell_are_left_to_the_server(
    token: str, permissions: bool, tmp_path: Path
) -> None:
    server = FakeKeycloak()
    server.settings["adminPermissionsEnabled"] = permissions
    with server.api(token) as api:
        applied(api, *APPS, secrets=str(tmp_path))

    assert server.writes()


def test_nothing_is_ever_deleted_but_the_place_of_a_scope_in_a_list(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        applied(api, *APPS, secrets=str(tmp_path))

    assert all("-client-scopes/" in line for line in server.writes() if line.startswith("DELETE"))


@pytest.mark.parametrize("what", ["power in the role", "an audience in the scope", "another role in the role"])
def test_what_somebody_gives_while_the_plan_is_carried_out_is_not_called_done(what: str, tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="crm")
    server.add_client(clientId="payroll")
    write, reader = server.add_role("crm", "write"), server.add_role("payroll", "reader")
    server.add_scope("crm-audience", "crm")
    with server.api() as api:
        plan = plan_for(api, *APPS, secrets=str(tmp_path))
    began: list[str] = []

    def meanwhile(method: str, path: str) -> None:
        if method == "GET" or began:
            return
        began.append(path)
        if what == "power in the role":
            server.inside[write] = {uuid for uuid, role in server.roles.items() if role["name"] == "realm-admin"}
        elif what == "an audience in the scope":
            scope = server.scope("crm-audience")
            scope["protocolMappers"].append({**scope["protocolMappers"][0], "id": "q", "name": "q"})
            scope["protocolMappers"][-1]["config"] = {
                "included.client.audience": "payroll",
                "access.token.claim": "true",
            }
        else:
            server.inside[write] = {reader}

    server.before = meanwhile
    said = (
        "The reason: .* contains a role that"
        if what == "power in the role"
        else "the token of chat is not the promised one"
    )
    refused(server, plan, said, AdminError)
    assert began

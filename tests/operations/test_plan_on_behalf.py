"""What a plan makes for calls on behalf of users: a client that may exchange their tokens, and no more than the receiver lets in."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller, require_role, require_service, require_user
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.declared_app import declared_by
from s2s_fastapi.operations.plan import Plan, make_plan, question_of, read_plan
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import Severity, wanted
from s2s_fastapi.text import named
from tests.cli.test_plan import run, written
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, on_behalf, receiver, with_users
from tests.operations.planning import applied, plan_for, steps_of
from tests.operations.schemas import valid

EXCHANGE = "standard.token.exchange.enabled"
CRM = with_users(receiver("crm", require_user("shop-api"), require_caller("billing")))
SHOP = on_behalf("shop-api", "crm")
NARROW = on_behalf("shop-api", "crm", scope="for-crm")
WITH_FRONT_END = with_users(receiver("shop-api", require_user("web"), calls=SHOP.calls))


def said(plan: Plan, level: Severity) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def planned(server: FakeKeycloak, *apps: AppAccess, grant: tuple[str, ...] = ()) -> Plan:
    with server.api() as api:
        return plan_for(api, *apps, grant=grant)


def test_a_new_caller_is_made_with_the_exchange_on_and_a_second_plan_is_empty(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = applied(api, CRM, SHOP, secrets=str(tmp_path))
        again = plan_for(api, CRM, SHOP)

    assert steps_of(plan) == [
        "Make the client scope crm-audience with an Audience mapper for crm",
        "Make the client crm that only receives, without login flows, Full scope allowed off, default scopes basic",
        (
            "Make the client shop-api that calls others (service account on), without login flows, Full scope allowed off, default scopes basic,"
            " crm-audience, service_account, Standard Token Exchange on"
        ),
    ]
    assert server.client("shop-api")["attributes"] == {EXCHANGE: "true"}
    assert "attributes" not in server.client("crm")
    assert not again.open
    (token,) = plan.tokens
    assert (token.exchanged_for, token.before) == (("crm",), {})
    assert token.after == {"aud": "crm", "scope": "crm-audience"}
    valid(json.dumps(plan.as_json()), "plan")


def test_a_scope_that_the_code_requests_is_optional_so_no_other_token_has_the_audience(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = applied(api, CRM, NARROW, secrets=str(tmp_path))
        assert not plan_for(api, CRM, NARROW).open

    client = server.client("shop-api")
    assert client["optionalClientScopes"] == ["for-crm"]
    assert "for-crm" not in client["defaultClientScopes"]
    assert plan.tokens[0].after == {"aud": "crm", "scope": "for-crm"}


def test_the_plan_says_that_users_tokens_must_be_for_the_caller() -> None:
    plan = planned(FakeKeycloak(), CRM, SHOP)

    assert "shop-api exchanges the tokens of users, which must have shop-api in aud" in said(plan, Severity.NOTE)
    assert said(plan, Severity.OPEN) == ""


def test_a_client_that_is_there_gets_the_exchange_and_keeps_everything_else(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(
        clientId="shop-api",
        serviceAccountsEnabled=True,
        fullScopeAllowed=False,
        defaultClientScopes=["basic", "service_account"],
        attributes={"access.token.lifespan": "60"},
        authorizationServicesEnabled=True,
        authorizationSettings={"policies": ["ours"]},
    )
    account, roles = server.account_of("shop-api"), server.roles_of("shop-api")
    with server.api() as api:
        plan = applied(api, CRM, SHOP, secrets=str(tmp_path))
        assert not plan_for(api, CRM, SHOP).open

    client = server.client("shop-api")
    assert "Switch “Standard Token Exchange” of the client shop-api on" in steps_of(plan)
    assert client["attributes"] == {"access.token.lifespan": "60", EXCHANGE: "true"}
    assert client["authorizationSettings"] == {"policies": ["ours"]}
    assert (server.account_of("shop-api"), server.roles_of("shop-api")) == (account, roles)
    (put,) = [body for method, path, body in server.calls if method == "PUT" and path.count("/") == 5]
    assert put == {
        "clientId": "shop-api",
        "serviceAccountsEnabled": True,
        "authorizationServicesEnabled": True,
        "attributes": {EXCHANGE: "true"},
    }


def test_a_client_that_logs_users_in_and_only_exchanges_needs_no_service_account(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="shop-api", standardFlowEnabled=True, defaultClientScopes=["basic"])
    with server.api() as api:
        plan = applied(api, CRM, NARROW, secrets=str(tmp_path))
        assert not plan_for(api, CRM, NARROW).open

    assert not server.client("shop-api").get("serviceAccountsEnabled")
    assert [step for step in steps_of(plan) if "shop-api" in step] == [
        "Switch “Standard Token Exchange” of the client shop-api on",
        "Assign the client scope for-crm to shop-api as Optional",
    ]
    default = planned(server, CRM, SHOP)
    assert "each of their tokens would get the audience crm: it is not assigned" in said(default, Severity.OPEN)


def test_an_exchange_that_somebody_switched_on_stays_on(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="billing", serviceAccountsEnabled=True, attributes={EXCHANGE: "true"})
    with server.api() as api:
        plan = plan_for(api, CRM, caller("billing", "crm"))
        apply_plan(plan, api) if not plan.forbidden else None

    assert server.client("billing")["attributes"] == {EXCHANGE: "true"}
    # Nobody declares it. So users' tokens may come from there, and no scope is given to all of them.
    assert "has login flows on (Standard Token Exchange)" in said(plan, Severity.NOTE)
    assert "each of their tokens would get the audience crm" in said(plan, Severity.OPEN)


def test_on_a_server_without_token_exchange_there_is_one_sentence_and_no_step_for_it() -> None:
    server = FakeKeycloak(old=True)
    billing = caller("billing", "crm")
    plan = planned(server, CRM, NARROW, billing)

    assert said(plan, Severity.OPEN) == (
        "shop-api calls on behalf of users, and that needs the token exchange of Keycloak 26.2 or newer: this server is 26.0.8, so nothing"
        " is planned for these calls."
    )
    assert not any("Exchange" in step or "for-crm" in step for step in steps_of(plan))
    assert [token.caller for token in plan.tokens] == ["billing"]


@pytest.mark.parametrize("kind", ["publicClient", "bearerOnly"])
def test_a_client_without_credentials_exchanges_nothing(kind: str) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="shop-api", **{kind: True})
    plan = planned(server, CRM, SHOP)

    assert "nothing is planned for it" in said(plan, Severity.OPEN)
    assert not any("shop-api" in step for step in steps_of(plan))
    assert plan.tokens == ()


def test_whoever_may_not_call_on_behalf_of_users_gets_no_exchange() -> None:
    server = FakeKeycloak()
    server.add_client(
        clientId="shop-api", serviceAccountsEnabled=True, defaultClientScopes=["basic", "service_account"]
    )
    plan = planned(server, with_users(receiver("crm", require_user("web"), require_caller("shop-api"))), SHOP)

    assert not any("shop-api" in step for step in steps_of(plan))
    assert "no route of crm accepts users through shop-api" in said(plan, Severity.OPEN)


FRONT_ENDS: dict[str, tuple[dict[str, Any], Severity | None, str]] = {
    "no scope": ({}, Severity.OPEN, "no client scope puts shop-api into aud of their tokens"),
    "a default scope": ({"defaultClientScopes": ["shop"]}, None, ""),
    "an optional scope": (
        {"optionalClientScopes": ["shop"]},
        Severity.NOTE,
        "only if web requests the Optional client scope",
    ),
    "a mapper of its own": (
        {
            "protocolMappers": [
                {
                    "name": "aud",
                    "protocolMapper": "oidc-audience-mapper",
                    "config": {"included.client.audience": "shop-api", "access.token.claim": "true"},
                }
            ]
        },
        None,
        "",
    ),
}


@pytest.mark.parametrize("has", FRONT_ENDS)
def test_the_client_through_which_users_call_is_looked_at_and_never_changed(has: str) -> None:
    more, level, text = FRONT_ENDS[has]
    server = FakeKeycloak()
    server.add_scope("shop", "shop-api")
    server.add_client(clientId="web", publicClient=True, standardFlowEnabled=True, **more)
    plan = planned(server, CRM, WITH_FRONT_END)

    findings = "\n".join(
        finding.text for finding in plan.findings if "aud of" in finding.text or "of users of web" in finding.text
    )
    assert bool(findings) is (level is not None)
    assert level is None or text in said(plan, level)
    assert not any("client web" in step or "to web" in step for step in steps_of(plan))


def test_a_client_through_which_users_call_and_that_is_not_there_is_a_finding() -> None:
    plan = planned(FakeKeycloak(), CRM, WITH_FRONT_END)

    assert "shop-api lets in users through web, and the realm has no such client" in said(plan, Severity.OPEN)


def test_a_chain_of_services_on_behalf_of_one_user_is_planned_hop_by_hop(tmp_path: Path) -> None:
    gateway = on_behalf("gateway", "shop-api")
    shop = with_users(receiver("shop-api", require_user("gateway"), calls=SHOP.calls))
    with FakeKeycloak().api() as api:
        plan = applied(api, CRM, shop, gateway, secrets=str(tmp_path))
        again = plan_for(api, CRM, shop, gateway)

    assert not again.open
    assert said(plan, Severity.OPEN) == ""
    assert {token.caller: token.after["aud"] for token in plan.tokens} == {"gateway": "shop-api", "shop-api": "crm"}


def test_an_exchanged_token_that_others_accept_too_is_said() -> None:
    billing = receiver("billing", require_caller("shop-api"))
    shop = on_behalf("shop-api", "crm", own=(CallAccess(("billing",)),))
    plan = planned(FakeKeycloak(), CRM, billing, shop)

    assert said(plan, Severity.OPEN) == ""
    assert "exchanges for crm are also for billing, so crm could send them on" in said(plan, Severity.NOTE)
    assert {token.exchanged_for: token.after["aud"] for token in plan.tokens} == {
        (): ["billing", "crm"],
        ("crm",): ["billing", "crm"],
    }


def test_roles_of_users_are_left_to_people() -> None:
    crm = with_users(receiver("crm", require_user("shop-api") & require_role("clerk")))
    plan = planned(FakeKeycloak(), crm, SHOP)

    assert "Users on whose behalf shop-api calls need the role clerk of crm" in said(plan, Severity.NOTE)
    assert not any("role" in step for step in steps_of(plan) if not step.startswith("Make the client"))


def test_a_policy_that_rotates_secrets_is_named_for_the_client_that_changes() -> None:
    server = FakeKeycloak()
    server.policies = [{"name": "rotate", "profiles": ["rotation"]}]
    server.profiles = [{"name": "rotation", "executors": [{"executor": "secret-rotation"}]}]
    server.add_client(clientId="shop-api", serviceAccountsEnabled=True, fullScopeAllowed=False)

    assert "rotate may give shop-api a new secret when it is changed" in said(planned(server, CRM, SHOP), Severity.NOTE)


def test_the_urls_of_tool_servers_come_by_a_custom_mapper_also_on_behalf_of_users(tmp_path: Path) -> None:
    url = "https://tools.example.com/mcp"
    tools = replace(with_users(receiver("tools", require_user("agent"), require_service())), requires=None)
    tools = replace(with_users(receiver(url, require_user("agent"))), client_id="tools")
    agent = on_behalf("agent", url)
    with FakeKeycloak().api() as api:
        plan = applied(api, tools, agent, secrets=str(tmp_path))
        assert not plan_for(api, tools, agent).open

    assert plan.tokens[0].after["aud"] == url
    assert plan.as_json()["steps"][0]["custom"] == (url,)


# Files


def of_file(document: dict[str, Any], *apps: AppAccess, version: str = "26.7.3") -> Plan:
    needed, findings = wanted(apps, realm=str(document["realm"]))
    snapshot = read_snapshot(RealmFile(document, version=version), question_of(needed))
    return make_plan(snapshot, needed, findings, server="", issuer="", secret_file=lambda _: "")


@pytest.mark.parametrize("there", [False, True], ids=["a new client", "a client that is there"])
def test_a_realm_file_with_the_plan_carried_out_has_the_exchange_on(there: bool) -> None:
    before = {"access.token.lifespan": "60"} if there else {}
    shop = {"clientId": "shop-api", "serviceAccountsEnabled": True, "secret": "x", "attributes": before}
    given = {"realm": "corp", "enabled": True, "clients": [shop] if there else []}
    document = realm_json(given, of_file(given, CRM, SHOP))

    client = next(one for one in document["clients"] if one["clientId"] == "shop-api")
    assert client["attributes"] == {**before, EXCHANGE: "true"}
    assert not of_file(document, CRM, SHOP).steps


def test_terraform_switches_the_exchange_on_for_a_client_that_it_makes_only() -> None:
    content, left_out = terraform(planned(FakeKeycloak(), CRM, SHOP))
    clients = content["resource"]["keycloak_openid_client"]
    assert clients["shop-api"]["standard_token_exchange_enabled"] is True
    assert "standard_token_exchange_enabled" not in clients["crm"]
    assert left_out == ()

    server = FakeKeycloak()
    server.add_client(clientId="shop-api", serviceAccountsEnabled=True, fullScopeAllowed=False)
    _, left_out = terraform(planned(server, CRM, SHOP))
    assert "Switch “Standard Token Exchange” of the client shop-api on." in map(str, left_out)


def test_a_saved_plan_with_an_exchange_is_read_carried_out_and_shown(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(clientId="shop-api", serviceAccountsEnabled=True, fullScopeAllowed=False)
    files = written(tmp_path, CRM, SHOP)
    out = tmp_path / "plan.json"
    with server.serving() as environment:
        shown = run(environment, "plan", *files, "--out", out)
        assert read_plan(out)[0].tokens[0].exchanged_for == ("crm",)
        done = run(environment, "apply", "--plan", out)
        again = run(environment, "plan", *files)

    assert "Switch “Standard Token Exchange” of the client shop-api on." in shown.output
    assert (
        "  shop-api on behalf of users:\n    before: no token\n    after:  aud [crm], scope [crm-audience]"
        in shown.output
    )
    assert done.exit_code == 0, done.output
    assert server.client("shop-api")["attributes"] == {EXCHANGE: "true"}
    assert again.exit_code == 0, again.output
    assert json.loads(out.read_text())["made_from"]["access"][1]["apps"][0]["calls"][0]["on_behalf"] is True


# The code


def test_a_client_whose_on_behalf_a_route_or_the_lifespan_uses_is_no_caller_of_its_own_unless_it_is_there_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {"URL": "https://sso.example", "REALM": "corp", "CLIENT_ID": "shop-api"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)

    app = declared_by("tests.operations.on_behalf_app:app", "")

    assert [(call.audiences, call.on_behalf) for call in app.calls] == [
        (("bank",), False),
        (("bank",), True),
        (("crm",), True),
        (("https://tools.example.com/mcp",), True),
        (("mail",), True),
        (("stock",), False),
        (("stock",), True),
    ]


@pytest.mark.parametrize(
    ("lifespan", "names", "calls"),
    [
        ("service_lifespan(crm.on_behalf)", "", [True]),
        ("service_lifespan(crm.on_behalf.sync)", "", [True]),
        ("service_lifespan(crm, crm.on_behalf)", "", [False, True]),
        ("service_lifespan(crm)", "", [False]),
        ("None", "acting = crm.on_behalf", [True]),
        ("service_lifespan(crm)", "acting = crm.on_behalf", [False, True]),
        ("None", "", [False]),
    ],
)
def test_a_call_by_the_text_of_a_token_is_found_if_the_lifespan_or_a_name_says_on_behalf(
    lifespan: str, names: str, calls: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"URL": "https://sso.example", "REALM": "corp", "CLIENT_ID": "shop-api"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    module = f"on_behalf_by_name_{tmp_path.name}"
    (tmp_path / f"{module}.py").write_text(f"""
from fastapi import Depends, FastAPI, Request
from s2s_fastapi import ServiceAuthMiddleware, require_user, service_client, service_lifespan
crm = service_client("http://crm.example", audience="crm")
{names}
app = FastAPI(lifespan={lifespan}, openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, users=True)
@app.get("/", dependencies=[Depends(require_user("web"))])
async def route(request: Request) -> None:
    crm.auth.on_behalf_of(request)
""")
    monkeypatch.syspath_prepend(tmp_path)

    app = declared_by(f"{module}:app", "")

    assert [call.on_behalf for call in app.calls] == calls
    assert {call.audiences for call in app.calls} == {("crm",)}


# Hostile names


@pytest.mark.parametrize("name", ["https://t.example/$(id)'><script>", "${x}", '"] ; click', "--yes"])
def test_a_name_is_text_in_what_is_said_of_calls_on_behalf_of_users(name: str, tmp_path: Path) -> None:
    tools = with_users(receiver(name, require_user(name), require_user("shop-api")))
    shop = with_users(receiver("shop-api", require_user(name), calls=on_behalf("", name).calls))
    other = replace(on_behalf("other", name), client_id=f"{name}2")
    server = FakeKeycloak()
    with server.serving() as environment:
        shown = run(environment, "plan", *written(tmp_path, tools, shop, other))
    with server.api() as api:
        plan = plan_for(api, tools, shop, other)

    assert named(name) in shown.stdout
    assert shlex.split(said(plan, Severity.OPEN).partition("or --grant ")[2].partition(" grants the")[0]) == [
        f"{name}2:audience={name}"
    ]
    for block in json.dumps(terraform(plan)[0]).split('"'):
        assert not re.search(r"(?<!\$)\$\{x\}", block)

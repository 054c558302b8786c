"""Bound tokens (DPoP) in the commands: what both sides declare, what Keycloak grants, and which side is to change first."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.operations.access_check import check_access
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.graph import as_html, as_json, as_mermaid
from s2s_fastapi.operations.plan import Plan, make_plan, question_of, read_plan
from s2s_fastapi.operations.predicted import same_claims
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.relations import Status, relations
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import Severity, wanted
from s2s_fastapi.realm.model import RealmModel
from tests.cli.test_plan import run, written
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import bound, caller, receiver
from tests.operations.landscape import MAIL, SHOP, STOCK, app, call, client, file, realm, route
from tests.operations.planning import applied, plan_for, steps_of
from tests.operations.schemas import valid

FORCED = "dpop.bound.access.tokens"
ONLY_SHOP = {"caller": [SHOP]}
OF_BOUND = {"and": [ONLY_SHOP, {"bound": True}]}
GRANTED = realm(client(SHOP, STOCK), client(STOCK))


def stock(dpop: str = "", *routes: dict[str, Any]) -> Any:
    """Return a receiver with one route for the shop, unless others are given."""
    declared = app(STOCK, *(routes or (route("/items", ONLY_SHOP),)))
    return {**declared, **({"dpop": dpop, "public_urls": ["https://stock.example.com"]} if dpop else {})}


def shop(*dpop: bool) -> Any:
    """Return a caller with one call for each of these."""
    calls = [
        {**call(STOCK, *(("b",) if number else ())), **({"dpop": True} if each else {})}
        for number, each in enumerate(dpop)
    ]
    return app(SHOP, calls=calls, receives=False)


def forced(client_id: str, *audiences: str) -> dict[str, Any]:
    return {**client(client_id, *audiences), "attributes": {FORCED: "true"}}


def said(receiver: Any, caller: Any, model: RealmModel = GRANTED) -> str:
    return "\n".join(finding.text for finding in check_access(file(receiver, caller).apps, model))


# What access check says


@pytest.mark.parametrize(
    ("mode", "dpop"), [("", False), ("accepted", False), ("accepted", True), ("required", True)], ids=str
)
def test_two_sides_that_agree_are_no_finding(mode: str, dpop: bool) -> None:
    assert said(stock(mode), shop(dpop)) == ""
    (found,) = relations([file(stock(mode), shop(dpop))], GRANTED)
    assert (found.status, found.dpop) == (Status.WORKS, dpop)
    assert all(each.accepted for each in found.routes)


def test_a_bound_token_for_an_app_that_refuses_them_is_found_with_the_side_to_change_first() -> None:
    assert said(stock(), shop(True)) == (
        'shop calls stock with a bound token (DPoP), and stock refuses bound tokens (no_credentials). Write dpop="accepted" and'
        " public_url=... in ServiceAuthMiddleware of stock, and deploy that before shop binds its tokens (KEYCLOAK_DPOP). First"
        ' dpop="accepted" on receivers, then dpop=True (KEYCLOAK_DPOP=true) on callers, then dpop="required" on receivers.'
    )


def test_a_bearer_token_for_an_app_that_requires_bound_ones_is_found_with_the_side_to_change_first() -> None:
    text = said(stock("required"), shop(False))

    assert text.startswith(
        "shop calls stock, and stock requires bound tokens (bearer_not_accepted). Write dpop=True in the call of shop,"
    )
    assert "deploy that before stock requires bound tokens" in text
    assert text.count("\n") == 0


def test_a_bearer_token_for_a_route_that_requires_a_bound_one_is_found_if_the_route_lets_this_caller_in() -> None:
    routes = [route("/items", ONLY_SHOP), route("/pay", OF_BOUND), route("/any", {"bound": True})]
    text = said(stock("accepted", *routes), shop(False))

    assert text.startswith(
        "shop calls stock, and GET /any, GET /pay of stock requires a bound token (not_bound). Write dpop=True"
    )
    assert said(stock("accepted", *routes), shop(True)) == ""
    of_others = [route("/items", ONLY_SHOP), route("/pay", {"and": [{"caller": [MAIL]}, {"bound": True}]})]
    assert said(stock("accepted", *of_others), shop(False)) == ""


def test_a_route_that_a_bound_token_opens_in_one_of_two_ways_is_no_finding() -> None:
    either = {"or": [ONLY_SHOP, {"and": [{"caller": [MAIL]}, {"bound": True}]}]}
    assert said(stock("accepted", route("/items", either)), shop(False)) == ""


def test_each_call_is_judged_by_itself() -> None:
    optional = realm({**client(SHOP, STOCK), "optionalClientScopes": ["b"]}, client(STOCK), scopes=[("b", STOCK)])
    text = said(stock("required"), shop(True, False), optional)

    assert text.startswith("shop calls stock with the scope b, and stock requires bound tokens")
    (found,) = relations([file(stock("accepted"), shop(True, False))], optional)
    assert (found.status, found.dpop) == (Status.WORKS, False)


def test_a_client_that_gets_bound_tokens_only_and_calls_with_others_is_told_both_ways_out() -> None:
    model = realm(forced(SHOP, STOCK), client(STOCK))

    assert said(stock("accepted"), shop(True), model) == ""
    assert said(stock("accepted"), shop(False), model) == (
        "shop calls stock, and Keycloak refuses the token request: invalid_request DPoP proof is missing. Set KEYCLOAK_DPOP=true for the"
        ' service shop, or switch "Require DPoP bound tokens" off for its client in Keycloak (Settings, Capability config; attribute'
        f" {FORCED})."
    )


def test_on_a_server_that_binds_no_tokens_a_call_with_a_bound_token_is_found() -> None:
    document = {"realm": "corp", "enabled": True, "clients": [client(SHOP, STOCK), client(STOCK)]}
    old = RealmModel.read(document, version="26.0.8")

    text = said(stock("accepted"), shop(True), old)
    assert "and this Keycloak binds no tokens. Bound tokens need Keycloak 26.4 or newer" in text
    assert said(stock("accepted"), shop(False), old) == ""


def test_a_grant_that_nobody_declares_is_found_although_the_client_gets_bound_tokens_only() -> None:
    model = realm(forced(MAIL, STOCK), client(SHOP, STOCK), client(STOCK))

    assert "mail gets the audience stock in every token, and no access file declares" in said(
        stock("accepted"), shop(True), model
    )
    found = {each.caller: each for each in relations([file(stock("accepted"), shop(True))], model)}
    assert found[MAIL].status is Status.NOT_DECLARED
    assert [each.accepted for each in found[MAIL].routes] == [False]  # it is not named
    open_to_all = {each.caller: each for each in relations([file(stock("", route("/items")), shop(False))], model)}
    assert [each.reason for each in open_to_all[MAIL].routes] == ["no_credentials"]


# The graph


@pytest.mark.parametrize(
    ("mode", "dpop", "reason"), [("", True, "no_credentials"), ("required", False, "bearer_not_accepted")], ids=str
)
def test_a_relation_in_which_one_side_does_not_fit_is_refused_and_says_what_to_change(
    mode: str, dpop: bool, reason: str
) -> None:
    (found,) = relations([file(stock(mode), shop(dpop))], GRANTED)
    assert found.status is Status.REFUSED
    assert {each.reason for each in found.routes} == {reason}
    assert "dpop=" in found.cure

    (declared,) = relations([file(stock(mode), shop(dpop))])
    assert declared.status is Status.REFUSED
    assert declared.note == found.cure


def test_an_edge_shows_that_the_call_is_made_with_a_bound_token() -> None:
    found = relations([file(stock("accepted"), shop(True))], GRANTED)
    bearer = relations([file(stock("accepted"), shop(False))], GRANTED)

    assert as_json(found)["relations"][0]["dpop"] is True
    assert as_json(bearer)["relations"][0]["dpop"] is False
    assert '-->|"bound"| ' in as_mermaid(found)
    assert "bound" not in as_mermaid(bearer)
    assert '-.->|"refused, bound"| ' in as_mermaid(relations([file(stock(), shop(True))], GRANTED))
    assert '"dpop": true' in as_html(found)


# The plan

CRM = replace(receiver("crm", require_caller("billing")), dpop="accepted")
BILLING = bound("billing", "crm")


def noted(plan: Plan, level: Severity) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def planned(server: FakeKeycloak, *apps: AppAccess) -> Plan:
    with server.api() as api:
        return plan_for(api, *apps)


def with_billing(**members: Any) -> FakeKeycloak:
    server = FakeKeycloak()
    server.add_client(
        **{
            "clientId": "billing",
            "serviceAccountsEnabled": True,
            "fullScopeAllowed": False,
            "defaultClientScopes": ["basic", "service_account"],
            **members,
        }
    )
    return server


def test_a_new_caller_of_which_every_call_is_bound_gets_bound_tokens_only(tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = applied(api, CRM, BILLING, secrets=str(tmp_path))
        assert not plan_for(api, CRM, BILLING).open

    assert server.client("billing")["attributes"] == {FORCED: "true"}
    assert "attributes" not in server.client("crm")
    (made,) = (step for step in steps_of(plan) if "billing" in step)
    assert made.endswith(", Require DPoP bound tokens on")
    assert noted(plan, Severity.OPEN) == ""
    assert "First start every process" not in noted(plan, Severity.NOTE)
    (token,) = plan.tokens
    assert (token.dpop, token.before, token.after["aud"], "cnf" in token.after) == (True, {}, "crm", True)
    valid(json.dumps(plan.as_json()), "plan")


def test_a_client_that_is_there_is_changed_last_and_keeps_everything_else(tmp_path: Path) -> None:
    server = with_billing(attributes={"access.token.lifespan": "60"}, authorizationServicesEnabled=True)
    with server.api() as api:
        plan = applied(api, CRM, BILLING, secrets=str(tmp_path))
        assert not plan_for(api, CRM, BILLING).open

    assert steps_of(plan)[-1] == "Switch “Require DPoP bound tokens” of the client billing on"
    assert server.client("billing")["attributes"] == {"access.token.lifespan": "60", FORCED: "true"}
    put = [body for method, path, body in server.calls if method == "PUT" and path.count("/") == 5][-1]
    assert put == {
        "clientId": "billing",
        "serviceAccountsEnabled": True,
        "authorizationServicesEnabled": True,
        "attributes": {FORCED: "true"},
    }
    assert "CHECK THIS: after this plan Keycloak refuses each token request of billing without a proof" in noted(
        plan, Severity.NOTE
    )


def test_a_client_with_one_bearer_call_is_not_forced_and_a_note_says_why() -> None:
    mixed = replace(BILLING, calls=(*BILLING.calls, CallAccess(("stock",))))
    plan = planned(with_billing(), CRM, receiver("stock", require_caller("billing")), mixed)

    assert not any("DPoP" in step for step in steps_of(plan))
    assert (
        "“Require DPoP bound tokens” of the client billing stays off: its access file also declares calls with bearer tokens"
        in noted(plan, Severity.NOTE)
    )
    assert [token.dpop for token in plan.tokens] == [False, True]


def test_a_promised_token_that_is_bound_is_another_one_than_a_bearer_token() -> None:
    bearer = {"aud": "crm", "client_id": "billing"}
    assert not same_claims({**bearer, "cnf": {"jkt": "a"}}, bearer)
    assert same_claims({**bearer, "cnf": {"jkt": "a"}}, {**bearer, "cnf": {"jkt": "b"}})


def test_nothing_is_said_or_done_if_no_call_is_bound() -> None:
    plan = planned(with_billing(), CRM, caller("billing", "crm"))
    assert "DPoP" not in "\n".join([*steps_of(plan), *(finding.text for finding in plan.findings)])


def test_a_client_that_is_forced_and_declares_a_bearer_call_is_a_finding_and_stays_forced(tmp_path: Path) -> None:
    server = with_billing(attributes={FORCED: "true"})
    with server.api() as api:
        plan = plan_for(api, CRM, caller("billing", "crm"))
        apply_plan(plan, api)

    assert server.client("billing")["attributes"] == {FORCED: "true"}
    assert (
        "Keycloak gives billing bound tokens only, and its access file declares calls with bearer tokens. It is not switched off."
        in noted(plan, Severity.OPEN)
    )


def test_a_client_that_logs_users_in_is_not_forced() -> None:
    plan = planned(
        with_billing(standardFlowEnabled=True, optionalClientScopes=["for-crm"]),
        CRM,
        bound("billing", "crm", scope="for-crm"),
    )

    assert not any("DPoP" in step for step in steps_of(plan))
    assert "stays off: it logs users in (Standard flow), and their logins would need proofs too" in noted(
        plan, Severity.NOTE
    )


def test_on_a_server_that_binds_no_tokens_there_is_one_sentence_and_no_step() -> None:
    plan = planned(FakeKeycloak(old=True), CRM, BILLING)

    assert not any("DPoP" in step for step in steps_of(plan))
    assert (
        "billing calls with bound tokens (DPoP), and this server is Keycloak 26.0.8: nothing is planned for that."
        in noted(plan, Severity.OPEN)
    )


def test_a_step_for_a_client_of_keycloak_itself_is_refused() -> None:
    plan = planned(FakeKeycloak(), CRM, replace(BILLING, client_id="realm-management"))
    assert plan.forbidden


def of_file(document: Mapping[str, Any], *apps: AppAccess) -> Plan:
    needed, findings = wanted(apps, realm="corp")
    snapshot = read_snapshot(RealmFile(document, version="26.7.3"), question_of(needed))
    return make_plan(snapshot, needed, findings, server="", issuer="", secret_file=lambda _: "")


@pytest.mark.parametrize("there", [False, True], ids=["a new client", "a client that is there"])
def test_a_realm_file_with_the_plan_carried_out_has_bound_tokens_on(there: bool) -> None:
    before = {"access.token.lifespan": "60"} if there else {}
    billing = {"clientId": "billing", "serviceAccountsEnabled": True, "secret": "x", "attributes": before}
    given = {"realm": "corp", "enabled": True, "clients": [billing] if there else []}
    document = realm_json(given, of_file(given, CRM, BILLING))

    client = next(one for one in document["clients"] if one["clientId"] == "billing")
    assert client["attributes"] == {**before, FORCED: "true"}
    assert not of_file(document, CRM, BILLING).steps


def test_terraform_binds_the_tokens_of_a_client_that_it_makes_only() -> None:
    content, left_out = terraform(planned(FakeKeycloak(), CRM, BILLING))
    clients = content["resource"]["keycloak_openid_client"]
    assert clients["billing"]["require_dpop_bound_tokens"] is True
    assert "require_dpop_bound_tokens" not in clients["crm"]
    assert left_out == ()

    _, left_out = terraform(planned(with_billing(), CRM, BILLING))
    assert "Switch “Require DPoP bound tokens” of the client billing on." in map(str, left_out)


def test_a_saved_plan_with_bound_tokens_is_read_carried_out_and_shown(tmp_path: Path) -> None:
    server = with_billing()
    files = written(tmp_path, CRM, BILLING)
    out = tmp_path / "plan.json"
    with server.serving() as environment:
        shown = run(environment, "plan", *files, "--out", out)
        assert read_plan(out)[0].tokens[0].dpop
        done = run(environment, "apply", "--plan", out)
        again = run(environment, "plan", *files)

    assert "Switch “Require DPoP bound tokens” of the client billing on." in shown.output
    assert "  billing with a proof (DPoP):\n    before: " in shown.output
    assert "bound to a key (cnf)" in shown.output
    assert done.exit_code == 0, done.output
    assert server.client("billing")["attributes"] == {FORCED: "true"}
    assert again.exit_code == 0, again.output


def test_a_plan_whose_saved_form_lacks_the_binding_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    with with_billing().serving() as environment:
        run(environment, "plan", *written(tmp_path, CRM, BILLING), "--out", out)
        content = json.loads(out.read_text())
        content["steps"] = [step for step in content["steps"] if step["do"] != "require_binding"]
        out.write_text(json.dumps(content))
        done = run(environment, "apply", "--plan", out)
    assert done.exit_code == 2
    assert "it was changed" in done.output

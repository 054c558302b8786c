"""Certificate-bound tokens (RFC 8705) in the commands: which apps take them, which clients get them, and who is to change what first."""

import json
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.keycloak.client_authentication import ByCertificate
from s2s_fastapi.keycloak.dpop import ANY_THUMBPRINT
from s2s_fastapi.operations.access_check import check_access
from s2s_fastapi.operations.explanation import Question, Token, explained, given, predicted
from s2s_fastapi.operations.plan import Plan, make_plan, question_of
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.relations import Status, relations
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.steps import MakeClient
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import Severity, wanted
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.requirement.requirement import Bound, Caller
from s2s_fastapi.text import base64url
from tests.cli.test_plan import run, written
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.landscape import MAIL, SHOP, STOCK, app, call, client, file, realm, route
from tests.operations.planning import applied, plan_for, steps_of
from tests.operations.schemas import valid

BOUND = "tls.client.certificate.bound.access.tokens"
SWITCH = "OAuth 2.0 Mutual TLS Certificate Bound Access Tokens Enabled"
OF_SHOP = {"and": [{"bound": True}, {"caller": [SHOP]}]}
DN = {"x509.subjectdn": "CN=shop", "x509.casubjectdn": "CN=CA", "x509.allow.regex.pattern.comparison": "false"}


def stock(*, takes: bool = True, dpop: str = "") -> dict[str, Any]:
    """Return a receiver with a route that only a bound token of the shop opens."""
    members: dict[str, Any] = {"client_certificate": True} if takes else {}
    members |= {"dpop": dpop, "public_urls": ["https://stock.example.com"]} if dpop else {}
    return {**app(STOCK, route("/items", OF_SHOP)), **members}


def calling() -> Any:
    return app(SHOP, calls=[call(STOCK)], receives=False)


def certified(
    client_id: str, *audiences: str, switch: bool = True, authenticator: str = "client-x509"
) -> dict[str, Any]:
    attributes = {**DN, **({BOUND: "true"} if switch else {})}
    return {**client(client_id, *audiences), "clientAuthenticatorType": authenticator, "attributes": attributes}


def a_realm(**members: Any) -> RealmModel:
    return realm(certified(SHOP, STOCK, **members), client(STOCK))


def said(receives: Any, model: RealmModel) -> str:
    return "\n".join(finding.text for finding in check_access(file(receives, calling()).apps, model))


def why(receives: Any, model: RealmModel) -> tuple[Token, str]:
    """Return the token of the shop that `explain` predicts, and the reason of the only route."""
    question = Question(client_id=SHOP, to=STOCK)
    token = predicted(model, question)
    (answer,) = explained(question, token, file(receives, calling()).apps).routes
    return token, answer.reason


# What access check, graph and explain say


def test_a_client_whose_tokens_are_bound_to_its_certificate_calls_an_app_that_takes_them() -> None:
    assert said(stock(), a_realm()) == ""
    (found,) = relations([file(stock(), calling())], a_realm())
    assert (found.status, [each.accepted for each in found.routes]) == (Status.WORKS, [True])
    token, reason = why(stock(), a_realm())
    assert token.principal is not None
    assert (token.principal.binding, reason) == ("certificate", "allowed")
    assert token.notes == ()


@pytest.mark.parametrize("dpop", ["", "accepted"])
def test_an_app_that_checks_no_certificates_refuses_their_tokens_and_is_to_change_first(dpop: str) -> None:
    takes_none = {**stock(takes=False, dpop=dpop), "routes": [route("/items", {"caller": [SHOP]})]}
    text = said(takes_none, a_realm())
    assert "stock refuses tokens that are bound to a client certificate (sender_constrained)" in text
    assert "Write client_certificate=... in ServiceAuthMiddleware of stock, and deploy that before" in text
    (found,) = relations([file(takes_none, calling())], a_realm())
    assert (found.status, [each.reason for each in found.routes]) == (Status.REFUSED, ["sender_constrained"])
    assert "client_certificate=" in found.cure
    assert why(takes_none, a_realm())[1] == "sender_constrained"


def test_an_app_that_requires_proofs_takes_no_token_that_is_bound_to_a_certificate_alone() -> None:
    assert why(stock(dpop="required"), a_realm())[1] == "bearer_not_accepted"
    assert "stock requires bound tokens (bearer_not_accepted)" in said(stock(dpop="required"), a_realm())


def test_a_token_that_is_not_bound_is_cured_in_the_way_that_the_receiver_takes() -> None:
    model = a_realm(switch=False)
    text = said(stock(), model)
    assert (
        "GET /items of stock requires a bound token (not_bound). stock takes tokens that are bound to a client certificate"
        in text
    )
    assert "KEYCLOAK_CLIENT_CERT_FILE" in text
    assert "dpop" not in text.lower()
    (found,) = relations([file(stock(), calling())], model)
    assert "KEYCLOAK_CLIENT_CERT_FILE" in found.cure
    assert "KEYCLOAK_DPOP=true" in said(stock(dpop="accepted"), model)


def test_of_a_client_that_does_not_log_in_by_a_certificate_nobody_knows_whether_it_has_one() -> None:
    model = a_realm(authenticator="client-secret")
    (note,) = check_access(file(stock(), calling()).apps, model)
    assert note.level is Severity.NOTE
    assert "and none without one: set KEYCLOAK_CLIENT_CERT_FILE for the service shop" in note.text
    assert why(stock(), model)[0].notes == (note.text,)


def test_a_grant_that_nobody_declares_is_found_although_the_tokens_of_the_client_are_bound() -> None:
    model = realm(certified(MAIL, STOCK), certified(SHOP, STOCK), client(STOCK))
    assert "mail gets the audience stock in every token, and no access file declares" in said(stock(), model)
    found = {each.caller: each for each in relations([file(stock(), calling())], model)}
    assert found[MAIL].status is Status.NOT_DECLARED


def test_what_would_follow_for_a_disabled_client_is_judged_with_its_certificate() -> None:
    model = realm({**certified(SHOP, STOCK), "enabled": False}, client(STOCK))
    question = Question(client_id=SHOP, to=STOCK)
    (answer,) = explained(question, predicted(model, question), file(stock(), calling()).apps).routes
    assert answer.reasons == ("no_credentials",)


# The plan


CRM = replace(receiver("crm", Bound() & Caller("service", frozenset({"billing"}))), client_certificate=True)
BILLING = replace(
    caller("billing", "crm"), client_authentication=ByCertificate(subject_dn="CN=billing", issuer_dn="CN=CA")
)


def of_file(
    document: Mapping[str, Any], *apps: AppAccess, version: str = "26.7.3", grant: tuple[str, ...] = ()
) -> Plan:
    needed, findings = wanted(apps, grant, realm="corp")
    snapshot = read_snapshot(RealmFile(document, version=version), question_of(needed))
    return make_plan(snapshot, needed, findings, server="", issuer="", secret_file=lambda _: "")


def with_billing(*, by: str = "client-x509", switch: bool = False, **members: Any) -> dict[str, Any]:
    """Return a realm with the caller in it."""
    names = {**DN, "x509.subjectdn": "CN=billing"} if by == "client-x509" else {}
    billing = {
        "clientId": "billing",
        "serviceAccountsEnabled": True,
        "fullScopeAllowed": False,
        "clientAuthenticatorType": by,
        "attributes": {**names, **({BOUND: "true"} if switch else {})},
        **members,
    }
    return {"realm": "corp", "enabled": True, "clients": [billing]}


def noted(plan: Plan, level: Severity) -> str:
    return "\n".join(finding.text for finding in plan.findings if finding.level is level)


def binding(plan: Plan) -> list[str]:
    return [each for each in steps_of(plan) if SWITCH in each]


def test_a_caller_whose_tokens_are_bound_already_is_predicted_with_its_token() -> None:
    plan = of_file(with_billing(switch=True), CRM, BILLING)
    assert binding(plan) == []
    assert noted(plan, Severity.OPEN) == ""
    (token,) = plan.tokens
    assert [*token.after["cnf"]] == ["x5t#S256"]


@pytest.mark.parametrize("there", [False, True], ids=["a new client", "a client that is there"])
def test_a_caller_by_certificate_of_an_app_that_takes_certificates_only_gets_bound_tokens(there: bool) -> None:
    before = with_billing() if there else {"realm": "corp", "enabled": True, "clients": []}
    plan = of_file(before, CRM, BILLING)
    (step,) = binding(plan)
    assert ("Switch" in step) is there
    assert ("CHECK THIS: after this plan each token of billing is bound" in noted(plan, Severity.NOTE)) is there
    assert noted(plan, Severity.OPEN) == ""
    assert "cnf" in plan.tokens[0].after
    valid(json.dumps(plan.as_json()), "plan")
    document = realm_json(before, plan)
    billing = next(one for one in document["clients"] if one["clientId"] == "billing")
    assert billing["attributes"] == {**DN, "x509.subjectdn": "CN=billing", BOUND: "true"}
    assert "attributes" not in next(one for one in document["clients"] if one["clientId"] == "crm")
    assert not of_file(document, CRM, BILLING).steps


def test_a_server_gets_the_attribute_and_keeps_everything_else(tmp_path: Path) -> None:
    server = FakeKeycloak()
    server.add_client(**with_billing()["clients"][0], defaultClientScopes=["basic", "service_account"])
    with server.api() as api:
        applied(api, CRM, BILLING, secrets=str(tmp_path))
        assert not plan_for(api, CRM, BILLING).steps
    assert server.client("billing")["attributes"] == {**DN, "x509.subjectdn": "CN=billing", BOUND: "true"}


@pytest.mark.parametrize(
    ("app", "caller_"),
    [
        (replace(CRM, dpop="accepted"), BILLING),
        (replace(CRM, client_certificate=False, dpop="accepted"), BILLING),
        (replace(receiver("crm", Caller("service", frozenset({"billing"}))), client_certificate=True), BILLING),
        (CRM, replace(BILLING, calls=(CallAccess(("crm",), dpop=True),))),
    ],
    ids=["dpop too", "dpop only", "no route", "a bound call"],
)
def test_nothing_is_switched_on_if_no_route_needs_it(app: AppAccess, caller_: AppAccess) -> None:
    plan = of_file(with_billing(), app, caller_)
    assert binding(plan) == []
    assert "certificate" not in noted(plan, Severity.OPEN)


NAMED = Caller("service", frozenset({"billing"}))


@pytest.mark.parametrize(
    ("requires", "steps"),
    [((Bound() & NAMED, NAMED), 1), ((Bound(),), 1), ((Bound(), NAMED), 0)],
    ids=["one of two that name it", "every route", "one that does not name it"],
)
def test_a_route_counts_if_it_names_the_caller_or_if_no_route_takes_bearer_tokens(requires: Any, steps: int) -> None:
    app = replace(receiver("crm", *requires), client_certificate=True)
    assert len(binding(of_file(with_billing(), app, BILLING))) == steps


def test_a_client_that_was_made_without_the_switch_is_not_the_planned_one() -> None:
    plan = of_file({"realm": "corp", "enabled": True, "clients": []}, CRM, BILLING)
    (step,) = (each for each in plan.steps if isinstance(each, MakeClient) and each.client == "billing")
    snapshot = read_snapshot(RealmFile(with_billing(), version="26.7.3"), plan.question)
    document = deepcopy(dict(snapshot.document))
    step.on(document)
    assert step.holds(snapshot.with_document(document))
    replace(step, certificate_bound=False).on(document)
    assert not step.holds(snapshot.with_document(document))


OTHER = receiver("stock", Caller("service", frozenset({"billing"})))
BOTH = replace(BILLING, calls=(*BILLING.calls, CallAccess(("stock",))))


@pytest.mark.parametrize(
    ("document", "apps", "grant", "problem"),
    [
        (with_billing(by="client-secret"), (CRM, caller("billing", "crm")), (), "does not log in by a certificate"),
        (
            with_billing(standardFlowEnabled=True),
            (CRM, BILLING),
            ("billing:audience=crm",),
            "logs users in (Standard flow)",
        ),
        (
            with_billing(),
            (CRM, OTHER, BOTH),
            (),
            "no access file says that stock, which billing also calls, accepts such",
        ),
        (
            with_billing(),
            (CRM, BOTH),
            ("billing:audience=stock",),
            "no access file says that stock, which billing also",
        ),
    ],
    ids=["secret", "users", "another app", "an app that is not given"],
)
def test_what_keeps_the_plan_from_binding_the_tokens_is_a_finding(
    document: dict[str, Any], apps: tuple[AppAccess, ...], grant: tuple[str, ...], problem: str
) -> None:
    plan = of_file(document, *apps, grant=grant)
    assert binding(plan) == []
    text = noted(plan, Severity.OPEN)
    assert "crm has routes that only a token bound to a client certificate opens" in text
    assert problem in text


def test_another_app_that_takes_certificates_too_is_no_obstacle() -> None:
    assert binding(of_file(with_billing(), CRM, replace(OTHER, client_certificate=True), BOTH))


def test_a_caller_with_bound_tokens_of_an_app_that_refuses_them_is_a_finding_and_stays_as_it_is() -> None:
    plan = of_file(with_billing(switch=True), OTHER, replace(BOTH, calls=BOTH.calls[1:]))
    assert "no access file says that stock accepts such tokens. It is not switched off." in noted(plan, Severity.OPEN)
    assert binding(plan) == []


def test_a_client_with_a_secret_and_the_switch_is_predicted_with_a_note() -> None:
    plan = of_file(with_billing(by="client-secret", switch=True), CRM, caller("billing", "crm"))
    assert "and none without one: set KEYCLOAK_CLIENT_CERT_FILE for the service billing" in noted(plan, Severity.NOTE)
    assert noted(plan, Severity.OPEN) == ""
    assert "cnf" in plan.tokens[0].after


@pytest.mark.parametrize(("version", "notes"), [("26.0.8", 1), ("26.6.3", 1), ("26.7.0", 0)])
def test_a_server_that_does_not_compare_the_authority_of_a_certificate_is_noted(version: str, notes: int) -> None:
    for before in (with_billing(), {"realm": "corp", "enabled": True, "clients": []}):
        text = noted(of_file(before, CRM, BILLING, version=version), Severity.NOTE)
        assert text.count("does not compare who signed the certificate of billing") == notes
    assert "who signed" not in noted(of_file({**before, "clients": []}, OTHER, version=version), Severity.NOTE)


# Terraform


def test_terraform_binds_the_tokens_of_a_client_that_it_makes() -> None:
    content, left_out = terraform(of_file({"realm": "corp", "enabled": True, "clients": []}, CRM, BILLING))
    extra = content["resource"]["keycloak_openid_client"]["billing"]["extra_config"]
    assert (extra[BOUND], extra["x509.subjectdn"]) == ("true", "CN=billing")
    assert left_out == ()


def test_what_terraform_cannot_change_is_said_with_what_to_write(tmp_path: Path) -> None:
    document = {**with_billing(by="client-secret", secret="x"), "id": "corp"}
    realm_file = tmp_path / "realm.json"
    realm_file.write_text(json.dumps(document))
    out = tmp_path / "out.tf.json"
    done = run(
        {},
        "plan",
        *written(tmp_path, CRM, BILLING),
        "--grant",
        "billing:client_authentication",
        "--realm-file",
        realm_file,
        "--terraform",
        out,
    )
    assert (
        f"Not in {out}, because another resource has this client: Let the client billing log in by certificates"
        in done.output
    )
    assert 'Write in its resource: {"client_authenticator_type": "client-x509", "extra_config": {' in done.output
    assert f'Write in its resource: {{"extra_config": {{"{BOUND}": "true"}}}}.' in done.output


# A token that somebody has


def text_of(**cnf: str) -> str:
    """Return a token as a service sends it; nobody looks at its signature."""
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": "https://sso.example.com/realms/corp",
        "typ": "Bearer",
        "azp": SHOP,
        "client_id": SHOP,
        "aud": STOCK,
    }
    claims |= {"iat": now, "exp": now + 60, "jti": "1", "cnf": cnf}
    parts = ({"alg": "RS256", "typ": "JWT", "kid": "k"}, claims)
    return ".".join([*(base64url(json.dumps(part).encode()) for part in parts), base64url(b"x" * 256)])


@pytest.mark.parametrize(("takes", "reason"), [(True, "allowed"), (False, "sender_constrained")])
def test_a_token_that_somebody_has_is_judged_by_whether_the_app_takes_it(takes: bool, reason: str) -> None:
    token = given(text_of(**{"x5t#S256": ANY_THUMBPRINT}), None)
    (answer,) = explained(Question(to=STOCK), token, file(stock(takes=takes, dpop="accepted")).apps).routes
    assert answer.reason == reason


def test_a_token_of_a_binding_that_nobody_checks_is_refused_by_itself() -> None:
    assert given(text_of(**{"x5t#S256": "short"}), None).decision.reason == "sender_constrained"

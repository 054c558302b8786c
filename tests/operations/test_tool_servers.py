"""Tool servers, whose audience is a URL: from the code over the plan to the questions that one asks about them."""

from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.operations.checks.grants import check_steps
from s2s_fastapi.operations.declared_app import declared_by
from s2s_fastapi.operations.explanation import Question, explained, predicted
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Seen
from s2s_fastapi.operations.plan import question_of
from s2s_fastapi.operations.relations import Status, relations
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import Severity, wanted
from s2s_fastapi.realm.model import RealmModel
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller
from tests.operations.planning import applied, plan_for
from tests.operations.tool_server_app import URL

AGENT = caller("agent", URL)


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> AppAccess:
    for name, value in {"URL": "https://sso.example", "REALM": "corp", "CLIENT_ID": "tools"}.items():
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    return declared_by("tests.operations.tool_server_app:app", "")


def realm_of(server: FakeKeycloak, app: AppAccess) -> RealmModel:
    with server.api() as api:
        return read_snapshot(api, question_of(wanted((app, AGENT), realm="corp")[0])).model


def test_the_access_file_has_the_url_as_audience_and_the_client_id_as_name(tools: AppAccess) -> None:
    assert tools.client_id == "tools"
    assert f'{{"audience": ["{URL}"]}}' in AccessFile((tools,)).text
    assert AccessFile.parse(AccessFile((tools,)).text.encode()).apps == (tools,)


def test_a_plan_makes_a_custom_audience_for_who_is_let_in_and_a_second_one_is_empty(
    tools: AppAccess, tmp_path: Path
) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        plan = applied(api, tools, AGENT, secrets=str(tmp_path))
        again = plan_for(api, tools, AGENT)
        stranger = plan_for(api, tools, caller("stranger", URL))

    (mapper,) = server.scope(f"{URL}-audience")["protocolMappers"]
    assert mapper["config"] == {
        "included.custom.audience": URL,
        "access.token.claim": "true",
        "id.token.claim": "false",
        "introspection.token.claim": "true",
    }
    assert plan.tokens[0].after["aud"] == URL
    assert not again.open
    assert any(
        "no route of tools accepts stranger" in one.text for one in stranger.findings if one.level is Severity.OPEN
    )
    mappers = terraform(plan)[0]["resource"]["keycloak_openid_audience_protocol_mapper"]
    assert [one["included_custom_audience"] for one in mappers.values()] == [URL]


def test_graph_and_explain_name_the_server_by_its_client_and_take_its_url(tools: AppAccess, tmp_path: Path) -> None:
    server = FakeKeycloak()
    with server.api() as api:
        applied(api, tools, AGENT, secrets=str(tmp_path))
    model = realm_of(server, tools)

    (relation,) = relations([AccessFile((tools, AGENT))], model)
    assert (relation.caller, relation.receiver, relation.status) == ("agent", "tools", Status.WORKS)
    for to in ("tools", URL):
        question = Question(client_id="agent", to=to)
        found = explained(question, predicted(model, question), [tools, AGENT])
        assert [(each.app, each.route, each.reason) for each in found.routes] == [("tools", "POST /mcp", "allowed")]


def test_what_a_tool_server_lacks_is_said_with_a_custom_audience_and_without_a_client_of_that_name(
    tools: AppAccess,
) -> None:
    server = FakeKeycloak()
    for name in ("tools", "agent"):
        lists: dict[str, Any] = {"defaultClientScopes": ["basic", "service_account"]}
        server.add_client(clientId=name, serviceAccountsEnabled=name == "agent", fullScopeAllowed=False, **lists)
    settings = KeycloakSettings(
        url="http://keycloak.test", realm="corp", client_id="agent", client_secret="the-services"
    )
    with server.api() as api:
        facts = Facts(apps=(tools, AGENT), files=("access.json",), admin=api, settings=settings)
        (finding,) = (one for one in check_steps(facts) if not isinstance(one, Seen))

    assert isinstance(finding, Finding)
    assert finding.seen == f"No client scope has an Audience mapper for {URL} (step C)."
    assert f"Included Custom Audience {URL}" in finding.console
    question = Question(client_id="agent", to=URL)
    model = realm_of(server, tools)
    hints = " ".join(explained(question, predicted(model, question), [tools, AGENT]).hints)
    assert f"Of the steps A to D in the README, the realm has A, B for {URL}" in hints

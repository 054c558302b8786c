"""What an SDK offers besides the tools, resources and prompts that it lists has requirements, too."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_user
from s2s_fastapi.mcp import allowed, tool_server
from tests.kit.receiving import Observed
from tests.mcp.conftest import Start
from tests.mcp.tools import LOOPBACK, OFFICIAL, Caller, Tools

SERVICES_ONLY = "Only services may call this."


@pytest.mark.parametrize(
    "asked",
    [("tools/call", {"name": "x"}), ("prompts/get", {"name": "x"}), ("resources/read", {"uri": "data://x"})],
    ids=["tool", "prompt", "resource"],
)
def test_a_name_that_nothing_has_is_for_services_and_does_not_get_into_the_route(
    start: Start, tools: Tools, user_token: Any, observed: Observed, asked: tuple[str, dict[str, Any]]
) -> None:
    method, params = asked
    ann = start(users=True)(user_token("ann")).open()

    answer = ann.ask(method, **params)

    refused = [each.route for each in observed.decisions if each.outcome == "refused"]
    if tools.kind == "official":
        assert answer["error"]["message"] == SERVICES_ONLY
        assert refused == [f"/mcp {method}"]
    else:  # FastMCP knows all that it can offer
        assert refused == []


def test_a_method_that_nobody_has_does_not_get_into_the_route(
    start: Start, user_token: Any, observed: Observed
) -> None:
    start(users=True)(user_token("ann")).open().ask("made/up")

    assert {each.route for each in observed.decisions} == {"/mcp"}


@pytest.mark.parametrize("kind", ["ref/resource", "ref/prompt"])
def test_a_completion_that_names_two_things_needs_the_requirements_of_both(
    options: Callable[..., dict[str, Any]], user_token: Any, token_of: Any, kind: str
) -> None:
    ran: list[str] = []
    server = OFFICIAL("tools")

    @server.completion()  # type: ignore[untyped-decorator]
    async def complete(ref: Any, argument: Any, context: Any) -> None:
        ran.append("complete")

    def harmless(name: str) -> str:
        return name

    server.prompt()(allowed(require_user())(harmless))
    server.resource("data://salaries/{name}")(allowed(require_caller("payroll"))(harmless))
    app = tool_server(server)
    app.add_middleware(ServiceAuthMiddleware, **options(users=True))
    asked = {"ref": {"type": "ref/prompt", "name": "harmless"}, "argument": {"name": "name", "value": ""}}
    both = {**asked, "ref": {"type": kind, "uri": "data://salaries/{name}", "name": "harmless"}}
    with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
        ann, payroll = Caller(client, user_token("ann")).open(), Caller(client, token_of("payroll")).open()

        assert ann.ask("completion/complete", **both)["error"]["message"] == SERVICES_ONLY
        assert payroll.ask("completion/complete", **both)["error"]["message"] == "Only users may call this."
        assert ran == []
        ann.ask("completion/complete", **asked)
        assert ran == ["complete"]

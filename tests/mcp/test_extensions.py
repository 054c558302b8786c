"""What an SDK offers besides the tools, resources and prompts that it lists has requirements, too."""

import importlib
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server
from tests.kit.receiving import Observed
from tests.mcp.conftest import Start
from tests.mcp.tools import LOOPBACK, OFFICIAL, Caller, Tools

SERVICES_ONLY = "Only services may call this."


class TestAnExtensionOfTheOfficialSdk:
    """SEP-2133: it adds methods, and answers calls of tools that the server does not list."""

    @pytest.fixture
    def make(self, options: Callable[..., dict[str, Any]]) -> Any:
        if find_spec("mcp.server.extension") is None:
            pytest.skip("mcp 1.x has no extensions")
        extension, types = map(importlib.import_module, ("mcp.server.extension", "mcp_types"))

        async def secret(context: Any, params: Any) -> dict[str, Any]:
            return {"value": current_principal().client_id}

        @allowed(require_user())
        async def of_users(context: Any, params: Any) -> dict[str, Any]:
            return {"value": current_principal().client_id}

        class Acme(extension.Extension):  # type: ignore[name-defined, misc]  # a class of a package that may be absent
            identifier = "com.example/acme"

            def methods(self) -> Any:
                return [
                    extension.MethodBinding("acme/open", types.RequestParams, secret),
                    extension.MethodBinding("acme/users", types.RequestParams, of_users),
                ]

            async def intercept_tool_call(self, params: Any, context: Any, call_next: Any) -> Any:
                return types.CallToolResult(content=[types.TextContent(type="text", text="ran")])

        server = OFFICIAL("tools", extensions=[Acme()])
        app = tool_server(server)
        app.add_middleware(ServiceAuthMiddleware, **options(users=True))
        with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
            yield lambda token: Caller(client, token).open()

    def test_a_method_is_for_services_unless_it_says_who(
        self, make: Any, user_token: Any, token_of: Any, observed: Observed
    ) -> None:
        ann, agent = make(user_token("ann")), make(token_of("agent"))

        assert ann.ask("acme/open")["error"]["message"] == SERVICES_ONLY
        assert agent.ask("acme/open")["result"]["value"] == "agent"
        assert ann.ask("acme/users")["result"]["value"] == "crm-ui"
        assert agent.ask("acme/users")["error"]["message"] == "Only users may call this."
        assert [each.route for each in observed.decisions if each.outcome == "refused"] == [
            "/mcp acme/open",
            "/mcp acme/users",
        ]

    def test_a_tool_that_is_not_listed_is_for_services(
        self, make: Any, user_token: Any, token_of: Any, observed: Observed
    ) -> None:
        assert make(user_token("ann")).call("virtual") == SERVICES_ONLY
        assert make(token_of("agent")).call("virtual") == "ran"
        assert [each.route for each in observed.decisions if each.outcome == "refused"] == ["/mcp tools/call"]


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

"""An extension of the official SDK has requirements, too. mcp 1.x has none, so these tests are for mcp 2.x alone."""

from collections.abc import Callable
from typing import Any

import mcp_types as types
import pytest
from mcp.server import extension
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server
from tests.kit.receiving import Observed
from tests.mcp.test_extensions import SERVICES_ONLY
from tests.mcp.tools import LOOPBACK, OFFICIAL, Caller


class TestAnExtensionOfTheOfficialSdk:
    """SEP-2133: it adds methods, and answers calls of tools that the server does not list."""

    @pytest.fixture
    def make(self, options: Callable[..., dict[str, Any]]) -> Any:
        async def secret(context: Any, params: Any) -> dict[str, Any]:
            return {"value": current_principal().client_id}

        @allowed(require_user())
        async def of_users(context: Any, params: Any) -> dict[str, Any]:
            return {"value": current_principal().client_id}

        class Acme(extension.Extension):
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

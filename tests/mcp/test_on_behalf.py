"""A tool that calls another service for the user who sent the message."""

from typing import Any

import httpx
import pytest

from s2s_fastapi import ServiceAuthMiddleware, require_user, service_auth
from s2s_fastapi.mcp import current_request, tool_server
from tests.mcp.tools import LOOPBACK, Caller, Tools

URL = "https://tools.example.com/mcp"
CRM = "http://crm:8000"


@pytest.fixture
def server(tools: Tools) -> Any:
    """A server as docs/tool-servers.md has it; its tool says how a call failed."""
    crm = service_auth(CRM, audience="crm", scope="crm-audience")

    async def my_tickets() -> str:
        async with httpx.AsyncClient() as client:
            response = await client.get(f"{CRM}/tickets", auth=crm.auth.on_behalf_of(current_request()))
        return str(response.json())

    tools.tool(my_tickets, require_user())
    app = tool_server(tools.server)
    app.add_middleware(ServiceAuthMiddleware, users=True, public_url=URL, resource=True)
    return app


def called(client: Any, token: str) -> Any:
    client.base_url = LOOPBACK
    return Caller(client, token).open().call("my_tickets")


def test_a_tool_calls_as_each_user_with_a_token_for_the_other_service_only(
    server: Any, client_of: Any, as_user: Any, keycloak_issuer: Any
) -> None:
    crm = keycloak_issuer.downstream(CRM).answer(json="a printer")
    client = client_of(server, client_id="tools")

    for name in ("ann", "ben"):
        assert called(client, as_user(name, via="ui", audience=[URL, "tools"]).token) == "a printer"

    assert [call.claims["preferred_username"] for call in crm.calls] == ["ann", "ben"]
    assert {(call.client_id, call.audiences) for call in crm.calls} == {("tools", frozenset({"crm"}))}


def test_a_users_token_for_the_url_alone_is_not_exchanged_and_the_log_says_for_whom_it_must_be(
    server: Any, client_of: Any, as_user: Any, keycloak_issuer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    crm = keycloak_issuer.downstream(CRM).answer(json="a printer")

    answer = called(client_of(server, client_id="tools"), as_user("ann", via="ui", audience=URL).token)

    assert "printer" not in answer
    assert not crm.calls
    assert "is not for tools" in caplog.text

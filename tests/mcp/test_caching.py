"""FastMCP's cache keeps what each token got for that token alone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastmcp import FastMCP
from fastmcp.server.middleware.caching import ResponseCachingMiddleware
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_scope, require_service
from s2s_fastapi.mcp import allowed, current_principal, tool_server
from tests.mcp.tools import LOOPBACK, Caller

USES: dict[str, tuple[str, dict[str, Any]]] = {
    "tool": ("tools/call", {"name": "secret", "arguments": {}}),
    "prompt": ("prompts/get", {"name": "secret_prompt"}),
    "resource": ("resources/read", {"uri": "data://secret"}),
}


@pytest.fixture
def callers(options: Callable[..., dict[str, Any]]) -> Iterator[Callable[[str], Caller]]:
    server = FastMCP("tools")
    server.add_middleware(ResponseCachingMiddleware())
    auth = allowed(require_service() & require_scope("privileged"))

    @server.tool(auth=auth)
    def secret() -> str:
        return "the secret"

    @server.prompt(auth=auth)
    def secret_prompt() -> str:
        return "the secret"

    @server.resource("data://secret", auth=auth)
    def secret_resource() -> str:
        return "the secret"

    @server.tool
    def whoami() -> str:
        return current_principal().client_id

    app = tool_server(server)
    app.add_middleware(ServiceAuthMiddleware, **options())
    with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
        yield lambda token: Caller(client, token).open()


@pytest.mark.parametrize("use", USES)
def test_what_one_caller_got_is_not_given_to_another(callers: Any, token_of: Any, use: str) -> None:
    method, params = USES[use]
    boss, agent = callers(token_of("boss", scope="privileged")), callers(token_of("agent"))

    assert "the secret" in str(boss.ask(method, **params)["result"])
    assert agent.ask(method, **params)["error"]["message"] == "The access token lacks a scope."
    assert (boss.call("whoami"), agent.call("whoami")) == ("boss", "agent")


@pytest.mark.parametrize("use", USES)
def test_what_a_token_got_is_not_given_to_a_later_one_of_the_same_session(
    callers: Any, token_of: Any, use: str
) -> None:
    method, params = USES[use]
    agent = callers(token_of("agent", scope="privileged"))

    assert "the secret" in str(agent.ask(method, **params)["result"])
    agent.token = token_of("agent")
    assert agent.ask(method, **params)["error"]["message"] == "The access token lacks a scope."


def test_a_list_that_one_caller_saw_is_not_shown_to_another(callers: Any, token_of: Any) -> None:
    def listed(caller: Caller) -> list[str]:
        return [each["name"] for each in caller.ask("tools/list")["result"]["tools"]]

    boss, agent = callers(token_of("boss", scope="privileged")), callers(token_of("agent"))

    assert (listed(boss), listed(agent)) == (["secret", "whoami"], ["whoami"])

"""A server of FastMCP that is mounted in another one keeps its requirements."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastmcp import FastMCP
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_service, require_user
from s2s_fastapi.mcp import allowed, current_principal, tool_server
from tests.kit.receiving import Observed
from tests.mcp.tools import LOOPBACK, Caller

USES: dict[str, tuple[str, dict[str, Any]]] = {
    "tool": ("tools/call", {"name": "ns_whoami", "arguments": {}}),
    "prompt": ("prompts/get", {"name": "ns_prompt"}),
    "resource": ("resources/read", {"uri": "data://ns/one"}),
    "template": ("resources/read", {"uri": "data://ns/users/7"}),
}


def child(depth: int = 0) -> Any:
    """A server whose parts are for users; or one that mounts it."""
    server = FastMCP("child")
    if depth:
        server.mount(child(depth - 1))
        return server
    users = allowed(require_user())

    @server.tool(auth=users)
    def whoami() -> str:
        return str(current_principal().subject)

    @server.prompt(auth=users)
    def prompt() -> str:
        return "a prompt"

    @server.resource("data://one", auth=users)
    def resource() -> str:
        return "a resource"

    @server.resource("data://users/{user}", auth=users)
    def template(user: str) -> str:
        return f"user {user}"

    return server


@pytest.fixture(params=[0, 1], ids=["mounted", "mounted twice"])
def make(request: pytest.FixtureRequest, options: Callable[..., dict[str, Any]]) -> Iterator[Callable[[str], Caller]]:
    parent = FastMCP("parent")
    parent.mount(child(request.param), "ns")
    app = tool_server(parent)
    app.add_middleware(ServiceAuthMiddleware, **options(users=True))
    with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
        yield lambda token: Caller(client, token).open()


@pytest.mark.parametrize("use", USES)
def test_what_it_requires_is_known_at_the_start_and_decides(
    make: Any, user_token: Any, token_of: Any, observed: Observed, use: str
) -> None:
    method, params = USES[use]

    assert "error" not in make(user_token("ann")).ask(method, **params)
    assert make(token_of("agent")).ask(method, **params)["error"]["message"] == "Only users may call this."
    assert [each.reason for each in observed.decisions if each.outcome == "refused"] == ["not_a_user"]


def test_a_server_that_is_mounted_later_decides_as_well(
    options: Callable[..., dict[str, Any]], user_token: Any, token_of: Any
) -> None:
    parent = FastMCP("parent")
    app = tool_server(parent)
    app.add_middleware(ServiceAuthMiddleware, **options(users=True))
    with TestClient(app, LOOPBACK, raise_server_exceptions=False) as client:
        ann, agent = Caller(client, user_token("ann")).open(), Caller(client, token_of("agent")).open()
        later = child()
        later.tool(auth=allowed(require_service()), name="of_services")(lambda: "ran")
        parent.mount(later, "ns")

        assert (ann.call("ns_whoami"), agent.call("ns_whoami")) == ("ann", "Only users may call this.")
        assert (ann.call("ns_of_services"), agent.call("ns_of_services")) == ("Only services may call this.", "ran")
        listed = agent.ask("tools/list")["result"]["tools"]
        assert [each["name"] for each in listed] == ["ns_of_services"]

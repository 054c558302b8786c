"""An MCP server that was moved: who has no token learns where to get one, and each tool can ask for more.

pytest does not collect this file by itself, because its packages are only in the environment of ``make test-layouts``.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.moving.mcp_server.app import app

ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def client(client_of: Callable[..., Any]) -> Any:
    return client_of(app, client_id="mcp-server")


def call(client: Any, tool: str, auth: Any, **arguments: str) -> Any:
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments},
    }
    return client.post("/mcp", json=request, headers=ACCEPT, auth=auth)


def test_who_has_no_token_learns_where_to_get_one(client: Any) -> None:
    refused = call(client, "whoami", None)
    challenge = refused.headers["www-authenticate"]

    assert refused.status_code == 401
    assert challenge.startswith("Bearer ")
    assert 'resource_metadata="https://tools.example.com/.well-known/oauth-protected-resource/mcp"' in challenge
    document = client.get("/.well-known/oauth-protected-resource/mcp").json()
    assert document["resource"] == "https://tools.example.com/mcp"
    assert len(document["authorization_servers"]) == 1


def test_a_tool_knows_who_calls(client: Any, as_user: Callable[..., Any], as_service: Callable[..., Any]) -> None:
    answers = [
        call(client, "whoami", as_user("ann", via="editor")).json(),
        call(client, "whoami", as_service("agent")).json(),
    ]

    assert [answer["result"]["content"][0]["text"] for answer in answers] == ["editor", "agent"]


def test_a_tool_can_ask_for_a_scope(client: Any, as_service: Callable[..., Any]) -> None:
    refused = call(client, "delete_project", as_service("agent"), name="one").json()["error"]
    allowed = call(client, "delete_project", as_service("agent", scope="projects:write"), name="one").json()["result"]

    assert refused["message"] == "The access token lacks a scope."
    assert (allowed["isError"], allowed["content"][0]["text"]) == (False, "one is deleted")


def test_a_bad_token_and_one_for_another_server_are_refused(client: Any, as_user: Callable[..., Any]) -> None:
    bad = [as_user("ann", via="editor", key="forged"), as_user("ann", via="editor", audience="another-server")]

    assert [call(client, "whoami", each).status_code for each in bad] == [401, 401]


def test_the_health_check_needs_no_token(client: Any) -> None:
    assert client.get("/health").status_code == 200

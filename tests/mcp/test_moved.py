"""A server of the official SDK that verified tokens by hand, before and after its move, gets the same requests."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from s2s_fastapi.testing import EmbeddedIssuer
from tests.mcp.tools import LOOPBACK, Caller

MOVED = Path(__file__).resolve().parents[1] / "moving"
GUIDE = MOVED.parents[1] / "docs/tool-servers.md"
RESOURCE = "https://tools.example.com/mcp"


def code_lines(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return len([line for line in lines if line.strip() and not line.strip().startswith("#")])


@pytest.fixture(params=["before", "after"])
def client(
    request: pytest.FixtureRequest, keycloak_issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    with keycloak_issuer.serving():
        (realm,) = keycloak_issuer.realms
        monkeypatch.setenv("KEYCLOAK_URL", keycloak_issuer.url)
        monkeypatch.setenv("KEYCLOAK_REALM", realm)
        monkeypatch.setenv("KEYCLOAK_ISSUER", keycloak_issuer.issuer(realm))
        app = importlib.reload(importlib.import_module(f"tests.moving.mcp_official.{request.param}")).app
        with TestClient(app, LOOPBACK) as client:
            yield client


@pytest.fixture
def token(keycloak_issuer: EmbeddedIssuer) -> Callable[..., str]:
    def made(**options: Any) -> str:
        headers = keycloak_issuer.as_service("agent", **{"audience": RESOURCE, **options}).headers
        return str(headers["Authorization"]).removeprefix("Bearer ")

    return made


def test_who_may_call_can_and_a_tool_asks_for_its_scope(client: TestClient, token: Callable[..., str]) -> None:
    agent, writer = (Caller(client, token(**options)).open() for options in ({}, {"scope": "projects:write"}))

    assert agent.call("whoami") == "agent"
    assert writer.call("delete_project", name="one") == "one is deleted"
    assert "The access token lacks a scope." in agent.call("delete_project", name="one")


def test_who_may_not_call_learns_where_to_get_a_token(client: TestClient, token: Callable[..., str]) -> None:
    bad = [Caller(client, token(audience="another")), Caller(client, token(key="forged")), Caller(client, "none")]
    refused = [each.send("initialize") for each in bad]

    assert [each.status_code for each in refused] == [401, 401, 401]
    document = "https://tools.example.com/.well-known/oauth-protected-resource/mcp"
    assert all(f'resource_metadata="{document}"' in each.headers["www-authenticate"] for each in refused)
    assert client.get("/.well-known/oauth-protected-resource/mcp").json()["resource"] == RESOURCE


@pytest.mark.parametrize("name", ["before", "after"])
def test_the_page_counts_the_lines_right(name: str) -> None:
    count = code_lines(MOVED / f"mcp_official/{name}.py")

    assert f"[{name}.py](../tests/moving/mcp_official/{name}.py): {count} lines" in GUIDE.read_text(encoding="utf-8")

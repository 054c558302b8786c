"""The clients of both SDKs call the servers of both over HTTP, with tokens that `ServiceTokenAuth` gets for them."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import mcp
import pytest
from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from mcp.client.streamable_http import streamable_http_client

from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, ServiceTokenAuth, require_caller
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.mcp import current_principal, tool_server
from s2s_fastapi.testing import EmbeddedIssuer
from tests.mcp.tools import Tools, served

REALM = Path(__file__).resolve().parents[2] / "example_app/realms/techstore.json"
RECEIVER = "notification-service"
NOT_ALLOWED = "This caller may not call this."


@pytest.fixture(scope="module")
def issuer() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer.read(REALM)
    with issuer.serving(), using(TokenSource()):
        yield issuer


@pytest.fixture
def url(tools: Tools, issuer: EmbeddedIssuer) -> Iterator[str]:
    """A tool server that only shop-api may use."""

    async def notify(text: str) -> str:
        return f"{current_principal().client_id} says {text}"

    tools.tool(notify, require_caller("shop-api"))
    app = tool_server(tools.server)
    app.add_middleware(
        ServiceAuthMiddleware,
        KeycloakSettings(url=issuer.url, realm="techstore", client_id=RECEIVER, audience=RECEIVER),
    )
    with served(app) as address:
        yield f"{address}/mcp"


def auth_of(client_id: str, issuer: EmbeddedIssuer, url: str) -> ServiceTokenAuth:
    secret = issuer.secrets("techstore")[client_id]
    settings = KeycloakSettings(url=issuer.url, realm="techstore", client_id=client_id, client_secret=secret)
    return ServiceTokenAuth(url.removesuffix("/mcp"), audience=RECEIVER, settings=settings)


async def with_the_official_client(url: str, auth: ServiceTokenAuth) -> tuple[list[str], str]:
    """Return the tools that the caller sees, and what the one it calls answers."""
    modern: Any = getattr(mcp, "Client", None)
    async with AsyncExitStack() as stack:
        http: Any = await stack.enter_async_context((httpx2 if modern else httpx).AsyncClient(auth=auth))
        transport: Any = streamable_http_client(url, http_client=http)
        if modern:
            return await _asked(await stack.enter_async_context(modern(transport)))
        read, write, _ = await stack.enter_async_context(transport)
        session: Any = await stack.enter_async_context(mcp.ClientSession(read, write))
        await session.initialize()
        return await _asked(session)


async def with_fastmcp(url: str, auth: ServiceTokenAuth) -> tuple[list[str], str]:
    async with Client(StreamableHttpTransport(url, auth=auth)) as session:
        return await _asked(session)


async def _asked(session: Any) -> tuple[list[str], str]:
    listed = await session.list_tools()
    names = [tool.name for tool in getattr(listed, "tools", listed)]
    try:
        answer = await session.call_tool("notify", {"text": "hello"})
    except Exception as error:  # noqa: BLE001 - each client has errors of its own
        return names, str(error)
    return names, answer.content[0].text


@pytest.mark.parametrize("ask", [with_the_official_client, with_fastmcp])
def test_a_caller_uses_what_it_may_and_does_not_see_the_rest(url: str, issuer: EmbeddedIssuer, ask: Any) -> None:
    shop = anyio.run(ask, url, auth_of("shop-api", issuer, url))
    inventory = anyio.run(ask, url, auth_of("inventory-service", issuer, url))

    assert shop == (["notify"], "shop-api says hello")
    assert inventory[0] == []
    assert NOT_ALLOWED in inventory[1]
    assert "shop-api" not in inventory[1]

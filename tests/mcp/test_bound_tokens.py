"""A bound token works in a tool server, with a new proof in each message; a session that was opened with it widens nothing."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, TokenVerifier, require_bound, require_service
from s2s_fastapi.mcp import SdkTokenVerifier, current_principal, tool_server
from tests.kit.proving import Owner
from tests.kit.realm import Realm, settings
from tests.mcp.conftest import Start
from tests.mcp.tools import LOOPBACK, Caller, Tools

DPOP = {"dpop": "accepted", "public_url": f"{LOOPBACK}/mcp", "audience": "crm-api-gateway"}


class Proving(Caller):
    """A caller that sends a new proof with each message."""

    def __init__(self, client: Any, token: str, owner: Owner, session: str = "", url: str = "/mcp") -> None:
        super().__init__(client, token)
        self.owner, self.session, self.method, self.url = owner, session, "POST", url

    @property
    def headers(self) -> dict[str, str]:
        proof = self.owner.proof(self.token, LOOPBACK + self.url, self.method)
        return {**super().headers, "Authorization": f"DPoP {self.token}", "DPoP": proof}

    def end(self) -> Any:
        self.method = "DELETE"
        return super().end()


def test_each_message_needs_its_own_proof(tools: Tools, start: Start, realm: Realm, token_of: Any) -> None:
    def binding() -> str:
        return current_principal().binding or "none"

    def narrow() -> str:
        return "in"

    tools.tool(binding, require_service())
    tools.tool(narrow, require_bound())
    make, owner = start(**DPOP), Owner(realm)
    bound = {"typ": "DPoP", "cnf": {"jkt": owner.key.thumbprint}}
    token = token_of("agent", **bound)
    client = make(token).client
    agent = Proving(client, token, owner).open()
    for _ in range(2):
        assert (agent.call("binding"), agent.call("narrow")) == ("dpop", "in")

    seen = agent.headers
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "narrow", "arguments": {}}}
    assert client.post("/mcp", json=message, headers=seen).status_code == 200
    for stolen in (
        seen,
        {name: value for name, value in seen.items() if name != "DPoP"},
        {**agent.headers, "Authorization": f"Bearer {token}"},
        {**seen, "DPoP": Owner(realm).proof(token, f"{LOOPBACK}/mcp", "POST")},
    ):
        assert client.post("/mcp", json=message, headers=stolen).status_code == 401

    # The same client with a bearer token may go on with its session, and is no bound caller there.
    bearer = make(token_of("agent"))
    bearer.session = agent.session
    assert bearer.call("binding") == "none"
    refused = bearer.send("tools/call", name="narrow", arguments={})
    assert '"in"' not in refused.text
    assert agent.end().status_code < 300


@pytest.mark.parametrize("layout", ["mount", "root path", "prefix kept"])
def test_a_server_below_a_prefix_accepts_the_proof_for_its_whole_url(
    layout: str, tools: Tools, options: Callable[..., dict[str, Any]], realm: Realm, token_of: Any
) -> None:
    tools.tool(write, require_bound() & require_service())
    served = tool_server(tools.server)
    served.add_middleware(ServiceAuthMiddleware, **options(**{**DPOP, "public_url": f"{LOOPBACK}/ai/mcp"}))
    lifespan: Any = served.router.lifespan_context
    around = Starlette(routes=[Mount("/ai", served)], lifespan=lambda _: lifespan(served))
    owner, root_path = Owner(realm), {"root path": "/ai", "prefix kept": "/ai/"}.get(layout, "")
    token = token_of("agent", typ="DPoP", cnf={"jkt": owner.key.thumbprint})
    client = TestClient(around if layout == "mount" else served, LOOPBACK, root_path=root_path)
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    path = "/mcp" if layout == "root path" else "/ai/mcp"
    with client:
        for url, status in (("/ai/mcp", 200), ("/mcp", 401), ("/ai/mcp/mcp", 401), ("/ai", 401)):
            agent = Proving(client, token, owner, url=url)
            answer = client.post(path, json=message, headers=agent.headers)
            assert (url, answer.status_code == 401) == (url, status == 401)


def write() -> str:
    return "written"


def test_the_verifiers_for_servers_without_a_middleware_refuse_bound_tokens(realm: Realm) -> None:
    """They know the token only, and nothing of the request."""
    owner = Owner(realm)
    for options in ({}, {"dpop": "accepted", "public_url": LOOPBACK}):
        given: dict[str, Any] = options
        verifier = SdkTokenVerifier(TokenVerifier(settings(), transport=realm.transport, **given))
        assert asyncio.run(verifier.verify_token(owner.token())) is None
        assert asyncio.run(verifier.verify_token(realm.token())) is not None

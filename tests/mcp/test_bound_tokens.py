"""A bound token works in a tool server, with a new proof in each message; a session that was opened with it widens nothing."""

import asyncio
from typing import Any

from s2s_fastapi import TokenVerifier, require_bound, require_service
from s2s_fastapi.mcp import SdkTokenVerifier, current_principal
from tests.kit.proving import Owner
from tests.kit.realm import Realm, settings
from tests.mcp.conftest import Start
from tests.mcp.tools import LOOPBACK, Caller, Tools

DPOP = {"dpop": "accepted", "public_url": f"{LOOPBACK}/mcp", "audience": "crm-api-gateway"}


class Proving(Caller):
    """A caller that sends a new proof with each message."""

    def __init__(self, client: Any, token: str, owner: Owner, session: str = "") -> None:
        super().__init__(client, token)
        self.owner, self.session, self.method = owner, session, "POST"

    @property
    def headers(self) -> dict[str, str]:
        proof = self.owner.proof(self.token, f"{LOOPBACK}/mcp", self.method)
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


def test_the_verifiers_for_servers_without_a_middleware_refuse_bound_tokens(realm: Realm) -> None:
    """They know the token only, and nothing of the request."""
    owner = Owner(realm)
    for options in ({}, {"dpop": "accepted", "public_url": LOOPBACK}):
        given: dict[str, Any] = options
        verifier = SdkTokenVerifier(TokenVerifier(settings(), transport=realm.transport, **given))
        assert asyncio.run(verifier.verify_token(owner.token())) is None
        assert asyncio.run(verifier.verify_token(realm.token())) is not None

"""The verifiers for servers to which no middleware can be added: what they return, and what they cannot do."""

from typing import Any

import anyio
import httpx
import pytest
from fastmcp import FastMCP
from mcp.server.auth.settings import AuthSettings
from starlette.testclient import TestClient

from s2s_fastapi import KeysUnavailable, TokenVerifier, require_caller
from s2s_fastapi.accepted import FURTHER, digest
from s2s_fastapi.mcp import SdkTokenVerifier, fastmcp_token_verifier
from tests.kit.realm import Realm, settings
from tests.mcp.tools import LOOPBACK, OFFICIAL, Caller

AGENT = require_caller("agent")
RESOURCE = "http://127.0.0.1:8000/mcp"


def verifier_of(realm: Realm, audience: str | None = None) -> TokenVerifier:
    return TokenVerifier(settings(), transport=realm.transport, audience=audience)


def test_it_returns_who_calls_and_never_the_token(realm: Realm, token_of: Any) -> None:
    token = token_of("agent", scope="profile email", exp=4_000_000_000, iat=3_999_999_000)
    ours = SdkTokenVerifier(
        TokenVerifier(settings(), transport=realm.transport, clock=lambda: 3_999_999_100), resource=RESOURCE
    )

    found = anyio.run(ours.verify_token, token)

    assert found.model_dump() == {
        "token": f"digest:{digest(token).hex()}",
        "client_id": "agent",
        "scopes": ["email", "profile"],
        "expires_at": 4_000_000_000,
        "resource": RESOURCE,
        "subject": "sub-of-agent",
        "claims": {"iss": "http://keycloak.test/realms/corp"},
    }


def test_it_accepts_services_only_unless_a_requirement_says_more(realm: Realm, token_of: Any, user_token: Any) -> None:
    def accepted(token: str, **options: Any) -> bool:
        return anyio.run(SdkTokenVerifier(verifier_of(realm), **options).verify_token, token) is not None

    assert accepted(token_of("billing"))
    assert not accepted(user_token("ann"))
    assert not accepted(token_of("billing"), requirement=AGENT)
    assert accepted(token_of("agent"), requirement=AGENT)
    assert not accepted(token_of("agent", aud="another"))
    assert not accepted("no token")


def test_the_token_is_not_sent_on_later(realm: Realm, token_of: Any) -> None:
    token = token_of("agent")

    async def kept() -> Any:
        await SdkTokenVerifier(verifier_of(realm)).verify_token(token)
        return FURTHER.get()

    assert anyio.run(kept) == (digest(token),)


def test_a_keycloak_that_is_down_makes_no_good_token_bad(realm: Realm, token_of: Any) -> None:
    realm.answer = lambda request: httpx.Response(503)

    with pytest.raises(KeysUnavailable):
        anyio.run(SdkTokenVerifier(verifier_of(realm)).verify_token, token_of("agent"))


@pytest.mark.parametrize("kind", ["official", "fastmcp"])
def test_a_server_of_the_sdk_takes_it_and_binds_sessions_to_their_callers(
    realm: Realm, token_of: Any, kind: str
) -> None:
    verifier = verifier_of(realm, RESOURCE)
    app: Any
    if kind == "official":
        urls: Any = {"issuer_url": realm.issuer, "resource_server_url": RESOURCE, "validate_token_resource": True}
        ours = SdkTokenVerifier(verifier, resource=RESOURCE)
        app = OFFICIAL("tools", token_verifier=ours, auth=AuthSettings(**urls)).streamable_http_app()
    else:
        app = FastMCP("tools", auth=fastmcp_token_verifier(verifier, base_url=LOOPBACK)).http_app()
    with TestClient(app, LOOPBACK) as client:
        owner = Caller(client, token_of("agent", aud=RESOURCE)).open()
        thief, stranger = Caller(client, token_of("billing", aud=RESOURCE)), Caller(client, token_of("agent"))
        thief.session = owner.session

        assert "error" not in owner.ask("tools/list")
        assert thief.send("tools/list").status_code == 404
        assert stranger.send("tools/list").status_code == 401

"""A tool calls another service on behalf of the user whose message it answers: the embedded issuer exchanges the token."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from s2s_fastapi import ServiceAuthMiddleware, require_service, require_user, service_client, service_lifespan
from s2s_fastapi.mcp import current_request, tool_server
from s2s_fastapi.testing import EmbeddedIssuer, client_of
from tests.mcp.tools import Caller, Tools

URL = "https://tools.example.com/mcp"


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


@pytest.fixture
def make(tools: Tools, issuer: EmbeddedIssuer) -> Iterator[Callable[[str], Caller]]:
    crm = service_client("http://crm:8000", audience="crm")

    async def my_tickets() -> list[str]:
        client = await crm.on_behalf(current_request())
        answer = await client.get("/tickets")
        return list(answer.raise_for_status().json())

    async def whose_token() -> str:
        def echo(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, text=request.headers["Authorization"])

        async with httpx.AsyncClient(base_url="http://crm:8000", transport=httpx.MockTransport(echo)) as client:
            return (await client.get("/tickets", auth=crm.auth.on_behalf_of(current_request()))).text

    anybody = require_user() | require_service()
    tools.tool(my_tickets, anybody)
    tools.tool(whose_token, anybody)
    app = tool_server(tools.server)
    app.router.lifespan_context = service_lifespan(crm.on_behalf, lifespan=app.router.lifespan_context)
    app.add_middleware(ServiceAuthMiddleware, public_url=URL, resource=True, users=True)
    with client_of(app, issuer=issuer, client_id="tools", base_url="http://127.0.0.1:8000") as client:
        yield lambda token: Caller(client, token).open()


def token_of(caller: Any) -> str:
    return str(caller.headers["Authorization"].removeprefix("Bearer "))


def test_the_other_service_is_called_as_the_user(make: Any, issuer: EmbeddedIssuer) -> None:
    crm = issuer.downstream("http://crm:8000").answer(json=["the printer is on fire"])
    ann, bob = (token_of(issuer.as_user(name, via="ui", audience=[URL, "tools"])) for name in ("ann", "bob"))
    session = make(ann)

    assert "the printer is on fire" in session.call("my_tickets")
    (call,) = crm.calls
    assert (call.client_id, call.audiences) == ("tools", frozenset({"crm"}))
    assert call.claims["preferred_username"] == "ann"
    assert call.token != ann
    make(bob).call("my_tickets")
    assert crm.calls[-1].claims["preferred_username"] == "bob"


def test_a_single_call_of_another_client_carries_the_exchanged_token(make: Any, issuer: EmbeddedIssuer) -> None:
    ann = token_of(issuer.as_user("ann", via="ui", audience=[URL, "tools"]))

    sent = make(ann).call("whose_token").removeprefix("Bearer ")

    assert sent.count(".") == 2
    assert sent != ann


def test_a_service_and_a_user_who_logged_out_get_one_sentence(make: Any, issuer: EmbeddedIssuer) -> None:
    agent = make(token_of(issuer.as_service("agent", audience=[URL, "tools"])))
    ann = make(token_of(issuer.as_user("ann", via="ui", audience=[URL, "tools"])))
    issuer.logout("ann")

    assert agent.call("my_tickets") == "This request needs the access token of a user."
    assert ann.call("my_tickets") == "The session of the user has ended, or the access token has expired."


def test_a_users_token_for_the_url_alone_is_not_exchanged_and_the_log_says_for_whom_it_must_be(
    make: Any, issuer: EmbeddedIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    crm = issuer.downstream("http://crm:8000").answer(json=["the printer is on fire"])

    assert "printer" not in make(token_of(issuer.as_user("ann", via="ui", audience=URL))).call("my_tickets")

    assert not crm.calls
    assert "is not for tools" in caplog.text

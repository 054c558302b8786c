"""Authentication without the middleware: the same rules for headers, the same answers, the same record, the same guard."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.requests import HTTPConnection, Request
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from s2s_fastapi import (
    AuthenticationError,
    AuthorizationError,
    ConfigurationError,
    KeysUnavailable,
    ServiceTokenAuth,
    TokenVerifier,
    TokenWithheld,
    require_caller,
    require_scope,
)
from s2s_fastapi.accepted import FURTHER, INBOUND, MOST_FURTHER, digest
from tests.kit.realm import Realm, settings

CHAT = require_caller("chat-app-service")
Verifying = Callable[..., TokenVerifier]


@pytest.fixture
def verifier(realm: Realm) -> TokenVerifier:
    return TokenVerifier(settings(), transport=realm.transport)


@pytest.fixture(autouse=True)
def no_token_is_left() -> Iterator[None]:
    left, further = INBOUND.set(None), FURTHER.set(())
    yield
    INBOUND.reset(left)
    FURTHER.reset(further)


def connection(*headers: tuple[str, str], query: str = "") -> HTTPConnection:
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/x", "headers": raw, "query_string": query.encode()}
    return Request(scope)


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


class AnotherRequest(dict[str, str]):
    """A request of another framework: a mapping of its own state, with headers."""

    headers = httpx.Headers({"Authorization": "Bearer a.b.c"})


@pytest.mark.anyio
class TestAuthenticate:
    async def test_gives_the_caller_of_every_kind_of_connection(self, realm: Realm, verifier: TokenVerifier) -> None:
        token = realm.token()
        forms: list[Any] = [
            connection(bearer(token)),
            [("authorization", f"Bearer {token}")],
            [(b"Authorization", f"bearer {token}".encode()), ("other", b"\xff")],
            {"Authorization": f"Bearer {token}"},
            httpx.Headers([bearer(token)]),
            iter([("authorization", f"Bearer {token}")]),
        ]
        for form in forms:
            assert (await verifier.authenticate(form)).client_id == "chat-app-service"

    @pytest.mark.parametrize(
        "form",
        [None, "Bearer a.b.c", b"x", 1, [1], ["ab"], [(1, "a")], [("a", "b", "c")], {"headers": []}, AnotherRequest()],
        ids=repr,
    )
    async def test_takes_nothing_else_for_a_connection(self, verifier: TokenVerifier, form: Any) -> None:
        for asking in (verifier.authenticate, verifier.authenticate_optional):
            with pytest.raises(ConfigurationError, match="authenticate takes a request or a WebSocket"):
                await asking(form)

    @pytest.mark.parametrize(
        ("headers", "query", "code", "status"),
        [
            ([], "", "no_credentials", 401),
            ([("Authorization", "")], "", "no_credentials", 401),
            ([("Authorization", "Basic a")], "", "no_credentials", 401),
            ([("DPoP", "a")], "", "no_credentials", 401),
            ([], "access_token=a.b.c", "no_credentials", 401),
            ([("Authorization", "Bearer")], "", "invalid_request", 400),
            ([("Authorization", "Bearer a"), ("Authorization", "Bearer a")], "", "invalid_request", 400),
            ([("Authorization", "Bearer a.b.c")], "", "malformed_token", 401),
        ],
    )
    async def test_refuses_as_the_middleware_does(
        self, verifier: TokenVerifier, headers: list[tuple[str, str]], query: str, code: str, status: int
    ) -> None:
        with pytest.raises(AuthenticationError) as refused:
            await verifier.authenticate(connection(*headers, query=query))

        assert (refused.value.code, refused.value.status_code) == (code, status)
        assert (refused.value.challenge or "").startswith('Bearer realm="crm-api-gateway"')
        if headers or query:
            with pytest.raises(AuthenticationError, match=code):
                await verifier.authenticate_optional(connection(*headers, query=query))

    async def test_judges_a_requirement_and_logs_its_cure_on_the_route(
        self, realm: Realm, verifier: TokenVerifier, caplog: pytest.LogCaptureFixture
    ) -> None:
        with pytest.raises(AuthorizationError) as refused:
            await verifier.authenticate(connection(bearer(realm.token())), require_scope("tickets:write"))

        assert refused.value.challenge is not None
        assert 'scope="tickets:write"' in refused.value.challenge
        [record] = caplog.records
        assert (record.reason, record.route, record.client_id) == ("scope_missing", "/x", "chat-app-service")  # type: ignore[attr-defined]
        assert "Assign the client scope tickets:write" in record.getMessage()
        assert "explain: s2s-fastapi explain --client chat-app-service --to crm-api-gateway" in record.getMessage()

    async def test_says_503_without_keys(self, realm: Realm, verifier: TokenVerifier) -> None:
        realm.answer = lambda _: httpx.Response(500)
        with pytest.raises(KeysUnavailable):
            await verifier.authenticate([bearer(realm.token())], CHAT)

    @pytest.mark.parametrize("value", [3, None, True, 1.5, [], {}], ids=repr)
    async def test_takes_no_value_that_is_no_text_for_a_token_and_stumbles_over_none(
        self, realm: Realm, verifier: TokenVerifier, value: Any
    ) -> None:
        odd: Any = ("x-odd", value)
        assert (await verifier.authenticate([odd, bearer(realm.token())])).client_id == "chat-app-service"
        assert await verifier.authenticate_optional([odd]) is None
        for name in ("Authorization", "DPoP"):
            with pytest.raises(AuthenticationError):
                await verifier.authenticate_optional([(name, value)])

    async def test_reports_accepted_calls_too(
        self, realm: Realm, verifier: TokenVerifier, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.DEBUG, "s2s_fastapi.decisions"):
            await verifier.authenticate(connection(bearer(realm.token())), CHAT)
            await verifier.authenticate_optional(connection())

        assert [record.reason for record in caplog.records] == ["allowed", "anonymous"]  # type: ignore[attr-defined]

    async def test_gives_nobody_only_without_any_credentials(self, realm: Realm, verifier: TokenVerifier) -> None:
        assert await verifier.authenticate_optional(connection()) is None
        assert await verifier.authenticate_optional([]) is None
        assert await verifier.authenticate_optional([("accept", "*/*")], CHAT) is None
        assert await verifier.authenticate_optional([bearer(realm.token())], CHAT) is not None
        with pytest.raises(AuthorizationError):
            await verifier.authenticate_optional([bearer(realm.token(azp="b", client_id="b"))], CHAT)

    async def test_keeps_each_token_from_being_sent_on_and_forgets_none_of_the_request_around(
        self, realm: Realm, verifier: TokenVerifier
    ) -> None:
        good, bad, around = realm.token(), realm.token(aud="another"), realm.token(azp="around")
        INBOUND.set(digest(around))
        await verifier.authenticate([bearer(good)])
        with pytest.raises(AuthenticationError):
            await verifier.authenticate([bearer(bad)])  # nobody checked it, so it must not be sent on either
        await verifier.authenticate_optional([])
        with pytest.raises(AuthenticationError):
            await verifier.authenticate([("Authorization", "Bearer")])

        auth = ServiceTokenAuth("http://bob.test", audience="bob", settings=settings(client_secret="generated-secret"))
        for token in (good, bad, around):
            request = httpx.Request("GET", "http://bob.test/", headers={"X-Forwarded-Token": token})
            with pytest.raises(TokenWithheld):
                await auth.async_auth_flow(request).__anext__()

    async def test_remembers_the_latest_messages_of_a_consumer_only(
        self, realm: Realm, verifier: TokenVerifier
    ) -> None:
        tokens = [realm.token() for _ in range(20)]
        for token in tokens:
            await verifier.authenticate([bearer(token)])
        assert FURTHER.get() == tuple(map(digest, tokens[-MOST_FURTHER:]))


def test_starlette_answers_the_refusal_over_http_and_on_a_websocket(realm: Realm, verifier: TokenVerifier) -> None:
    app = FastAPI(openapi_url=None)

    @app.get("/x")
    async def x(request: Request) -> str:
        return (await verifier.authenticate(request, CHAT)).client_id

    @app.websocket("/w")
    async def w(websocket: WebSocket) -> None:
        await verifier.authenticate(websocket, CHAT)
        await websocket.accept()
        await websocket.close()

    good, other = realm.token(), realm.token(azp="b", client_id="b")
    client = TestClient(app)
    answers = [client.get("/x", headers=headers) for headers in ({}, dict([bearer(other)]), dict([bearer(good)]))]
    assert [answer.status_code for answer in answers] == [401, 403, 200]
    assert answers[0].headers["www-authenticate"] == 'Bearer realm="crm-api-gateway"'
    with client.websocket_connect("/w", headers=dict([bearer(good)])):
        pass
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/w", headers=dict([bearer(other)])):
        pass

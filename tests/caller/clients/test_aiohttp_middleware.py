"""`for_aiohttp`: what a session with our middleware sends, sends again and gives back, seen by the receiver."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import aiohttp
import pytest
from websockets.sync.server import ServerConnection, serve

from s2s_fastapi import ServiceTokenAuth, TokenRequestError, TokenWithheld
from tests.caller.fakes import Clock, Keycloak, Receiver, refusal

pytestmark = pytest.mark.usefixtures("source")

INVALID = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
Talk = Callable[[aiohttp.ClientSession], Awaitable[Any]]


def with_session(auth: ServiceTokenAuth, talk: Talk, **options: Any) -> Any:
    async def main() -> Any:
        async with aiohttp.ClientSession(middlewares=[auth.for_aiohttp()], **options) as session:
            return await talk(session)

    return asyncio.run(main())


async def lines() -> AsyncIterator[bytes]:
    yield b"one "
    yield b"two"


def form() -> aiohttp.FormData:
    made = aiohttp.FormData()
    made.add_field("f", b"file", filename="f")
    return made


def test_every_request_carries_the_token_of_one_token_request(bob: Receiver, keycloak: Keycloak) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        for _ in range(3):
            async with session.get(bob.url) as response:
                assert response.status == 200

    auth = ServiceTokenAuth(bob.url)
    with_session(auth, talk)
    assert bob.tokens == [f"Bearer {auth.token()}"] * 3
    assert len(keycloak.requests) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"data": b"bytes"}, {"data": "text"}, {"data": {"a": "form"}}, {"json": {"a": 1}}],
    ids=lambda body: "-".join((*body, *(type(value).__name__ for value in body.values()))) or "none",
)
def test_a_refused_request_is_sent_again_whole(body: dict[str, Any], bob: Receiver, clock: Clock) -> None:
    async def talk(session: aiohttp.ClientSession) -> int:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.refuse()
        async with session.post(bob.url, **body) as response:
            return response.status

    assert with_session(ServiceTokenAuth(bob.url), talk) == 200
    first, second = bob.seen[1:]
    assert first.body == second.body
    assert first.body or not body
    assert first.authorization == bob.tokens[0] != second.authorization


@pytest.mark.parametrize("body", [lines, lambda: BytesIO(b"file"), form])
def test_a_body_that_is_not_known_to_be_repeatable_is_sent_once(
    body: Callable[[], Any], bob: Receiver, clock: Clock
) -> None:
    async def talk(session: aiohttp.ClientSession) -> list[int]:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.refuse()
        async with session.post(bob.url, data=body()) as first, session.get(bob.url) as second:
            return [first.status, second.status]

    assert with_session(ServiceTokenAuth(bob.url), talk) == [401, 200]
    assert len(bob.seen) == 3
    assert bob.tokens[1] != bob.tokens[2], "the next request has another token"


@pytest.mark.parametrize("challenge", ['Bearer error="insufficient_scope"', "Basic"])
def test_another_refusal_renews_nothing(challenge: str, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    async def talk(session: aiohttp.ClientSession) -> list[int]:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.refuse(headers={"WWW-Authenticate": challenge})
        async with session.get(bob.url) as first, session.get(bob.url) as second:
            return [first.status, second.status]

    assert with_session(ServiceTokenAuth(bob.url), talk) == [401, 200]
    assert len(keycloak.requests) == 1


def test_raise_for_status_sees_the_second_answer_only(bob: Receiver, clock: Clock) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.refuse()
        async with session.get(bob.url) as response:
            assert response.status == 200

    with_session(ServiceTokenAuth(bob.url), talk, raise_for_status=True)
    assert len(bob.seen) == 3


def test_if_there_is_no_other_token_the_401_comes_back_and_nothing_is_sent_again(
    bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    async def talk(session: aiohttp.ClientSession) -> int:
        async with session.get(bob.url) as response:
            return response.status

    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 10
    keycloak.always = refusal(503, "down")
    bob.refuse()
    assert with_session(auth, talk) == 401
    assert len(bob.seen) == 1


def test_without_a_token_nothing_is_sent(bob: Receiver, keycloak: Keycloak) -> None:
    async def talk(session: aiohttp.ClientSession) -> None:
        async with session.get(bob.url):
            pass

    keycloak.always = refusal(401, "unauthorized_client")
    with pytest.raises(TokenRequestError):
        with_session(ServiceTokenAuth(bob.url), talk)
    assert bob.seen == []


def test_a_redirect_within_the_origin_takes_the_token_along(bob: Receiver, clock: Clock) -> None:
    async def talk(session: aiohttp.ClientSession) -> int:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.answers = [(307, {"Location": "/there"}, b""), (401, INVALID, b"")]
        async with session.post(bob.url, data=b"text") as response:
            return response.status

    assert with_session(ServiceTokenAuth(bob.url), talk) == 200
    first, refused, second = bob.seen[1:]
    assert [seen.path for seen in (first, refused, second)] == ["/", "/there", "/there"]
    assert first.authorization == refused.authorization != second.authorization
    assert refused.body == second.body == b"text"


def test_an_endless_401_is_not_read(bob: Receiver, clock: Clock) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    async def talk(session: aiohttp.ClientSession) -> int:
        async with session.get(bob.url):
            pass
        clock.now += 10
        bob.refuse(body=endless())
        async with session.get(bob.url) as response:
            return response.status

    assert with_session(ServiceTokenAuth(bob.url), talk) == 200
    assert bob.sent < 10_000_000


def test_a_middleware_around_ours_may_send_a_request_again_and_finds_no_token_in_it(bob: Receiver) -> None:
    async def again(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        response = await handler(request)
        held.append("Authorization" in request.headers)
        if response.status == 503:
            await response.read()
            response = await handler(request)
        return response

    async def main() -> int:
        session = aiohttp.ClientSession(middlewares=[again, ServiceTokenAuth(bob.url).for_aiohttp()])
        async with session, session.get(bob.url) as response:
            return response.status

    held: list[bool] = []
    bob.answers = [(503, {}, b"busy")]
    assert asyncio.run(main()) == 200
    assert (len(bob.seen), held) == (2, [False])


@contextmanager
def websocket_server() -> Iterator[tuple[str, list[str | None]]]:
    """Serve a WebSocket that says one word, and list the Authorization headers."""

    def talk(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("Authorization"))
        connection.send("hello")

    seen: list[str | None] = []
    with serve(talk, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}", seen
        server.shutdown()
        thread.join(5)


def test_a_websocket_opens_with_the_token_and_only_at_the_origin(bob: Receiver) -> None:
    async def talk(session: aiohttp.ClientSession) -> str:
        async with session.ws_connect(url) as socket:
            return str(await socket.receive_str())

    with websocket_server() as (url, seen):
        auth = ServiceTokenAuth(url, audience="bob")
        assert with_session(auth, talk) == "hello"
        with pytest.raises(TokenWithheld):
            with_session(ServiceTokenAuth(bob.url), talk)
    assert seen == [f"Bearer {auth.token()}"]

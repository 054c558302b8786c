"""Lines 20 to 29 of the list: what a 401 costs, and what it never costs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from s2s_fastapi import ServiceTokenAuth, service_client
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import slow
from tests.attacks.caller.stack import TLS, WAYS, Send, asked, in_asyncio, in_trio
from tests.caller.fakes import INVALID_TOKEN, Clock, Receiver

pytestmark = pytest.mark.usefixtures("source")

PACKAGES = [httpx, httpx2]


def renewable(bob: Receiver, clock: Clock) -> tuple[ServiceTokenAuth, str]:
    """Return an auth object and its token, old enough to be renewed by force."""
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    token = auth.token()
    clock.now += 11
    return auth, token


# Line 20


def test_five_hundred_refusals_at_once_make_one_renewal(bob: Receiver, issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth, old = renewable(bob, clock)
    bob.refused.add(f"Bearer {old}")
    issuer.faults.add("token", slow(0.2))

    async def main() -> list[int]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(auth=auth, verify=TLS, limits=limits, timeout=60) as client:
            return [
                response.status_code for response in await asyncio.gather(*(client.get(bob.url) for _ in range(500)))
            ]

    assert asyncio.run(main()) == [200] * 500
    assert len(asked(issuer)) == 2
    assert len(set(bob.tokens)) == 2


def test_who_is_refused_late_sends_again_with_the_token_that_others_brought(
    bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth, old = renewable(bob, clock)
    flows = [auth.sync_auth_flow(httpx.Request("GET", bob.url)) for _ in range(20)]
    requests = [next(flow) for flow in flows]
    assert {request.headers["Authorization"] for request in requests} == {f"Bearer {old}"}

    again = [
        flow.send(httpx.Response(401, headers=INVALID_TOKEN, request=request, stream=httpx.ByteStream(b"")))
        for flow, request in zip(flows, requests, strict=True)
    ]

    assert {request.headers["Authorization"] for request in again} == {f"Bearer {auth.token()}"}
    assert auth.token() != old
    assert len(asked(issuer)) == 2


# Lines 21 and 22


def test_no_flow_sends_more_than_twice(send: Send, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth, _ = renewable(bob, clock)
    bob.always = (401, {**INVALID_TOKEN, "X-Reason": "never"}, b"the second body")
    response = send(auth, "POST", bob.url, json={"a": 1})

    assert (response.status_code, response.content, response.headers["X-Reason"]) == (401, b"the second body", "never")
    assert (len(bob.seen), len(asked(issuer))) == (2, 2)


def test_what_a_refusing_receiver_costs_keycloak_does_not_follow_its_traffic(
    bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.always = (401, INVALID_TOKEN, b"")
    with httpx.Client(auth=auth, verify=TLS) as client:
        for _ in range(300):
            assert client.get(bob.url).status_code == 401
            clock.now += 0.2
    assert len(asked(issuer)) <= 1 + 7  # 60 s


def test_two_receivers_that_refuse_in_turn_share_that_limit(
    bob: Receiver, charles: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    for there in (bob, charles):
        there.always = (401, INVALID_TOKEN, b"")
    for _ in range(50):
        for there in (bob, charles):
            WAYS["httpx"](ServiceTokenAuth(there.url, audience="receiver"), "GET", there.url)
        clock.now += 0.4
    assert len(asked(issuer)) <= 1 + 2


# Line 23


@pytest.mark.parametrize("package", PACKAGES)
def test_a_request_body_that_is_passed_on_as_it_comes_is_sent_once_and_whole(
    package: Any, bob: Receiver, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.always = (401, INVALID_TOKEN, b"")
    app = FastAPI()

    @app.post("/")
    async def proxy(request: Request) -> int:
        async with package.AsyncClient(auth=auth, verify=TLS) as client:
            response = await client.post(bob.url, content=request.stream())
        status: int = response.status_code
        return status

    with TestClient(app) as outside:
        assert outside.post("/", content=b"x" * 100_000).json() == 401
    assert [seen.body for seen in bob.seen] == [b"x" * 100_000]


class Twice:
    """An iterable that could be read again, for all we know."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"text"


class ATwice:
    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"text"


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_iterator_is_sent_once_even_if_it_could_be_read_again(
    package: Any, asynchronous: bool, bob: Receiver, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.always = (401, INVALID_TOKEN, b"")
    way = WAYS[f"{package.__name__}{'-asyncio' if asynchronous else ''}"]
    response = way(auth, "POST", bob.url, content=ATwice() if asynchronous else Twice())

    assert (response.status_code, [seen.body for seen in bob.seen]) == (401, [b"text"])


# Line 24


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer error="insufficient_funds"',
        'Bearer realm="bank"',
        'Business error="invalid_token"',
        'Basic realm="x"',
        None,
    ],
)
def test_a_401_that_is_an_answer_of_the_business_repeats_nothing(  # noqa: PLR0917 - fixtures
    method: str, challenge: str | None, send: Send, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.always = (401, {"WWW-Authenticate": challenge} if challenge else {}, b"no funds")
    response = send(auth, method, bob.url, json={"pay": 7})

    assert (response.status_code, response.content) == (401, b"no funds")
    assert (len(bob.seen), len(asked(issuer))) == (1, 1)


def test_a_post_that_must_not_be_sent_twice_is_written_as_a_stream(bob: Receiver, clock: Clock) -> None:
    auth, _ = renewable(bob, clock)
    bob.refuse()

    async def once() -> AsyncIterator[bytes]:
        yield b"pay 7"

    response = WAYS["httpx-asyncio"](auth, "POST", bob.url, content=once())
    assert (response.status_code, len(bob.seen)) == (401, 1)


# Line 25


def raise_for_status(response: Any) -> None:
    response.raise_for_status()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_hook_that_raises_ends_the_request_before_it_is_sent_again(
    package: Any, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.refuse()
    with (
        package.Client(auth=auth, verify=TLS, event_hooks={"response": [raise_for_status]}) as client,
        pytest.raises(package.HTTPStatusError),
    ):
        client.get(bob.url)
    assert (len(bob.seen), len(asked(issuer))) == (1, 1)


async def araise_for_status(response: Any) -> None:
    response.raise_for_status()


def raise_something_else(response: Any) -> None:
    if response.status_code == 401:
        raise LookupError


async def aread_and_raise(response: Any) -> None:
    await response.aread()
    response.raise_for_status()


HOOKS: list[tuple[Any, Any]] = [
    (None, raise_for_status),
    (None, raise_something_else),
    (in_asyncio, araise_for_status),
    (in_asyncio, aread_and_raise),
    (in_trio, araise_for_status),
]


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize(("run", "hook"), HOOKS)
def test_a_hook_that_raises_leaves_no_refused_token_in_service(  # noqa: PLR0917 - fixtures
    package: Any, run: Any, hook: Any, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    kept: dict[str, Any] = {"event_hooks": {"response": [hook]}, "verify": TLS}
    crm = service_client(bob.url, audience="receiver", client_class=package.AsyncClient, **kept)
    bob.refused = {f"Bearer {crm.auth.token()}"}
    clock.now += 11

    def plain() -> int:
        with crm as client:
            return int(client.post("/", content=iter([b"x"])).status_code)

    async def main() -> int:
        async with crm as client:
            return int((await client.get("/")).status_code)

    def call() -> int:
        return plain() if run is None else int(run(main))

    with pytest.raises((package.HTTPStatusError, LookupError)):
        call()
    assert call() == 200
    assert (len(bob.seen), len(asked(issuer))) == (2, 2)


def test_a_hook_sees_no_refusal_in_the_401_of_another_origin_or_of_another_token(
    bob: Receiver, charles: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    crm = service_client(
        bob.url,
        audience="receiver",
        follow_redirects=True,
        verify=TLS,
        event_hooks={"response": [raise_something_else]},
    )
    crm.auth.token()
    clock.now += 11
    bob.answers = [(307, {"Location": charles.url}, b""), (401, {}, b""), (403, INVALID_TOKEN, b""), (200, {}, b"")]
    charles.refuse()
    with crm as client:
        for _ in range(2):
            with pytest.raises(LookupError):
                client.get("/")
        assert [client.get("/").status_code for _ in range(2)] == [403, 200]
    assert len(asked(issuer)) == 1


# Line 26


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("run", [None, in_asyncio, in_trio])
def test_a_streamed_call_that_is_refused_streams_the_second_answer(
    package: Any, run: Any, bob: Receiver, clock: Clock
) -> None:
    auth, _ = renewable(bob, clock)
    bob.answers = [
        (401, INVALID_TOKEN, (b"x" * 65_536 for _ in range(10_000))),
        (200, {"Content-Type": "text/event-stream"}, iter([b"data: 1\n\n", b"data: 2\n\n"])),
    ]
    if run is None:
        with package.Client(auth=auth, verify=TLS) as client, client.stream("GET", bob.url) as response:
            assert not response.is_stream_consumed
            text = b"".join(response.iter_bytes())
    else:

        async def main() -> bytes:
            async with (
                package.AsyncClient(auth=auth, verify=TLS) as client,
                client.stream("GET", bob.url) as response,
            ):
                assert not response.is_stream_consumed
                return b"".join([part async for part in response.aiter_bytes()])

        text = run(main)
    assert text == b"data: 1\n\ndata: 2\n\n"
    assert len(bob.seen) == 2
    assert bob.sent < 100_000_000


def test_an_event_of_a_stream_arrives_before_the_stream_ends(bob: Receiver) -> None:
    arrived = threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        assert arrived.wait(20)
        yield b"data: 2\n\n"

    bob.always = (200, {"Content-Type": "text/event-stream"}, events())
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    with httpx.Client(auth=auth, verify=TLS) as client, client.stream("GET", bob.url) as response:
        parts = response.iter_bytes()
        assert next(parts) == b"data: 1\n\n"
        arrived.set()
        assert b"".join(parts) == b"data: 2\n\n"


# Line 27


@pytest.mark.parametrize("status", [302, 307])
def test_the_401_of_another_origin_that_a_redirect_led_to_concerns_nobody(
    status: int, bob: Receiver, charles: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    client = service_client(bob.url, audience="receiver", follow_redirects=True)
    client.auth.token()
    clock.now += 11
    bob.always = (status, {"Location": charles.url}, b"")
    charles.always = (401, INVALID_TOKEN, b"")
    with client as opened:
        assert opened.get("/").status_code == 401

    assert (charles.tokens, len(bob.seen), len(asked(issuer))) == ([None], 1, 1)


# Line 28


def test_auth_none_and_a_users_own_header_stay_as_they_are(send: Send, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    bob.always = (401, INVALID_TOKEN, b"")
    send(None, "GET", bob.url, headers={"Authorization": "Bearer of-the-user"})

    assert bob.tokens == ["Bearer of-the-user"]
    assert asked(issuer) == ()


def test_threads_that_are_refused_at_different_times_never_undo_each_others_renewal(
    bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth, old = renewable(bob, clock)
    bob.refused.add(f"Bearer {old}")
    with httpx.Client(auth=auth, verify=TLS) as client, ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: client.get(bob.url).status_code, range(200))) == {200}
    assert len(asked(issuer)) == 2

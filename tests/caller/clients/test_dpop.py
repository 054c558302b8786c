"""Bound tokens with requests and aiohttp, WebSockets too: what is sent, sent again and refused, seen by the receiver."""

import asyncio
import io
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import aiohttp
import pytest
import websockets.sync.client
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from s2s_fastapi import ServiceTokenAuth, TokenWithheld
from tests.caller.bound import (
    INVALID_PROOF,
    INVALID_TOKEN,
    NONCE_WANTED,
    BindingKeycloak,
    Proof,
    proofs,
    thumbprint_in,
)
from tests.caller.clients.test_aiohttp_middleware import websocket_server
from tests.caller.fakes import Clock, Receiver

pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture
def keycloak() -> BindingKeycloak:
    return BindingKeycloak()


def with_requests(auth: ServiceTokenAuth, url: str, **options: Any) -> int:
    with auth.for_requests() as session:
        return session.post(url, **options).status_code


def with_aiohttp(auth: ServiceTokenAuth, url: str, **options: Any) -> int:
    async def main() -> int:
        async with (
            aiohttp.ClientSession(middlewares=[auth.for_aiohttp()]) as session,
            session.post(url, **options) as response,
        ):
            return response.status

    return asyncio.run(main())


Send = Callable[..., int]


@pytest.fixture(params=[with_requests, with_aiohttp], ids=["requests", "aiohttp"])
def send(request: pytest.FixtureRequest) -> Send:
    made: Send = request.param
    return made


def auth_for(bob: Receiver) -> ServiceTokenAuth:
    return ServiceTokenAuth(bob.url, audience="bob", dpop=True)


def test_each_request_has_a_proof_of_its_own(send: Send, bob: Receiver) -> None:
    auth = auth_for(bob)
    for _ in range(2):
        assert send(auth, f"{bob.url}/x%2Fy?q=1") == 200

    made = [proof for proof in proofs(bob) if proof is not None]
    assert {proof.claims["htu"] for proof in made} == {f"{bob.url}/x%2Fy"}
    assert len({proof.claims["jti"] for proof in made}) == 2
    assert {thumbprint_in(token) for token in bob.tokens} == {made[0].thumbprint}


def test_a_nonce_is_used_at_once_and_kept(send: Send, bob: Receiver, keycloak: BindingKeycloak) -> None:
    auth = auth_for(bob)
    bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": "n-1"})
    bob.answers.append((200, {"DPoP-Nonce": "n-2"}, b""))

    assert send(auth, bob.url, data=b"again") == 200
    assert send(auth, bob.url) == 200
    assert [proof and proof.claims.get("nonce") for proof in proofs(bob)] == [None, "n-1", "n-2"]
    assert [seen.body for seen in bob.seen] == [b"again", b"again", b""]
    assert len(keycloak.requests) == 1


def test_a_refused_token_is_renewed(send: Send, bob: Receiver, keycloak: BindingKeycloak, clock: Clock) -> None:
    auth = auth_for(bob)
    send(auth, bob.url)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)

    assert send(auth, bob.url) == 200
    assert len(keycloak.requests) == 2
    assert bob.tokens[1] != bob.tokens[2]


def test_another_clock_is_followed_once(send: Send, bob: Receiver) -> None:
    bob.dates = formatdate(time.time() - 300, usegmt=True)
    bob.refuse(headers=INVALID_PROOF)
    assert send(auth_for(bob), bob.url) == 200
    bob.refuse(9, headers=INVALID_PROOF)
    assert send(auth_for(bob), bob.url) == 401
    assert len(bob.seen) == 4


def test_a_refused_proof_is_replaced_once(send: Send, bob: Receiver, keycloak: BindingKeycloak) -> None:
    auth = auth_for(bob)
    bob.refuse(headers=INVALID_PROOF)
    assert send(auth, bob.url, data=b"again") == 200
    first, second = proofs(bob)
    assert first is not None
    assert second is not None
    assert first.claims["jti"] != second.claims["jti"]
    assert [seen.body for seen in bob.seen] == [b"again"] * 2
    assert len(set(bob.tokens)) == len(keycloak.requests) == 1
    bob.refuse(9, headers=INVALID_PROOF)
    assert send(auth, bob.url, data=io.BytesIO(b"x")) == 401
    assert len(bob.seen) == 3
    assert send(auth, bob.url) == 401
    assert len(bob.seen) == 5
    assert send(auth, bob.url) == 401
    assert len(bob.seen) == 6


def test_an_adapter_that_sends_a_request_again_gets_a_new_proof_when_it_is_refused(bob: Receiver) -> None:
    bob.answers = [(503, {}, b""), (401, INVALID_PROOF, b"")]
    with auth_for(bob).for_requests() as session:
        session.mount("http://", HTTPAdapter(max_retries=Retry(3, status_forcelist=[503], backoff_factor=0)))
        assert session.get(bob.url).status_code == 200
    first, repeated, third = (str(proof and proof.text) for proof in proofs(bob))
    assert first == repeated != third


def test_another_refusal_changes_nothing(send: Send, bob: Receiver, keycloak: BindingKeycloak) -> None:
    auth = auth_for(bob)
    bob.refuse(9, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})

    assert send(auth, bob.url) == 401
    assert len(bob.seen) == len(keycloak.requests) == 1


def test_a_nonce_that_changes_all_the_time_ends_after_two_requests(send: Send, bob: Receiver) -> None:
    for number in range(9):
        bob.refuse(headers={**NONCE_WANTED, "DPoP-Nonce": f"n-{number}"})

    assert send(auth_for(bob), bob.url) == 401
    assert len(bob.seen) == 2


def test_a_token_is_marked_as_refused_also_if_its_request_cannot_be_repeated(
    send: Send, bob: Receiver, keycloak: BindingKeycloak, clock: Clock
) -> None:
    auth = auth_for(bob)
    send(auth, bob.url)
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN)

    assert send(auth, bob.url, data=io.BytesIO(b"x")) == 401
    send(auth, bob.url)
    assert len(bob.seen) == 3
    assert len(keycloak.requests) == 2


def test_a_proof_of_ones_own_is_refused(send: Send, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld, match="already has a DPoP header"):
        send(auth_for(bob), bob.url, headers={"dpop": "a.b.c"})
    assert bob.seen == []


def test_a_websocket_of_aiohttp_and_one_that_gets_the_headers_open_with_a_proof() -> None:
    async def talk(auth: ServiceTokenAuth, url: str) -> None:
        async with (
            aiohttp.ClientSession(middlewares=[auth.for_aiohttp()]) as session,
            session.ws_connect(f"{url}/room?x=1") as socket,
        ):
            await socket.receive_str()

    with websocket_server() as (url, seen):
        auth = ServiceTokenAuth(url, audience="bob", dpop=True)
        asyncio.run(talk(auth, url))
        headers = auth.headers_for("GET", f"{url}/room")
        with websockets.sync.client.connect(f"{url}/room", additional_headers=headers) as socket:
            socket.recv()

    proof = Proof.read(headers["DPoP"])
    assert proof.claims["htu"] == f"{url.replace('ws', 'http', 1)}/room"
    assert {thumbprint_in(token) for token in seen} == {proof.thumbprint}

"""The part of the run that is about bound tokens. The proofs of requests that come in are made outside of the clock; time stands still for them."""

import asyncio
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import apps, batches, machine
from benchmarks.asgi import Call, Credentials, bearer, request
from benchmarks.bound import rows
from benchmarks.caller.ways import ORIGIN, URL, Client
from benchmarks.figures import Figure
from benchmarks.realm import CALLER, REALM, RECEIVER, issuer, settings, token
from s2s_fastapi import ServiceTokenAuth
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.proof.replay import InProcessReplayStore
from s2s_fastapi.redis import RedisReplayStore
from s2s_fastapi.testing import EmbeddedIssuer

PACKAGES = ("s2s-fastapi", "fastapi", "starlette", "httpx", "joserfc", "cryptography", "redis")
WHOLE, QUICK = 60, 10
PUBLIC = "https://crm.example.com"


@dataclass(frozen=True)
class BoundFigures:
    """Everything about bound tokens that one run measured."""

    cpu: dict[str, Figure]
    how: str
    machine: dict[str, str]
    versions: dict[str, str]


def measure(rounds: int, machine_then: dict[str, str]) -> BoundFigures:
    """Return everything."""
    print("bound tokens ...", flush=True)
    realm = issuer()
    with realm.serving(), _redis() as redis:
        figures = asyncio.run(_measured(realm, redis, rounds))
    return BoundFigures(
        cpu=figures,
        how=f"{rounds} rounds of {batches.BATCH} calls of each row, the rows shuffled in each round; redis-server on the same machine.",
        machine=machine_then,
        versions=machine.versions(PACKAGES),
    )


async def _measured(realm: EmbeddedIssuer, redis: str, rounds: int) -> dict[str, Figure]:
    store = RedisReplayStore(redis)
    todo = _calls(realm, store, rounds * batches.BATCH + batches.WARM_UP)
    if todo.keys() != rows.NEEDED:
        raise RuntimeError("what is measured and what rows.py names differ")
    try:
        return await batches.measured(todo, rounds)
    finally:
        await store.aclose()


def _calls(realm: EmbeddedIssuer, redis: RedisReplayStore, count: int) -> dict[str, Call]:
    key = ProofKey()
    again, bound_again = token(realm), _bound(realm, key)
    new = iter([token(realm).encode() for _ in range(count)])
    bound_new = [_bound(realm, key) for _ in range(count)]
    now = time.time()  # after the last token: none may come from the future
    in_process = InProcessReplayStore(clock=lambda: now, wall=lambda: now)

    def app(store: Any = None) -> Any:
        options: dict[str, Any] = (
            {} if store is None else {"dpop": "accepted", "public_url": PUBLIC, "replay_store": store}
        )
        return apps.guarded(settings(realm), clock=lambda: now, **options)

    return {
        rows.BEARER_IN: request(app(), bearer(again.encode)),
        rows.BEARER_IN_NEW: request(app(), bearer(lambda: next(new))),
        rows.IN.name: request(app(in_process), _proven(key, now, count * [bound_again])),
        rows.IN_NEW.name: request(app(in_process), _proven(key, now, bound_new)),
        rows.IN_REDIS.name: request(app(redis), _proven(key, now, count * [bound_again])),
        rows.OUT.bearer: _attached(realm, count, dpop=False),
        rows.OUT.name: _attached(realm, count, dpop=True),
        rows.ASYNC_OUT.bearer: _aattached(realm, count, dpop=False),
        rows.ASYNC_OUT.name: _aattached(realm, count, dpop=True),
        **_operations(),
    }


def _bound(realm: EmbeddedIssuer, key: ProofKey) -> str:
    return realm.service_token(REALM, CALLER, dpop=key)


def _proven(key: ProofKey, now: float, tokens: Iterable[str]) -> Credentials:
    """Return the headers with each token and a proof of its own."""
    made = [(each.encode(), key.proof("GET", f"{PUBLIC}/", now=now, token=each).encode()) for each in tokens]
    left = iter(made)

    def credentials() -> Iterable[tuple[bytes, bytes]]:
        text, proof = next(left)
        return ((b"authorization", b"DPoP " + text), (b"dpop", proof))

    return credentials


def _auth(realm: EmbeddedIssuer, *, dpop: bool) -> ServiceTokenAuth:
    return ServiceTokenAuth(ORIGIN, audience=RECEIVER, settings=Client.of(realm, CALLER).settings, dpop=dpop)


def _requests(count: int) -> Callable[[], tuple[httpx.Request, httpx.Response]]:
    made = [httpx.Request("GET", URL) for _ in range(count)]
    left = iter([(each, httpx.Response(200, request=each)) for each in made])
    return lambda: next(left)


def _attached(realm: EmbeddedIssuer, count: int, *, dpop: bool) -> Call:
    auth, following = _auth(realm, dpop=dpop), _requests(count)

    async def call() -> None:
        sent, response = following()
        flow = auth.sync_auth_flow(sent)
        next(flow)
        try:  # noqa: SIM105 - as the client does it: `suppress` would cost as much as what is measured
            flow.send(response)
        except StopIteration:
            pass
        flow.close()

    return call


def _aattached(realm: EmbeddedIssuer, count: int, *, dpop: bool) -> Call:
    auth, following = _auth(realm, dpop=dpop), _requests(count)

    async def call() -> None:
        sent, response = following()
        flow = auth.async_auth_flow(sent)
        await flow.__anext__()
        try:  # noqa: SIM105 - likewise
            await flow.asend(response)
        except StopAsyncIteration:
            pass
        await flow.aclose()

    return call


def _operations() -> dict[str, Call]:
    """Return one signature and one verification with P-256, by the library below joserfc, with nothing around them."""
    private, message, algorithm = ec.generate_private_key(ec.SECP256R1()), bytes(500), ec.ECDSA(hashes.SHA256())
    public, signature = private.public_key(), private.sign(message, algorithm)

    async def sign() -> None:
        private.sign(message, algorithm)

    async def verify() -> None:
        public.verify(signature, message, algorithm)

    return {rows.SIGNATURE: sign, rows.VERIFICATION: verify}


@contextmanager
def _redis() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("the benchmark of bound tokens needs redis-server (Debian: apt-get install redis-server)")
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        options = "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""
        server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > until:
            raise RuntimeError("redis-server did not start")
        time.sleep(0.02)

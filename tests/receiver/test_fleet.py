"""Four uvicorn workers behind one port: a proof counts once in all of them if they share a replay store, and once in each if they do not."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from s2s_fastapi.proof.key import ProofKey
from tests.kit.realm import Realm
from tests.kit.redis_server import RedisServer, free_port, needs_redis

PUBLIC: Final = "https://crm.example.com"
WORKERS: Final = 4
ROUNDS: Final = 1000
PROGRAM: Final = f"""
import json, os
import httpx
from fastapi import Depends, FastAPI
from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_caller
from s2s_fastapi.redis import RedisReplayStore

KEYS = {{"keys": json.loads(os.environ["KEYS"])}}

def pages(request):
    return httpx.Response(200, json=KEYS if request.url.path.endswith("/certs") else {{"tokens-not-before": 0}})

app = FastAPI(openapi_url=None)
app.add_middleware(
    ServiceAuthMiddleware,
    settings=KeycloakSettings(url="http://keycloak.test", realm="corp", client_id="crm-api-gateway"),
    dpop="required",
    public_url="{PUBLIC}",
    replay_store=RedisReplayStore(os.environ["STORE"]) if "STORE" in os.environ else None,
    transport=lambda: httpx.MockTransport(pages),
)

@app.get("/", dependencies=[Depends(require_caller("chat-app-service"))])
async def route(): return None

class Named:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        async def named_send(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-worker", str(os.getpid()).encode())]
            await send(message)
        await self.app(scope, receive, named_send if scope["type"] == "http" else send)

app.add_middleware(Named)
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Answer(NamedTuple):
    status: int
    worker: str
    head: str


class Connection:
    """One connection that is kept, and so one worker that answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def get(self, headers: str = "") -> Answer:
        self.writer.write(f"GET / HTTP/1.1\r\nHost: lies.example\r\n{headers}\r\n".encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = re.search(r"content-length: (\d+)", head)
        await self.reader.readexactly(int(length[1]) if length else 0)
        worker = re.search(r"x-worker: (\d+)", head)
        assert worker is not None, head
        return Answer(int(head.split()[1]), worker[1], head)


class Caller:
    """Has a key and a token that is bound to it."""

    def __init__(self, realm: Realm) -> None:
        self.key = ProofKey()
        self.token = realm.token(cnf={"jkt": self.key.thumbprint}, typ="DPoP")

    def headers(self) -> str:
        """Return a request's headers with a new proof."""
        proof = self.key.proof("GET", f"{PUBLIC}/", now=time.time(), token=self.token)
        return f"Authorization: DPoP {self.token}\r\nDPoP: {proof}\r\n"


@contextmanager
def fleet(folder: Path, realm: Realm, store: str | None) -> Iterator[int]:
    """Run `uvicorn --workers 4` and give its port; what it says is in `folder`."""
    (folder / "fleet.py").write_text(PROGRAM)
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KEYCLOAK_")}
    environment = {**kept, "KEYS": json.dumps(realm.published), **({"STORE": store} if store else {})}
    options = "--app-dir", str(folder), "--port", str(port), "--workers", str(WORKERS), "--no-access-log"
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "fleet:app", *options], env=environment, stdout=said, stderr=said
        )
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()


@asynccontextmanager
async def connections(port: int, folder: Path) -> AsyncIterator[list[Connection]]:
    """Give one connection to each worker. The kernel chooses who takes a connection, so open more until all four are there."""
    opened: list[Connection] = []
    found: dict[str, Connection] = {}
    try:
        async with asyncio.timeout(90):
            while len(found) < WORKERS:
                try:
                    opened.append(Connection(*await asyncio.open_connection("127.0.0.1", port)))
                    found.setdefault((await opened[-1].get()).worker, opened[-1])
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(0.1)
        yield list(found.values())
    except TimeoutError:
        raise AssertionError((folder / "said").read_text()) from None
    finally:
        for connection in opened:
            connection.writer.close()


async def sent_to_all(workers: list[Connection], headers: str) -> list[Answer]:
    return await asyncio.gather(*(worker.get(headers) for worker in workers))


@needs_redis
async def test_a_proof_that_is_sent_to_four_workers_at_once_is_accepted_exactly_once(tmp_path: Path) -> None:
    realm = Realm()
    caller = Caller(realm)
    accepted: Counter[str] = Counter()
    with RedisServer(tmp_path / "redis") as store, fleet(tmp_path, realm, store.url) as port:
        async with connections(port, tmp_path) as workers:
            for _ in range(ROUNDS):
                answers = await sent_to_all(workers, caller.headers())
                assert sorted(answer.status for answer in answers) == [200, 401, 401, 401]
                accepted.update(answer.worker for answer in answers if answer.status == 200)
            refused = [answer for answer in answers if answer.status == 401]
            assert all('error="invalid_dpop_proof"' in answer.head for answer in refused)

            store.kill()
            down = await sent_to_all(workers, caller.headers())
            assert {answer.status for answer in down} == {503}
            assert all("retry-after: 5" in answer.head and "www-authenticate" not in answer.head for answer in down)

            store.start()
            assert sorted(answer.status for answer in await sent_to_all(workers, caller.headers())).count(200) == 1

    assert accepted.total() == ROUNDS
    assert len(accepted) == WORKERS, "each worker was the first at some time"
    assert "in this process only" not in (tmp_path / "said").read_text()


async def test_without_a_shared_store_each_worker_accepts_a_copied_proof_once_and_says_so(tmp_path: Path) -> None:
    realm = Realm()
    caller = Caller(realm)
    with fleet(tmp_path, realm, None) as port:
        async with connections(port, tmp_path) as workers:
            headers = caller.headers()
            assert [answer.status for answer in await sent_to_all(workers, headers)] == WORKERS * [200]
            assert [answer.status for answer in await sent_to_all(workers, headers)] == WORKERS * [401]

    said = (tmp_path / "said").read_text()
    assert said.count('dpop="required" without replay_store=: proofs are remembered in this process only') == WORKERS


@needs_redis
async def test_the_start_says_that_the_store_may_forget(tmp_path: Path) -> None:
    forgetful = "--maxmemory-policy", "allkeys-lru"
    with RedisServer(tmp_path / "redis", *forgetful) as store, fleet(tmp_path, Realm(), store.url) as port:
        async with connections(port, tmp_path):
            pass

    assert (tmp_path / "said").read_text().count("it may forget proofs when its memory is full") == WORKERS


async def test_a_fleet_starts_while_its_store_is_down_and_says_so(tmp_path: Path) -> None:
    realm = Realm()
    with fleet(tmp_path, realm, "redis://user:correct-horse-battery@127.0.0.1:9") as port:
        async with connections(port, tmp_path) as workers:
            assert {answer.status for answer in await sent_to_all(workers, Caller(realm).headers())} == {503}

    said = (tmp_path / "said").read_text()
    assert said.count("The replay store redis://127.0.0.1:9 cannot be used: the connection failed") >= WORKERS
    assert "correct-horse-battery" not in said

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
from fastapi import FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import ConfigurationError
from s2s_fastapi.proof.key import ProofKey
from s2s_fastapi.redis import RedisReplayStore
from tests.kit.realm import Realm
from tests.kit.receiving import App
from tests.kit.redis_server import RedisServer, free_port, needs_redis

PUBLIC: Final = "https://crm.example.com"
WORKERS: Final = 4
KEYS_TO_COME: Final = 503
ROUNDS: Final = int(os.environ.get("FLEET_ROUNDS", "60"))
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
    options = "--app-dir", str(folder), "--port", str(port), "--workers", str(WORKERS), "--timeout-keep-alive", "300"
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
async def connections(port: int, folder: Path, caller: Caller) -> AsyncIterator[list[Connection]]:
    """Give one connection to each worker, which has the realm's keys. The kernel chooses who takes a connection: open more until all are there."""
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
            bearer = f"Authorization: Bearer {caller.token}\r\n"  # refused, but only by a worker that has the keys
            while KEYS_TO_COME in {answer.status for answer in await sent_to_all(list(found.values()), bearer)}:  # noqa: ASYNC110 - it asks
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
@pytest.mark.anyio
async def test_a_proof_that_is_sent_to_four_workers_at_once_is_accepted_exactly_once(tmp_path: Path) -> None:
    realm = Realm()
    caller = Caller(realm)
    accepted: Counter[str] = Counter()
    with RedisServer(tmp_path / "redis") as store, fleet(tmp_path, realm, store.url) as port:
        async with connections(port, tmp_path, caller) as workers:
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


@pytest.mark.anyio
async def test_without_a_shared_store_each_worker_accepts_a_copied_proof_once_and_says_so(tmp_path: Path) -> None:
    realm = Realm()
    caller = Caller(realm)
    with fleet(tmp_path, realm, None) as port:
        async with connections(port, tmp_path, caller) as workers:
            headers = caller.headers()
            assert [answer.status for answer in await sent_to_all(workers, headers)] == WORKERS * [200]
            assert [answer.status for answer in await sent_to_all(workers, headers)] == WORKERS * [401]

    said = (tmp_path / "said").read_text()
    assert said.count('dpop="required" without replay_store=: proofs are remembered in this process only') == WORKERS


@needs_redis
def test_the_start_says_that_the_store_may_forget(
    tmp_path: Path, make_app: App, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path, "--maxmemory-policy", "allkeys-lru") as store:
        started_with(make_app, store.url)

    assert caplog.text.count("it may forget proofs when its memory is full") == 1


def test_an_app_starts_while_its_store_is_down_and_says_so(make_app: App, caplog: pytest.LogCaptureFixture) -> None:
    started_with(make_app, "redis://user:correct-horse-battery@127.0.0.1:9")

    assert caplog.text.count("The replay store redis://127.0.0.1:9 cannot be used: the connection failed") == 1
    assert "correct-horse-battery" not in caplog.text


def started_with(make_app: App, url: str) -> None:
    store = RedisReplayStore(url)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await store.aclose()

    app = FastAPI(openapi_url=None, lifespan=lifespan)
    with TestClient(make_app(app=app, dpop="required", public_url=PUBLIC, replay_store=store)):
        pass


def test_on_trio_the_start_stops_and_says_what_the_store_needs(make_app: App) -> None:
    app = make_app(dpop="required", public_url=PUBLIC, replay_store=RedisReplayStore("redis://127.0.0.1:9"))

    with pytest.raises(ConfigurationError, match="RedisReplayStore needs asyncio"), TestClient(app, backend="trio"):
        pass

"""Callers under load, a receiver that checks their tokens, and between them and Keycloak a door that counts."""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import anyio
import httpx
import uvicorn
from fastapi import Depends, FastAPI

from example_app.realm import Realm
from s2s_fastapi import KeycloakSettings, S2SError, ServiceAuthMiddleware, ServiceTokenAuth, require_caller
from s2s_fastapi.testing.server import LoopbackServer
from s2s_fastapi.testing.wire import Delivery, Request, Response, basic
from tests.real.settings import settings_of

__all__ = ["AUDIENCE", "Door", "Exchange", "Failure", "Load", "receiver"]

AUDIENCE = "crm-api-gateway"
_LONG = 2.5  # seconds; the caller waits for 5
_PAUSE = 0.2  # seconds between the calls of each worker: Keycloak needs the machine to start


@dataclass(frozen=True)
class Exchange:
    """One token request. ``life`` is what Keycloak granted, 0 where no token came in time."""

    client_id: str
    at: float
    life: float

    @property
    def usable_until(self) -> float:
        """When the token is dead by the package's promise: its last 10 %, and no more than 10 s, are not used."""
        return self.at + self.life - min(10.0, 0.1 * self.life)


class Door:
    """Passes token requests on to Keycloak; while nobody answers there, it closes the connection without an answer.

    So it does with an answer that took long: of one that arrives when the caller is about to give up, nobody could tell whether it counts.
    """

    def __init__(self, keycloak: str) -> None:
        self._keycloak = keycloak
        self._exchanges: list[Exchange] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[str]:
        """Listen on a port of this machine; give the URL."""
        with LoopbackServer(self._pass_on) as server:
            yield server.url

    def _pass_on(self, request: Request) -> Response:
        at, life = time.monotonic(), 0.0
        answer: httpx.Response | None
        credentials = basic(request.header("authorization"), strict=True)
        headers = {name: request.header(name) or "" for name in ("authorization", "content-type")}
        try:
            answer = httpx.request(
                request.method,
                self._keycloak + request.path,
                content=request.body,
                headers=headers,
                timeout=_LONG,
                trust_env=False,
            )
        except httpx.TransportError:
            answer = None
        if answer is None or time.monotonic() - at > _LONG:
            response = Response(502, delivery=Delivery(disconnect="before"))
        else:
            response = Response(
                answer.status_code, (("Content-Type", answer.headers.get("Content-Type", "")),), answer.content
            )
            life = float(json.loads(answer.content)["expires_in"]) if answer.is_success else 0.0
        self._exchanges.append(Exchange(credentials.client_id if credentials else "", at, life))
        return response

    def exchanges(self, client_id: str) -> list[Exchange]:
        """Return the token requests of one client, in the order in which they came."""
        return sorted(
            (exchange for exchange in self._exchanges if exchange.client_id == client_id), key=lambda found: found.at
        )

    def granted(self, client_id: str) -> list[Exchange]:
        """Return those that brought a token."""
        return [exchange for exchange in self.exchanges(client_id) if exchange.life]

    def distances(self, client_id: str) -> list[float]:
        """Return the times between the token requests of a client, in seconds, the shortest first."""
        times = [exchange.at for exchange in self.exchanges(client_id)]
        return sorted(later - earlier for earlier, later in pairwise(times))

    def holds_a_token(self, client_id: str, at: float) -> bool:
        """Tell whether the client had a usable token then; not in the second in which that changes."""
        return any(grant.at < at < grant.usable_until - 1.0 for grant in self.granted(client_id))


@contextlib.contextmanager
def receiver(realm: Realm, *callers: str) -> Iterator[str]:
    """Serve a guarded route for `callers` on a socket of this machine; give its origin."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings_of(realm, AUDIENCE))

    @app.get("/", dependencies=[Depends(require_caller(*callers))])
    async def route() -> str:
        return "let in"

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        # Kept alive for longer than the test: a connection that is closed just when it is used again would be nobody's fault.
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_keep_alive=600))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until = time.monotonic() + 30
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@dataclass(frozen=True)
class Failure:
    """A call that did not succeed: an error, or a status other than 200."""

    client_id: str
    began: float
    what: S2SError | Exception | int


class Load:
    """Calls from two threads, two asyncio loops, a trio loop and a thread without HTTP, each with auth objects of its own.

    Equal ones share a token, so all of them together are one caller for each client. The first calls begin at the same moment.
    """

    def __init__(self, origin: str, settings: dict[str, KeycloakSettings]) -> None:
        self._origin = origin
        self._settings = settings
        self._started: dict[str, threading.Event] = {client_id: threading.Event() for client_id in settings}
        self._stop = threading.Event()
        self._gate = threading.Barrier(6)
        self._successes: list[Counter[str]] = []
        self._last_success: dict[str, float] = {}
        self.failures: list[Failure] = []

    def start(self, *client_ids: str) -> None:
        """Let calls as these clients begin."""
        for client_id in client_ids:
            self._started[client_id].set()

    @property
    def successes(self) -> Counter[str]:
        """How many calls succeeded as each client."""
        return sum(self._successes, Counter[str]())

    def last_success(self, client_id: str) -> float:
        """Return when the last call that succeeded as this client began."""
        return self._last_success.get(client_id, float("-inf"))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Call for as long as this lasts."""
        workers: list[Callable[[], Any]] = [self._call_in_thread, self._call_in_thread, self._ask_in_thread]
        workers += [
            lambda: anyio.run(self._call_on_loop, backend="asyncio"),
            lambda: anyio.run(self._call_on_loop, backend="asyncio"),
            lambda: anyio.run(self._call_on_loop, backend="trio"),
        ]
        threads = [threading.Thread(target=worker) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(30)

    def _auths(self) -> dict[str, ServiceTokenAuth]:
        return {
            client_id: ServiceTokenAuth(self._origin, audience=AUDIENCE, settings=settings)
            for client_id, settings in self._settings.items()
        }

    def _counter(self) -> Counter[str]:
        successes = Counter[str]()
        self._successes.append(successes)
        return successes

    def _called(self, successes: Counter[str], client_id: str, began: float, status: int) -> None:
        if status == httpx.codes.OK:
            successes[client_id] += 1
            self._last_success[client_id] = began
        else:
            self.failures.append(Failure(client_id, began, status))

    def _call_in_thread(self) -> None:
        successes = self._counter()
        with httpx.Client(trust_env=False, timeout=20) as client:

            def call(client_id: str, auth: ServiceTokenAuth) -> int:
                return client.get(self._origin, auth=auth).status_code

            self._repeat(successes, call)

    def _ask_in_thread(self) -> None:
        def ask(client_id: str, auth: ServiceTokenAuth) -> int:
            return httpx.codes.OK if auth.token() else 0

        self._repeat(self._counter(), ask)

    def _repeat(self, successes: Counter[str], call: Callable[[str, ServiceTokenAuth], int]) -> None:
        auths = self._auths()
        self._gate.wait(30)
        while not self._stop.wait(_PAUSE):
            for client_id, auth in auths.items():
                if self._started[client_id].is_set():
                    began = time.monotonic()
                    try:
                        self._called(successes, client_id, began, call(client_id, auth))
                    except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
                        self.failures.append(Failure(client_id, began, error))

    async def _call_on_loop(self) -> None:
        successes = self._counter()

        async def calls(client: httpx.AsyncClient, client_id: str, auth: ServiceTokenAuth) -> None:
            while not self._stop.is_set():
                await anyio.sleep(_PAUSE)
                if self._started[client_id].is_set():
                    began = time.monotonic()
                    try:
                        response = await client.get(self._origin, auth=auth)
                        self._called(successes, client_id, began, response.status_code)
                    except Exception as error:  # noqa: BLE001 - as above
                        self.failures.append(Failure(client_id, began, error))

        async with httpx.AsyncClient(trust_env=False, timeout=20) as client, anyio.create_task_group() as tasks:
            await anyio.to_thread.run_sync(self._gate.wait, 30)
            for client_id, auth in self._auths().items():
                for _ in range(2):
                    tasks.start_soon(calls, client, client_id, auth)

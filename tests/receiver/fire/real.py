"""What a real Keycloak does to a service: rows of a second table, each played on a running server."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from example_app.realm import Realm
from s2s_fastapi.testing import Request, Response
from s2s_fastapi.testing.server import LoopbackServer
from s2s_fastapi.testing.wire import Delivery
from tests.real.server import Keycloak
from tests.real.settings import settings_of
from tests.receiver.fire.row import RETRY, Expectation
from tests.receiver.fire.service import TTL, Service, Tally

__all__ = ["REAL_ROWS", "RealRow"]


class Scene(Service):
    """A service of the realm corp, and between it and its Keycloak somebody who counts."""

    def __init__(self, keycloak: Keycloak, realm: Realm) -> None:
        super().__init__(real=True)
        self.keycloak = keycloak
        self.realm = realm

    def token(self) -> str:
        return self.realm.service_token("chat-app-service")

    def begins(self) -> None:
        """Start the service behind the one who counts."""
        server = self._stack.enter_context(LoopbackServer(self._passed_on))
        self.starts(settings_of(self.realm, "crm-api-gateway", url=server.url, public_url=self.keycloak.public_url))

    def _passed_on(self, request: Request) -> Response:
        if request.path.endswith("/certs"):
            self.tally.fetches.append(self.time.monotonic())
        try:
            answer = httpx.get(self.keycloak.url + request.path, timeout=10, trust_env=False, follow_redirects=False)
        except httpx.TransportError:
            return Response(502, delivery=Delivery(disconnect="before"))
        return Response(answer.status_code, (("Content-Type", answer.headers.get("Content-Type", "")),), answer.content)


@dataclass(frozen=True)
class RealRow(Expectation):
    """A fault, what is promised through it, and its play on a server."""

    play: Callable[[Keycloak], Tally]


REAL_ROWS: list[RealRow] = []


def row(
    fault: str, promise: str, *, unavailable: bool = False
) -> Callable[[Callable[[Keycloak], Tally]], Callable[[Keycloak], Tally]]:
    """Add a play to the second table."""

    def add(play: Callable[[Keycloak], Tally]) -> Callable[[Keycloak], Tally]:
        REAL_ROWS.append(RealRow(fault, promise, 0, unavailable, play))
        return play

    return add


@contextmanager
def running(keycloak: Keycloak, *, copied: bool = True) -> Iterator[Scene]:
    """Give a service with its keys, in a realm of its own unless it is the imported one."""
    if not copied:
        with Scene(keycloak, keycloak.realm("corp")) as scene:
            scene.begins()
            yield scene
        return
    with keycloak.copy_of("corp") as realm, Scene(keycloak, realm) as scene:
        scene.begins()
        yield scene


@row("Keycloak is restarted while requests come in, when the keys are due for renewal", "none fails")
def restart(keycloak: Keycloak) -> Tally:
    async def play() -> None:
        tokens = [scene.token() for _ in range(20)]
        restarting = asyncio.create_task(asyncio.to_thread(restarted))
        while not restarting.done():
            for token in tokens:
                scene.counted(await scene.asked(token))
            await asyncio.sleep(0.01)
        await restarting
        scene.time.advance(RETRY)
        until = time.monotonic() + 10
        while not scene.keys.state().fresh and time.monotonic() < until:
            scene.counted(await scene.asked(tokens[0]))
            await asyncio.sleep(0.1)
        assert scene.keys.state().fresh

    def restarted() -> None:
        keycloak.stop()
        scene.time.advance(0.8 * TTL)
        time.sleep(RETRY)  # so that nobody answers one fetch at least
        keycloak.start()

    with running(keycloak, copied=False) as scene:
        scene.run(play)
        assert scene.keys.state().failures > 0
        scene.valid()
        scene.forged()
        return scene.tally


@row(
    "A new key is added, then the old one is disabled",
    "the new key works at once: none fails; tokens of the old one are refused from the next fetch on",
)
def rotation(keycloak: Keycloak) -> Tally:
    with running(keycloak) as scene:
        old = scene.token()
        scene.valid(old)
        old_kid = keycloak.admin.signing_kid(scene.realm.name)
        scene.time.advance(RETRY)
        keycloak.admin.rotate_keys(scene.realm.name)
        scene.valid(*[scene.token() for _ in range(10)], old)
        keycloak.admin.disable_key(scene.realm.name, old_kid)
        scene.valid()
        scene.time.advance(TTL)
        new = scene.token()
        scene.valid(new)
        scene.time.advance(RETRY)
        scene.forged(old)
        scene.forged()
        scene.valid(new)
        return scene.tally


@row(
    '"Revocation, Set to now"',
    "tokens that were issued before are refused after the next fetch, at most 10 minutes later; new ones: none fails",
)
def revocation(keycloak: Keycloak) -> Tally:
    with running(keycloak) as scene:
        old = scene.token()
        scene.valid(old)
        time.sleep(1.1)
        keycloak.admin.set_not_before(scene.realm.name, int(time.time()))
        time.sleep(1.1)
        new = scene.token()
        scene.valid(new)
        scene.time.advance(TTL)
        scene.forged(old)
        assert scene.decisions[-1].reason == "revoked"
        scene.valid(new)
        scene.forged()
        return scene.tally

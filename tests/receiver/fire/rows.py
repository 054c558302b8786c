"""What can go wrong with Keycloak's keys, played through a whole receiver: one row of the table each."""

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.testing import Fault, Request, Response
from s2s_fastapi.testing.faults import answering, disconnecting, dripping, html, huge
from s2s_fastapi.testing.server import LoopbackServer
from tests.authority import make_authority, server_context
from tests.realm import SigningKey, b64, settings
from tests.receiver.fire.scene import ATTACKER, HOUR, SPACING, TTL, Scene, Tally, parts

__all__ = ["ROWS", "Row"]

RETRY = 6.0  # the longest rest after a failure, jitter included, is 5.5 s


@dataclass(frozen=True)
class Row:
    """A fault, what is promised through it, and its play."""

    fault: str
    promise: str
    play: Callable[[Path], Tally]
    refused: int = 0
    """How many valid requests may be answered 401."""
    unavailable: bool = False
    """Whether there is a time beyond the limits, in which valid requests are answered 503."""

    def check(self, tally: Tally) -> None:
        """Hold a run to the promise."""
        assert tally.valid > 0
        assert tally.others == []
        assert tally.refused <= self.refused
        assert (tally.unavailable > 0) is self.unavailable
        assert tally.forged > 0
        assert tally.let_in == 0
        assert tally.fetches
        # A fetch is noted when it arrives, and on a busy machine one is longer on its way than another.
        assert tally.least_distance >= SPACING - 1


ROWS: list[Row] = []


def row(
    fault: str, promise: str, *, refused: int = 0, unavailable: bool = False
) -> Callable[[Callable[[Path], Tally]], Callable[[Path], Tally]]:
    """Add a play to the table."""

    def add(play: Callable[[Path], Tally]) -> Callable[[Path], Tally]:
        ROWS.append(Row(fault, promise, play, refused, unavailable))
        return play

    return add


@contextmanager
def running(*, unseen: bool = False) -> Iterator[Scene]:
    """Give a service that has its keys."""
    with Scene(unseen=unseen) as scene:
        scene.keycloak_starts()
        scene.service_starts()
        yield scene


def through(scene: Scene, seconds: float, step: float) -> None:
    """Let a time pass with a valid request in every step, and new tokens and forged ones now and then."""
    until = scene.time.monotonic() + seconds
    renewed = -HOUR
    while (now := scene.time.monotonic()) < until:
        if now - renewed >= min(120, seconds / 20):
            renewed, token = now, scene.token()
            scene.forged()
        scene.valid(token)
        scene.pass_time(step)


def broken(fault: Fault, *, moments: int = 30) -> Tally:
    """Answer with a fault from before the keys are renewed until long after they would be too old without it."""
    with running() as scene:
        scene.issuer.faults.add("certs", fault, times=None)
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        scene.valid()
        scene.pass_time(460)
        through(scene, 300, 300 / moments)
        scene.issuer.faults.clear()
        scene.pass_time(RETRY)
        scene.valid()
        scene.settle()
        assert scene.keys.state().fresh
        return scene.tally


LAST_GOOD = "the last good keys serve: none fails"


# Rotation


@row("A new key signs, the old one stays published", "the new key works at once, the old one goes on: none fails")
def old_key_kept(_: Path) -> Tally:
    with running() as scene:
        old = scene.token()
        scene.pass_time(RETRY)
        scene.issuer.rotate_keys("corp")
        for _ in range(20):
            scene.valid(old, scene.token())
        scene.forged()
        through(scene, 2 * TTL, 5)
        return scene.tally


@row(
    "A new key signs, the old one is removed at once",
    "the new key works at once: none fails; tokens of the old one are refused from the first fetch on",
)
def old_key_removed(_: Path) -> Tally:
    with running() as scene:
        old = scene.token()
        scene.valid(old)
        scene.pass_time(RETRY)
        scene.issuer.rotate_keys("corp", keep=False)
        for _ in range(20):
            scene.valid()
        for _ in range(3):
            scene.pass_time(RETRY)
            scene.forged(old)
            scene.valid()
        through(scene, 2 * TTL, 5)
        return scene.tally


@row("A new algorithm appears in the JWKS", "its tokens work at once: none fails")
def new_algorithm(_: Path) -> Tally:
    with running() as scene:
        for client in ("signs-ES256", "signs-PS256", "signs-EdDSA"):
            scene.pass_time(RETRY)
            token = scene.token(client)
            scene.valid(token, scene.token(), token, scene.token(client))
        for token in scene.confusions():
            scene.pass_time(RETRY)
            scene.forged(token)
        scene.forged()
        return scene.tally


@row(
    "A node lags: two nodes answer in turns, one without the new key",
    "tokens of the old key: none fails; those of the new key are 401 until a fetch, one in 5 s, meets the node that has it",
    refused=2,
)
def lagging_node(_: Path) -> Tally:
    with running() as scene:
        behind = answering(200, scene.certs())
        old = scene.token()
        scene.issuer.rotate_keys("corp")
        scene.issuer.faults.add("certs", behind)
        scene.pass_time(RETRY)
        assert scene.valid(scene.token()).status == 401
        scene.valid(old)
        scene.pass_time(RETRY)
        for _ in range(20):
            assert scene.valid(scene.token()).status == 200
            scene.valid(old)
        scene.issuer.faults.add("certs", behind)  # the lag lasts until the keys are renewed
        scene.pass_time(TTL)
        assert scene.valid(scene.token()).status in (200, 401)
        scene.pass_time(RETRY)
        through(scene, 60, 1)
        return scene.tally


@row('"Revoke all" in Keycloak', "tokens that were issued before are refused with the next fetch; new ones: none fails")
def revoked(_: Path) -> Tally:
    with running() as scene:
        old = scene.token()
        scene.valid(old)
        scene.pass_time(2)
        scene.issuer.set_not_before("corp")
        scene.pass_time(RETRY)
        scene.forged(scene.invented())  # brings a fetch before the old token expires by itself
        scene.forged(old)
        assert scene.decisions[-1].reason == "revoked"
        through(scene, TTL, 5)
        return scene.tally


# Floods


def invented(token: str, number: int) -> Iterator[str]:
    """Yield tokens with the claims of a valid one, each under a name that was never published."""
    _, payload, _ = parts(token)
    signature = b64(os.urandom(256))
    for _ in range(number):
        yield f"{b64({'alg': 'RS256', 'typ': 'JWT', 'kid': str(uuid4())})}.{payload}.{signature}"


async def flood(scene: Scene, number: int) -> None:
    """Send invented names as fast as the service takes them, and wait for all answers."""

    async def one(token: str) -> None:
        scene.tally.forged += 1
        scene.tally.let_in += (await scene.asked(token)).status not in (401, 503)

    async with asyncio.TaskGroup() as tasks:
        for count, token in enumerate(invented(scene.token(), number)):
            tasks.create_task(one(token))
            if count % 20 == 0:
                await asyncio.sleep(0)  # or nobody else would have a turn


@row(
    "10,000 invented kids at once while valid requests come in",
    "none fails and none waits; one fetch in 5 s",
)
def invented_kids(_: Path) -> Tally:
    async def play() -> None:
        token = scene.token()
        attack = asyncio.create_task(flood(scene, 10_000))
        while not attack.done():
            scene.counted(await scene.asked(token))
            await asyncio.sleep(0.002)
        await attack

    with running() as scene:
        scene.run(play)
        assert len(scene.tally.fetches) == 2
        return scene.tally


@row(
    "The same flood just before a rotation, old key removed at once",
    "the first request with the new key may be 401 and is let in at its second try, which our caller makes by itself; "
    "all others wait for the next fetch, 5 s at most: none fails",
    refused=1,
)
def flood_before_rotation(_: Path) -> Tally:
    async def call() -> None:
        if scene.counted(await scene.asked(scene.token())).status == 401:
            assert scene.counted(await scene.asked(scene.token())).status == 200

    async def play() -> None:
        old = scene.token()
        attack = asyncio.create_task(flood(scene, 10_000))
        while scene.keys._asking < 100:
            scene.counted(await scene.asked(old))
            await asyncio.sleep(0)
        await asyncio.to_thread(scene.issuer.rotate_keys, "corp", keep=False)
        await asyncio.gather(*[call() for _ in range(50)])
        assert attack
        await attack
        await asyncio.gather(*[call() for _ in range(50)])

    with running() as scene:
        scene.run(play)
        assert len(scene.tally.fetches) == 2
        return scene.tally


# Outages


@row("Keycloak is gone for 15 minutes", LAST_GOOD)
def outage(_: Path) -> Tally:
    with running() as scene:
        scene.issuer.faults.add("realm", disconnecting(), times=None)
        scene.pass_time(470)
        scene.issuer.faults.add("certs", disconnecting(), times=None)
        through(scene, 900, 0.5)
        scene.issuer.faults.clear()
        through(scene, 60, 0.5)
        assert scene.keys.state().fresh
        return scene.tally


@row(
    "Keycloak is gone for more than an hour",
    "none fails for an hour after the last fetch; then 503, and whoever waits for `Retry-After` finds Keycloak asked again",
    unavailable=True,
)
def long_outage(_: Path) -> Tally:
    with running() as scene:
        scene.issuer.faults.add("certs", disconnecting(), times=None)
        through(scene, HOUR - 5, 1)
        assert scene.tally.unavailable == 0
        scene.pass_time(RETRY)
        back_after_outage(scene)
        return scene.tally


def back_after_outage(scene: Scene) -> None:
    """Hold ``Retry-After`` to its word: Keycloak is asked then, and when it is back the request is served."""
    for _ in range(20):
        seconds = scene.valid().retry_after
        loads = scene.keys.state().loads
        scene.forged()
        scene.pass_time(seconds)
        scene.valid()
        assert scene.keys.state().loads == loads + 1
    seconds = scene.valid().retry_after
    scene.issuer.faults.clear()
    if not scene.serving:
        scene.keycloak_starts()
    scene.pass_time(seconds)
    unavailable = scene.tally.unavailable
    through(scene, 60, 1)
    assert scene.tally.unavailable == unavailable


@row(
    "The service starts before Keycloak",
    "503 until Keycloak comes; whoever waits for `Retry-After` then is served",
    unavailable=True,
)
def started_first(_: Path) -> Tally:
    with Scene(unseen=True) as scene:
        scene.keycloak_starts()
        scene.keycloak_stops()
        scene.service_starts()
        back_after_outage(scene)
        return scene.tally


@row("The name of Keycloak's host is not found any more", LAST_GOOD)
def no_dns(_: Path) -> Tally:
    with running(unseen=True) as scene:
        scene.pass_time(470)
        scene.keys._endpoints = Endpoints.of(settings(url="http://keycloak.invalid"))
        through(scene, 900, 60)
        return scene.tally


# Answers that are none


@row("200 with a page of HTML", LAST_GOOD)
def page(_: Path) -> Tally:
    return broken(html(200))


@row("200 with an empty set of keys", LAST_GOOD)
def empty_set(_: Path) -> Tally:
    return broken(answering(200, '{"keys": []}'))


@row("500 with the keys of somebody else", LAST_GOOD)
def error_with_keys(_: Path) -> Tally:
    return broken(answering(500, json.dumps({"keys": [ATTACKER.jwk]})))


@row("200 with 50 MB", LAST_GOOD)
def fifty_megabytes(_: Path) -> Tally:
    return broken(huge(50_000_000), moments=4)


@row("An answer that drips, a byte in half a second", f"{LAST_GOOD} (one request waits for 3 s)")
def slow_drip(_: Path) -> Tally:
    return broken(dripping(0.5), moments=2)


@row("A redirect to somebody else's keys", f"{LAST_GOOD}; nobody is asked there")
def redirect(_: Path) -> Tally:
    asked: list[str] = []

    def elsewhere(request: Request) -> Response:
        asked.append(request.path)
        return Response(200, body=json.dumps({"keys": [ATTACKER.jwk]}).encode())

    with LoopbackServer(elsewhere) as attacker:
        tally = broken(answering(302, headers={"Location": f"{attacker.url}/certs"}))
    assert asked == []
    return tally


@row("A broken key among good ones", "the good ones work: none fails")
def broken_key(_: Path) -> Tally:
    with Scene() as scene:
        scene.keycloak_starts()
        good = json.loads(scene.certs())["keys"]
        ec = SigningKey("ES256").jwk
        bad = [
            None,
            {},
            {**good[0], "n": "!"},
            {**ec, "y": ec["x"]},
            {**ec, "crv": "P-521"},
            {**ATTACKER.jwk, "d": "AQAB"},
        ]
        scene.issuer.faults.add("certs", answering(200, json.dumps({"keys": [*bad, *good, *bad]})), times=None)
        scene.service_starts()
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        through(scene, 2 * TTL, 5)
        return scene.tally


# TLS


@row("TLS fails: the certificate is somebody else's, and so are the keys behind it", LAST_GOOD)
def wrong_certificate(folder: Path) -> Tally:
    ours, theirs = make_authority(folder / "ours"), make_authority(folder / "theirs")
    with Scene(unseen=True, tls=server_context(ours)) as scene:
        scene.keycloak_starts()
        scene.service_starts(ca_file=ours)
        scene.keycloak_stops()
        scene.issuer.faults.add("certs", answering(200, json.dumps({"keys": [ATTACKER.jwk]})), times=None)
        scene.keycloak_starts(tls=server_context(theirs))
        scene.pass_time(RETRY)
        scene.forged(scene.invented())
        assert "certificate is not trusted" in scene.decisions[-1].cure
        scene.valid()
        scene.pass_time(460)
        through(scene, 300, 10)
        return scene.tally


@row("A certificate of the company's own authority (`KEYCLOAK_CA_FILE`)", "none fails")
def private_authority(folder: Path) -> Tally:
    ours = make_authority(folder)
    with Scene(tls=server_context(ours)) as scene:
        scene.keycloak_starts()
        scene.service_starts(ca_file=ours)
        through(scene, 2 * TTL, 10)
        return scene.tally

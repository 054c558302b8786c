"""Keys that come and go, and floods of invented ones: one row of the table each."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from s2s_fastapi.testing.faults import answering
from tests.kit.realm import b64
from tests.receiver.fire.row import RETRY, row, running, through
from tests.receiver.fire.scene import Scene
from tests.receiver.fire.service import TTL, Tally, parts


@row("A new key signs, the old one stays published", "the new key works at once, the old one still works: none fails")
def old_key_kept(folder: Path) -> Tally:
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
def old_key_removed(folder: Path) -> Tally:
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
def new_algorithm(folder: Path) -> Tally:
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
    "A node lags behind: two nodes answer in turns, one without the new key",
    "tokens of the old key: none fails; tokens of the new key get a 401 until a fetch (one in 5 s) reaches the node that has the key",
    refused=2,
)
def lagging_node(folder: Path) -> Tally:
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


@row(
    '"Revoke all" in Keycloak', "tokens that were issued before are refused after the next fetch; new ones: none fails"
)
def revoked(folder: Path) -> Tally:
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
    "none fails; one fetch in 5 s",
)
def invented_kids(folder: Path) -> Tally:
    async def play() -> None:
        token = scene.token()
        attack = asyncio.create_task(flood(scene, 10_000))
        while not attack.done():
            scene.counted(await scene.asked(token))
            await asyncio.sleep(0.002)
        await attack

    with running() as scene:
        scene.run(play)
        assert len(scene.tally.fetches) >= 2  # on a slow machine the flood outlasts another 5 s
        return scene.tally


@row(
    "The same flood just before a rotation, old key removed at once",
    "the first request with the new key may get a 401 and is accepted at its second try, which our caller makes by itself; "
    "all others wait at most 5 s for the next fetch, and are accepted",
    refused=1,
)
def flood_before_rotation(folder: Path) -> Tally:
    async def call() -> None:
        if scene.counted(await scene.asked(scene.token())).status == 401:
            assert scene.counted(await scene.asked(scene.token())).status == 200

    async def play() -> None:
        old = scene.token()
        attack = asyncio.create_task(flood(scene, 10_000))
        while scene.keys._waiting < 100:
            scene.counted(await scene.asked(old))
            await asyncio.sleep(0)
        await asyncio.to_thread(scene.issuer.rotate_keys, "corp", keep=False)
        await asyncio.gather(*[call() for _ in range(50)])
        await attack
        await asyncio.gather(*[call() for _ in range(50)])

    with running() as scene:
        scene.run(play)
        assert len(scene.tally.fetches) >= 2  # on a slow machine the flood outlasts another 5 s
        return scene.tally

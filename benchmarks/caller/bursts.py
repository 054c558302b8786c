"""Cold bursts against a real socket. Each in a process of its own: ``python -m benchmarks.caller.bursts WAY CALLERS SIZE`` prints JSON."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from benchmarks.caller import rows
from benchmarks.caller.figures import Stormed
from benchmarks.caller.rows import BURSTS, Burst
from benchmarks.caller.ways import WAYS, AsyncAttach, Client, Way
from benchmarks.realm import CALLER, REALM, ROOT, issuer
from s2s_fastapi.testing import EmbeddedIssuer, faults
from s2s_fastapi.testing.record import Record

ANSWER_SECONDS, LIMIT_SECONDS, LOOPS = 0.2, 10.0, 4
_WARM = "billing"
"""Another client of the realm, whose token is no use to the burst."""


class _Storm:
    """Callers who all wait for one sign, and what became of each."""

    def __init__(self) -> None:
        self.sign = threading.Event()
        self.headers: list[tuple[float, str]] = []
        self.ended = threading.Semaphore(0)

    def thread(self, way: Way) -> None:
        self.sign.wait()
        try:
            header = way.sync()
            self.headers.append((time.monotonic(), header))
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no token
            _tell(error)
        finally:
            self.ended.release()

    async def task(self, attach: AsyncAttach) -> None:
        try:
            header = await attach()
            self.headers.append((time.monotonic(), header))
        except Exception as error:  # noqa: BLE001
            _tell(error)
        finally:
            self.ended.release()

    def loop(self, way: Way, tasks: int) -> None:
        async def gather() -> None:
            attach = way.of_loop()
            self.sign.wait()
            await asyncio.gather(*(self.task(attach) for _ in range(tasks)))

        asyncio.run(gather())


_told: set[str] = set()


def _tell(error: Exception) -> None:
    """Say on stderr, once, what kept callers from a token."""
    text = f"{type(error).__name__}: {error}"[:300]
    if text not in _told and len(_told) < 5:
        _told.add(text)
        print(text, file=sys.stderr)


def storm(realm: EmbeddedIssuer, burst: Burst) -> Stormed:
    """Let the callers loose on a way that has loaded everything but its token."""
    make = WAYS[burst.name]
    warm = make(Client.of(realm, _WARM))
    if burst.callers != rows.TASKS:
        warm.sync()
    asyncio.run(_once(warm))
    way, storm = make(Client.of(realm, CALLER)), _Storm()
    realm.requests.clear()
    realm.faults.add("token", faults.slow(ANSWER_SECONDS), times=None)
    threading.stack_size(262_144)
    for thread in _threads(storm, way, burst):
        thread.start()
    time.sleep(0.5)  # until all of them are at the start
    began = time.monotonic()
    storm.sign.set()
    ended = sum(
        storm.ended.acquire(timeout=max(0.0, began + LIMIT_SECONDS - time.monotonic())) for _ in range(burst.size)
    )
    headers = list(storm.headers)
    return Stormed(
        requests=len(realm.requests("token")),
        served=len(headers),
        tokens=len({header for _, header in headers}),
        seconds=max((at for at, _ in headers), default=began) - began,
        cut=ended < burst.size,
    )


async def _once(way: Way) -> None:
    await way.of_loop()()


def _threads(storm: _Storm, way: Way, burst: Burst) -> Iterator[threading.Thread]:
    shares = {rows.THREADS: (burst.size, 0), rows.TASKS: (0, 1), rows.MIXED: (burst.size // 2, LOOPS)}
    threads, loops = shares[burst.callers]
    for _ in range(threads):
        yield threading.Thread(target=storm.thread, args=(way,), daemon=True)
    for number in range(loops):
        tasks = len(range(threads + number, burst.size, loops))
        yield threading.Thread(target=storm.loop, args=(way, tasks), daemon=True)


def measure(most: int) -> dict[Burst, Stormed]:
    """Return what came of each burst of at most so many callers."""
    return {burst: _child(burst) for burst in BURSTS if burst.size <= most}


def _child(burst: Burst) -> Stormed:
    child = [sys.executable, "-m", "benchmarks.caller.bursts", burst.name, burst.callers, str(burst.size)]
    return Stormed(**json.loads(subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout))


def main() -> None:
    name, callers, size = sys.argv[1:]
    realm = issuer()
    realm.requests = Record(100_000)
    realm.service_token(REALM, CALLER)  # makes the keys
    with realm.serving():
        print(json.dumps(asdict(storm(realm, Burst(name, callers, int(size))))), flush=True)
        os._exit(0)  # whoever still waits is left


if __name__ == "__main__":
    main()

"""An outage that a token outlives: ``python -m benchmarks.caller.outage SECONDS`` prints JSON. All ways at once, each with its own issuer.

The tokens live 15 s longer than the outage, so that each way wants another one while there is no answer, and none needs it.
"""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from benchmarks.caller import rows
from benchmarks.caller.figures import Endured
from benchmarks.caller.rows import OUTAGES, Outage
from benchmarks.caller.ways import WAYS, Client, Way
from benchmarks.realm import CALLER, REALM, ROOT, issuer
from s2s_fastapi.testing import EmbeddedIssuer, faults
from s2s_fastapi.testing.record import Record

CALLERS, PAUSE_SECONDS, SPARE_SECONDS = 4, 0.1, 15


@dataclass
class _Count:
    calls: int = 0
    failed: int = 0


class _Callers:
    """So many callers, each of whom wants a token every 0.1 s until the end."""

    def __init__(self, row: Outage, realm: EmbeddedIssuer) -> None:
        self.row = row
        self.realm = realm
        self._way: Way = WAYS[row.name](Client.of(realm, CALLER))
        self.warm = threading.Barrier(2)
        self.until = 0.0

    def run(self) -> Endured:
        count = asyncio.run(self._tasks()) if self.row.callers == rows.TASKS else self._threads()
        return Endured(count.calls, count.failed, len(self.realm.requests("token")))

    def _begin(self) -> None:
        self.warm.wait()  # it has its token: the outage may begin
        self.warm.wait()

    def _threads(self) -> _Count:
        attach, counts = self._way.sync, [_Count() for _ in range(CALLERS)]
        attach()
        self._begin()

        def call(count: _Count) -> None:
            while time.monotonic() < self.until:
                count.calls += 1
                try:
                    attach()
                except Exception:  # noqa: BLE001 - whatever it is, there is no token
                    count.failed += 1
                time.sleep(PAUSE_SECONDS)

        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(call, counts))
        return _Count(sum(count.calls for count in counts), sum(count.failed for count in counts))

    async def _tasks(self) -> _Count:
        attach, count = self._way.of_loop(), _Count()
        await attach()
        self._begin()

        async def call() -> None:
            while time.monotonic() < self.until:
                count.calls += 1
                try:
                    await attach()
                except Exception:  # noqa: BLE001
                    count.failed += 1
                await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*(call() for _ in range(CALLERS)))
        return count


def endure(seconds: float) -> dict[Outage, Endured]:
    """Let all callers go on for so many seconds in which each connection to the issuer is closed without an answer."""
    logging.disable()  # each failure has its line, and there are thousands
    with ExitStack() as running, ThreadPoolExecutor(len(OUTAGES)) as pool:
        everybody = []
        for row in OUTAGES:
            realm = issuer(life=int(seconds) + SPARE_SECONDS)
            realm.requests = Record(100_000)
            realm.service_token(REALM, CALLER)  # makes the keys
            running.enter_context(realm.serving())
            everybody.append(_Callers(row, realm))
        ends = [pool.submit(callers.run) for callers in everybody]
        for callers in everybody:
            callers.warm.wait(30)
        for callers in everybody:
            callers.realm.faults.add("token", faults.disconnecting(), times=None)
            callers.realm.requests.clear()
            callers.until = time.monotonic() + seconds
        for callers in everybody:
            callers.warm.wait(30)
        return {callers.row: end.result() for callers, end in zip(everybody, ends, strict=True)}


def started(seconds: float) -> "subprocess.Popen[bytes]":
    """Begin in a process of its own, which sleeps most of the time."""
    child = [sys.executable, "-m", "benchmarks.caller.outage", str(seconds)]
    return subprocess.Popen(child, cwd=ROOT, stdout=subprocess.PIPE)


def finished(child: "subprocess.Popen[bytes]") -> dict[Outage, Endured]:
    """Return what came of it."""
    said, _ = child.communicate()
    if child.returncode:
        raise RuntimeError("the outage was not measured")
    return {row: Endured(**found) for row, found in zip(OUTAGES, json.loads(said), strict=True)}


if __name__ == "__main__":
    found = endure(float(sys.argv[1]))
    print(json.dumps([asdict(found[row]) for row in OUTAGES]))

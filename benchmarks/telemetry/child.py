"""One state of telemetry, in a process of its own: ``python -m benchmarks.telemetry.child STATE ROUNDS`` prints JSON."""

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks import apps, batches
from benchmarks.asgi import bearer, request
from benchmarks.caller import attach, ways
from benchmarks.caller.rows import OURS, STATIC, Attach
from benchmarks.realm import CALLER, issuer, settings, token
from benchmarks.telemetry.rows import ATTACHES, AUDIT, NEW, REPEATED
from benchmarks.telemetry.states import State, switched_on
from benchmarks.telemetry.untold import untold
from s2s_fastapi.testing import EmbeddedIssuer

Batch = Callable[[], Awaitable[float]]
BASE, UNTOLD, TOLD = "base", "untold", "told"


def _routes(realm: EmbeddedIssuer, quiet: Any, rounds: int, *, audit: bool) -> dict[tuple[str, str], Batch]:
    again = token(realm).encode()
    fresh = [token(realm).encode() for _ in range(rounds * batches.BATCH + batches.WARM_UP)]

    def batch(app: Any, tokens: Callable[[], bytes]) -> Batch:
        call = request(app, bearer(tokens))
        return lambda: batches.batch(call, time.thread_time_ns)

    def three(tokens: Callable[[], Callable[[], bytes]]) -> dict[str, Batch]:
        given = settings(realm)
        return {
            BASE: batch(apps.bare(), tokens()),
            UNTOLD: batch(quiet.guarded(given), tokens()),
            TOLD: batch(apps.guarded(given, audit=audit), tokens()),
        }

    todo = {REPEATED: three(lambda: lambda: again), NEW: three(lambda: iter(fresh).__next__)}
    return {(work, what): one for work, several in todo.items() for what, one in several.items()}


def _attaches(realm: EmbeddedIssuer, quiet: Any, state: State) -> dict[tuple[str, str], Batch]:
    client = ways.Client.of(realm, CALLER)

    def batch(name: str, kind: str, auth: Any) -> Batch:
        todo = attach.Todo(Attach(name, kind, "ours"), auth)

        async def inside() -> float:
            with state.within():
                return await attach.batch(todo)

        return inside

    return {
        (work, what): batch(name, kind, auth)
        for work, kind in ATTACHES.items()
        for what, name, auth in (
            (BASE, STATIC, ways.StaticHeader(f"Bearer {token(realm)}")),
            (UNTOLD, OURS, quiet.ours(quiet.Client.of(realm, CALLER))),
            (TOLD, OURS, ways.ours(client)),
        )
    }


async def _measured(todo: dict[tuple[str, str], Batch], state: State, rounds: int) -> dict[tuple[str, str], float]:
    samples: dict[tuple[str, str], list[float]] = {name: [] for name in todo}
    for batch in todo.values():
        for _ in range(batches.WARM_UP // batches.BATCH):
            await batch()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        state.export()
        for name in random.sample(sorted(todo), len(todo)):
            samples[name].append(await todo[name]())
    return {name: batches.figure(values).low for name, values in samples.items()}


def measure(name: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the microseconds of each kind of work: without us, of ours without its telling, and of ours."""
    quiet_apps, quiet_ways = untold("benchmarks.apps", "benchmarks.caller.ways")
    state, realm = switched_on(name), issuer()
    with realm.serving():
        todo = _routes(realm, quiet_apps, rounds, audit=name == AUDIT)
        if name != AUDIT:
            todo |= _attaches(realm, quiet_ways, state)
        found = asyncio.run(_measured(todo, state, rounds))
    works: dict[str, dict[str, float]] = {}
    for (work, what), micros in found.items():
        works.setdefault(work, {})[what] = micros
    return works


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))

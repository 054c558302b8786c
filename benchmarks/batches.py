"""CPU time in small shuffled batches of one run.

Wall clock in whole rounds drowned in noise. CPU time in batches, read at a low percentile, does not: if a batch takes longer, the machine
was busier, and not the code slower.
"""

import gc
import random
import time
from collections.abc import Awaitable, Callable, Collection

from benchmarks.asgi import Call
from benchmarks.figures import Figure

BATCH, WARM_UP, BLOCKS = 50, 100, 5
LOW, HIGH = 0.2, 0.8


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[int(len(values) * share)]


def figure(values: list[float]) -> Figure:
    size = len(values) // BLOCKS
    parts = [values[start : start + size] for start in range(0, size * BLOCKS, size)]
    return Figure(_percentile(values, LOW), _percentile(values, HIGH), tuple(_percentile(part, LOW) for part in parts))


async def batch(call: Callable[[], Awaitable[None]], clock: Callable[[], int]) -> float:
    """Return the microseconds of one call, by that clock."""
    began = clock()
    for _ in range(BATCH):
        await call()
    return (clock() - began) / BATCH / 1000


async def measured(todo: dict[str, Call], rounds: int, *, threads: Collection[str] = ()) -> dict[str, Figure]:
    """Return the figure of each call; for those in ``threads`` the CPU time of the whole process counts."""
    clocks = {name: time.process_time_ns if name in threads else time.thread_time_ns for name in todo}
    samples: dict[str, list[float]] = {name: [] for name in todo}
    for call in todo.values():
        for _ in range(WARM_UP):
            await call()
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name in random.sample(sorted(todo), len(todo)):
            samples[name].append(await batch(todo[name], clocks[name]))
    return {name: figure(values) for name, values in samples.items()}

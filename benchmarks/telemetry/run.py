"""Telemetry's part of the run."""

import json
import random
import subprocess
import sys
from dataclasses import dataclass

from benchmarks import batches, machine
from benchmarks.caller import attach
from benchmarks.realm import ROOT
from benchmarks.telemetry.figures import Measured, Telemetry
from benchmarks.telemetry.rows import OFF, STATES, TOLD, Told

PACKAGES = ("s2s-fastapi", "fastapi", "starlette", "httpx", "opentelemetry-api", "opentelemetry-sdk")


@dataclass(frozen=True)
class Extent:
    """How much is measured: so many interpreters for each state, so many rounds in each."""

    interpreters: int
    rounds: int


_TURN = (*STATES, *[OFF] * 2)  # three times, because there the difference is smallest
WHOLE = Extent(interpreters=7, rounds=40)
QUICK = Extent(interpreters=2, rounds=10)


def measure(extent: Extent, machine_then: dict[str, str]) -> Telemetry:
    """Return everything; the states take turns, in another order each time."""
    rows: dict[Told, list[Measured]] = {row: [] for row in TOLD}
    for turn in range(extent.interpreters):
        print(f"telemetry: {turn + 1} of {extent.interpreters} ...", flush=True)
        for state in random.sample(_TURN, len(_TURN)):
            for work, found in _child(state, extent.rounds).items():
                rows[Told(work, state)].append(Measured(**found))
    return Telemetry(
        rows={row: tuple(found) for row, found in rows.items()},
        how=f"{extent.interpreters} interpreters for each state, three times as many for telemetry that is off, in shuffled turns; in each {extent.rounds} rounds of {batches.BATCH} requests"
        f" or {attach.BATCH} flows of each row, the rows shuffled in each round. The figures are medians of the interpreters.",
        machine=machine_then,
        versions=machine.versions(PACKAGES),
    )


def _child(state: str, rounds: int) -> dict[str, dict[str, float]]:
    child = [sys.executable, "-m", "benchmarks.telemetry.child", state, str(rounds)]
    found: dict[str, dict[str, float]] = json.loads(
        subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    )
    return found

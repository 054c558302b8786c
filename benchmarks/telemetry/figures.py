"""The figures of telemetry as values: plain numbers, without what measured them."""

import statistics
from dataclasses import dataclass

from benchmarks.results import Spread
from benchmarks.rows import Goal
from benchmarks.telemetry.rows import GOALS, Told


@dataclass(frozen=True)
class Measured:
    """Microseconds of CPU for one call in one interpreter."""

    base: float
    """Nothing of ours, in the same state of telemetry: the bare route, or the static header."""
    untold: float
    """Ours, with the telling taken out."""
    told: float
    """Ours, as it is."""


@dataclass(frozen=True)
class Telemetry:
    """Everything about telemetry that one run measured: for each row what each interpreter found."""

    rows: dict[Told, tuple[Measured, ...]]
    how: str
    machine: dict[str, str]
    versions: dict[str, str]

    def base(self, row: Told) -> float:
        """Return what is done without us."""
        return statistics.median(one.base for one in self.rows[row])

    def ours(self, row: Told) -> float:
        """Return what we cost over it."""
        return statistics.median(one.told - one.base for one in self.rows[row])

    def telling(self, row: Told) -> Spread:
        """Return what of that is telemetry: the median of the interpreters, the lowest and the highest."""
        found = [one.told - one.untold for one in self.rows[row]]
        return statistics.median(found), min(found), max(found)

    def reached(self) -> list[tuple[Goal, Spread]]:
        """Return each goal with its figure."""
        return [(goal, self.telling(row)) for row, goal in GOALS.items()]

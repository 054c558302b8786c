"""What one run measured, and what it says about each goal."""

from dataclasses import dataclass
from typing import Final

from benchmarks import rows
from benchmarks.figures import Figure, Imports, Memory, OtherPython, Throughput
from benchmarks.rows import GOALS, PEERS, REFUSALS, STACKS, Goal

Spread = tuple[float, float, float]
"""The figure, and the lowest and the highest that parts of the run would have given alone."""


@dataclass(frozen=True)
class Results:
    """Everything the command measured."""

    cpu: dict[str, Figure]
    throughput: dict[str, Throughput] | str
    """Or why it was not measured."""
    pythons: tuple[OtherPython, ...]
    memory: Memory
    imports: Imports
    how: str
    machine: dict[str, str]
    versions: dict[str, str]

    def over(self, row: str, base: str) -> tuple[float, ...]:
        """Return what a row costs over another: in the whole run, then in each part of it."""
        mine, theirs = self.cpu[row], self.cpu[base]
        pairs = zip((mine.low, *mine.blocks), (theirs.low, *theirs.blocks), strict=True)
        return tuple(one - other for one, other in pairs)

    def reached(self) -> list[tuple[Goal, Spread | str]]:
        """Return each goal with its figure, or with the reason why there is none."""
        over = {row.name: self.over(row.name, row.base) for row in rows.ROWS if row.base is not None}
        new, bare = self._parts(rows.NEW), self._parts(rows.BARE)
        unsigned = [row.name for row in REFUSALS if row.unsigned and row.name != rows.LONG_HEADER]
        stacks: list[Spread | str] = [
            self.throughput if isinstance(self.throughput, str) else self.throughput[stack].over_floor
            for stack in STACKS
        ]
        found: list[Spread | str] = [
            _ratio(over[rows.ONE], over[rows.FLOOR]),
            self._slowest_python(),
            _ratio(over[rows.COMBINED], over[rows.FLOOR]),
            _ratio(over[rows.QUERY], over[rows.FLOOR]),
            *(_ratio(over[peer], over[rows.ONE]) for peer in PEERS),
            _spread(over[rows.STARLETTE]),
            _ratio(self._parts(rows.VERIFIER_NEW), self._parts(rows.JOSERFC)),
            _ratio(over[rows.NEW], over[rows.DECODING]),
            self._dearest([row.name for row in REFUSALS], new),
            self._dearest(unsigned, bare),
            *stacks,
            (round(self.memory.per_token),) * 3,
            self.imports.more,
        ]
        return list(zip(GOALS, found, strict=True))

    def _parts(self, row: str) -> tuple[float, ...]:
        return (self.cpu[row].low, *self.cpu[row].blocks)

    def _dearest(self, refusals: list[str], base: tuple[float, ...]) -> Spread:
        """Compare the refusal that costs most in the whole run with something else."""
        return _ratio(self._parts(max(refusals, key=lambda row: self.cpu[row].low)), base)

    def _slowest_python(self) -> Spread | str:
        if not self.pythons:
            return "no other Python was given"
        times = [python.times_floor for python in self.pythons]
        return max(times), min(times), max(times)


def _ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Spread:
    return _spread(tuple(one / other for one, other in zip(ours, theirs, strict=True)))


def _spread(figures: tuple[float, ...]) -> Spread:
    whole, *parts = figures
    return whole, min(parts), max(parts)


UNMEASURED: Final = "not measured"


def verdict(goal: Goal, figure: Spread | str) -> str:
    """Say whether a goal was met, by the figure as the page shows it."""
    if isinstance(figure, str):
        return UNMEASURED
    return "met" if goal.met(round(figure[0], decimals(figure))) else "**missed**"


def decimals(figure: Spread) -> int:
    """Return how many decimals a figure is shown with."""
    middle, low, high = figure
    return 0 if middle == low == high == round(middle) else 2 if middle < 10 else 1

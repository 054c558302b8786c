"""What one run measured, and what it says about each goal."""

from dataclasses import dataclass
from typing import Final

from benchmarks import rows
from benchmarks.figures import Figure, Imports, Memory, Throughput
from benchmarks.rows import GOALS, PEERS, STACKS, Goal

Spread = tuple[float, float, float]
"""The figure, and the lowest and the highest that parts of the run would have given alone."""


@dataclass(frozen=True)
class Results:
    """Everything the command measured."""

    cpu: dict[str, Figure]
    throughput: dict[str, Throughput] | str
    """Or why it was not measured."""
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
        joserfc = (self.cpu[rows.JOSERFC].low, *self.cpu[rows.JOSERFC].blocks)
        verifier = (self.cpu[rows.VERIFIER_NEW].low, *self.cpu[rows.VERIFIER_NEW].blocks)
        kept: list[Spread | str] = [
            self.throughput if isinstance(self.throughput, str) else self.throughput[stack].guarded_keeps
            for stack in STACKS
        ]
        found: list[Spread | str] = [
            _ratio(over[rows.ONE], over[rows.FLOOR]),
            _ratio(over[rows.COMBINED], over[rows.FLOOR]),
            *(_ratio(over[peer], over[rows.ONE]) for peer in PEERS),
            _ratio(verifier, joserfc),
            _ratio(over[rows.NEW], joserfc),
            *kept,
            self.imports.more,
        ]
        return list(zip(GOALS, found, strict=True))


def _ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> Spread:
    whole, *parts = (one / other for one, other in zip(ours, theirs, strict=True))
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
    return 0 if middle == low == high else 2 if middle < 10 else 1

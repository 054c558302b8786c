"""The part of docs/speed.md that is about bound tokens."""

from typing import Final

from benchmarks.bound.rows import BOUND, Bound
from benchmarks.bound.run import BoundFigures
from benchmarks.page import spread, table

BEGIN: Final = "<!-- bound tokens, measured: `make bench` writes from here -->"
END: Final = "<!-- bound tokens, measured: to here -->"


def costs(figures: BoundFigures) -> list[list[str]]:
    """Return the cells of the table, its heading first."""
    heading = [
        "what",
        "bearer, µs",
        "bound, µs",
        "x bearer",
        "one operation alone, µs",
        "bound over bearer, in operations",
    ]
    return [heading, *(_line(row, figures) for row in BOUND)]


def _line(row: Bound, figures: BoundFigures) -> list[str]:
    bound, bearer, physical = (figures.cpu[name] for name in (row.name, row.bearer, row.physical))
    triples = list(
        zip((bound.low, *bound.blocks), (bearer.low, *bearer.blocks), (physical.low, *physical.blocks), strict=True)
    )
    times, *parts = (one / other for one, other, _ in triples)
    over, *parts_over = ((one - other) / alone for one, other, alone in triples)
    return [
        row.name,
        f"{bearer.low:.1f}",
        f"{bound.low:.1f}",
        spread((times, min(parts), max(parts))),
        f"{row.physical}: {physical.low:.1f}",
        spread((over, min(parts_over), max(parts_over))),
    ]


def measured_part(figures: BoundFigures) -> str:
    """Return everything between the two marks."""
    about = [[name, value] for name, value in (*figures.machine.items(), *figures.versions.items())]
    parts = (
        "### CPU time of a bound token",
        table(costs(figures)),
        "### Bound tokens measured with",
        figures.how,
        table([["what", "version"], *about]),
    )
    return "\n\n".join(parts)

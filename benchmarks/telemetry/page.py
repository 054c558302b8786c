"""The part of docs/speed.md that is about telemetry."""

from typing import Final

from benchmarks.page import spread, table
from benchmarks.results import verdict
from benchmarks.telemetry.figures import Telemetry

BEGIN: Final = "<!-- telemetry, measured: `make bench` writes from here -->"
END: Final = "<!-- telemetry, measured: to here -->"


def goals(figures: Telemetry) -> list[list[str]]:
    """Return the cells of the goals' table, its heading first."""
    lines = [[goal.what, goal.aim, spread(figure), verdict(goal, figure)] for goal, figure in figures.reached()]
    return [["what", "goal", "measured (lowest to highest interpreter)", ""], *lines]


def costs(figures: Telemetry) -> list[list[str]]:
    """Return the cells of the table of costs, its heading first."""
    lines = [
        [
            row.work,
            row.state,
            f"{figures.base(row):.2f}",
            f"{figures.ours(row):.2f}",
            spread(figures.telling(row)),
        ]
        for row in figures.rows
    ]
    return [
        ["what", "telemetry", "without us, µs", "ours over it, µs", "of which telemetry (lowest to highest)"],
        *lines,
    ]


def measured_part(figures: Telemetry) -> str:
    """Return everything between the two marks."""
    about = [[name, value] for name, value in (*figures.machine.items(), *figures.versions.items())]
    parts = (
        "### Goals of telemetry",
        table(goals(figures)),
        "### CPU time of telemetry",
        table(costs(figures)),
        "### Telemetry measured with",
        figures.how,
        table([["what", "version"], *about]),
    )
    return "\n\n".join(parts)

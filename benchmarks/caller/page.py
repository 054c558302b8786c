"""The part of docs/speed.md that is about the caller."""

from typing import Final

from benchmarks.caller.figures import CallerFigures, Stormed
from benchmarks.caller.results import over, reached
from benchmarks.caller.rows import Burst
from benchmarks.page import GROUPS, spread, table
from benchmarks.results import verdict

BEGIN: Final = "<!-- the caller, measured: `make bench` writes from here -->"
END: Final = "<!-- the caller, measured: to here -->"


def goals(figures: CallerFigures) -> list[list[str]]:
    """Return the cells of the goals' table, its heading first."""
    lines = [[goal.what, goal.aim, spread(figure), verdict(goal, figure)] for goal, figure in reached(figures)]
    return [["what", "goal", "measured (lowest to highest part of the run)", ""], *lines]


def attach(figures: CallerFigures) -> list[list[str]]:
    """Return the cells of the CPU table, its heading first."""
    lines = [
        [
            row.name,
            f"`{row.client}`",
            GROUPS[row.group],
            f"{figure.low:.2f}",
            f"{figure.high:.2f}",
            f"{over(figures, row)[0]:.2f}",
        ]
        for row, figure in figures.attach.items()
    ]
    return [["what", "client", "", "µs (p20)", "p80", "over a static header, µs"], *lines]


def bursts(figures: CallerFigures) -> list[list[str]]:
    """Return the cells of the bursts' table, its heading first."""
    heading = ["what", "callers", "how many", "token requests", "have a token", "after so many seconds"]
    return [heading, *(_burst(burst, stormed) for burst, stormed in figures.bursts.items())]


def _burst(burst: Burst, stormed: Stormed) -> list[str]:
    served = "all" if stormed.served == burst.size else f"{stormed.served:,}"
    waiting = ", others still wait" if stormed.cut else ""
    return [
        burst.name,
        burst.callers,
        f"{burst.size:,}",
        f"{stormed.requests:,}",
        served + waiting,
        f"{stormed.seconds:.2f}" if stormed.served else "given up",
    ]


def outages(figures: CallerFigures) -> list[list[str]]:
    """Return the cells of the outage's table, its heading first."""
    lines = [
        [row.name, row.callers, f"{endured.calls:,}", f"{endured.failed:,}", f"{endured.requests:,}"]
        for row, endured in figures.outages.items()
    ]
    return [["what", "callers", "calls", "without a token", "token requests"], *lines]


def memory(figures: CallerFigures) -> list[list[str]]:
    """Return the cells of the memory's table, its heading first."""
    kept = figures.kept
    return [
        ["what", ""],
        [f"objects of one key and its token, mean of {kept.keys:,}", f"{kept.traced:,.0f} bytes"],
        ["the process, for each of them", f"{kept.resident:,.0f} bytes"],
    ]


def measured_part(figures: CallerFigures) -> str:
    """Return everything between the two marks."""
    about = [[name, value] for name, value in (*figures.machine.items(), *figures.versions.items())]
    parts = (
        "### Goals of the caller",
        table(goals(figures)),
        "### CPU time of one attached token",
        table(attach(figures)),
        "### Cold bursts",
        table(bursts(figures)),
        f"### An outage of {figures.outage_seconds:g} s",
        table(outages(figures)),
        "### Memory of a key",
        table(memory(figures)),
        "### The caller measured with",
        figures.how,
        table([["what", "version"], *about]),
    )
    return "\n\n".join(parts)

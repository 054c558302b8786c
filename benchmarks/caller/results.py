"""What the caller's figures say about each goal."""

from benchmarks.caller import rows
from benchmarks.caller.figures import CallerFigures
from benchmarks.caller.rows import ATTACH, GOALS, Attach
from benchmarks.results import Spread
from benchmarks.rows import Goal


def over(figures: CallerFigures, row: Attach) -> Spread:
    """Return what a row costs over a static header: in the whole run, and the least and the most in a part of it."""
    mine, theirs = figures.attach[row], figures.attach[row.static]
    parts = [one - other for one, other in zip(mine.blocks, theirs.blocks, strict=True)]
    return mine.low - theirs.low, min(parts), max(parts)


def reached(figures: CallerFigures) -> list[tuple[Goal, Spread]]:
    """Return each goal with its figure.

    Raises:
        RuntimeError: A burst of ours got more than one token, which no goal is about.
    """
    bursts = {burst: stormed for burst, stormed in figures.bursts.items() if burst.name == rows.OURS}
    if any(stormed.tokens > 1 for stormed in bursts.values()):
        raise RuntimeError("a burst got more than one token")
    requests = {burst.callers: 0 for burst in bursts}
    for burst, stormed in bursts.items():
        requests[burst.callers] = max(requests[burst.callers], stormed.requests)
    without = sum(burst.size - stormed.served for burst, stormed in bursts.items())
    failed = sum(endured.failed for row, endured in figures.outages.items() if row.name == rows.OURS)
    found = [
        *(over(figures, row) for row in ATTACH if row.group == "ours"),
        *((count, count, count) for count in (*requests.values(), without, failed)),
    ]
    return list(zip(GOALS, found, strict=True))

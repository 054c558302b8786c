"""The figures as a picture, for docs/speed.md."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch

from benchmarks import rows
from benchmarks.page import GROUPS
from benchmarks.results import Results
from benchmarks.rows import ROWS

COLOURS = {"base": "#9aa0a6", "ours": "#1a73e8", "peer": "#d93025"}
PLOTTED = tuple(row for row in ROWS if row.base is not None and row.name != rows.PASS_THROUGH)
"""A pass-through middleware costs next to nothing, which a logarithmic axis cannot show."""


def draw(results: Results, to: Path) -> None:
    """Write an SVG: a bar for each row's cost over its bare route, its middle 60 % as a line, the floor and the goal as marks."""
    mpl.rcParams.update({"svg.hashsalt": "s2s", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9})
    canvas = Canvas(figsize=(9.0, 0.34 * len(PLOTTED) + 1.3), layout="constrained")
    axes = canvas.subplots()
    floor = results.over(rows.FLOOR, rows.BARE)[0]
    for place, row in enumerate(reversed(PLOTTED)):
        base = results.cpu[row.base or rows.BARE].low
        figure = results.cpu[row.name]
        cost = figure.low - base
        axes.barh(place, cost, color=COLOURS[row.group], height=0.65)
        axes.plot([cost, figure.high - base], [place, place], color="#202124", linewidth=1)
        axes.annotate(f"{cost:.0f}", (figure.high - base, place), (4, 0), textcoords="offset points", va="center")
    axes.axvline(floor, color="#5f6368", linewidth=0.8)
    axes.axvline(floor * rows.GOALS[0].limit, color="#188038", linewidth=0.8, linestyle="--")
    axes.annotate("goal", (floor * rows.GOALS[0].limit, len(PLOTTED) - 0.5), (3, 2), textcoords="offset points")
    axes.set_yticks(range(len(PLOTTED)), [row.name.replace("`", "") for row in reversed(PLOTTED)])
    axes.set_xscale("log")
    axes.set_xlim(left=floor / 3)
    axes.set_xlabel("µs of CPU over the same route unguarded (logarithmic); bar: p20, line: to p80")
    canvas.legend(
        handles=[Patch(color=colour, label=GROUPS[group]) for group, colour in COLOURS.items()],
        loc="outside upper right",
        ncols=3,
        frameon=False,
    )
    axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(to, format="svg", metadata={"Date": None})

"""docs/speed.md has the rows that the benchmarks measure, and calls met what was met."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.bound.rows import BOUND
from benchmarks.caller.rows import ATTACH, BURSTS, OUTAGES
from benchmarks.caller.rows import GOALS as CALLER_GOALS
from benchmarks.rows import BARE, GOALS, PEERS, REFUSALS, ROWS, STACKS, Goal
from benchmarks.telemetry.rows import GOALS as TOLD_GOALS
from benchmarks.telemetry.rows import OFF, TOLD
from tests.test_docs import ROOT, inner, tables

PAGE = ROOT / "docs/speed.md"
GOAL_ROWS, CPU_ROWS, PYTHON_ROWS, REFUSAL_ROWS, THROUGHPUT_ROWS, MEMORY_ROWS, IMPORT_ROWS, VERSIONS, *_ = tables(PAGE)
CALLER_GOAL_ROWS, ATTACH_ROWS, BURST_ROWS, OUTAGE_ROWS, KEY_ROWS, CALLER_VERSIONS = tables(PAGE)[-11:-5]
BOUND_ROWS, BOUND_VERSIONS = tables(PAGE)[-5:-3]
TOLD_GOAL_ROWS, TOLD_ROWS, TOLD_VERSIONS = tables(PAGE)[-3:]


def names(rows: list[list[str]]) -> list[str]:
    return [row[0] for row in rows]


def test_the_page_has_every_row_that_is_measured_and_no_other() -> None:
    assert names(CPU_ROWS) == [row.name for row in ROWS]
    assert [row[:2] for row in REFUSAL_ROWS] == [[row.name, str(row.status)] for row in REFUSALS]
    assert names(THROUGHPUT_ROWS) == list(STACKS)
    assert names(GOAL_ROWS) == [goal.what for goal in GOALS]


def test_the_page_has_every_row_of_the_caller_and_no_other() -> None:
    assert [row[:2] for row in ATTACH_ROWS] == [[row.name, f"`{row.client}`"] for row in ATTACH]
    assert [row[:3] for row in BURST_ROWS] == [[row.name, row.callers, f"{row.size:,}"] for row in BURSTS]
    assert [row[:2] for row in OUTAGE_ROWS] == [[row.name, row.callers] for row in OUTAGES]
    assert names(CALLER_GOAL_ROWS) == [goal.what for goal in CALLER_GOALS]


def test_the_page_has_every_row_of_bound_tokens_and_no_other() -> None:
    assert names(BOUND_ROWS) == [row.name for row in BOUND]
    assert [row[4].partition(":")[0] for row in BOUND_ROWS] == [row.physical for row in BOUND]


def test_the_page_has_every_row_of_telemetry_and_no_other() -> None:
    assert [row[:2] for row in TOLD_ROWS] == [[row.work, row.state] for row in TOLD]
    assert names(TOLD_GOAL_ROWS) == [goal.what for goal in TOLD_GOALS.values()]


def test_the_goals_of_telemetry_are_about_nobody_listening() -> None:
    figures = {tuple(row[:2]): row[-1] for row in TOLD_ROWS}

    assert {row.state for row in TOLD_GOALS} == {OFF}
    assert [row[2] for row in TOLD_GOAL_ROWS] == [figures[row.work, row.state] for row in TOLD_GOALS]


def test_what_the_benchmark_of_telemetry_leaves_out_is_still_in_use() -> None:
    code = "from benchmarks.telemetry.untold import untold; untold('benchmarks.apps', 's2s_fastapi.caller.auth')"

    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, check=True, timeout=60)


def test_every_row_is_compared_with_one_that_is_measured() -> None:
    assert {row.base for row in ROWS} - {None} <= {row.name for row in ROWS if row.base is None}
    assert BARE in names(CPU_ROWS)


@pytest.mark.parametrize(
    ("goal", "row"),
    list(
        zip(
            (*GOALS, *CALLER_GOALS, *TOLD_GOALS.values()),
            (*GOAL_ROWS, *CALLER_GOAL_ROWS, *TOLD_GOAL_ROWS),
            strict=True,
        )
    ),
    ids=lambda value: value[0][:60] if isinstance(value, list) else "",
)
def test_a_goal_is_called_met_only_if_its_figure_reaches_it(goal: Goal, row: list[str]) -> None:
    what, aim, measured, verdict = row
    figure = re.match(r"-?[\d.]+", measured)

    assert (what, aim) == (goal.what, goal.aim)
    assert verdict == ("not measured" if figure is None else "met" if goal.met(float(figure[0])) else "**missed**")


def test_the_picture_shows_what_the_page_names() -> None:
    (picture,) = (str(image.attrs["src"]) for image in inner(PAGE, "image"))
    drawn = (PAGE.parent / picture).read_text(encoding="utf-8")

    assert [peer for peer in PEERS if peer.replace("`", "") not in drawn] == []


def test_every_peer_stands_with_its_version() -> None:
    required = dict(
        re.findall(
            r"^([\w-]+)(?:\[\w+\])?==([\w.]+)$",
            Path(ROOT / "benchmarks/requirements.txt").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    del required["matplotlib"]  # it draws
    stated = dict(row[:2] for row in (*VERSIONS, *CALLER_VERSIONS, *BOUND_VERSIONS, *TOLD_VERSIONS))

    assert {name: stated.get(name) for name in required} == required
    assert {"CPU", "cores", "kernel", "Python", "wrk"} <= stated.keys()

"""The measured part of docs/speed.md."""

from pathlib import Path
from typing import Final

from benchmarks import rows
from benchmarks.figures import Figure, Throughput
from benchmarks.results import Results, Spread, decimals, verdict
from benchmarks.rows import REFUSALS, ROWS, STACKS, Refusal, Row

BEGIN: Final = "<!-- measured: `make bench` writes from here -->"
END: Final = "<!-- measured: to here -->"
GROUPS: Final = {"base": "nothing of ours", "ours": "ours", "peer": "others", "alone": "no route"}


def goals(results: Results) -> list[list[str]]:
    """Return the cells of the goals' table, its heading first."""
    lines = [[goal.what, goal.aim, spread(figure), verdict(goal, figure)] for goal, figure in results.reached()]
    return [["what", "goal", "measured (lowest to highest part of the run)", ""], *lines]


def cpu(results: Results) -> list[list[str]]:
    """Return the cells of the CPU table, its heading first."""
    floor = results.over(rows.FLOOR, rows.BARE)[0]
    heading = ["what", "", "µs (p20)", "p80", "over its bare route, µs", "x the floor"]
    return [heading, *(_cpu_line(row, results, floor) for row in ROWS)]


def _cpu_line(row: Row, results: Results, floor: float) -> list[str]:
    figure: Figure = results.cpu[row.name]
    line = [row.name, GROUPS[row.group], f"{figure.low:.1f}", f"{figure.high:.1f}"]
    if row.base is None:
        return [*line, "", ""]
    over = results.over(row.name, row.base)[0]
    return [*line, f"{over:.1f}", f"{over / floor:.2f}"]


def refusals(results: Results) -> list[list[str]]:
    """Return the cells of the refusals' table, its heading first."""
    heading = ["refused", "answer", "µs (p20)", "p80", "x the bare route", "x an accepted new token"]
    return [heading, *(_refusal_line(row, results) for row in REFUSALS)]


def _refusal_line(row: Refusal, results: Results) -> list[str]:
    figure = results.cpu[row.name]
    shares = [f"{figure.low / results.cpu[base].low:.2f}" for base in (rows.BARE, rows.NEW)]
    return [row.name, str(row.status), f"{figure.low:.1f}", f"{figure.high:.1f}", *shares]


def pythons(results: Results) -> list[list[str]]:
    """Return the cells of the table of other Pythons, its heading first."""
    lines = [
        [each.version, *(f"{figure:.1f}" for figure in (each.bare, each.floor, each.ours)), f"{each.times_floor:.2f}"]
        for each in results.pythons
    ]
    heading = ["Python", "bare route, µs", "floor, µs", "ours, one requirement, µs", "x the floor"]
    return [heading, *(lines or [["no other Python was given", *[""] * 4]])]


def throughput(results: Results) -> list[list[str]]:
    """Return the cells of the throughput's table, its heading first; without wrk each row says so."""
    apps = ("bare", "floor", "guarded")
    heading = ["server", *(f"{app}, requests/s" for app in apps), *(f"{app}, µs of CPU" for app in apps)]
    heading += ["floor keeps", "guarded keeps", "guarded over the floor"]
    if isinstance(results.throughput, str):
        return [heading, *([stack, results.throughput, *[""] * 8] for stack in STACKS)]
    return [heading, *(_throughput_line(stack, measured) for stack, measured in results.throughput.items())]


def _throughput_line(stack: str, measured: Throughput) -> list[str]:
    kept = [f"{spread(share)} %" for share in (measured.floor_keeps, measured.guarded_keeps)]
    return [stack, *(f"{value:.0f}" for value in (*measured.rates, *measured.cpu)), *kept, spread(measured.over_floor)]


def memory(results: Results) -> list[list[str]]:
    """Return the cells of the memory's table, its heading first."""
    seen = [
        [f"resident after {tokens:,} distinct tokens", f"{megabytes:.1f} MB"]
        for tokens, megabytes in results.memory.growth
    ]
    return [["what", ""], ["one verified token", f"{results.memory.per_token:,.0f} bytes"], *seen]


def imports(results: Results) -> list[list[str]]:
    """Return the cells of the import's table, its heading first."""
    measured = results.imports
    return [
        ["what", "ms"],
        ["fastapi and httpx", f"{measured.before:.0f}"],
        ["s2s_fastapi after them", f"{measured.ours:.0f}"],
        ["what a receiver takes out of it, after that", f"{measured.receiver:.0f}"],
        ["what a caller takes out of it, after that", f"{measured.caller:.0f}"],
        *([f"of which {name} (-X importtime)", f"{milliseconds:.1f}"] for name, milliseconds in measured.parts),
    ]


def spread(figure: Spread | str) -> str:
    if isinstance(figure, str):
        return figure
    middle, low, high = figure
    places = decimals(figure)
    return f"{middle:.{places}f}" + (f" ({low:.{places}f} to {high:.{places}f})" if places else "")


def table(cells: list[list[str]]) -> str:
    """Return cells as a table of Markdown."""
    heading, *lines = cells
    return "\n".join(f"| {' | '.join(line)} |" for line in (heading, ["---"] * len(heading), *lines))


def measured_part(results: Results) -> str:
    """Return everything between the two marks."""
    about = [[name, value] for name, value in (*results.machine.items(), *results.versions.items())]
    parts = (
        "### Goals",
        table(goals(results)),
        "### CPU time of one request",
        "![What each way costs over the bare route](speed.svg)",
        table(cpu(results)),
        "### Other Pythons",
        table(pythons(results)),
        "### Refusals",
        table(refusals(results)),
        "### Throughput",
        table(throughput(results)),
        "### Memory",
        table(memory(results)),
        "### Import",
        table(imports(results)),
        "### Measured with",
        results.how,
        table([["what", "version"], *about]),
    )
    return "\n\n".join(parts)


def write(text: str, page: Path, begin: str, end: str) -> None:
    """Replace what stands between two marks."""
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise RuntimeError(f"{page} has no place for the figures: it needs the lines {begin} and {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")

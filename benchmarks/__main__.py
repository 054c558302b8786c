"""Everything in one run: ``python -m benchmarks``. ``--quick`` tries the command out and leaves the page alone."""

import argparse
import json
import subprocess
import sys

from benchmarks import cpu, imports, machine, page, plot, throughput
from benchmarks.caller import page as caller_page
from benchmarks.caller import run as caller
from benchmarks.caller.figures import CallerFigures
from benchmarks.figures import Memory
from benchmarks.realm import ROOT, issuer
from benchmarks.results import Results
from benchmarks.telemetry import page as telemetry_page
from benchmarks.telemetry import run as telemetry

PARTS = ("receiver", "caller", "telemetry")
PAGE, PICTURE = ROOT / "docs/speed.md", ROOT / "docs/speed.svg"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written to docs/")
    parser.add_argument("--only", choices=PARTS, help="one part; the tables of the others stay as they are")
    given = parser.parse_args()
    machine_then = machine.machine()  # before we are the load ourselves
    asked = PARTS if given.only is None else (given.only,)
    if "receiver" in asked:
        results = _receiver(machine_then, quick=given.quick)
        for cells in (page.cpu, page.throughput, page.memory, page.imports, page.goals):
            _print(cells(results))
        if not given.quick:
            page.write(page.measured_part(results), PAGE, page.BEGIN, page.END)
            plot.draw(results, PICTURE)
    if "caller" in asked:
        figures = caller.measure(caller.QUICK if given.quick else caller.WHOLE, _without_wrk(machine_then))
        _show(figures)
        if not given.quick:
            page.write(caller_page.measured_part(figures), PAGE, caller_page.BEGIN, caller_page.END)
    if "telemetry" in asked:
        told = telemetry.measure(telemetry.QUICK if given.quick else telemetry.WHOLE, _without_wrk(machine_then))
        for told_cells in (telemetry_page.costs, telemetry_page.goals):
            _print(told_cells(told))
        if not given.quick:
            page.write(telemetry_page.measured_part(told), PAGE, telemetry_page.BEGIN, telemetry_page.END)
    if not given.quick:
        print(f"written to {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


def _receiver(machine_then: dict[str, str], *, quick: bool) -> Results:
    rounds, wrk_rounds, seconds, tokens, interpreters = (20, 2, 1, 20_000, 5) if quick else (200, 8, 4, 1_000_000, 40)
    realm = issuer()
    with realm.serving():
        print("CPU time ...", flush=True)
        figures = cpu.measure(realm, rounds)
        reason = throughput.missing()
        print(f"throughput: {reason}" if reason else "throughput ...", flush=True)
        rates = reason or throughput.measure(realm, wrk_rounds, seconds)
    print("imports ...", flush=True)
    imported = imports.measure(interpreters)
    print(f"memory: {tokens:,} tokens ...", flush=True)
    return Results(
        cpu=figures,
        throughput=rates,
        memory=_memory(tokens),
        imports=imported,
        how=f"CPU: {rounds} rounds of {cpu.BATCH} calls of each row, the rows shuffled in each round. Throughput: {wrk_rounds} "
        f"rounds of {seconds} s of each app, shuffled; 1 worker on one core, wrk with 1 thread and {throughput.CONNECTIONS} connections "
        f"on another. Import: {interpreters} fresh interpreters. All on loopback, in one run.",
        machine=machine_then,
        versions=machine.versions(),
    )


def _memory(tokens: int) -> Memory:
    """Measure in an interpreter of its own, where nothing else takes or leaves memory."""
    child = [sys.executable, "-m", "benchmarks.memory", str(tokens)]
    said = json.loads(subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return Memory(said["per_token"], tuple((seen, megabytes) for seen, megabytes in said["growth"]))


def _without_wrk(about: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in about.items() if name != "wrk"}


def _show(figures: CallerFigures) -> None:
    parts = (caller_page.attach, caller_page.bursts, caller_page.outages, caller_page.memory)
    for cells in (*parts, caller_page.goals):
        _print(cells(figures))


def _print(cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


if __name__ == "__main__":
    main()

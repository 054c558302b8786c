"""Everything in one run: ``python -m benchmarks``. ``--quick`` tries the command out and leaves the page alone."""

import argparse
import json
import logging
import subprocess
import sys

from benchmarks import batches, cpu, imports, machine, page, plot, pythons, throughput
from benchmarks.bound import page as bound_page
from benchmarks.bound import run as bound
from benchmarks.caller import page as caller_page
from benchmarks.caller import run as caller
from benchmarks.caller.figures import CallerFigures
from benchmarks.figures import Memory
from benchmarks.realm import ROOT, SECOND, issuer
from benchmarks.results import Results
from benchmarks.telemetry import page as telemetry_page
from benchmarks.telemetry import run as telemetry

PARTS = ("receiver", "caller", "bound", "telemetry")
PAGE, PICTURE = ROOT / "docs/speed.md", ROOT / "docs/speed.svg"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written to docs/")
    parser.add_argument("--only", choices=PARTS, help="one part; the tables of the others stay as they are")
    parser.add_argument("--python", action="append", default=[], help="measure a repeated token on this Python, too")
    given = parser.parse_args()
    _drop_log()
    machine_then = machine.machine()  # before we are the load ourselves
    asked = PARTS if given.only is None else (given.only,)
    if "receiver" in asked:
        results = _receiver(machine_then, given.python, quick=given.quick)
        for cells in (page.cpu, page.refusals, page.pythons, page.throughput, page.memory, page.imports, page.goals):
            _print(cells(results))
        if not given.quick:
            page.write(page.measured_part(results), PAGE, page.BEGIN, page.END)
            plot.draw(results, PICTURE)
    if "caller" in asked:
        figures = caller.measure(caller.QUICK if given.quick else caller.WHOLE, _without_wrk(machine_then))
        _show(figures)
        if not given.quick:
            page.write(caller_page.measured_part(figures), PAGE, caller_page.BEGIN, caller_page.END)
    if "bound" in asked:
        proven = bound.measure(bound.QUICK if given.quick else bound.WHOLE, _without_wrk(machine_then))
        _print(bound_page.costs(proven))
        if not given.quick:
            page.write(bound_page.measured_part(proven), PAGE, bound_page.BEGIN, bound_page.END)
    if "telemetry" in asked:
        told = telemetry.measure(telemetry.QUICK if given.quick else telemetry.WHOLE, _without_wrk(machine_then))
        for told_cells in (telemetry_page.costs, telemetry_page.goals):
            _print(told_cells(told))
        if not given.quick:
            page.write(telemetry_page.measured_part(told), PAGE, telemetry_page.BEGIN, telemetry_page.END)
    if not given.quick:
        print(f"written to {PAGE.relative_to(ROOT)} and {PICTURE.relative_to(ROOT)}")


def _receiver(machine_then: dict[str, str], other_pythons: list[str], *, quick: bool) -> Results:
    rounds, wrk_rounds, seconds, tokens, interpreters = (20, 2, 1, 20_000, 5) if quick else (200, 8, 4, 200_000, 40)
    realm = issuer(beside=[SECOND])
    with realm.serving():
        print("CPU time ...", flush=True)
        figures = cpu.measure(realm, rounds)
        reason = throughput.missing()
        print(f"throughput: {reason}" if reason else "throughput ...", flush=True)
        rates = reason or throughput.measure(realm, wrk_rounds, seconds)
    others = pythons.measure(other_pythons, rounds)
    print("imports ...", flush=True)
    imported = imports.measure(interpreters)
    print(f"memory: {tokens:,} tokens ...", flush=True)
    return Results(
        cpu=figures,
        throughput=rates,
        pythons=others,
        memory=_memory(tokens),
        imports=imported,
        how=f"CPU: {rounds} rounds of {batches.BATCH} calls of each row, the rows shuffled in each round. Throughput: {wrk_rounds} "
        f"rounds of {seconds} s of each app, shuffled; 1 worker on one core, wrk with 1 thread and {throughput.CONNECTIONS} connections "
        f"on another. Import: {interpreters} fresh interpreters. All on loopback, in one run.",
        machine=machine_then,
        versions=machine.versions(),
    )


def _drop_log() -> None:
    """Let a handler take what is logged and drop it, so that each record is made as in a service and none is written to the console."""
    log = logging.getLogger("s2s_fastapi")
    log.addHandler(logging.NullHandler())
    log.propagate = False


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

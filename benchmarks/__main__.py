"""Everything in one run: ``python -m benchmarks``. ``--quick`` tries the command out and leaves the page alone."""

import argparse
import json
import subprocess
import sys

from benchmarks import burst, cpu, imports, machine, page, plot, throughput
from benchmarks.figures import Memory
from benchmarks.realm import ROOT, issuer
from benchmarks.results import Results


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written to docs/")
    quick = parser.parse_args().quick
    rounds, wrk_rounds, seconds, tokens, interpreters = (20, 2, 1, 20_000, 5) if quick else (200, 8, 4, 1_000_000, 40)
    machine_then = machine.machine()  # before we are the load ourselves
    realm = issuer()
    with realm.serving():
        print("CPU time ...", flush=True)
        figures = cpu.measure(realm, rounds)
        reason = throughput.missing()
        print(f"throughput: {reason}" if reason else "throughput ...", flush=True)
        rates = reason or throughput.measure(realm, wrk_rounds, seconds)
    print("imports, burst ...", flush=True)
    imported = imports.measure(interpreters)
    requests = burst.measure()
    print(f"memory: {tokens:,} tokens ...", flush=True)
    results = Results(
        cpu=figures,
        throughput=rates,
        memory=_memory(tokens),
        imports=imported,
        burst=requests,
        how=f"CPU: {rounds} rounds of {cpu.BATCH} calls of each row, the rows shuffled in each round. Throughput: {wrk_rounds} "
        f"rounds of {seconds} s of each app, shuffled; 1 worker on one core, wrk with 1 thread and {throughput.CONNECTIONS} connections "
        f"on another. Import: {interpreters} fresh interpreters. All on loopback, in one run.",
        machine=machine_then,
        versions=machine.versions(),
    )
    for cells in (page.cpu, page.throughput, page.memory, page.imports, page.goals):
        _print(cells(results))
    if not quick:
        page.write(results, ROOT / "docs/speed.md")
        plot.draw(results, ROOT / "docs/speed.svg")
        print("written to docs/speed.md and docs/speed.svg")


def _memory(tokens: int) -> Memory:
    """Measure in an interpreter of its own, where nothing else takes or leaves memory."""
    child = [sys.executable, "-m", "benchmarks.memory", str(tokens)]
    said = json.loads(subprocess.run(child, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return Memory(said["per_token"], tuple((seen, megabytes) for seen, megabytes in said["growth"]))


def _print(cells: list[list[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


if __name__ == "__main__":
    main()

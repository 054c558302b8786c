"""Attacks an app behind each guard, and writes docs/conformance/results.json and the pages: ``python -m benchmarks.conformance.run``.

``--check`` writes nothing, and fails if anything of a guard differs from the file.
"""

import argparse
import inspect
import logging
import platform
import textwrap
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from benchmarks.conformance import ours, page, results
from benchmarks.conformance.peers import AUDIENCE, CALLER, PEERS, Peer
from benchmarks.conformance.results import Cell, Guard, Results
from s2s_fastapi import __version__
from s2s_fastapi.testing.attack import Case, Target, all_cases, attack


def main(*, check: bool = False) -> None:
    logging.disable(logging.CRITICAL)  # each refusal is a line of the log
    measured = {
        "date": datetime.now(UTC).date().isoformat(),
        "Python": platform.python_version(),
        **_versions(["fastapi", "starlette", "cryptography", "joserfc"]),
    }
    found = Results(measured, (_ours(), *(_theirs(peer) for peer in PEERS)))
    for guard in found.guards:
        print(guard.name, dict(page.counts(guard, all_cases())))
    if check:
        if differ := list(results.differences(found, results.read())):
            raise SystemExit("\n".join(["Not as in results.json. If it is right, run make conformance:", *differ]))
    else:
        results.write(found)
        page.write(results.read())


def _ours() -> Guard:
    return Guard(
        name=page.OURS,
        versions={page.OURS: __version__},
        documentation="../protect-a-service.md",
        configuration=_source(ours.APPS),
        not_claimed={},
        remarks=("The second app is the one for the cases about bound tokens and their proofs.",),
        cells=ours.run(),
    )


def _theirs(peer: Peer) -> Guard:
    report = attack(Target(make=peer.make, audience=AUDIENCE, callers=[CALLER], public=["GET /health"]))
    (route,) = (route for route in report.routes if route.full)
    if route.problem:
        raise RuntimeError(f"{peer.name}: {route.problem}")
    return Guard(
        name=peer.name,
        versions=_versions(peer.packages),
        documentation=peer.documentation,
        configuration=_source([peer.make]),
        not_claimed=_not_claimed(peer.not_claimed),
        remarks=peer.remarks,
        cells={result.case.id: Cell(result.outcome, result.detail) for result in route.results},
    )


def _not_claimed(reasons: Mapping[str, str]) -> dict[str, str]:
    """Return the reason for each case."""
    found = {case.id: _reason(case, reasons) for case in all_cases()}
    return {case: reason for case, reason in found.items() if reason}


def _reason(case: Case, reasons: Mapping[str, str]) -> str:
    return reasons.get(case.id) or reasons.get(case.entry) or reasons.get(case.kind) or ""


def _versions(names: Iterable[str]) -> dict[str, str]:
    return {name: metadata.version(name) for name in names}


def _source(functions: Iterable[Callable[..., Any]]) -> str:
    return "\n\n".join(textwrap.dedent(inspect.getsource(each)).rstrip() + "\n" for each in functions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--check", action="store_true", help="write nothing, and fail if anything of a guard differs from the file"
    )
    main(check=parser.parse_args().check)

"""The results of the conformance run, as the file docs/conformance/results.json has them."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["FILE", "Cell", "Guard", "Results", "differences", "read", "write"]

FILE: Final = Path(__file__).parents[2] / "docs" / "conformance" / "results.json"
_VERSION: Final = 1


class Cell(NamedTuple):
    """The result of one case with one guard: an outcome of the attack report, and what was answered."""

    outcome: str
    detail: str


@dataclass(frozen=True)
class Guard:
    """One column: who guarded the app, and how."""

    name: str
    versions: Mapping[str, str]
    documentation: str
    configuration: str
    not_claimed: Mapping[str, str]
    """Cases for which the guard has no feature, with the reason."""
    remarks: tuple[str, ...]
    cells: Mapping[str, Cell]
    """The result of each case that was tried."""


@dataclass(frozen=True)
class Results:
    """The whole table, and with what it was measured."""

    measured: Mapping[str, str]
    guards: tuple[Guard, ...]


def write(results: Results) -> None:
    document = {
        "version": _VERSION,
        "measured": dict(results.measured),
        "guards": [_member(each) for each in results.guards],
    }
    # One case a line: so a change of one result is one line of a review.
    text = json.dumps(document, indent=1, ensure_ascii=False)
    FILE.write_text(text + "\n", encoding="utf-8")


def differences(found: Results, written: Results) -> Iterator[str]:
    """Yield what differs between two runs: all of each guard, but not the day nor the machine."""
    if [guard.name for guard in found.guards] != [guard.name for guard in written.guards]:
        yield "the guards"
        return
    for guard, before in zip(found.guards, written.guards, strict=True):
        for field in fields(Guard):
            now, then = getattr(guard, field.name), getattr(before, field.name)
            if now == then:
                continue
            if not isinstance(now, Mapping):
                yield f"{guard.name}: {field.name}"
                continue
            keys = [key for key in {**then, **now} if now.get(key) != then.get(key)]
            yield from (f"{guard.name}: {field.name}: {key}: {now.get(key, 'nothing')}" for key in keys)


def _member(guard: Guard) -> dict[str, Any]:
    member = asdict(guard)
    member["cells"] = {case: f"{cell.outcome}: {cell.detail}".removesuffix(": ") for case, cell in guard.cells.items()}
    return member


def read() -> Results:
    document = json.loads(FILE.read_text(encoding="utf-8"))
    if document["version"] != _VERSION:
        raise ValueError(f"{FILE} has another version than {_VERSION}")
    return Results(document["measured"], tuple(_guard(member) for member in document["guards"]))


def _guard(member: dict[str, Any]) -> Guard:
    cells = {case: Cell(*(text.partition(": ")[::2])) for case, text in member["cells"].items()}
    return Guard(**{**member, "remarks": tuple(member["remarks"]), "cells": cells})

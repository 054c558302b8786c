"""What came of the attacks: results as values, as JSON and as JUnit."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal
from xml.etree import ElementTree as ET

from s2s_fastapi.testing.attack.cases import Case

__all__ = ["OUTCOMES", "Outcome", "Report", "Result", "RouteReport"]

Outcome = Literal["held", "accepted", "lenient", "otherwise", "not_tried", "not_applicable"]
OUTCOMES: Final[Mapping[Outcome, str]] = {
    "held": "refused, for the expected reason, beside a good token that was accepted",
    "accepted": "a hole: the attack was let in",
    "lenient": "let in by a guard that never promised to refuse it: its token is one that the realm signed for this caller",
    "otherwise": "refused, but with another answer or for another reason than expected",
    "not_tried": "nothing was proven: the app answered neither yes nor no, or no good token was accepted",
    "not_applicable": "the route permits this caller",
}
"""All outcomes of a case, with their meaning."""

_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Result:
    """One case on one route."""

    route: str
    case: Case
    outcome: Outcome
    detail: str = ""
    """What was answered, or why it was not tried."""

    def __str__(self) -> str:
        return f"{self.route}: {self.case.id} ({self.case.title}) {self.detail}".rstrip()


@dataclass(frozen=True, slots=True)
class RouteReport:
    """All cases on one route."""

    route: str
    results: tuple[Result, ...] = ()
    problem: str = ""
    """Why the good token was not accepted, or not any more after the attacks; empty if it was."""
    left_out: bool = False
    """Whether it was not tried on purpose: a request would run code of the app, or an earlier route answers."""
    unread: bool = False
    """Whether it stands for an app to which no route leads that can be read: nobody knows who gets in there."""
    public: bool = False
    full: bool = False
    """Whether the full list was tried here."""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all attacks on one app."""

    routes: tuple[RouteReport, ...]
    strict: bool = True
    """Whether a refusal for another reason is a finding: only our own middleware gives reasons."""

    @property
    def results(self) -> tuple[Result, ...]:
        """The results of all routes."""
        return tuple(result for route in self.routes for result in route.results)

    @property
    def holes(self) -> tuple[Result, ...]:
        """The attacks that were let in."""
        return tuple(result for result in self.results if result.outcome == "accepted")

    @property
    def findings(self) -> tuple[Result, ...]:
        """What must be looked at: the holes, and behind our own middleware each refusal for another reason."""
        bad = ("accepted", "otherwise") if self.strict else ("accepted",)
        return tuple(result for result in self.results if result.outcome in bad)

    @property
    def counts(self) -> Mapping[Outcome, int]:
        """How often each outcome occurred."""
        counted = Counter(result.outcome for result in self.results)
        return {outcome: counted[outcome] for outcome in OUTCOMES}

    @property
    def nobody_gets_in(self) -> bool:
        """Whether no route accepted a good token, so that no refusal proves anything."""
        return all(route.public or route.problem for route in self.routes)

    @property
    def unproven(self) -> tuple[RouteReport, ...]:
        """The routes of which nothing is proven, although they should be tried: they refuse a good token, or cannot be read."""
        return tuple(route for route in self.routes if route.problem and not route.left_out)

    @property
    def exit_code(self) -> int:
        """0: nothing found. 1: findings, or an app that cannot be read. 2: a route, or all of them, could not be tried."""
        if self.findings or any(route.unread for route in self.routes):
            return 1
        return 2 if self.unproven or self.nobody_gets_in else 0

    def as_json(self) -> str:
        """Return the report as JSON: docs/conformance/attack-report.schema.json."""
        return json.dumps(
            {
                "version": _VERSION,
                "nobody_gets_in": self.nobody_gets_in,
                "exit_code": self.exit_code,
                "counts": dict(self.counts),
                "routes": [
                    {
                        "route": route.route,
                        "public": route.public,
                        "full_list": route.full,
                        "problem": route.problem,
                        "results": [_member(result) for result in route.results],
                    }
                    for route in self.routes
                ],
            },
            indent=2,
        )

    def as_junit(self) -> str:
        """Return the report as JUnit XML: a suite for each route, a test for each case."""
        root = ET.Element("testsuites", name="s2s-fastapi attack")
        for route in self.routes:
            results = tuple(_told(route.results, self.findings))
            counted = Counter(kind for _, kind in results)
            unproven = [route.problem] if route in self.unproven else []
            suite = ET.SubElement(
                root,
                "testsuite",
                name=_clean(route.route),
                tests=str(len(results) + len(unproven)),
                failures=str(counted["failure"] + len(unproven)),
                skipped=str(counted["skipped"]),
                errors="0",
            )
            for problem in unproven:
                test = ET.SubElement(suite, "testcase", classname=_clean(route.route), name="good-token")
                ET.SubElement(test, "failure", message=_clean(problem))
            for result, kind in results:
                test = ET.SubElement(suite, "testcase", classname=_clean(route.route), name=result.case.id)
                if kind:
                    ET.SubElement(test, kind, message=_clean(f"{result.case.title} {result.detail}".strip()))
        return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _member(result: Result) -> dict[str, Any]:
    return {
        "case": result.case.id,
        "kind": result.case.kind,
        "line": result.case.line,
        "title": result.case.title,
        "outcome": result.outcome,
        "detail": result.detail,
    }


def _told(results: Iterable[Result], findings: Iterable[Result]) -> Iterable[tuple[Result, str]]:
    found = set(map(id, findings))
    for result in results:
        skipped = result.outcome in ("not_tried", "not_applicable", "lenient")
        yield result, "failure" if id(result) in found else "skipped" if skipped else ""


def _clean(text: str) -> str:
    """Return text that XML can hold."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)

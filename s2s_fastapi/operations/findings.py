"""What checks find, as values: each finding says what was seen, why it matters, and what to change."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

__all__ = ["Change", "Checked", "Finding", "Level", "Report", "Result", "Seen", "Skipped"]

VERSION: Final = 2
"""The version of the JSON: docs/schemas/doctor.schema.json."""

Level = Literal["problem", "warning"]
State = Literal["fine", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Change:
    """One request to Keycloak's Admin API that changes the realm. Nothing here sends it: an administrator may."""

    method: str
    path: str
    """From ``/admin`` on."""
    body: Any = None

    def __str__(self) -> str:
        # Between two quotes of a shell it stays one word: a role may be called "x'; touch /tmp/y".
        body = "" if self.body is None else f" {json.dumps(self.body, ensure_ascii=True)}".replace("'", "\\u0027")
        return f"{self.method} {self.path}{body}"

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"method": self.method, "path": self.path, "body": self.body}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to change."""

    seen: str
    why: str
    """Why it matters: what fails, or what somebody could do."""
    cure: str
    level: Level = "problem"
    """A problem makes calls fail; a warning does not, yet."""
    console: str = ""
    """Where in the admin console it is changed: page, tab, field."""
    changes: tuple[Change, ...] = ()
    """The same as requests to the Admin API, in their order: steps of the plan for the given access files, and nothing else."""
    plan: str = ""
    """The command that plans it, with the access files of both services; only if the realm lacks what the code declares."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that is as it should be."""

    text: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a check, or a part of it, was not made."""

    why: str


Result: TypeAlias = Finding | Seen | Skipped


@dataclass(frozen=True, slots=True)
class Checked:
    """One check that was made, or skipped."""

    name: str
    results: tuple[Result, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What there is to change."""
        return tuple(result for result in self.results if isinstance(result, Finding))

    @property
    def state(self) -> State:
        """The worst of its results; skipped only if nothing was looked at."""
        levels = {finding.level for finding in self.findings}
        if levels:
            return "problem" if "problem" in levels else "warning"
        return "skipped" if self.results and all(isinstance(each, Skipped) for each in self.results) else "fine"

    def as_json(self) -> Mapping[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            "state": self.state,
            "seen": [result.text for result in self.results if isinstance(result, Seen)],
            "skipped": [result.why for result in self.results if isinstance(result, Skipped)],
            "findings": [
                {
                    "level": each.level,
                    "seen": each.seen,
                    "why": each.why,
                    "cure": each.cure,
                    "console": each.console,
                    "changes": [change.as_json() for change in each.changes],
                    "plan": each.plan,
                }
                for each in self.findings
            ],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in their order."""

    checks: tuple[Checked, ...]

    def count(self, level: Level) -> int:
        """Return how many findings there are of this level."""
        return sum(finding.level == level for check in self.checks for finding in check.findings)

    @property
    def fine(self) -> bool:
        """Whether there is no problem. Warnings may be there."""
        return not self.count("problem")

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON of ``docs/schemas/doctor.schema.json``."""
        return {
            "version": VERSION,
            "fine": self.fine,
            "problems": self.count("problem"),
            "warnings": self.count("warning"),
            "checks": [check.as_json() for check in self.checks],
        }

"""``s2s-fastapi doctor``: what is wrong with a service's set-up, before it makes a call."""

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2s_fastapi.cli.mistake import in_one_sentence
from s2s_fastapi.cli.printing import as_text, columns, print_json, quiet, show

if TYPE_CHECKING:
    from s2s_fastapi.operations.findings import Checked, Report

__all__ = ["doctor"]

_STYLES: Final = {"fine": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


@in_one_sentence
def doctor(
    app: Annotated[
        str, typer.Option(metavar="MODULE:APP", help="The service's app: what it accepts, and whom it calls.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check this service's set-up: settings, the way to Keycloak, keys, clocks, credentials, and its tokens.

    The settings are the KEYCLOAK_... variables of the service. Nothing is changed, and no secret or token is printed. A few tokens are
    requested, as the service itself would. Exit code 1: something is wrong, and each finding says what to change.
    """
    quiet()
    from s2s_fastapi.operations.applications import checked_name  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.checks.table import examined  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.facts import Facts  # noqa: PLC0415 - as above

    if app:
        checked_name(app)
    report = examined(Facts(app=app))
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    if not report.fine:
        raise SystemExit(1)


def _print(report: "Report") -> None:
    table = columns(3)
    for check in report.checks:
        name, state = as_text(check.name, "bold"), as_text(check.state, _STYLES[check.state])
        for line in _lines(check):
            table.add_row(state, name, as_text(line))
            name = state = as_text("")
    show(table)
    problems, warnings = report.count("problem"), report.count("warning")
    sys.stdout.write(
        f"{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}.\n"
    )


def _lines(check: "Checked") -> list[str]:
    from s2s_fastapi.operations.findings import Finding, Seen  # noqa: PLC0415 - as above

    lines: list[str] = []
    for result in check.results:
        if isinstance(result, Finding):
            lines += [result.seen, f"Why: {result.why}", f"Cure: {result.cure}"]
        else:
            lines.append(result.text if isinstance(result, Seen) else result.why)
    return lines or ["Nothing to report."]

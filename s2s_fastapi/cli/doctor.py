"""``s2s-fastapi doctor``: what is wrong with a service's set-up, before it makes a call."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2s_fastapi.cli.planned import read_access_files
from s2s_fastapi.cli.printing import as_text, columns, name_the_page, print_json, quiet, show
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.text import Text

    from s2s_fastapi.operations.admin import AdminApi
    from s2s_fastapi.operations.findings import Checked, Report

__all__ = ["doctor"]

_SECONDS: Final = 10.0
"""For one answer of the Admin API."""
_ADMIN_API: Final = "Admin API: "
_PLAN: Final = "Plan, with the access files of both services: "
_COPIED: Final = (_ADMIN_API, _PLAN)
_STYLES: Final = {"fine": "green", "warning": "yellow", "problem": "bold red", "skipped": "dim"}


def doctor(
    app: Annotated[
        str, typer.Option(metavar="MODULE:APP", help="The service's app: what it accepts, and whom it calls.")
    ] = "",
    *,
    access: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="An access file with this service's app: whom it calls. No code is imported. Repeatable.",
        ),
    ] = None,
    admin: Annotated[
        bool,
        typer.Option(
            "--admin",
            help="Read the realm as an administrator too, and fail if that is not possible. Without this option it is tried if a"
            " KEYCLOAK_ADMIN_... variable is set.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check this service's set-up: settings, the way to Keycloak, keys, clocks, credentials, and its tokens.

    The settings are the KEYCLOAK_... variables of the service. Nothing is changed, and no secret or token is printed. A few tokens are
    requested, as the service itself would. Exit code 1: something is wrong, and each finding says what to change.

    With KEYCLOAK_ADMIN_... variables, as for `plan`, the client, the steps A to D and the end of the secret are looked at too. --app
    imports code, and so is refused beside them: name an access file.
    """
    quiet()
    from s2s_fastapi.operations.applications import checked_name  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.checks.table import examined  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.facts import Facts  # noqa: PLC0415 - as above

    if app and (access or admin):
        raise ConfigurationError(
            "--app imports code, which must not run beside an administrator's credentials, and an access file says the same: write either"
            " --app, or --access with the file that s2s-fastapi access wrote."
        )
    if app:
        checked_name(app)
    apps = read_access_files(access) if access else []
    api, problem = _admin(required=admin)
    try:
        facts = Facts(
            app=app,
            apps=apps,
            files=tuple(map(str, access or ())),
            admin=api,
            admin_problem=problem,
            admin_required=admin,
        )
        _ = facts.start_problem  # a function that was named is no finding about the service
        report = examined(facts)
    finally:
        if api is not None:
            api.close()
    if as_json:
        print_json(report.as_json())
    else:
        _print(report)
    if not report.fine:
        if not as_json:
            name_the_page()
        raise SystemExit(1)


def _admin(*, required: bool) -> "tuple[AdminApi | None, str]":
    """Return the client of the administrator, if the environment names one, or why there is none.

    Raises:
        ConfigurationError: It is required, and a variable is missing or malformed.
    """
    from s2s_fastapi.operations.admin import VARIABLES, AdminApi, AdminTarget  # noqa: PLC0415 - as above

    if not required and not any(name in os.environ for name in VARIABLES):
        return None, ""
    try:
        return AdminApi(AdminTarget.of(), seconds=_SECONDS), ""
    except ConfigurationError as error:
        if required:
            raise
        return None, str(error)


def _print(report: "Report") -> None:
    skipped = _skipped(report)
    shown: list[tuple[str, str, list[str]]] = []
    for check in report.checks:
        if check.state != "skipped":
            shown.append((check.state, check.name, _lines(check)))
        elif names := skipped.pop(_said(check), []):
            alone = len(names) == 1
            shown.append(
                ("skipped", names[0], _lines(check))
                if alone
                else ("skipped", f"{len(names)} checks", [f"{', '.join(names)}: {_said(check)}"])
            )
    widths = (max(map(len, _STYLES)), max(len(name) for _, name, _ in shown))
    for state, name, lines in shown:
        _print_one(as_text(state, _STYLES[state]), as_text(name, "bold"), lines, widths)
    problems, warnings = report.count("problem"), report.count("warning")
    sys.stdout.write(
        f"{problems} problem{'' if problems == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}.\n"
    )


def _print_one(state: "Text", name: "Text", lines: list[str], widths: tuple[int, int]) -> None:
    """Print one check. What somebody copies stands in a line of its own, which is never wrapped: a terminal marks it as one line."""
    table = columns(3, widths=widths)
    for line in lines:
        if line.startswith(_COPIED):
            if table.row_count:
                show(table)
            show(as_text(line), wrap=False)
            table = columns(3, widths=widths)
        else:
            table.add_row(state, name, as_text(line))
            state = name = as_text("")
    if table.row_count:
        show(table)


def _skipped(report: "Report") -> dict[str, list[str]]:
    """Return the names of the checks that were skipped, by the reason: there may be twenty for one."""
    names: dict[str, list[str]] = {}
    for check in report.checks:
        if check.state == "skipped":
            names.setdefault(_said(check), []).append(check.name)
    return names


def _said(check: "Checked") -> str:
    return " ".join(_lines(check))


def _lines(check: "Checked") -> list[str]:
    from s2s_fastapi.operations.findings import Finding, Seen  # noqa: PLC0415 - as above

    lines: list[str] = []
    for result in check.results:
        if isinstance(result, Finding):
            lines += [result.seen, f"Why: {result.why}", f"Cure: {result.cure}"]
            lines += [f"Console: {result.console}"] if result.console else []
            lines += [f"{_ADMIN_API}{change}" for change in result.changes]
            lines += [f"{_PLAN}{result.plan}"] if result.plan else []
        else:
            lines.append(result.text if isinstance(result, Seen) else result.why)
    return lines or ["Nothing to report."]

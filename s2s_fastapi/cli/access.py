"""``s2s-fastapi access``: what apps declare, as a table or an access file; and access files against a realm file."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.cli.planned import read_access_files, read_realm
from s2s_fastapi.cli.printing import as_text, console, print_json, quiet, show, tell
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from s2s_fastapi.declared.access_file import AccessFile, AppAccess, RouteEntry
    from s2s_fastapi.operations.wanted import RealmFinding

__all__ = ["access"]

_CHECK: Final = "check"
_VERSION: Final = 1
"""The version of the JSON of ``access check``: docs/schemas/access-check.schema.json."""


def access(
    apps: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE:APP",
            help="Apps as uvicorn takes them, each with =CLIENT-ID if its settings do not name it. Or: check ACCESS.json...",
        ),
    ],
    *,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the access file.")] = None,
    realm_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With check: the realm, as Keycloak imports or exports it.")
    ] = None,
    keycloak: Annotated[str, typer.Option(metavar="VERSION", help="With check: the version of the server.")] = "26.7.3",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: the access file, or the findings of check.")
    ] = False,
) -> None:
    """Read what apps declare: who may call which route, and whom they call.

    Each app is imported in a process of its own, one after the other. Apps of different teams belong in different jobs. The command
    refuses to start if a variable KEYCLOAK_ADMIN... or KC_... is set: the code of the apps could read it. `plan` and `apply` import no code.

    `access check *.json --realm-file realm.json` compares access files with a realm file, without a Keycloak, for example in CI. Exit code
    1: a declared call would be refused, a route names a caller and refuses its token, a service gets an audience that no file declares, or
    nobody answers to an audience.
    """
    quiet()
    if apps[0] == _CHECK:
        if realm_file is None or out is not None:
            raise ConfigurationError("Write: s2s-fastapi access check ACCESS.json... --realm-file realm.json")
        _check(apps[1:], realm_file, keycloak, as_json=as_json)
        return
    if realm_file is not None:
        raise ConfigurationError(
            "--realm-file belongs to: s2s-fastapi access check ACCESS.json... --realm-file realm.json"
        )
    _read(apps, out, as_json=as_json)


def _read(names: Iterable[str], out: Path | None, *, as_json: bool) -> None:
    from s2s_fastapi.declared.access_file import AccessFile  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.app_processes import AppTarget, read_apps  # noqa: PLC0415 - as above

    read = read_apps([AppTarget.of(name) for name in names])
    by_client: dict[str, AppAccess] = {}
    problems = [each.problem for each in read if each.access is None]
    for each in read:
        if each.access is None:
            continue
        client_id = each.access.client_id
        if by_client.setdefault(client_id, each.access) != each.access:
            problems.append(
                f"{named(each.target.app)} is the client {named(client_id)}, as another app is: write {each.target.app}=CLIENT-ID."
            )
    notes = dict.fromkeys(note for each in read for note in each.notes)
    for sentence in (*problems, *map(_unprotected, by_client.values()), *notes):
        if sentence:
            tell(sentence)
    if by_client:
        file = AccessFile(tuple(by_client.values()))
        if out is not None:
            _write(out, _keeping(out, file).text)
        if as_json:
            sys.stdout.write(file.text)
        elif out is None:
            _table(by_client.values())
    if problems:
        raise SystemExit(2)


def _keeping(out: Path, file: "AccessFile") -> "AccessFile":
    """Return what is written, with what people wrote into the file that is there: how the client of each app logs in."""
    from s2s_fastapi.declared.access_file import AccessFile  # noqa: PLC0415 - slows --help down

    try:
        there = AccessFile.read(out)
    except ConfigurationError:
        return file  # there is none, or none that says it
    former = {app.client_id: app.client_authentication for app in there.apps}
    return AccessFile(tuple(replace(app, client_authentication=former.get(app.client_id)) for app in file.apps))


def _unprotected(app: "AppAccess") -> str:
    from s2s_fastapi.operations.applications import without_middleware  # noqa: PLC0415 - slows --help down

    requiring = [route.name for route in app.routes if route.requires is not None]
    return f"{named(app.client_id)}: {without_middleware(requiring)}" if requiring and app.requires is None else ""


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        problem = problem_of(error)
    else:
        tell(f"Wrote {file}.")
        return
    raise ConfigurationError(f"{file} cannot be written: {problem}.")


def _table(apps: Iterable["AppAccess"]) -> None:
    from rich.table import Table  # noqa: PLC0415 - slows --help down

    for app in apps:
        table = Table(title=as_text(app.client_id), title_justify="left", title_style="bold")
        table.add_column("Route")
        table.add_column("Who may call", overflow="fold")
        for route in app.routes:
            who = _who(app, route)
            if app.requires is None and route.requires is not None:
                who = f"nobody: no ServiceAuthMiddleware, so it answers 500; the route: {route.requires}"
            if route.public:
                who = (
                    "public"
                    if {*route.methods} <= {*route.public}
                    else f"public for {listed(route.public)}; else {who}"
                )
            if route.optional:
                every = {*(route.methods or ("WEBSOCKET",))} <= {*route.optional}
                who = f"anybody without credentials{'' if every else f' for {listed(route.optional)}'}; with a token {who}"
            name = f"{route.name} (its routes cannot be read)" if route.opaque else route.name
            table.add_row(as_text(name), as_text(who))
        if app.dpop:
            urls = f" at {', '.join(app.public_urls)}" if app.public_urls else ""
            table.add_row(as_text("bound tokens", "italic"), as_text(f"{app.dpop}{urls}"))
        if app.client_authentication is not None:
            table.add_row(as_text("logs in by", "italic"), as_text(str(app.client_authentication)))
        for call in app.calls:
            scopes = f", scope {listed(call.scopes)}" if call.scopes else ""
            origins = f" at {', '.join(call.origins)}" if call.origins else ""
            called = as_text(
                f"{listed(call.audiences) or 'no audience'}{scopes}{', with a bound token' if call.dpop else ''}{origins}"
            )
            table.add_row(as_text("calls", "italic"), called)
        show(table)


def _who(app: "AppAccess", route: "RouteEntry") -> str:
    """Return what the app requires, and what the route requires in addition: nothing stands there twice."""
    from s2s_fastapi.requirement.requirement import AllOf  # noqa: PLC0415 - slows --help down

    if app.requires is None:
        return "anybody"
    every, own = (
        [] if one is None else one.parts if isinstance(one, AllOf) else [one] for one in (app.requires, route.requires)
    )
    further = tuple(part for part in own if part not in every)
    return f"app: {app.requires}{f' / route: {AllOf(further)}' if further else ''}"


def _check(files: Iterable[str], realm_file: Path, version: str, *, as_json: bool) -> None:
    from s2s_fastapi.declared.access_file import in_one_realm  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.access_check import check_access  # noqa: PLC0415 - as above
    from s2s_fastapi.realm.model import RealmModel  # noqa: PLC0415 - as above

    apps = read_access_files(map(Path, files))
    here, elsewhere = in_one_realm(apps)
    for note in elsewhere:
        tell(note)
    findings = check_access(here, RealmModel.read(read_realm(realm_file), version=version))
    if as_json:
        print_json(_json(findings))
    else:
        for finding in findings:
            console().print(_text(finding), soft_wrap=True)
    if any(finding.level != "note" for finding in findings):
        raise SystemExit(1)
    if not as_json:
        console().print("Every declared call is granted, and nothing else of these apps.")


def _json(findings: Iterable["RealmFinding"]) -> dict[str, Any]:
    return {"version": _VERSION, "findings": [{"level": str(each.level), "text": each.text} for each in findings]}


def _text(finding: "RealmFinding") -> Any:
    # "open" beside the name of a route would read as if anybody could call it.
    note = finding.level == "note"
    return as_text(f"{'note' if note else 'problem'}: {finding.text}", "" if note else "yellow")

"""``s2s-fastapi graph``: who may call whom, what is declared beside what Keycloak grants."""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.cli.printing import as_text, console, show, tell
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.plan_hint import plan_command
from s2s_fastapi.operations.relations import Relation, Status, Unanswered
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.text import listed, named

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

__all__ = ["fitting", "graph", "lines_of", "table_of"]

_NARROW: Final = 110
"""Columns below which a relation is two lines instead of a row."""


def graph(
    access: Annotated[list[Path], typer.Argument(metavar="ACCESS.json", help="Access files of the apps.")],
    *,
    realm_file: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="REALM.json", help="The realm, as Keycloak exports it; with its users files, or a directory."
        ),
    ] = None,
    realm: Annotated[str, typer.Option(metavar="NAME", help="Which realm, if the files have several.")] = "",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one HTML page that needs no other file and no network.")
    ] = None,
    mermaid: Annotated[
        bool, typer.Option("--mermaid", help="Print a Mermaid flowchart in place of the table.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Show who may call whom: what the apps declare, beside what the realm grants.

    The access files say which service calls which, and whom each route allows. With --realm-file, each caller's token is computed as
    Keycloak would issue it, and each route judges it. Exit code 1: something declared is not granted, something granted is not declared,
    or a route names a caller and refuses its token.
    """
    # Imported for this command only: they would slow down --help.
    from s2s_fastapi.declared.access_file import AccessFile, in_one_realm  # noqa: PLC0415
    from s2s_fastapi.operations import graph as drawn  # noqa: PLC0415
    from s2s_fastapi.operations.relations import relations, unanswered  # noqa: PLC0415

    if mermaid and as_json:
        raise ConfigurationError("Write --mermaid or --json, not both.")
    apps, notes = in_one_realm(app for path in access for app in AccessFile.read(path).apps)
    files = [AccessFile(apps)]
    for note in notes:
        tell(note)
    model = _realm(realm_file or [], realm)
    found, lost = relations(files, model), unanswered(files)
    if html is not None:
        title = f"Who may call whom{f' in the realm {model.name}' if model is not None else ''}"
        try:
            html.write_text(drawn.as_html(found, lost, title=title, plan=_plan(found, access)), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{html} cannot be written: {problem_of(error)}.") from None
    if as_json:
        sys.stdout.write(f"{json.dumps(drawn.as_json(found, lost), indent=2)}\n")
    elif mermaid:
        sys.stdout.write(drawn.as_mermaid(found))
    else:
        _print(found, lost, _plan(found, access))
    if lost or any(each.status.problem for each in found):
        raise SystemExit(1)


def _realm(paths: list[Path], name: str) -> RealmModel | None:
    from s2s_fastapi.testing.documents import read_documents  # noqa: PLC0415

    if not paths:
        if name:
            raise ConfigurationError("--realm chooses one of the realms in --realm-file: write that, too.")
        return None
    models = {model.name: model for model in map(RealmModel.read, read_documents(paths, {}).realms)}
    if not name and len(models) == 1:
        return next(iter(models.values()))
    if name not in models:
        raise ConfigurationError(f"Write --realm with the name of one realm in the files: {listed(models)}.")
    return models[name]


def fitting(found: Iterable[Relation], width: int) -> "Group | Table":
    """Return a row for each relation, or two lines if so many columns are too few for a row."""
    return lines_of(found) if width < _NARROW else table_of(found)


def table_of(found: Iterable[Relation]) -> "Table":
    """Return one row for each relation, those that need attention first."""
    from rich.table import Table  # noqa: PLC0415 - slows --help down

    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("caller", "receiver", "", "audience", "scope", "routes"):
        table.add_column(head, overflow="fold")  # a name that is cut could be another's
    for row in _rows(found):
        table.add_row(*map(as_text, row.cells), style=row.style)
    return table


def lines_of(found: Iterable[Relation]) -> "Group":
    """Return two lines for each relation, for a terminal in which the table would break names."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.padding import Padding  # noqa: PLC0415 - as above

    lines: list[RenderableType] = []
    for row in _rows(found):
        caller, receiver, said, audiences, scopes, routes = row.cells
        more = (
            f"audience {audiences}" * bool(audiences),
            f"scope {scopes}" * bool(scopes),
            f"routes {routes}" * bool(routes),
        )
        lines += [
            as_text(f"{caller} > {receiver}: {said}", row.style),
            Padding(as_text("; ".join(filter(None, more)), row.style), (0, 0, 0, 4)),
        ]
    return Group(*lines)


class _Row(NamedTuple):
    cells: tuple[str, str, str, str, str, str]
    style: str


def _rows(found: Iterable[Relation]) -> Iterator[_Row]:
    for each in sorted(found, key=lambda one: not one.status.problem):
        accepted = sum(answer.accepted for answer in each.routes)
        cells = (
            each.caller,
            each.receiver,
            each.note or f"{each.status.label}{', with a bound token' if each.dpop else ''}",
            " ".join(each.audiences),
            " ".join(each.scopes),
            f"{accepted} of {len(each.routes)}" if each.routes else "",
        )
        yield _Row(cells, "bold red" if each.status.problem else "")


def _plan(found: Iterable[Relation], access: Iterable[Path]) -> str:
    """Return the command that plans what the realm lacks, if it lacks something for a declared call."""
    lacking = {Status.NOT_GRANTED, Status.REFUSED, Status.IN_PART}
    return plan_command(*map(str, access)) if any(each.status in lacking for each in found) else ""


def _print(found: tuple[Relation, ...], lost: tuple[Unanswered, ...], plan: str) -> None:
    show(fitting(found, console().width))
    for each in found:
        if each.cure:
            show(as_text(f"{named(each.caller)} calls {named(each.receiver)}: {each.cure}"))
    if plan:
        show(as_text(f"What the realm lacks for declared calls is in a plan: {plan}"))
    for one in lost:
        sentence = (
            f"{named(one.caller)} calls the audience {named(one.audience)}, and none of the given apps accepts it."
        )
        show(as_text(sentence, "bold red"))

"""``s2s-fastapi plan``: what a realm lacks so that the apps can do what they declare."""

import json
import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.cli.planned import PlanSource, names_of, read_realm, show_plan
from s2s_fastapi.cli.printing import print_json, quiet, tell
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    from s2s_fastapi.operations.plan import Plan

__all__ = ["plan"]


def plan(
    files: Annotated[list[Path], typer.Argument(metavar="ACCESS.json", help="Access files of the apps: see `access`.")],
    *,
    url: Annotated[str, typer.Option(metavar="URL", help="Keycloak's address; KEYCLOAK_URL by default.")] = "",
    realm: Annotated[str, typer.Option(metavar="NAME", help="The realm; KEYCLOAK_REALM by default.")] = "",
    grant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CALLER:KIND=NAME",
            help="Grant an audience, a scope or a role that no receiving app grants: CALLER:audience=NAME, scope=NAME, role=OWNER/NAME or"
            " realm-role=NAME. CALLER:NAME is enough if the name fits one of them only. Repeatable.",
        ),
    ] = None,
    secrets: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where `apply` writes the secret of each new client.")
    ] = Path("keycloak-secrets"),
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Save the plan. `apply --plan FILE` carries out exactly this one."),
    ] = None,
    realm_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Compare with the realm in this file, in place of a server's. Needs no log-in."
        ),
    ] = None,
    keycloak: Annotated[
        str, typer.Option(metavar="VERSION", help="With --realm-file: the version of the server that imports it.")
    ] = "26.7.3",
    realm_json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --realm-file: write that file again, with the steps carried out."),
    ] = None,
    terraform: Annotated[
        Path | None,
        typer.Option(metavar="FILE.tf.json", help="With --realm-file: write what the plan would make for Terraform."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Compare a realm with what apps declare, and show each change that is needed and each token before and after. Changes nothing.

    With --realm-file, the realm is one that you keep in a file, and no server is asked. --realm-json and --terraform then write a new
    file for it.

    Log-in: KEYCLOAK_ADMIN_CLIENT_ID with KEYCLOAK_ADMIN_CLIENT_SECRET_FILE or KEYCLOAK_ADMIN_CLIENT_KEY_FILE. Exit code 0: the realm is
    as declared; 1: there are steps or findings; 2: the plan cannot be made, or something forbidden is declared.
    """
    quiet()
    source = PlanSource.of(files, grant or (), secrets)
    if realm_file is not None:
        if url or realm or out is not None:
            raise ConfigurationError(
                "--realm-file takes the place of a server: leave --url, --realm and --out out. `apply` changes no file; --realm-json"
                " writes a changed one."
            )
        made = _of_file(source, realm_file, keycloak, realm_json=realm_json, terraform=terraform)
    elif realm_json is not None or terraform is not None:
        raise ConfigurationError(
            "--realm-json and --terraform are for a realm that is kept in files: add --realm-file with its file. For a new realm, a file"
            ' with {"realm": "NAME", "enabled": true} is enough.'
        )
    else:
        made = _of_server(source, url=url, realm=realm, out=out)
    if as_json:
        print_json(made.as_json())
    else:
        show_plan(made)
    if made.forbidden:
        raise SystemExit(2)
    if made.open:
        raise SystemExit(1)


def _of_server(source: PlanSource, *, url: str, realm: str, out: Path | None) -> "Plan":
    from s2s_fastapi.operations.admin import AdminApi, AdminTarget  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.plan import MADE_FROM  # noqa: PLC0415 - as above

    target = AdminTarget.of(url=url, realm=realm)
    if target.unprotected:
        tell(target.unprotected)
    with AdminApi(target) as api:
        made = source.planned(api)
    if out is not None:
        _save(out, {**made.as_json(), MADE_FROM: source.as_json()})
    return made


def _of_file(
    source: PlanSource, file: Path, version: str, *, realm_json: Path | None, terraform: Path | None
) -> "Plan":
    from s2s_fastapi.operations.realm_file import RealmFile  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.realm_json import realm_json as changed  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.terraform import by_hand  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.terraform import terraform as resources  # noqa: PLC0415 - as above

    if terraform is not None and not terraform.name.endswith(".tf.json"):
        raise ConfigurationError(
            f"Terraform reads JSON only from files that end with .tf.json: write {terraform.stem}.tf.json."
        )
    filled = read_realm(file)
    realm = RealmFile(filled, version=version)
    made = source.planned_for_file(realm)
    if made.forbidden:
        return made  # nothing of it is written
    if realm_json is not None:
        _save(realm_json, changed(_as_written(file, filled), made))
        if not realm.lists_scopes and made.steps:
            tell(
                f"{file} lists no client scopes, and {realm_json} does. A realm that is imported from it has all built-in ones, but Keycloak gives"
                " them to the clients of the file only: users cannot log in to the consoles of this realm. If they shall, start from an export."
            )
    if terraform is not None:
        content, left_out = resources(made)
        _save(terraform, content)
        for step in left_out:
            tell(f"Not in {terraform}, because another resource has this client: {step} {by_hand(step)}".rstrip())
    return made


def _as_written(file: Path, filled: dict[str, Any]) -> dict[str, Any]:
    """Return the realm of a file with its placeholders: their values, often secrets, belong into no other file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        content = None
    written = content[0] if isinstance(content, list) and len(content) == 1 else content
    if isinstance(written, dict) and names_of(written) == names_of(filled):
        return written
    raise ConfigurationError(
        f"--realm-json needs one JSON file with one realm, without placeholders in names and outside of quotes: {file} is another."
    )


def _free(file: Path) -> str:
    stem, dot, rest = file.name.partition(".")
    names = (f"{stem}-{number}{dot}{rest}" for number in count(2))
    return next(name for name in names if not file.with_name(name).exists())


def _save(file: Path, content: dict[str, Any]) -> None:
    """Write a new file that only its owner can read: whoever writes to it decides what becomes of the realm."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(f"{json.dumps(content, indent=2)}\n")
    except FileExistsError:
        problem = f"exists, and is not overwritten: remove it, or write another name, such as {_free(file)}"
    except OSError as error:
        problem = f"cannot be written: {problem_of(error)}"
    else:
        tell(f"Wrote {file}.")
        return
    raise ConfigurationError(f"{file} {problem}.")

"""``s2s-fastapi plan``: what a realm lacks so that the apps can do what they declare."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from s2s_fastapi.cli.mistake import in_one_sentence, problem_of
from s2s_fastapi.cli.planned import PlanSource, show_plan
from s2s_fastapi.cli.printing import print_json, quiet
from s2s_fastapi.errors import ConfigurationError

__all__ = ["plan"]


@in_one_sentence
def plan(
    files: Annotated[
        list[Path], typer.Argument(metavar="ACCESS.json...", help="Access files of the apps: see `access`.")
    ],
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
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Compare a realm with what apps declare, and show each change that is needed and each token before and after. Changes nothing.

    Log-in: KEYCLOAK_ADMIN_CLIENT_ID with KEYCLOAK_ADMIN_CLIENT_SECRET_FILE or KEYCLOAK_ADMIN_CLIENT_KEY_FILE. Exit code 0: the realm is
    as declared; 1: there are steps or findings; 2: the plan cannot be made, or something forbidden is declared.
    """
    quiet()
    from s2s_fastapi.operations.admin import AdminApi, AdminTarget  # noqa: PLC0415 - slows --help down

    source = PlanSource.of(files, grant or (), secrets)
    with AdminApi(AdminTarget.of(url=url, realm=realm)) as api:
        made = source.planned(api)
    if out is not None:
        _save(out, {**made.as_json(), **source.as_json()})
    if as_json:
        print_json(made.as_json())
    else:
        show_plan(made)
    if made.forbidden:
        raise SystemExit(2)
    if made.open:
        raise SystemExit(1)


def _save(file: Path, content: dict[str, object]) -> None:
    """Write a new file that only its owner can read: whoever writes to a plan decides what `apply` does."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(f"{json.dumps(content, indent=2)}\n")
    except FileExistsError:
        problem = "exists, and a plan is never overwritten: remove it, or write another name after --out"
    except OSError as error:
        problem = f"cannot be written: {problem_of(error)}"
    else:
        return
    raise ConfigurationError(f"{file} {problem}.")

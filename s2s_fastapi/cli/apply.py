"""``s2s-fastapi apply``: a plan is shown, confirmed and carried out."""

import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from s2s_fastapi.cli.planned import PlanSource, show_plan, show_restarts
from s2s_fastapi.cli.printing import print_json, quiet, tell
from s2s_fastapi.errors import ConfigurationError

__all__ = ["apply"]


def apply(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="ACCESS.json", help="Access files of the apps: see `access`.")
    ] = None,
    *,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A plan that `plan --out` saved, instead of access files.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    url: Annotated[str, typer.Option(metavar="URL", help="Keycloak's address; KEYCLOAK_URL by default.")] = "",
    realm: Annotated[str, typer.Option(metavar="NAME", help="The realm; KEYCLOAK_REALM by default.")] = "",
    grant: Annotated[
        list[str] | None, typer.Option(metavar="CALLER:KIND=NAME", help="As for `plan`. Repeatable.")
    ] = None,
    secrets: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the secret of each new client is written.")
    ] = Path("keycloak-secrets"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan that was carried out as JSON.")] = False,
) -> None:
    """Carry out a plan: show it, ask, change exactly what it says, and read the realm again.

    A saved plan is carried out without a question, only where it was made, and only if the realm still looks as it did. It is made
    again from what was saved with it, and must be the same: give the same --secrets. Nothing is deleted. Exit code 0: done, or nothing to do; 1: done, with findings left; 2: nothing, or not all, was done.
    """
    quiet()
    if (plan is None) is (not files):
        raise ConfigurationError("Give access files, or a saved plan with --plan FILE, and not both.")
    if plan is not None and grant:
        raise ConfigurationError(
            "--grant belongs to the command that made the plan: leave it out, or make the plan again with it."
        )
    from s2s_fastapi.operations.admin import AdminApi, AdminTarget  # noqa: PLC0415 - slows --help down
    from s2s_fastapi.operations.apply import apply_plan  # noqa: PLC0415 - as above
    from s2s_fastapi.operations.plan import read_plan  # noqa: PLC0415 - as above

    if plan is not None:
        saved, made_from = read_plan(plan)
        source = PlanSource.saved(made_from, plan, secrets)
    else:
        saved, source = None, PlanSource.of(files or (), grant or (), secrets)
    target = AdminTarget.of(url=url, realm=realm)
    if target.unprotected:
        tell(target.unprotected)
    with AdminApi(target) as api:
        made = saved or source.planned(api)
        ask = saved is None and not yes
        # A question is only asked about what was shown. A saved plan that is out of date is not shown at all.
        shown = partial(show_plan, made, stderr=as_json) if ask or not as_json else str
        if saved is None or made.forbidden or not made.steps:
            shown()
            shown = str
        if made.forbidden:
            tell("Nothing was changed: the access files ask for what is forbidden.")
            raise SystemExit(2)
        if made.steps:
            if ask:
                _ask(len(made.steps))
            number = count(1)
            apply_plan(
                made,
                api,
                again=source.plan_for,
                begin=shown,
                done=lambda step: tell(f"Done {next(number)} of {len(made.steps)}: {step}"),
            )
    if as_json:
        print_json(made.as_json())
    elif made.steps:
        show_restarts(made)
    if any(finding.level == "open" for finding in made.findings):
        raise SystemExit(1)


def _ask(steps: int) -> None:
    """Ask whether to go on.

    Raises:
        ConfigurationError: Nobody is there to answer.
        SystemExit: The answer is no.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "Nobody can be asked here: write --yes, or carry out a saved plan with --plan FILE. Nothing was changed."
        )
    sys.stderr.write(f"\nCarry out {'this step' if steps == 1 else f'these {steps} steps'}? Type yes: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        sys.stderr.write("Nothing was changed.\n")
        raise SystemExit(2)

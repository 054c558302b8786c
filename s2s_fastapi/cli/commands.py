"""The command line as a whole: its commands, and what it says if the extra is missing."""

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import typer

__all__ = ["command_line", "main"]

_EXTRA: Final = 'The command line needs the extra "cli": pip install "s2s-fastapi[cli]"'


def main() -> None:
    """Run the command line."""
    try:
        app = command_line()
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(_EXTRA)
    app(prog_name="s2s-fastapi")


def command_line() -> "typer.Typer":
    """Return the command line with all commands."""
    # Imported here: without the extra, `main` must still run and say so.
    import rich  # noqa: F401, PLC0415
    import typer  # noqa: PLC0415

    from s2s_fastapi.cli.access import access  # noqa: PLC0415
    from s2s_fastapi.cli.apply import apply  # noqa: PLC0415
    from s2s_fastapi.cli.attack import attack  # noqa: PLC0415
    from s2s_fastapi.cli.dev import dev  # noqa: PLC0415
    from s2s_fastapi.cli.doctor import doctor  # noqa: PLC0415
    from s2s_fastapi.cli.explain import explain  # noqa: PLC0415
    from s2s_fastapi.cli.federate import federate  # noqa: PLC0415
    from s2s_fastapi.cli.graph import graph  # noqa: PLC0415
    from s2s_fastapi.cli.keygen import keygen  # noqa: PLC0415
    from s2s_fastapi.cli.plan import plan  # noqa: PLC0415
    from s2s_fastapi.cli.token import token  # noqa: PLC0415

    app = typer.Typer(
        help="Service-to-service authentication with Keycloak.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # its frames show local variables, and with them secrets
    )
    for command in (access, apply, attack, dev, doctor, explain, federate, graph, keygen, plan, token):
        app.command()(command)
    return app

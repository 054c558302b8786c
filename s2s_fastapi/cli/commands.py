"""The command line as a whole: its commands, and what it says if the extra is missing."""

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Final

if TYPE_CHECKING:
    import typer

__all__ = ["EXAMPLES", "command_line", "main"]

_EXTRA: Final = 'The command line needs the extra "cli": pip install "s2s-fastapi[cli]"'

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "access": (
        "s2s-fastapi access chat_app:app --out chat.json",
        "s2s-fastapi access check chat.json crm.json --realm-file corp.json",
    ),
    "apply": (
        "s2s-fastapi apply --plan plan.json",
        "s2s-fastapi apply chat.json crm.json --realm corp",
    ),
    "attack": (
        "s2s-fastapi attack crm_gateway:app --client-id crm-api-gateway",
        "s2s-fastapi attack crm_gateway:app --url http://127.0.0.1:8001",
    ),
    "dev": (
        "s2s-fastapi dev --example corp --env-dir .dev",
        "s2s-fastapi dev corp.json --env-file dev.env",
    ),
    "doctor": ("s2s-fastapi doctor --app crm_gateway:app",),
    "explain": (
        "s2s-fastapi explain --client chat --to crm --access crm.json",
        "s2s-fastapi explain --access crm.json < refusal.log",
    ),
    "federate": ("s2s-fastapi federate --client-id chat --subject $SUBJECT --issuer $ISSUER",),
    "graph": ("s2s-fastapi graph chat.json crm.json --realm-file corp.json --html graph.html",),
    "keygen": ("s2s-fastapi keygen --client-id chat-app-service --out chat.pem > client.json",),
    "plan": (
        "s2s-fastapi plan chat.json crm.json --realm corp --out plan.json",
        "s2s-fastapi plan chat.json crm.json --realm-file corp.json",
    ),
    "token": (
        "s2s-fastapi token --for crm-api-gateway",
        "s2s-fastapi token --for crm-api-gateway --header | curl -H @- $URL",
        "s2s-fastapi token --for crm --dpop GET $URL --header | curl -H @- $URL",
    ),
}
"""What the help of each command ends with. Each fits into a terminal of 80 columns: a command that is broken there cannot be copied."""


def main() -> None:
    """Run the command line."""
    try:
        app = command_line()
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.stderr.write(f"{_EXTRA}\n")
        raise SystemExit(2) from None
    from s2s_fastapi.cli.mistake import in_one_sentence  # noqa: PLC0415 - slows --help down

    in_one_sentence(app)(prog_name="s2s-fastapi")


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
    from s2s_fastapi.cli.mistake import in_one_sentence  # noqa: PLC0415
    from s2s_fastapi.cli.plan import plan  # noqa: PLC0415
    from s2s_fastapi.cli.token import token  # noqa: PLC0415

    app = typer.Typer(
        help="Service-to-service authentication with Keycloak.",
        epilog=_examples(("s2s-fastapi dev --example corp --env-dir .dev", "s2s-fastapi dev --help")),
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # its frames show local variables, and with them secrets
    )

    @app.callback()
    def options(
        *,
        version: Annotated[
            bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
        ] = False,
    ) -> None:
        """Take the options of the command line as a whole."""

    for command in (access, apply, attack, dev, doctor, explain, federate, graph, keygen, plan, token):
        app.command(help=_paragraphs(command), epilog=_examples(EXAMPLES[command.__name__]))(in_one_sentence(command))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from s2s_fastapi.version import __version__  # noqa: PLC0415

        sys.stdout.write(f"s2s-fastapi {__version__}\n")
        sys.stdout.flush()
        raise SystemExit(0)


def _paragraphs(command: Callable[..., None]) -> str:
    """Return what a command does, each paragraph in one line: typer keeps the line breaks of a docstring, and wraps once more."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _examples(lines: tuple[str, ...]) -> str:
    return "\n\n".join(("Examples:" if len(lines) > 1 else "Example:", *lines))

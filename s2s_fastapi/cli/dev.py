"""``s2s-fastapi dev``: the embedded issuer as a process."""

import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from s2s_fastapi.cli.env_file import add_values, read_values
from s2s_fastapi.cli.mistake import in_one_sentence, problem_of
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    from s2s_fastapi.testing.issuer import EmbeddedIssuer

__all__ = ["dev"]

_WARNING: Final = """\
EMBEDDED ISSUER, FOR DEVELOPMENT ONLY. This is not a Keycloak.
Its keys are new at each start. It has no sessions, and checks only the secrets below.
It answers on {url}, on this machine only. Stop it with Ctrl-C."""

_MOST_NOTICES: Final = 10


@in_one_sentence
def dev(
    realms: Annotated[
        list[Path],
        typer.Argument(metavar="REALM.json...", help="Realm files, as Keycloak imports them, or a directory of them."),
    ],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8180,
    auth_path: Annotated[str, typer.Option(metavar="PATH", help="Path of the server, such as /auth.")] = "",
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Values for ${NAME}. Generated values are added to it for the next start."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Do not start if Keycloak refuses a file or may answer in another way.")
    ] = False,
) -> None:
    """Run an embedded issuer for development: no Keycloak, fresh keys at each start, this machine only.

    Every ${NAME} in the realm files comes from the environment, or from --env-file, or is generated. The command prints the
    variables with which to start each service, and then a line for each token that is granted or refused. It also names what Keycloak would refuse in the files, or do in another way.
    """
    # Imported for this command only: it would slow down --help.
    from s2s_fastapi.testing.documents import read_documents  # noqa: PLC0415
    from s2s_fastapi.testing.issuer import EmbeddedIssuer  # noqa: PLC0415

    kept = read_values(env_file) if env_file else {}
    # A variable that is set and empty counts for ${NAME:default}, but does not displace a value that was kept.
    documents = read_documents(realms, {**os.environ, **_not_empty(kept), **_not_empty(os.environ)})
    issuer = EmbeddedIssuer(*documents.realms, values=documents.values, auth_path=auth_path)
    notices = [str(notice) for notice in (*documents.notices, *issuer.notices)]
    if strict and notices:
        raise ConfigurationError("\n".join(notices))
    generated = {name: documents.values[name] for name in sorted(documents.generated)}
    if env_file is not None and generated:
        add_values(env_file, generated)
    _log_to_stderr()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with issuer.serving(port):
            _print(issuer, notices, generated=tuple(generated), env_file=env_file)
            while not stopped.wait(0.5):  # with a timeout: on Windows a wait without one hears no Ctrl-C
                pass
    except OSError as error:
        raise ConfigurationError(f"The issuer cannot listen on 127.0.0.1:{port}: {problem_of(error)}.") from None
    sys.stderr.write("The embedded issuer has stopped.\n")


def _print(issuer: "EmbeddedIssuer", notices: list[str], *, generated: tuple[str, ...], env_file: Path | None) -> None:
    """Print the warning to stderr and the variables of each service to stdout, so that stdout is a shell script."""
    from rich.console import Console  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415

    from s2s_fastapi.keycloak.cures import shown  # noqa: PLC0415

    aside = Console(stderr=True, highlight=False, markup=False, emoji=False)
    aside.print(Panel(_WARNING.format(url=issuer.url + issuer.auth_path), border_style="bold red"))
    if generated:
        kept = f"kept in {env_file}" if env_file else "new at the next start, unless --env-file keeps them"
        aside.print(f"Generated, because they have no value: {', '.join(generated)} ({kept}).")
    for notice in notices[:_MOST_NOTICES]:
        aside.print(notice, soft_wrap=True)
    if len(notices) > _MOST_NOTICES:
        aside.print(f"There are {len(notices) - _MOST_NOTICES} more such notices. Start with --strict to see all.")
    # No markup: a secret with ":key:" in it is not an emoji, and a long one stays on one line.
    out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for realm in issuer.realms:
        for client_id in issuer.secrets(realm):
            out.print(f"# {shown(realm)}: {shown(client_id)}", style="bold")
            for name, value in issuer.environment(realm, client_id).items():
                out.print(f"export {name}={shlex.quote(value)}")
            out.print()
        for username, password in issuer.passwords(realm).items():
            out.print(
                f"# {shown(realm)}: the user {shown(username)} has the password {shown(password)}\n", style="bold"
            )
    out.file.flush()


def _log_to_stderr() -> None:
    from s2s_fastapi.testing.log import LOG  # noqa: PLC0415

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def _not_empty(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}

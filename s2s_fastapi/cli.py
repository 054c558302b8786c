"""The command ``s2s-fastapi``. The only place that prints and exits."""

import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

from s2s_fastapi.caller.client_key import ClientKey, KeyType, new_private_key, registration
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    import typer

    from s2s_fastapi.testing.issuer import EmbeddedIssuer

__all__ = ["main"]

_EXTRA: Final = 'The command line needs the extra "cli": pip install "s2s-fastapi[cli]"'
_REFUSED: Final = 2
"""The exit code for a mistake that the user of the command can correct."""
_WARNING: Final = """\
EMBEDDED ISSUER, FOR DEVELOPMENT ONLY. This is not a Keycloak.
Its keys are new at each start. It has no sessions, and checks only the secrets below.
It answers on {url}, on this machine only. Stop it with Ctrl-C."""


def main() -> None:
    """Run the command line."""
    try:
        app = _app()
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit(_EXTRA)
    app(prog_name="s2s-fastapi")


def _app() -> "typer.Typer":
    # Imported here: this module can be imported without the extra.
    import rich  # noqa: F401, PLC0415
    import typer  # noqa: PLC0415

    app = typer.Typer(
        help="Service-to-service authentication with Keycloak.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,  # its frames show local variables, and with them secrets
    )

    @app.command()
    def dev(
        realms: Annotated[
            list[Path], typer.Argument(metavar="REALM.json...", help="Realm files, as Keycloak imports them.")
        ],
        port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8180,
        auth_path: Annotated[str, typer.Option(metavar="PATH", help="Path of the server, such as /auth.")] = "",
        env_file: Annotated[
            Path | None,
            typer.Option(
                metavar="FILE", help="Values for ${NAME}. Generated values are added to it for the next start."
            ),
        ] = None,
    ) -> None:
        """Run an embedded issuer for development: no Keycloak, fresh keys at each start, this machine only.

        Every ${NAME} in the realm files comes from the environment, or from --env-file, or is generated. The command prints the
        variables with which to start each service.
        """
        try:
            _dev(realms, port=port, auth_path=auth_path, env_file=env_file)
        except ConfigurationError as error:
            _refuse(str(error))

    @app.command()
    def keygen(
        client_id: Annotated[
            str, typer.Option(metavar="ID", help="The client in Keycloak that will sign with the key.")
        ],
        out: Annotated[
            Path | None,
            typer.Option(metavar="FILE", help="File for a new private key. An existing file is never overwritten."),
        ] = None,
        kty: Annotated[
            KeyType, typer.Option(help="The kind of the new key: EC is P-256, RSA has 3072 bits, OKP is Ed25519.")
        ] = KeyType.EC,
        key: Annotated[
            list[Path] | None,
            typer.Option(
                metavar="FILE", help="An existing private key (PEM or JWK) that Keycloak shall accept as well."
            ),
        ] = None,
    ) -> None:
        """Make a key for private_key_jwt, and print the client for Keycloak to import, as JSON with public keys only.

        With --key instead of --out no key is made, and the client is printed for the existing keys.
        """
        try:
            _keygen(client_id, out=out, kty=kty, keys=key or [])
        except ConfigurationError as error:
            _refuse(str(error))

    return app


def _keygen(client_id: str, *, out: Path | None, kty: KeyType, keys: list[Path]) -> None:
    if not client_id.strip():
        raise ConfigurationError("--client-id is empty: write the client's id in Keycloak.")
    if out is None and not keys:
        raise ConfigurationError("Write --out FILE for a new key, or --key FILE for an existing key.")
    read = [ClientKey.read(file) for file in keys]  # first: after a mistyped name no new key is made
    if out is not None:
        _write_new(out, new_private_key(kty))
        read.insert(0, ClientKey.read(out))
    sys.stdout.write(f"{json.dumps(registration(client_id, read), indent=2)}\n")
    sys.stdout.flush()
    file = shlex.quote(str((out or keys[0]).absolute()))
    sys.stderr.write(
        "Import this as a client of the realm, or replace the existing client with it. It holds public keys only."
        " Start the service with\n"
        f"export KEYCLOAK_CLIENT_ID={shlex.quote(client_id)}\n"
        "export KEYCLOAK_CLIENT_AUTH=private_key_jwt\n"
        f"export KEYCLOAK_CLIENT_KEY_FILE={file}\n"
    )


def _write_new(file: Path, content: bytes) -> None:
    """Write a new file that only its owner can read, from the first byte on."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    except FileExistsError:
        problem = "exists, and a key is never overwritten: write another name, or print the client for the existing key with --key"
    except OSError as error:
        problem = f"cannot be written: {_reason(error)}"
    else:
        return
    raise ConfigurationError(f"{file} {problem}.")


def _dev(paths: list[Path], *, port: int, auth_path: str, env_file: Path | None) -> None:
    # Imported for this command only: it would slow down --help.
    from s2s_fastapi.testing.documents import read_documents  # noqa: PLC0415
    from s2s_fastapi.testing.issuer import EmbeddedIssuer  # noqa: PLC0415

    documents = read_documents(paths, {**_values_in(env_file), **_set(os.environ)})
    issuer = EmbeddedIssuer(*documents.realms, values=documents.values, auth_path=auth_path)
    generated = {name: documents.values[name] for name in sorted(documents.generated)}
    if env_file is not None and generated:
        _add_to(env_file, generated)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with issuer.serving(port):
            _print(issuer, generated=tuple(generated), env_file=env_file)
            while not stopped.wait(0.5):  # with a timeout: on Windows a wait without one hears no Ctrl-C
                pass
    except OSError as error:
        raise ConfigurationError(f"The issuer cannot listen on 127.0.0.1:{port}: {_reason(error)}.") from None
    sys.stderr.write("The embedded issuer has stopped.\n")


def _print(issuer: "EmbeddedIssuer", *, generated: tuple[str, ...], env_file: Path | None) -> None:
    """Print the warning to stderr and the variables of each service to stdout, so that stdout is a shell script."""
    from rich.console import Console  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415

    from s2s_fastapi.keycloak.cures import shown  # noqa: PLC0415

    aside = Console(stderr=True, highlight=False, markup=False, emoji=False)
    aside.print(Panel(_WARNING.format(url=issuer.url + issuer.auth_path), border_style="bold red"))
    if generated:
        kept = f"kept in {env_file}" if env_file else "new at the next start, unless --env-file keeps them"
        aside.print(f"Generated, because they have no value: {', '.join(generated)} ({kept}).")
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


def _set(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _values_in(env_file: Path | None) -> dict[str, str]:
    if env_file is None or not env_file.exists():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415

    try:
        # Not by its path: python-dotenv treats a file that it cannot open as empty.
        text = env_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = _reason(error)
    else:
        return _set(dotenv_values(stream=StringIO(text), interpolate=False))
    raise ConfigurationError(f"{env_file} cannot be read: {problem}.")


def _add_to(env_file: Path, values: Mapping[str, str]) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    try:
        # For its owner only, also if the file exists: it holds secrets. And not through a link to somewhere else.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(env_file, flags, 0o600), "r+b") as file:
            # By its descriptor: by now the name may belong to another file.
            os.chmod(file.fileno() if os.chmod in os.supports_fd else env_file, 0o600)  # noqa: PTH101
            before = file.read()
            file.write(b"\n" * (bool(before) and not before.endswith(b"\n")) + lines.encode())
    except OSError as error:
        problem = _reason(error)
    else:
        return
    raise ConfigurationError(f"{env_file} cannot be written: {problem}.")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or "it is not UTF-8 text").lower()


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"{sentence}\n")
    raise SystemExit(_REFUSED)


if __name__ == "__main__":
    main()

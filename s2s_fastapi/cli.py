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
"""The exit code for what the person at the keyboard has to change."""
_WARNING: Final = """\
EMBEDDED ISSUER, FOR DEVELOPMENT ONLY. This is no Keycloak.
It signs with keys that are new at each start, knows no sessions and checks no login but the secrets below.
It answers on {url} and on this machine alone. Stop it with Ctrl-C."""


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
    # Here and not above: this module can be imported where the extra is missing.
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
            typer.Option(metavar="FILE", help="Values for ${NAME}; what is generated is added, for the next start."),
        ] = None,
    ) -> None:
        """Run an embedded issuer for development: no Keycloak, fresh keys at each start, this machine only.

        Every ${NAME} in the realm files is taken from the environment, else from --env-file, else generated. The variables to start
        each service with are printed.
        """
        try:
            _dev(realms, port=port, auth_path=auth_path, env_file=env_file)
        except ConfigurationError as error:
            _refuse(str(error))

    @app.command()
    def keygen(
        client_id: Annotated[str, typer.Option(metavar="ID", help="The client of the realm that signs.")],
        out: Annotated[
            Path | None, typer.Option(metavar="FILE", help="Where a new private key is written; never over a file.")
        ] = None,
        kty: Annotated[
            KeyType, typer.Option(help="The kind of the new key: EC is P-256, RSA has 3072 bits, OKP is Ed25519.")
        ] = KeyType.EC,
        key: Annotated[
            list[Path] | None,
            typer.Option(metavar="FILE", help="A private key that exists, PEM or JWK: Keycloak shall take it as well."),
        ] = None,
    ) -> None:
        """Make a key for private_key_jwt, and print the client as Keycloak takes it: public keys only, as JSON.

        With --key instead of --out nothing is made, and what is printed is for the keys there are.
        """
        try:
            _keygen(client_id, out=out, kty=kty, keys=key or [])
        except ConfigurationError as error:
            _refuse(str(error))

    return app


def _keygen(client_id: str, *, out: Path | None, kty: KeyType, keys: list[Path]) -> None:
    if not client_id.strip():
        raise ConfigurationError("--client-id is empty: give the id of the client in Keycloak.")
    if out is None and not keys:
        raise ConfigurationError("Give --out for a new key, or --key for one that exists.")
    read = [ClientKey.read(file) for file in keys]  # first: whoever mistyped a name gets no new key
    if out is not None:
        _write_new(out, new_private_key(kty))
        read.insert(0, ClientKey.read(out))
    sys.stdout.write(f"{json.dumps(registration(client_id, read), indent=2)}\n")
    sys.stdout.flush()
    file = shlex.quote(str((out or keys[0]).absolute()))
    sys.stderr.write(
        "Import this as a client of the realm, or put it over the one there is; it holds public keys only."
        " Start the service with\n"
        f"export KEYCLOAK_CLIENT_ID={shlex.quote(client_id)}\n"
        "export KEYCLOAK_CLIENT_AUTH=private_key_jwt\n"
        f"export KEYCLOAK_CLIENT_KEY_FILE={file}\n"
    )


def _write_new(file: Path, content: bytes) -> None:
    """Write a file that was not there, for its owner only from its first byte on."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
    except FileExistsError:
        problem = "is there already, and a key is never overwritten: give another name, or print the client for this one with --key"
    except OSError as error:
        problem = f"cannot be written: {_reason(error)}"
    else:
        return
    raise ConfigurationError(f"{file} {problem}.")


def _dev(paths: list[Path], *, port: int, auth_path: str, env_file: Path | None) -> None:
    # With the command only: what they import takes longer than a help text should.
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
            _tell(issuer, generated=tuple(generated), env_file=env_file)
            while not stopped.wait(0.5):  # with a timeout: on Windows a wait without one hears no Ctrl-C
                pass
    except OSError as error:
        raise ConfigurationError(f"The issuer cannot listen on 127.0.0.1:{port}: {_reason(error)}.") from None
    sys.stderr.write("The embedded issuer has stopped.\n")


def _tell(issuer: "EmbeddedIssuer", *, generated: tuple[str, ...], env_file: Path | None) -> None:
    """Print what this is, and what to start each service with: the warning on stderr, so that stdout is a shell script."""
    from rich.console import Console  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415

    from s2s_fastapi.keycloak.cures import shown  # noqa: PLC0415

    aside = Console(stderr=True, highlight=False, markup=False, emoji=False)
    aside.print(Panel(_WARNING.format(url=issuer.url + issuer.auth_path), border_style="bold red"))
    if generated:
        kept = f"kept in {env_file}" if env_file else "other ones at the next start, unless --env-file keeps them"
        aside.print(f"Generated, because nothing gives them a value: {', '.join(generated)} ({kept}).")
    # As it is: a secret with ":key:" in it is no picture, and a long one is one line.
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
        # Not by its path: python-dotenv takes what it cannot open for empty.
        text = env_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = _reason(error)
    else:
        return _set(dotenv_values(stream=StringIO(text), interpolate=False))
    raise ConfigurationError(f"{env_file} cannot be read: {problem}.")


def _add_to(env_file: Path, values: Mapping[str, str]) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    try:
        # For its owner only, also where it was there already: it holds secrets. And not through a link to somewhere else.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(env_file, flags, 0o600), "r+b") as file:
            # By its descriptor: the name may be another file's by now.
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

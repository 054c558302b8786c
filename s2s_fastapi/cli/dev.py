"""``s2s-fastapi dev``: the embedded issuer as a process."""

import logging
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final, Self

import typer

from s2s_fastapi.cli.env_file import add_values, make_folder, read_values, write_new
from s2s_fastapi.cli.examples import Example, realm_of
from s2s_fastapi.cli.mistake import listen, problem_of
from s2s_fastapi.cli.printing import tell
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    from s2s_fastapi.testing.documents import Documents
    from s2s_fastapi.testing.issuer import EmbeddedIssuer

__all__ = ["Services", "dev"]

_WARNING: Final = """\
EMBEDDED ISSUER, FOR DEVELOPMENT ONLY. This is not a Keycloak.
Its keys are new at each start. It has no login page.
It answers on {url}, on this machine only.
Stop it with Ctrl-C."""

_MOST_NOTICES: Final = 10
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][\w.@-]*", re.ASCII)
_RENEWAL: Final = 60.0
"""Seconds between two tokens of an identity provider for one service."""
_ASSERTION_FILE: Final = "KEYCLOAK_CLIENT_ASSERTION_FILE"
_CERTIFICATE_FILE: Final = "KEYCLOAK_CLIENT_CERT_FILE"
_SECRET: Final = "KEYCLOAK_CLIENT_SECRET"
_ONLY_RECEIVES: Final = "No secret: every flow of this client is off, so it only receives calls."
_WITHOUT_FILES: Final = "Start without --env-dir to see its settings."
_NO_TLS: Final = (
    "it needs a client certificate, and this command speaks http. In a test, issuer.serving(tls=...) speaks https."
)


def dev(
    realms: Annotated[
        list[Path] | None,
        typer.Argument(metavar="REALM.json", help="Realm files, as Keycloak imports them, or a directory of them."),
    ] = None,
    *,
    example: Annotated[
        Example | None,
        typer.Option(help="Take a realm file that comes with the package; corp is the realm of the first steps."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 8180,
    auth_path: Annotated[str, typer.Option(metavar="PATH", help="Path of the server, such as /auth.")] = "",
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Values for ${NAME}. Generated values are added to it for the next start."),
    ] = None,
    env_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write CLIENT.env for each service instead of printing it: for `uvicorn --env-file`. A folder that is not there is made.",
        ),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Do not start if Keycloak refuses a file, ignores a part of it, or may answer in another way.",
        ),
    ] = False,
) -> None:
    """Run an embedded issuer for development: no Keycloak, fresh keys at each start, this machine only.

    Every ${NAME} in the realm files comes from the environment, or from --env-file, or is generated. The command prints the
    variables with which to start each service (with --env-dir it writes them), names what Keycloak would refuse or ignore in the files or do
    in another way, and then logs each token. If a realm file changes, the command reads all files again and keeps the keys.
    """
    named = (*(realms or ()), *((realm_of(example),) if example else ()))
    if not named:
        raise ConfigurationError("Name a realm file, or take the one that comes with the package: --example corp")
    files = _Files(named, env_file)
    seen = files.state()  # before they are read: a change while the issuer starts is then seen
    documents = files.read()
    # Imported for this command only: it would slow down --help.
    from s2s_fastapi.testing.issuer import EmbeddedIssuer  # noqa: PLC0415

    issuer = EmbeddedIssuer(*documents.realms, values=documents.values, auth_path=auth_path)
    notices = _notices(documents, issuer)
    if strict and notices:
        raise ConfigurationError("\n".join(notices))
    files.keep_generated(documents)
    _log_to_stderr()
    services = Services(issuer, env_dir)
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as running:
        listen(running, issuer.serving(port), port, option="--port")
        running.enter_context(services)
        _print(issuer, notices, generated=tuple(sorted(documents.generated)), env_file=env_file)
        services.show()
        while not stopped.wait(0.5):  # with a timeout: on Windows a wait without one hears no Ctrl-C
            if (state := files.state()) != seen:
                seen = state
                _reload(files, issuer, services)
            services.renew()
    sys.stderr.write("The embedded issuer has stopped.\n")


@dataclass(slots=True)
class _Files:
    """The files of the command: realms, and the values of their placeholders."""

    realms: tuple[Path, ...]
    env_file: Path | None
    generated: dict[str, str] = field(default_factory=dict, repr=False)
    """The values that were generated so far."""

    def read(self) -> "Documents":
        """Read the realms, with the values that were generated before."""
        from s2s_fastapi.testing.documents import read_documents  # noqa: PLC0415

        kept = read_values(self.env_file) if self.env_file else {}
        # A variable that is set and empty counts for ${NAME:default}, but does not displace a value that was kept.
        environment = {**os.environ, **self.generated, **_not_empty(kept), **_not_empty(os.environ)}
        return read_documents(self.realms, environment)

    def keep_generated(self, documents: "Documents") -> None:
        """Keep the values that were generated for the next read, and in the env file for the next start."""
        new = {name: documents.values[name] for name in sorted(documents.generated)}
        self.generated.update(new)
        if self.env_file is not None and new:
            add_values(self.env_file, new)

    def state(self) -> tuple[object, ...]:
        """Return what changes if somebody writes one of the realm files."""
        files = [file for path in self.realms for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
        return tuple((file, _written(file)) for file in files)


def _written(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:  # while an editor replaces it
        return 0


def _reload(files: _Files, issuer: "EmbeddedIssuer", services: "Services") -> None:
    """Take the realms from their files again. Whatever is wrong with a file, the issuer keeps running: services need it."""
    try:
        documents = files.read()
        issuer.reload(*documents.realms, values=documents.values)
    except ConfigurationError as error:
        _tell_lines(str(error), "The realms stay as they were.")
        return
    _tell_lines("The realm files were read again.", *_notices(documents, issuer)[:_MOST_NOTICES])
    for problem in (_problem_with(lambda: files.keep_generated(documents)), _problem_with(services.show)):
        _tell_lines(*problem)


def _problem_with(write: Callable[[], object]) -> tuple[str, ...]:
    try:
        write()
    except ConfigurationError as error:
        return (str(error),)
    return ()


def _tell_lines(*texts: str) -> None:
    for text in texts:
        for line in text.splitlines():
            tell(line)


def _notices(documents: "Documents", issuer: "EmbeddedIssuer") -> list[str]:
    return [str(notice) for notice in (*documents.notices, *issuer.notices)]


def _print(issuer: "EmbeddedIssuer", notices: list[str], *, generated: tuple[str, ...], env_file: Path | None) -> None:
    """Print to stderr what the issuer is, and what its operator should know of the realm files."""
    from rich.console import Console  # noqa: PLC0415
    from rich.panel import Panel  # noqa: PLC0415

    aside = Console(stderr=True, highlight=False, markup=False, emoji=False)
    aside.print(Panel(_WARNING.format(url=issuer.url + issuer.auth_path), border_style="bold red"))
    if generated:
        kept = f"kept in {env_file}" if env_file else "new at the next start, unless --env-file keeps them"
        aside.print(
            f"Generated, because they have no value: {', '.join(generated)} ({kept}).", soft_wrap=not aside.is_terminal
        )
    for notice in notices[:_MOST_NOTICES]:
        aside.print(notice, soft_wrap=True)
    if len(notices) > _MOST_NOTICES:
        aside.print(f"There are {len(notices) - _MOST_NOTICES} more such notices. Start with --strict to see all.")


class _Assertions:
    """The tokens of identity providers by which the services prove themselves here, in files that their owner alone can read."""

    def __init__(self, issuer: "EmbeddedIssuer") -> None:
        self._issuer = issuer
        self._files: dict[tuple[str, str], Path] = {}
        self._due = 0.0

    def __enter__(self) -> None:
        try:
            self._folder = TemporaryDirectory(prefix="s2s-fastapi-dev-")
        except OSError as error:
            raise ConfigurationError(f"No temporary folder can be made: {problem_of(error)}.") from None

    def __exit__(self, *exc: object) -> None:
        self._folder.cleanup()

    def file(self, realm: str, client_id: str) -> Path | None:
        """Return the file with the token of a service, which is written now; None if the realm lacks its identity provider.

        Raises:
            ConfigurationError: The file cannot be written.
        """
        file = Path(self._folder.name) / f"{len(self._files) + 1}.jwt"
        file = self._files.setdefault((realm, client_id), file)
        return file if self._write(realm, client_id, file) else None

    def renew(self) -> None:
        """Write all files again if the last time is a minute ago: Keycloak takes no token of oidc that is older than 300 s."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _RENEWAL
            for (realm, client_id), file in self._files.items():
                _tell_lines(*_problem_with(partial(self._write, realm, client_id, file)))

    def _write(self, realm: str, client_id: str, file: Path) -> bool:
        try:
            token = self._issuer.assertion(client_id, realm=realm)
        except ConfigurationError:  # it is not there, or not any more since a file was read again
            return False
        new = file.with_suffix(".new")
        try:
            new.touch(0o600)
            new.write_text(token, encoding="ascii")
            new.replace(file)
        except OSError as error:
            raise ConfigurationError(
                f"The token of {client_id} in {file} is not renewed: {problem_of(error)}."
            ) from None
        return True


@dataclass(frozen=True, slots=True)
class _Service:
    """What is shown of a client that a service may be."""

    realm: str
    client_id: str
    variables: Mapping[str, str]
    """With what the service starts; empty if it cannot start here."""
    missing: str = ""
    """The variable that its operator sets, too."""
    comment: str = ""
    """What the operator should know of the variables."""


class Services:
    """What each service starts with: shown on stdout, as a shell script, or in a file for each.

    The tokens of identity providers are in files for as long as this is entered; call `renew` at least once a minute.
    """

    def __init__(self, issuer: "EmbeddedIssuer", folder: Path | None) -> None:
        self._issuer = issuer
        self._folder = folder
        self._assertions = _Assertions(issuer)
        self._shown: Collection[tuple[str, str]] | None = None
        self._files: list[Path] = []

    def __enter__(self) -> Self:
        self._assertions.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._assertions.__exit__(*exc)

    def renew(self) -> None:
        """Write the tokens again that will soon be too old."""
        self._assertions.renew()

    def show(self) -> None:
        """Print the services that were not there the last time, or write the files of all.

        Raises:
            ConfigurationError: A file cannot be written, or is not of this command. The others are written.
        """
        services = list(self._services())
        before = self._shown
        new = [each for each in services if (each.realm, each.client_id) not in (before or ())]
        self._shown = {(each.realm, each.client_id) for each in services}
        if self._folder is None:
            self._print(new, users=before is None)
        else:
            self._write(self._folder, services, new, again=before is not None)

    def _services(self) -> Iterator[_Service]:
        """Yield all services. This alone decides with what each of them starts."""
        from s2s_fastapi.testing.issuer import only_bound, only_receives  # noqa: PLC0415

        for realm in self._issuer.realms:
            without = self._issuer.without_secret(realm)
            # Keycloak keeps the secret of a client that no longer logs in by it.
            for client_id in dict.fromkeys((*without, *self._issuer.secrets(realm))):
                brings = without.get(client_id, "")
                if brings == _CERTIFICATE_FILE:
                    # The settings refuse a certificate beside http, so no variables would do.
                    yield _Service(realm, client_id, {})
                    continue
                variables = self._issuer.environment(realm, client_id)
                if _SECRET in variables and only_receives(self._issuer, realm, client_id):
                    # With a secret, `doctor` would ask for a token that Keycloak does not give to a receiver.
                    del variables[_SECRET]
                    yield _Service(realm, client_id, variables, comment=_ONLY_RECEIVES)
                    continue
                if only_bound(self._issuer, realm, client_id):
                    variables["KEYCLOAK_DPOP"] = "true"
                if brings == _ASSERTION_FILE and (file := self._assertions.file(realm, client_id)):
                    yield _Service(realm, client_id, {**variables, _ASSERTION_FILE: str(file)})
                else:
                    yield _Service(realm, client_id, variables, brings)

    def _print(self, services: list[_Service], *, users: bool) -> None:
        from rich.console import Console  # noqa: PLC0415

        from s2s_fastapi.keycloak.cures import shown  # noqa: PLC0415

        # No markup: a secret with ":key:" in it is not an emoji, and a long one stays on one line.
        out = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        for realm in self._issuer.realms:
            for each in services:
                if each.realm != realm:
                    continue
                if not each.variables:
                    out.print(f"# {shown(realm)}, {shown(each.client_id)}: {_NO_TLS}\n", style="bold")
                    continue
                out.print(f"# {shown(realm)}: {shown(each.client_id)}", style="bold")
                for name, value in each.variables.items():
                    aside = f"  # and set {each.missing}" if each.missing and name == "KEYCLOAK_CLIENT_AUTH" else ""
                    out.print(f"export {name}={shlex.quote(value)}{aside}")
                if each.comment:
                    out.print(f"# {each.comment}")
                out.print()
            for username, password in self._issuer.passwords(realm).items() if users else ():
                out.print(
                    f"# {shown(realm)}: the user {shown(username)} has the password {shown(password)}\n", style="bold"
                )
        out.file.flush()

    def _write(self, folder: Path, services: list[_Service], new: list[_Service], *, again: bool) -> None:
        make_folder(folder)
        before, self._files = self._files, []
        problems: list[str] = []
        added: list[str] = []
        for each in services:
            name = each.client_id if len(self._issuer.realms) == 1 else f"{each.realm}.{each.client_id}"
            # By lower case: on some systems "A.env" is "a.env", and the second would replace the first.
            same = next((file for file in self._files if file.stem.lower() == name.lower()), None)
            if not each.variables:
                problem = _NO_TLS
            elif not _FILE_NAME.fullmatch(name):
                problem = f"its name cannot be the name of a file. {_WITHOUT_FILES}"
            elif same is not None:
                problem = (
                    f"on some systems, {name}.env and {same.name} of another client are one file. {_WITHOUT_FILES}"
                )
            else:
                problem = ""
            if problem:
                if each in new:
                    tell(f"The client {each.client_id} of {each.realm} gets no file: {problem}")
                continue
            file = folder / f"{name}.env"
            self._files.append(file)
            if unwritten := _problem_with(partial(write_new, file, each.variables, comment=each.comment)):
                problems += unwritten
            elif file not in before:
                added.append(f"{folder}/{file.name}")
            if each.missing and each in new:
                tell(f"{file} does not set {each.missing}: set it, too.")
        if again:
            _tell_lines(*(f"New: {file}" for file in added))
            _tell_lines(*(f"{file} is of no client any more: delete it." for file in before if file not in self._files))
        elif not problems:
            tell(f"The settings of each service, for `uvicorn --env-file FILE`: {', '.join(added)}")
            tell("For a command, in a terminal of its own: set -a; . FILE; set +a")
        if problems:
            raise ConfigurationError("\n".join(problems))


def _log_to_stderr() -> None:
    from s2s_fastapi.testing.log import LOG  # noqa: PLC0415

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def _not_empty(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}

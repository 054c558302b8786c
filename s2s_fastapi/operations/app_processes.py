"""Apps are imported by processes of their own, each with a file of its own for its result.

Importing runs the code of sixty teams and of what they depend on. The process that can change the realm never does it. An app can read
the environment of the process that started its own, so no administrator's credentials may be there either. Apps that do not trust each
other are read in different jobs: an app can leave a process behind, and all processes of one user can change each other.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.applications import admin_variables
from s2s_fastapi.text import listed, named

__all__ = ["NO_SERVER", "AppTarget", "ReadApp", "read_apps"]

NO_SERVER: Final = "https://keycloak.invalid"
"""The address of Keycloak for an app that is read in an environment without one."""
_CHILD: Final = "s2s_fastapi.operations.declared_app"
_SECONDS: Final = 120.0
_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of an answer."""
_TARGET: Final = re.compile(r"(?P<app>[^=]+)(?:=(?P<client>.+))?")


@dataclass(frozen=True, slots=True)
class AppTarget:
    """An app as an operator names it: ``module:app``, ``module:factory()``, each with ``=client-id`` if the settings do not say it."""

    app: str
    client_id: str = ""

    @classmethod
    def of(cls, text: str) -> "AppTarget":
        """Read it.

        Raises:
            ConfigurationError: It is none.
        """
        parts = _TARGET.fullmatch(text)
        if parts is None or ":" not in parts["app"]:
            raise ConfigurationError(
                f"{named(text)} is no app: write module:app, module:factory(), or module:app=client-id."
            )
        return cls(parts["app"], parts["client"] or "")


@dataclass(frozen=True, slots=True)
class ReadApp:
    """What an app declares, or why it is not known."""

    target: AppTarget
    access: AppAccess | None
    problem: str = ""
    notes: tuple[str, ...] = ()
    """A sentence for each call that no access file has."""


def read_apps(
    targets: Iterable[AppTarget], environment: Mapping[str, str] = os.environ, *, seconds: float = _SECONDS
) -> tuple[ReadApp, ...]:
    """Return what the apps declare, in the order given. One that cannot be read is reported in a sentence; the others are still read.

    ``seconds`` is how long one import may take.

    Raises:
        ConfigurationError: Variables of an administrator are in the environment. Nothing was imported.
    """
    if admin := admin_variables(environment):
        raise ConfigurationError(
            f"Unset {listed(admin)}: the code of an app runs when it is imported, and can read the environment of this process. Run"
            " access as another job or user than plan and apply."
        )
    # One at a time: an app could write into the answer of another one that is imported beside it, as the same user.
    return tuple(_read(environment, seconds, target) for target in targets)


def _read(environment: Mapping[str, str], seconds: float, target: AppTarget) -> ReadApp:
    kept = dict(environment)
    if not any(kept.get(name) for name in ("KEYCLOAK_URL", "KEYCLOAK_ISSUER")):
        # Nothing is sent there. What an app declares does not depend on the server.
        kept |= {"KEYCLOAK_URL": NO_SERVER, "KEYCLOAK_REALM": "unknown"}
    if target.client_id:
        kept["KEYCLOAK_CLIENT_ID"] = target.client_id
    command = [sys.executable, "-m", _CHILD, target.app, target.client_id]
    with tempfile.TemporaryFile() as answer:
        ended = _run(command, kept, seconds, answer.fileno())
        size = os.fstat(answer.fileno()).st_size
        answer.seek(0)
        said = answer.read(_LIMIT) if size <= _LIMIT else b""
    if ended is None:
        return ReadApp(target, None, f"The app {named(target.app)} was not imported within {seconds:g} s.")
    process = f"The process that imported the app {named(target.app)} ended with {ended}"
    if size > _LIMIT:
        return ReadApp(target, None, f"{process} and said more than {_LIMIT} bytes.")
    if not said:
        return ReadApp(target, None, f"{process} and said nothing.")
    if ended != 0:  # somebody else may have written the answer, and stopped the process before its own
        return ReadApp(target, None, f"{process}, so what it said does not count.")
    # The app's own code ran there: what it answers is text from outside.
    try:
        result = json.loads(said)
        if problem := result["problem"]:
            return ReadApp(target, None, str(problem))
        notes = tuple(map(str, result.get("notes") or ()))
        (access,) = AccessFile.parse(result["access"].encode(), source=target.app).apps
    except (LookupError, TypeError, ValueError, AttributeError, ConfigurationError):
        return ReadApp(target, None, f"{process} and said something else than what the app declares.")
    if target.client_id not in ("", access.client_id):
        return ReadApp(target, None, f"{process} and said what another client declares: {named(access.client_id)}.")
    return ReadApp(target, access, notes=notes)


def _run(command: list[str], environment: Mapping[str, str], seconds: float, answer: int) -> int | None:
    """Run a process with the file ``answer`` as its stdout, and return how it ended; None if it took too long.

    The answer is a file: the end of a pipe comes only if nobody has it open any more, and the app may have started processes that go on.
    They are stopped with it, unless they left its group.
    """
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=answer,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if os.name == "nt":
            process.kill()
        else:
            with contextlib.suppress(
                ProcessLookupError, PermissionError
            ):  # PermissionError: macOS, if only zombies are left
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()

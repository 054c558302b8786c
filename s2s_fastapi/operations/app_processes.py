"""Apps are imported by processes of their own, which have no administrator's credentials in their environment.

Importing runs the code of sixty teams and of what they depend on. The process that can change the realm never does it.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import named

__all__ = ["AppTarget", "ReadApp", "read_apps"]

_CHILD: Final = "s2s_fastapi.operations.declared_app"
_WITHHELD: Final = ("KEYCLOAK_ADMIN", "KC_")
"""How the variables begin that an app never sees."""
_SECONDS: Final = 120.0
_AT_A_TIME: Final = 4
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


def read_apps(targets: Iterable[AppTarget], environment: Mapping[str, str] = os.environ) -> tuple[ReadApp, ...]:
    """Return what the apps declare, in the order given. One that cannot be read is reported in a sentence; the others are still read."""
    with tempfile.TemporaryDirectory(prefix="s2s-access-") as folder, ThreadPoolExecutor(_AT_A_TIME) as workers:
        numbered = [(target, Path(folder) / f"{number}.json") for number, target in enumerate(targets)]
        return tuple(workers.map(lambda each: partial(_read, environment)(*each), numbered))


def _read(environment: Mapping[str, str], target: AppTarget, file: Path) -> ReadApp:
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(_WITHHELD)}
    if not any(kept.get(name) for name in ("KEYCLOAK_URL", "KEYCLOAK_ISSUER")):
        # Nothing is sent there. What an app declares does not depend on the server.
        kept |= {"KEYCLOAK_URL": "https://keycloak.invalid", "KEYCLOAK_REALM": "unknown"}
    if target.client_id:
        kept["KEYCLOAK_CLIENT_ID"] = target.client_id
    command = [sys.executable, "-m", _CHILD, target.app, target.client_id, str(file)]
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter and module
            command,
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return ReadApp(target, None, f"The app {named(target.app)} was not imported within {_SECONDS:g} s.")
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ReadApp(
            target,
            None,
            f"The process that imported the app {named(target.app)} ended with {done.returncode} and said nothing.",
        )
    if result["problem"]:
        return ReadApp(target, None, str(result["problem"]))
    (access,) = AccessFile.parse(result["access"].encode(), source=target.app).apps
    return ReadApp(target, access)

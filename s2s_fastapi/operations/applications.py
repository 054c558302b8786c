"""The app of a service, imported to read what it declares."""

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.declared.openapi import Documentation
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, layers
from s2s_fastapi.errors import ConfigurationError, S2SError
from s2s_fastapi.fastapi_internals import added_middleware
from s2s_fastapi.text import listed, named, printable

__all__ = ["FunctionNamed", "admin_variables", "checked_name", "documentation_of", "imported", "without_middleware"]

_NAME: Final = re.compile(r"(?P<module>\w+(?:\.\w+)*):(?P<attribute>\w+(?:\.\w+)*)(?P<call>\(\))?")
_PACKAGE: Final = str(Path(__file__).resolve().parents[1]) + os.sep
_ADMIN: Final = ("KEYCLOAK_ADMIN", "KC_")
"""How the variables of administrators and of Keycloak itself begin."""


class FunctionNamed(ConfigurationError):
    """A function was named in the place of an app. Whether a server could start it is not known: it is not run."""


def admin_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that may hold credentials of an administrator. No code of an app runs if there is one."""
    return sorted(name for name in environment if name.upper().startswith(_ADMIN))


def checked_name(name: str, environment: Mapping[str, str] = os.environ) -> re.Match[str]:
    """Return the parts of ``module:app`` or ``module:factory()``; nothing is imported.

    Raises:
        ConfigurationError: It is neither, or credentials of an administrator are in the environment.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise ConfigurationError(f"{named(name)} is no app: write module:app, or module:factory() for a function.")
    if admin := admin_variables(environment):
        raise ConfigurationError(
            f"Unset {listed(admin, ' and ')}: the code of the app runs when it is imported, and could use an administrator's credentials."
        )
    return parts


def imported(name: str, environment: Mapping[str, str] = os.environ) -> Any:
    """Return the app that ``module:app`` or ``module:factory()`` names, from the working directory as servers do.

    The code of the app runs, so credentials of an administrator must not be in the environment.

    Raises:
        FunctionNamed: The name is that of a function.
        ConfigurationError: There is no such app, or it cannot be imported. The text has nothing of the app's own error but the type and
            the place.
    """
    parts = checked_name(name, environment)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(parts["module"])
        lacking = ""
        for attribute in parts["attribute"].split("."):
            lacking = lacking or ("" if hasattr(found, attribute) else attribute)
            found = found if lacking else getattr(found, attribute)
        found = found() if parts["call"] and not lacking else found
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the code of the app may raise anything
        problem = _place_of(error)
    else:
        if lacking:
            raise ConfigurationError(f"{named(parts['module'])} has no {named(lacking)}.")
        if mistake := _function(found, parts):
            raise FunctionNamed(mistake)
        if not callable(found):
            raise ConfigurationError(f"{named(name)} is no app: it is of the type {named(type(found).__name__)}.")
        return found
    # Outside of the except block: the app's error may show a secret.
    raise ConfigurationError(f"The app {named(name)} cannot be imported: {problem}.")


def _function(found: Any, parts: re.Match[str]) -> str:
    """Return why a function that was named is no app, or "". It may be one: ``async def app(scope, receive, send)``."""
    if not inspect.isroutine(found):
        return ""
    if _takes(found):
        return (
            f"{parts['attribute']} is a function. If it makes the app and does nothing else, write {parts['module']}:{parts['attribute']}():"
            " then it is run."
        )
    if not _takes(found, "scope", "receive", "send"):
        return (
            f"{parts['attribute']} is a function with arguments: write module:factory() for one without, or module:app."
        )
    return ""


def _takes(function: Any, *arguments: object) -> bool:
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return False
    return True


def documentation_of(app: Any) -> Documentation | None:
    """Return what the app's `ServiceAuthMiddleware` enforces, or None if it has none.

    Raises:
        ConfigurationError: The app would not start; the sentence says what to change.
    """
    for layer in layers(app):
        if getattr(type(layer), OWN_AUTHENTICATION, False):
            found: Documentation = layer.documentation()
            return found
        for entry in added_middleware(layer):
            if getattr(entry.cls, OWN_AUTHENTICATION, False):
                made: Documentation = entry.cls(layer, *entry.args, **entry.kwargs).documentation()
                return made
    return None


def without_middleware(routes: Iterable[str]) -> str:
    """Return what happens in an app without a `ServiceAuthMiddleware`. ``routes`` are those that have a requirement."""
    if names := sorted(routes):
        return f"The app has no ServiceAuthMiddleware, so these routes, which require a caller, answer 500: {listed(names)}."
    return "The app has no ServiceAuthMiddleware: it accepts requests without a token."


def _place_of(error: BaseException) -> str:
    """Return the type of an error and the line of the app that raised it. Its text may hold a secret, unless it is this package's own."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"there is no module {named(error.name)}"
    _, *frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    theirs = list(takewhile(lambda frame: not frame.filename.startswith(_PACKAGE), frames))
    place = f" at {printable(theirs[-1].filename, 256)}:{theirs[-1].lineno}" if theirs else ""
    if isinstance(error, S2SError) and frames and frames[-1].filename.startswith(_PACKAGE):
        return f"{str(error).removesuffix('.')} ({type(error).__name__}{place})"
    return f"{type(error).__name__}{place}"

"""Realm files as ``--import-realm`` reads them: placeholders are filled, missing secrets are generated."""

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError

__all__ = ["Documents", "read_documents"]

# Upper case only: "${client_id}" in a role mapper and "${role_default-roles}" in an export are Keycloak's own.
_PLACEHOLDER: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]*)(?::([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Documents:
    """Realm representations, and the values of the placeholders in their files."""

    realms: tuple[dict[str, Any], ...] = field(repr=False)
    values: Mapping[str, str] = field(repr=False)
    """By the name of the placeholder."""
    generated: frozenset[str]
    """The placeholders that had no value, so that one was generated."""


def read_documents(paths: Iterable[str | Path], environment: Mapping[str, str]) -> Documents:
    """Read realm files, each one realm or a list of them, and fill ``${NAME}`` from `environment`.

    If a name is missing or empty there, it gets the default of ``${NAME:default}``, or else a new random value. The value is the same in all files.

    Raises:
        ConfigurationError: A file cannot be read, or is no realm; the sentence names it.
    """
    values: dict[str, str] = {}
    generated: set[str] = set()

    def filled(found: re.Match[str]) -> str:
        name, default = found[1], found[2]
        if name not in values:
            values[name] = environment.get(name) or default or secrets.token_urlsafe(24)
            if not environment.get(name) and not default:
                generated.add(name)
        return json.dumps(values[name])[1:-1]

    realms: list[dict[str, Any]] = []
    for path in map(Path, paths):
        read = _json(path, _PLACEHOLDER.sub(filled, _text(path)))
        for realm in read if isinstance(read, list) else [read]:
            if not isinstance(realm, dict) or not isinstance(realm.get("realm"), str) or not realm["realm"]:
                raise ConfigurationError(
                    f'{path} is no realm: Keycloak\'s realm files are objects with a "realm" name.'
                )
            realms.append(realm)
    return Documents(tuple(realms), values, frozenset(generated))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    except OSError as error:
        problem = (error.strerror or type(error).__name__).lower()
    raise ConfigurationError(f"{path} cannot be read: {problem}.")


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"{error.msg.lower()} at line {error.lineno}"
    except RecursionError:
        problem = "its nesting has no end"
    # Outside of the except block: the error carries the document, and with it the secrets.
    raise ConfigurationError(f"{path} is not JSON: {problem}.")

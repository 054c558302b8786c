"""Realm files as ``--import-realm`` reads them: placeholders are filled, and users come from files of their own."""

import glob
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.realm.notices import Notice

__all__ = ["Documents", "read_documents"]

_PLACEHOLDER: Final = re.compile(r"(?<!\$)\$\{([A-Za-z_]\w*(?:,[A-Za-z_]\w*)*)(?::([^}]*))?\}", re.ASCII)
# The only names for which a value is generated: "${client_id}" in a role mapper is Keycloak's own.
_GENERATED: Final = re.compile(r"[A-Z][A-Z0-9_]*")
# The files of an export with its users in files of their own.
_REALM_FILE: Final = re.compile(r"(.+)-realm\.json")
_USERS_FILE: Final = re.compile(r"(.+)-users-\d+\.json")
_OF_USERS: Final = {"realm", "users", "federatedUsers"}


@dataclass(frozen=True, slots=True)
class Documents:
    """Realm representations, and the values of the placeholders in their files."""

    realms: tuple[dict[str, Any], ...] = field(repr=False)
    values: Mapping[str, str] = field(repr=False)
    """By the name of the placeholder."""
    generated: frozenset[str]
    """The placeholders that had no value, so that one was generated."""
    notices: tuple[Notice, ...] = ()
    """The users files that are missing."""


def read_documents(paths: Iterable[str | Path], environment: Mapping[str, str]) -> Documents:
    """Read realm files, and fill ``${NAME}`` from `environment` as Keycloak's ``--import-realm`` does.

    - A file has one realm, a list of realms, or the users of a realm whose file is also named. A directory stands for its JSON files.
    - A name that is not set gets the default of ``${NAME:default}``. Without a default, an upper-case name gets a new random value
      (Keycloak leaves it as it is), the same in all files. An empty value counts as set only if there is a default.

    Raises:
        ConfigurationError: A file cannot be read, or is no realm; the sentence names it.
    """
    values: dict[str, str] = {}
    generated: dict[str, str] = {}

    def filled(found: re.Match[str]) -> str:
        names, default = found[1].split(","), found[2]
        name = next((one for one in names if _is_set(one, environment, default)), names[0])
        if _is_set(name, environment, default):
            value = environment[name]
        elif default is not None:
            value = default
        elif _GENERATED.fullmatch(name):
            value = generated.setdefault(name, secrets.token_urlsafe(24))
        else:
            return found[0]
        values[name] = generated.get(name, value)
        return json.dumps(value)[1:-1]

    read: list[tuple[Path, dict[str, Any]]] = []
    for path in _files(paths):
        content = _json(path, _PLACEHOLDER.sub(filled, _text(path)))
        for realm in content if isinstance(content, list) else [content]:
            if not isinstance(realm, dict) or not isinstance(realm.get("realm"), str) or not realm["realm"]:
                raise ConfigurationError(
                    f'{path} is no realm: Keycloak\'s realm files are objects with a "realm" name.'
                )
            read.append((path, realm))
    return Documents(tuple(_with_users(read)), values, frozenset(generated), tuple(_missing_users(read)))


def _is_set(name: str, environment: Mapping[str, str], default: str | None) -> bool:
    return bool(environment.get(name)) or (default is not None and name in environment)


def _files(paths: Iterable[str | Path]) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.glob("*.json"))
            if not inside:
                raise ConfigurationError(f"{path} is a directory without a JSON file.")
            yield from inside
        elif path.suffix in {".yaml", ".yml"}:
            raise ConfigurationError(
                f"{path} is YAML, and Keycloak imports JSON only. Convert it, and write ${{NAME}} for each $(env:NAME)."
            )
        else:
            yield path


def _with_users(read: Iterable[tuple[Path, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield the realms, each with its users from files of their own."""
    documents = list(read)
    whole = {realm["realm"] for _, realm in documents if not _only_users(realm)}
    users: dict[str, list[Any]] = {}
    for path, realm in documents:
        if _only_users(realm) and realm["realm"] in whole:
            users.setdefault(realm["realm"], []).extend(realm["users"])
        elif _only_users(realm) and _USERS_FILE.fullmatch(path.name):
            raise ConfigurationError(f"{path} has only users of the realm {realm['realm']}. Name the realm's file too.")
    places: dict[str, Path] = {}
    for path, realm in documents:
        name = realm["realm"]
        if not _only_users(realm) or name not in whole:
            if name in places:
                raise ConfigurationError(f"The realm {name} is in {places[name]} and in {path}. Leave one of them out.")
            places[name] = path
            yield {**realm, "users": [*(realm.get("users") or ()), *users[name]]} if name in users else realm


def _only_users(realm: Mapping[str, Any]) -> bool:
    return isinstance(realm.get("users"), list) and realm.keys() <= _OF_USERS


def _missing_users(read: Iterable[tuple[Path, dict[str, Any]]]) -> Iterator[Notice]:
    """Yield a notice for each realm whose users are in files of their own that were not read."""
    documents = list(read)
    paths = {path for path, _ in documents}
    with_users = {realm["realm"] for _, realm in documents if realm.get("users")}
    for path, realm in documents:
        found = _REALM_FILE.fullmatch(path.name)
        if found is None:
            continue
        beside = [
            one.name for one in sorted(path.parent.glob(f"{glob.escape(found[1])}-users-*.json")) if one not in paths
        ]
        if beside or (realm.get("keycloakVersion") and realm["realm"] not in with_users):
            files = ", ".join(beside[:3]) or f"files such as {found[1]}-users-0.json"
            said = f"the export has its users in {files}, which were not read. Without them service accounts have other roles"
            yield Notice(realm["realm"], said, refused=False)


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

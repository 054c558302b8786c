"""What is given to `s2s-fastapi explain`: apps that declare who may call, and a realm file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.declared.access_file import AccessFile, AppAccess
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.applications import documentation_of, imported
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.requirement.requirement import Audience, Caller
from s2s_fastapi.text import listed, named, printable

__all__ = ["any_service_for", "audiences_of", "declared_by", "one_for_each_client", "read_realm_file", "receiving"]

_LARGEST: Final = 64 * 1024 * 1024


def declared_by(access_files: Iterable[Path], app: str = "") -> tuple[AppAccess, ...]:
    """Return what the access files and the app declare.

    Raises:
        ConfigurationError: A file is no access file, two of them are of one client, or the app cannot be imported or would not start.
    """
    apps = [each for file in access_files for each in AccessFile.read(file).apps]
    if app:
        documentation = documentation_of(imported(app))
        if documentation is None:
            raise ConfigurationError(
                f"The app {named(app)} has no ServiceAuthMiddleware, so it judges no token: app.add_middleware(ServiceAuthMiddleware)."
            )
        apps.append(AppAccess.of(documentation.check))
    return one_for_each_client(apps)


def one_for_each_client(apps: Iterable[AppAccess]) -> tuple[AppAccess, ...]:
    """Return the apps, each once.

    Raises:
        ConfigurationError: Two that declare different things have one client id. One of them could open the other.
    """
    each = tuple(dict.fromkeys(apps))
    names = [app.client_id for app in each]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"Several apps have the client id {listed(twice)}: give each a client of its own.")
    return each


def receiving(apps: Iterable[AppAccess], to: str) -> tuple[AppAccess, ...]:
    """Return the apps that check tokens, or those of them that `to` means: by the client id, or by an audience that they accept."""
    checking = [app for app in apps if app.requires is not None]
    return tuple(app for app in checking if not to or to == app.client_id or to in audiences_of(app))


def audiences_of(app: AppAccess) -> frozenset[str]:
    """Return the audiences that an app accepts; empty if it accepts any."""
    return frozenset(name for leaf in leaves_of(app.requires) if isinstance(leaf, Audience) for name in leaf.audiences)


def any_service_for(audience: str) -> AppAccess:
    """Return what an app declares that accepts any service with a token for it: what every app requires at least."""
    return AppAccess(client_id=audience, requires=Caller("service") & Audience(frozenset({audience})))


def read_realm_file(path: Path, version: str) -> RealmModel:
    """Return the model of a realm file, as a Keycloak of this version has it after the import.

    Raises:
        ConfigurationError: It cannot be read, or is no realm file.
    """
    shown = printable(str(path), 256)
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
        problem = "" if len(raw) <= _LARGEST else f"it has more than {_LARGEST // 1024 // 1024} MB"
        document = {} if problem else json_object(raw)
    except OSError as error:
        problem = str(error.strerror or type(error).__name__).lower()
    except (ValueError, RecursionError):
        problem = "it is not one JSON object"
    else:
        if not problem:
            return RealmModel.read(document, version=version)
    # Outside of the except block: the error may carry the document, and with it secrets.
    raise ConfigurationError(f"The realm file {shown} cannot be read: {problem}.")

"""What one app declares, read in a process of its own: ``python -m s2s_fastapi.operations.declared_app`` imports it.

The parent is `s2s_fastapi.operations.app_processes`.
"""

import inspect
import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.lifespan import ServiceLifespan
from s2s_fastapi.caller.service_client import CALLERS, FOR_USERS
from s2s_fastapi.declared.access_file import AccessFile, AppAccess, calls_of_others, downstreams_of
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.routes import Access, read_access
from s2s_fastapi.declared.start_check import AccessCheck
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError, S2SError
from s2s_fastapi.operations.app_processes import NO_SERVER
from s2s_fastapi.operations.applications import checked_name, documentation_of, imported
from s2s_fastapi.text import named

__all__ = ["declared_by", "main"]


def declared_by(name: str, client_id: str) -> AppAccess:
    """Import an app and return what it declares. ``client_id`` is the client that the operator says it is; "" if its settings say it.

    Raises:
        ConfigurationError: It cannot be imported, would not start, or its client id is unknown.
    """
    return _read(name, client_id)[0]


def _read(name: str, client_id: str) -> tuple[AppAccess, tuple[str, ...]]:
    """Return what an app declares, and a sentence for each call that no access file has."""
    app = imported(name)
    documentation = documentation_of(app)
    if documentation is None:
        check = AccessCheck(
            access=read_access(app),
            public=PublicPaths(()),
            audiences=frozenset(),
            client_id=client_id or os.environ.get("KEYCLOAK_CLIENT_ID", ""),
            users=False,
            skip_audience=False,
        )
    else:
        check = documentation.check
    if not check.client_id:
        raise ConfigurationError(
            f"The app {named(name)} does not say which client it is: write {name}=CLIENT_ID, or set KEYCLOAK_CLIENT_ID."
        )
    if client_id and check.client_id != client_id:
        raise ConfigurationError(
            f"The settings in the code of {named(name)} say that it is the client {named(check.client_id)}, not {named(client_id)}."
        )
    check = replace(check, access=_with_named_callers(check.access, sys.modules.get(checked_name(name)["module"])))
    issuer = "" if documentation is not None else _issuer(check)
    return AppAccess.of(check, middleware=documentation is not None, issuer=issuer), calls_of_others(check, issuer)


def _issuer(check: AccessCheck) -> str:
    """Return the realm of an app that only calls others: that of the environment.

    If the environment names none and code gives each call its settings, the app's realm is that of its client there.
    """
    given = {each.settings for each in downstreams_of(check)}
    if given <= {None}:
        return ""
    if None in given or os.environ.get("KEYCLOAK_URL") != NO_SERVER:
        with suppress(ConfigurationError):  # it names no realm
            return settings_or_environment(None).issuer
    return min((each.issuer for each in given if each is not None and each.client_id == check.client_id), default="")


def _with_named_callers(access: Access, module: ModuleType | None) -> Access:
    """Return the access with the callers that are names of a module: a plain `ServiceTokenAuth` is no dependency of any route.

    A client whose ``on_behalf`` is named calls on behalf of users: by a route, in a lifespan, as a name of a module. It calls as the
    service only if a route or a lifespan names the client itself.
    """
    modules = [vars(module)] if module is not None else []
    modules += [endpoint.__globals__ for endpoint in _endpoints(access)]
    found = [value for names in modules for value in list(names.values()) if isinstance(value, CALLERS)]
    by_name = [
        client
        for caller in access.callers
        for client in (caller.clients if isinstance(caller, ServiceLifespan) else (caller,))
    ]
    users = {id(inner) for caller in (*by_name, *found) if isinstance(caller, FOR_USERS) for inner in _inside(caller)}
    asking = (
        value
        for value in found
        if (isinstance(value, FOR_USERS) or users.isdisjoint(map(id, (value, *_inside(value)))))
        and (not isinstance(value, ServiceTokenAuth) or value.downstream.audiences or value.downstream.scopes)
    )
    callers = {id(value): value for value in (*access.callers, *asking)}
    return replace(access, callers=tuple(callers.values()))


def _inside(caller: Any) -> Iterator[Any]:
    """Yield the objects that a caller is made of: the client, and its auth object."""
    for name in ("client", "auth"):
        if isinstance(inner := getattr(caller, name, None), CALLERS):
            yield inner
            yield from _inside(inner)


def _endpoints(access: Access) -> Iterator[FunctionType]:
    for route in access.routes:
        endpoint: Any = inspect.unwrap(getattr(route.entry, "endpoint", None) or _endpoints)
        if (
            isinstance(endpoint, FunctionType)
            and endpoint is not _endpoints
            and not endpoint.__module__.startswith(("s2s_fastapi.", "fastapi.", "starlette."))
        ):
            yield endpoint


def main() -> None:
    """Write what the app declares, or why it cannot be read, to stdout. What the app itself prints goes to stderr."""
    name, client_id = sys.argv[1:]
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    result: dict[str, Any] = {"access": "", "notes": (), "problem": ""}
    try:
        declared, result["notes"] = _read(name, client_id)
        result["access"] = AccessFile((declared,)).text
    except S2SError as error:
        result["problem"] = str(error)
    with answer:
        json.dump(result, answer)


if __name__ == "__main__":
    main()

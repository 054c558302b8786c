"""The landscapes that the page of `graph` is looked at with: the example apps, and 300 made-up services."""

import functools
import os
import random
from copy import deepcopy
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from example_app.realm import filled, fresh_secrets
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.operations.declared_app import declared_by
from s2s_fastapi.operations.graph import as_html
from s2s_fastapi.operations.relations import Relation, Status, relations, unanswered
from s2s_fastapi.realm.model import RealmModel
from tests.operations.landscape import app, call, client, file, mapper, realm, route

__all__ = ["Landscape", "example", "generated", "planted_example", "status_of"]

_APPS: Final = {name: f"example_app.{name}:app" for name in ("alice", "bob", "charles")}
_KINDS: Final = ("api", "worker", "gateway", "service", "sync")
_WORDS: Final = (
    "billing",
    "orders",
    "geo",
    "catalog",
    "search",
    "payments",
    "stock",
    "mail",
    "audit",
    "pricing",
    "carts",
)


class Landscape(NamedTuple):
    """A page, and the two relations on it that need attention, if there are any."""

    html: str
    relations: tuple[Relation, ...]
    missing: tuple[str, str] = ("", "")
    extra: tuple[str, str] = ("", "")


def example() -> Landscape:
    """Return the third story: all fits."""
    return _example(filled("abc", fresh_secrets()))


def planted_example() -> Landscape:
    """Return the third story, without Alice's grant for Charles, and with a grant for Bob that nobody declares."""
    planted = deepcopy(filled("abc", fresh_secrets()))
    clients = {each["clientId"]: each for each in planted["clients"]}
    for kind in ("defaultClientScopes", "optionalClientScopes"):
        clients["alice"][kind] = [name for name in clients["alice"].get(kind, []) if name != "charles-audience"]
    clients["bob"].update(
        serviceAccountsEnabled=True, protocolMappers=[*clients["bob"].get("protocolMappers", []), mapper("charles")]
    )
    return _example(planted)._replace(missing=("alice", "charles"), extra=("bob", "charles"))


def generated(services: int = 300) -> Landscape:
    """Return many services, of which each calls a few: one grant is missing, and one is there that nobody declared."""
    chance = random.Random(3)
    names = [f"{chance.choice(_WORDS)}-{chance.choice(_KINDS)}-{number}" for number in range(services)]
    calls = {name: {other for other in chance.sample(names, 3) if other != name} for name in names}
    for name in names:
        calls[name] = set(sorted(calls[name])[: chance.randint(1, 3)])
    granted = {name: set(called) for name, called in calls.items()}
    missing = names[5], min(calls[names[5]])
    granted[missing[0]].discard(missing[1])
    extra = names[9], next(name for name in names if name not in {*calls[names[9]], names[9]})
    granted[extra[0]].add(extra[1])
    callers = {name: sorted(caller for caller in names if name in calls[caller]) for name in names}
    apps = [
        app(
            name,
            *([route("/things", {"caller": callers[name]})] if callers[name] else []),
            *([route("/open")] if name == extra[1] else []),
            calls=[call(other) for other in sorted(calls[name])],
        )
        for name in names
    ]
    model = realm(*(client(name, *sorted(granted[name])) for name in names))
    return _drawn([file(*apps)], model, "Who may call whom in a realm of 300 services")._replace(
        missing=missing, extra=extra
    )


def _example(representation: dict[str, Any]) -> Landscape:
    return _drawn([_declared()], RealmModel.read(representation), "Who may call whom in the realm abc")


@functools.cache
def _declared() -> AccessFile:
    apps = []
    for client_id, name in _APPS.items():
        # Nothing is sent there. What an app declares does not depend on the server.
        known = {"KEYCLOAK_URL": "https://keycloak.invalid", "KEYCLOAK_REALM": "abc", "KEYCLOAK_CLIENT_ID": client_id}
        with patch.dict(os.environ, known):
            apps.append(declared_by(name, client_id))
    return AccessFile(tuple(apps))


def _drawn(files: list[AccessFile], model: RealmModel, title: str) -> Landscape:
    found = relations(files, model)
    return Landscape(as_html(found, unanswered(files), title=title), found)


def status_of(landscape: Landscape, pair: tuple[str, str]) -> Status:
    """Return how a caller and a receiver stand to each other."""
    (found,) = (each.status for each in landscape.relations if (each.caller, each.receiver) == pair)
    return found

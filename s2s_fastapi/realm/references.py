"""Why Keycloak would not import a document: names that occur twice, and references to what does not exist.

Keycloak itself only answers 409 or 500. These sentences name what is wrong.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.roles import default_role, every_group, held, inside

__all__ = ["missing"]

_Representation = Mapping[str, Any]


def missing(document: _Representation, scopes: Iterable[str], groups: Iterable[str]) -> Iterator[str]:
    """Yield one sentence for each; ``scopes`` and ``groups`` are those the realm has, by name and by path."""
    listed = [client["clientId"] for client in document.get("clients") or []]
    users = document.get("users") or []
    of_accounts = [user["serviceAccountClientId"] for user in users if user.get("serviceAccountClientId")]
    yield from _twice("client", listed)
    yield from _twice("client scope", [scope["name"] for scope in document.get("clientScopes") or []])
    yield from _twice("user", [str(user["username"]).lower() for user in users])
    yield from _twice("service account of the client", of_accounts)
    clients = {*listed, *(str(client["clientId"]) for client in builtins.CLIENTS)}
    for name in (*_clients(document), *of_accounts):
        if name not in clients:
            yield f"there is no client {name!r}"
    mapped = [*(document.get("scopeMappings") or []), *_each((document.get("clientScopeMappings") or {}).values())]
    for name in (mapping["clientScope"] for mapping in mapped if mapping.get("clientScope")):
        if name not in scopes:
            yield f"there is no client scope {name!r}"
    wanted = [*_each(user.get("groups") or [] for user in users)]
    for path in wanted + (document.get("defaultGroups") or []) * bool(document.get("groups")):
        if f"/{path.strip('/')}" not in groups:
            yield f"there is no group {path!r}"
    yield from _in_lists(document)
    yield from _roles(document)


def _in_lists(document: _Representation) -> Iterator[str]:
    """Yield the client scopes that are more than once in the lists of the realm. In the lists of a client they may be."""
    there = {scope["name"] for scope in document.get("clientScopes") or []}
    lists = ("defaultDefaultClientScopes", "defaultOptionalClientScopes")
    listed = [name for key in lists for name in document.get(key) or [] if name in there]
    for name, times in Counter(listed).items():
        if times > 1:
            yield f"the client scope {name!r} is more than once in {' and '.join(lists)}"


def _clients(document: _Representation) -> Iterator[str]:
    """Yield every client id that something refers to."""
    roles = document.get("roles") or {}
    mappings = document.get("clientScopeMappings") or {}
    yield from roles.get("client") or {}
    yield from mappings
    entries = [*(document.get("scopeMappings") or []), *_each(mappings.values())]
    yield from (mapping["client"] for mapping in entries if mapping.get("client"))
    for holder in (*(document.get("users") or []), *every_group(document.get("groups") or [])):
        yield from (role.client for role in held(holder) if role.client)
    for role in _declared(document):
        yield from (one.client for one in inside(role) if one.client)


def _roles(document: _Representation) -> Iterator[str]:
    """Only the members of a composite role must be declared. Everywhere else Keycloak creates a role that does not exist."""
    roles = document.get("roles") or {}
    realm = {role["name"] for role in roles.get("realm") or []}
    realm |= {"offline_access", default_role(document).name}
    listed = {client["clientId"] for client in document.get("clients") or []}
    by_client = {client: set(names) for client, names in builtins.CLIENT_ROLES.items() if client not in listed}
    for client, declared in (roles.get("client") or {}).items():
        by_client[client] = by_client.get(client, set()) | {role["name"] for role in declared}
    for role in _declared(document):
        for one in inside(role):
            if one.name not in by_client.get(one.client, realm if not one.client else set()):
                where = f"of the client {one.client!r}" if one.client else "of the realm"
                yield f"there is no role {one.name!r} {where}, which is inside the role {role['name']!r}"


def _declared(document: _Representation) -> Iterator[_Representation]:
    roles = document.get("roles") or {}
    yield from roles.get("realm") or []
    yield from _each((roles.get("client") or {}).values())


def _each(lists: Iterable[Iterable[Any]]) -> Iterator[Any]:
    for one in lists:
        yield from one


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"the {what} {name!r} is there twice" for name, times in Counter(names).items() if times > 1)

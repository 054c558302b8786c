"""A realm that is kept in a file, in the place of a server: a plan reads it by the same requests, and changes it by the same steps."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import Role, Roles
from s2s_fastapi.realm.importing import imported, scope_name
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.realm.roles import composites, default_role, held, scope_mappings

__all__ = ["RealmFile", "completed"]

_Json = dict[str, Any]
_Representation = Mapping[str, Any]
_LISTS: Final = {
    "defaultClientScopes": "defaultDefaultClientScopes",
    "optionalClientScopes": "defaultOptionalClientScopes",
}
_LIFESPAN: Final = 300
_SCOPE_OF_ACCOUNTS_SINCE: Final = (26, 1)


class RealmFile:
    """The state of a realm after its file was imported, read as the Admin API is read: see `s2s_fastapi.operations.snapshot.ReadApi`.

    An id is the name: of a client for the client and its service account, of a scope, of a role with its client.
    """

    def __init__(self, document: _Representation, *, version: str) -> None:
        """Read the file.

        Raises:
            ConfigurationError: It is no realm, or one that Keycloak does not import.
        """
        model = RealmModel.read(document, version=version)
        self.realm = model.name
        self.lists_scopes = document.get("clientScopes") is not None
        self._version = version
        now = imported(document, model.version)
        listed = [client["clientId"] for client in now.get("clients") or ()]
        self._document = completed(now, version=model.version, clients=listed)
        missing = [client for client in builtins.CLIENTS if client["clientId"] not in listed]
        self._clients: list[_Json] = [*self._document["clients"], *deepcopy(missing)]
        self._mapped = scope_mappings(self._document, listed)
        self._inside = composites(self._document, listed, organizations=model.version >= _SCOPE_OF_ACCOUNTS_SINCE)
        self._roles = self._every_role(listed)

    def version(self) -> str:
        """Return the version of the server that will import the file."""
        return self._version

    def lacks(self, right: str, what: str) -> str:
        """Say that a right is missing: it never is."""
        return f"The file lacks what {right} shows: {what}."

    def get(self, *path: str, needs: str, **query: object) -> Any:  # noqa: ARG002 - a file needs no right
        """Return what the Admin API answers at this path."""
        document = self._document
        match path:
            case ():
                role = default_role(document)
                return {
                    "accessTokenLifespan": _LIFESPAN,
                    **{name: value for name, value in document.items() if value is not None},
                    "defaultRole": {"id": _id(role), "name": role.name},
                    "id": "",
                }
            case ("clients",):
                return [client for client in self._clients if client["clientId"] == query["clientId"]]
            case ("default-default-client-scopes" | "default-optional-client-scopes" as name,):
                kind = _LISTS["defaultClientScopes" if "default-default" in name else "optionalClientScopes"]
                return [{"name": scope} for scope in document.get(kind) or ()]
            case ("client-scopes",):
                return [{**scope, "id": scope["name"]} for scope in document["clientScopes"]]
            case ("client-scopes" | "clients" as kind, name, "scope-mappings"):
                holder = "clientScope" if kind == "client-scopes" else "client"
                return _mappings(self._mapped.get((holder, name), ()))
            case ("clients", name, "service-account-user"):
                return {**self._account(name), "id": name}
            case ("users", name, "role-mappings"):
                return _mappings(held(self._account(name)))
            case ("users", name, "groups"):
                return self._account(name).get("groups") or []
            case ("roles-by-id", text, "composites"):
                return [_role(role) for role in sorted(self._inside.get(Role(*json.loads(text)), ()))]
            case ("identity-provider", "instances"):
                return document.get("identityProviders") or []
            case ("client-policies", "policies"):
                return document.get("clientPolicies") or {}
            case ("client-policies", "profiles"):
                return document.get("clientProfiles") or {}
        raise LookupError(path)

    def pages(self, *path: str, needs: str, **query: object) -> Iterator[_Json]:  # noqa: ARG002 - as above
        """Yield what the Admin API answers at this path."""
        if path == ("clients",):
            yield from ({**client, "id": client["clientId"]} for client in self._clients)
        else:
            owner = "" if path == ("roles",) else path[1]
            yield from (_role(role) for role in sorted(self._roles) if role.client == owner)

    def _account(self, client_id: str) -> _Representation:
        users: Iterable[_Json] = self._document["users"]
        return next(user for user in users if user.get("serviceAccountClientId") == client_id)

    def _every_role(self, listed: Collection[str]) -> set[Role]:
        """Return the roles that the file declares, those that it names elsewhere, and those of Keycloak's own."""
        declared = self._document["roles"]
        found = {Role("", role["name"]) for role in declared["realm"]}
        found |= {Role(client, role["name"]) for client, roles in declared["client"].items() for role in roles}
        found |= {
            Role(client, name)
            for client, names in builtins.CLIENT_ROLES.items()
            for name in (names if client not in listed else ())
        }
        used: Iterable[Iterable[Role]] = [
            *(held(user) for user in self._document["users"]),
            *self._mapped.values(),
            *self._inside.values(),
        ]
        return found.union(self._inside, *used)


def completed(given: _Representation, *, version: tuple[int, ...], clients: Collection[str]) -> _Json:
    """Return a realm file in which those things are written down that an import adds by itself, and that steps change.

    These are the built-in client scopes, and the scopes and service accounts of `clients`. The realm stays the same.
    """
    document = deepcopy(dict(given))
    if document.get("clientScopes") is None:
        scopes, *lists = builtins.scopes(service_account=version >= _SCOPE_OF_ACCOUNTS_SINCE)
        document["clientScopes"] = deepcopy(scopes)
        document |= zip(_LISTS.values(), map(list, lists), strict=True)
    for scope in document["clientScopes"]:
        scope["name"] = scope_name(scope)
        scope["protocolMappers"] = scope.get("protocolMappers") or []
    for name in ("clients", "users", "scopeMappings"):
        document[name] = document.get(name) or []
    document["clientScopeMappings"] = document.get("clientScopeMappings") or {}
    roles = document.get("roles") or {}
    document["roles"] = {**roles, "realm": roles.get("realm") or [], "client": roles.get("client") or {}}
    names = {scope["name"] for scope in document["clientScopes"]}
    accounts = {user.get("serviceAccountClientId"): user for user in document["users"]}
    for client in document["clients"]:
        if client["clientId"] not in clients:
            continue
        if all(client.get(name) is None for name in _LISTS):
            client |= {name: list(document.get(default) or ()) for name, default in _LISTS.items()}
            if "offline_access" not in names:  # then the server makes it, and offers it to everybody
                client["optionalClientScopes"].append("offline_access")
        client |= {name: list(client.get(name) or ()) for name in _LISTS}
        client["protocolMappers"] = client.get("protocolMappers") or []
        if client.get("fullScopeAllowed") is None:
            client["fullScopeAllowed"] = not client.get("consentRequired")
        if not client.get("serviceAccountsEnabled") and not client.get("authorizationServicesEnabled"):
            continue
        account = accounts.get(client["clientId"])
        if account is None:
            account = _account_of(client, document)
            document["users"].append(account)
            # A server that makes the account gives its client this scope.
            if version >= _SCOPE_OF_ACCOUNTS_SINCE and "service_account" in names - {*client["defaultClientScopes"]}:
                client["defaultClientScopes"].append("service_account")
        account |= {"realmRoles": account.get("realmRoles") or [], "clientRoles": account.get("clientRoles") or {}}
    return document


def _account_of(client: _Representation, document: _Representation) -> _Json:
    client_id = str(client["clientId"])
    groups = document.get("defaultGroups") or []
    return {
        "username": f"service-account-{client_id.lower()}",
        "enabled": True,
        "serviceAccountClientId": client_id,
        "realmRoles": [default_role(document).name],
        "clientRoles": {client_id: ["uma_protection"]} if client.get("authorizationServicesEnabled") else {},
        **({"groups": list(groups)} if groups else {}),
    }


def _id(role: Role) -> str:
    return json.dumps(role)


def _role(role: Role) -> _Json:
    return {"id": _id(role), "name": role.name, "clientRole": bool(role.client), "containerId": role.client}


def _mappings(roles: Iterable[Role] | Roles) -> _Json:
    by_owner: dict[str, list[_Json]] = {}
    for role in sorted(roles):
        by_owner.setdefault(role.client, []).append(_role(role))
    return {
        "realmMappings": by_owner.pop("", []),
        "clientMappings": {owner: {"client": owner, "mappings": found} for owner, found in by_owner.items()},
    }

"""What Keycloak changes in a document while it imports it: one function for each rule, in the order in which they apply.

A rule takes a document and returns the changed one. What an import adds without changing the document (built-in scopes, clients and
roles, service accounts) is in ``reading.py``. Every rule was measured on 26.7.3. The versions of the migrations were found with about
30 exports.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import OIDC

__all__ = ["WITHOUT_SECRET", "imported", "scope_name", "with_secrets"]

WITHOUT_SECRET: Final = frozenset({"client-jwt", "client-x509", "federated-jwt"})
"""The client authenticators that look at no secret."""

_Document = Mapping[str, Any]
_Rule = Callable[[_Document], dict[str, Any]]
_Version = tuple[int, ...]

_LISTS: Final = {"default": "defaultClientScopes", "optional": "optionalClientScopes"}
_REALM_LISTS: Final = {"default": "defaultDefaultClientScopes", "optional": "defaultOptionalClientScopes"}
_CONSOLES: Final = ("admin-cli", "security-admin-console")
_LIGHTWEIGHT: Final = "client.use.lightweight.access.token.enabled"


def imported(document: _Document, version: _Version) -> dict[str, Any]:
    """Return the document as a server of ``version`` has it after the import."""
    rules: list[_Rule] = [] if version < (26, 1) else [_scopes_have_a_protocol]
    rules.append(_authorization_makes_a_service)
    written = _written_by(document)
    rules += [step for below, step in _MIGRATIONS if written < below <= (*version, 0, 0)]
    for rule in rules:
        document = rule(document)
    return dict(document)


def scope_name(scope: Mapping[str, Any]) -> str:
    """Return the name of a scope after the import. References to the scope keep the name with the space (rule 5)."""
    return str(scope["name"]).replace(" ", "_")


def with_secrets(document: _Document, new_secret: Callable[[str], str]) -> dict[str, Any]:
    """Return the document with a secret for each client that needs one and has none. An export masks secrets: they count as none."""

    def complete(client: _Document) -> _Document:
        if (
            client.get("publicClient")
            or client.get("bearerOnly")
            or client.get("clientAuthenticatorType") in WITHOUT_SECRET
        ):
            return client
        there = str(client.get("secret") or "").strip("*")
        return client if there else {**client, "secret": new_secret(client["clientId"])}

    return _each_client(document, complete)


# Rule 20


def _scopes_have_a_protocol(document: _Document) -> dict[str, Any]:
    """Rule 20: a client scope without a protocol is for OpenID Connect; 26.0 leaves it without one, and no client can request it."""
    if document.get("clientScopes") is None:
        return dict(document)
    scopes = [{**scope, "protocol": scope.get("protocol") or OIDC} for scope in document["clientScopes"]]
    return {**document, "clientScopes": scopes}


# Rule 21


def _authorization_makes_a_service(document: _Document) -> dict[str, Any]:
    """Rule 21: a client with authorization services is a service, even if the document says that it is not."""

    def service(client: _Document) -> _Document:
        if not client.get("authorizationServicesEnabled") and client.get("authorizationSettings") is None:
            return client
        flags = {"serviceAccountsEnabled": True, "publicClient": False, "bearerOnly": False}
        # One that is written as public never gets its secret.
        secret = {"secret": None} if client.get("publicClient") else {}
        return {**client, **flags, **secret, "authorizationServicesEnabled": True}

    return _each_client(document, service)


# Rule 22: what the server adds to the export of an older one


def _written_by(document: _Document) -> _Version:
    """Return the version that exported the document. It is the newest if there is none, and the oldest if it cannot be read."""
    written = document.get("keycloakVersion")
    if written is None:
        return _NEWEST
    numbers = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", str(written))
    return tuple(int(number or 0) for number in numbers.groups()) if numbers else ()


def _add_scopes(document: _Document, *, names: Iterable[str], to: str = "") -> dict[str, Any]:
    """Add built-in scopes to the realm and, ``to`` the default or optional ones, to its clients. Without ``to``, no client has them."""
    changed = dict(document)
    if document.get("clientScopes") is None:  # then all built-in ones are there
        return changed
    for name in names:
        if name in map(scope_name, changed["clientScopes"]):
            continue
        changed["clientScopes"] = [*changed["clientScopes"], builtins.scope(name)]
        changed |= _with_scope(changed, name, to, _REALM_LISTS)
        changed = _each_client(changed, partial(_client_with_scope, name=name, to=to))
    return changed


def _client_with_scope(client: _Document, *, name: str, to: str) -> _Document:
    no_lists = all(client.get(one) is None for one in _LISTS.values())
    if no_lists or not _gets_scopes(client):
        return client
    return {**client, **_with_scope(client, name, to, _LISTS)}


def _gets_scopes(client: _Document) -> bool:
    return not client.get("bearerOnly") and (client.get("protocol") or OIDC) == OIDC


def _offer_offline_access(document: _Document) -> dict[str, Any]:
    """Make `offline_access` an optional scope of each client that may have the role of that name."""

    def offered(client: _Document) -> _Document:
        lists = [client.get(one) for one in _LISTS.values()]
        full = client.get("fullScopeAllowed")
        wide = not client.get("consentRequired") if full is None else full
        there = any("offline_access" in one for one in lists if one)
        if not wide or there or lists == [None, None] or not _gets_scopes(client):
            return client
        return {**client, "optionalClientScopes": [*(client.get("optionalClientScopes") or []), "offline_access"]}

    return _each_client(document, offered)


def _with_scope(holder: _Document, name: str, to: str, lists: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the lists of a realm or client with the scope in one of them. A reference that the document had is void."""
    others = {kind: [one for one in holder.get(key) or [] if one != name] for kind, key in lists.items()}
    return {key: others[kind] + [name] * (kind == to) for kind, key in lists.items()}


def _add_account_console(document: _Document) -> dict[str, Any]:
    clients = document.get("clients") or []
    listed = {client["clientId"] for client in clients}
    if "account" not in listed or "account-console" in listed:
        return dict(document)
    console = next(client for client in builtins.CLIENTS if client["clientId"] == "account-console")
    return {**document, "clients": [*clients, console]}


def _lighten_consoles(document: _Document) -> dict[str, Any]:
    def light(client: _Document) -> _Document:
        if client["clientId"] not in _CONSOLES:
            return client
        return {**client, "attributes": {**(client.get("attributes") or {}), _LIGHTWEIGHT: "true"}}

    return _each_client(document, light)


def _each_client(document: _Document, change: Callable[[_Document], _Document]) -> dict[str, Any]:
    if not document.get("clients"):
        return dict(document)
    return {**document, "clients": [change(client) for client in document["clients"]]}


_NEWEST: Final = (10**9,)
_MIGRATIONS: Final[tuple[tuple[_Version, _Rule], ...]] = (
    ((4, 0, 0), _offer_offline_access),
    ((4, 6, 0), partial(_add_scopes, names=("roles", "web-origins"), to="default")),
    ((6, 0, 0), partial(_add_scopes, names=("microprofile-jwt",), to="optional")),
    ((9, 0, 0), _add_account_console),
    ((18, 0, 0), partial(_add_scopes, names=("acr",), to="default")),
    ((25, 0, 0), partial(_add_scopes, names=("basic",), to="default")),
    ((26, 0, 0), _lighten_consoles),
    ((26, 1, 0), partial(_add_scopes, names=("service_account",))),
)
"""The version below which an export gets the addition, and the addition."""

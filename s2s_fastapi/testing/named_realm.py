"""The realm of a test without a realm file: what a test or an app names is there, with what was named and nothing else."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.keycloak.exchange import ATTRIBUTE
from s2s_fastapi.realm import builtins

__all__ = ["Named", "realm_document"]

_BUILT_IN: Final = builtins.scopes(service_account=True)
_THERE_ANYWAY: Final = frozenset({"openid", "offline_access", *(str(scope["name"]) for scope in _BUILT_IN[0])})
_DEFAULT: Final = [*_BUILT_IN[1], "service_account"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A client that somebody named, and what its tokens have."""

    client_id: str
    username: str = ""
    """The user who logs in through the client; empty for the client's own tokens."""
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    roles: frozenset[tuple[str, str]] = frozenset()
    """Roles of clients, each after its client."""
    realm_roles: frozenset[str] = frozenset()
    by_scope: bool = False
    """Whether the audiences come with the scopes: only tokens that ask for one of the scopes have them."""


def realm_document(realm: str, named: Iterable[Named]) -> dict[str, Any]:
    """Return a realm file with all that is named. Keycloak would import it as it is."""
    every = list(named)
    scopes = {scope for one in every for scope in one.scopes - _THERE_ANYWAY}
    return {
        "realm": realm,
        "enabled": True,
        "clients": [_client(client_id, every) for client_id in sorted(_client_ids(every))],
        "clientScopes": [*_BUILT_IN[0], *(_scope(name, every) for name in sorted(scopes))],
        "roles": {
            "realm": [{"name": name} for name in sorted({role for one in every for role in one.realm_roles})],
            "client": _roles(role for one in every for role in one.roles),
        },
        "users": [
            _user([one for one in every if _account(one) == account]) for account in sorted(set(map(_account, every)))
        ],
    }


def _client_ids(every: list[Named]) -> set[str]:
    return {one.client_id for one in every} | {client for one in every for client, _ in one.roles}


def _client(client_id: str, every: list[Named]) -> dict[str, Any]:
    own = [one for one in every if one.client_id == client_id]
    audiences = {audience for one in own if not one.by_scope for audience in one.audiences}
    return {
        "clientId": client_id,
        "serviceAccountsEnabled": True,
        "directAccessGrantsEnabled": True,
        "attributes": {ATTRIBUTE: "true"},
        "defaultClientScopes": _DEFAULT,
        "optionalClientScopes": sorted({scope for one in own for scope in one.scopes} - {"openid", *_DEFAULT}),
        "protocolMappers": list(_audience_mappers(audiences)),
    }


def _scope(name: str, every: list[Named]) -> dict[str, Any]:
    audiences = {audience for one in every if one.by_scope and name in one.scopes for audience in one.audiences}
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true"},
        "protocolMappers": list(_audience_mappers(audiences)),
    }


def _audience_mappers(audiences: set[str]) -> Iterator[dict[str, Any]]:
    for audience in sorted(audiences):
        yield {
            "name": f"audience {audience}",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": audience, "access.token.claim": "true"},
        }


def _roles(roles: Iterable[tuple[str, str]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for client, role in sorted(set(roles)):
        found.setdefault(client, []).append({"name": role})
    return found


def _account(one: Named) -> str:
    return one.username.lower() or f"service-account-{one.client_id.lower()}"


def _user(same: list[Named]) -> dict[str, Any]:
    """Return one account: of a person with all that Keycloak asks for, or of a client, with no role that was not named."""
    one, held = same[0], dict[str, list[str]]()
    for client, role in sorted({role for each in same for role in each.roles}):
        held.setdefault(client, []).append(role)
    account = {
        "username": one.username or _account(one),
        "enabled": True,
        "realmRoles": sorted({role for each in same for role in each.realm_roles}),
        "clientRoles": held,
    }
    if not one.username:
        return account | {"serviceAccountClientId": one.client_id}
    mail = one.username if "@" in one.username else f"{one.username}@example.test"
    return account | {"email": mail, "firstName": one.username, "lastName": "Test", "emailVerified": True}

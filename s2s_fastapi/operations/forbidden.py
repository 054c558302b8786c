"""What no plan ever touches or grants, whatever an app's code says: Keycloak's own clients, scopes and roles.

An access file comes from a team's repository. Without these rules a declaration such as ``require_role("manage-users",
client="realm-management")`` would become admin power at the next `apply`. No option lets one of them pass.
"""

import re
from collections.abc import Collection
from typing import Final

from s2s_fastapi.names import name_problem, scope_problem
from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.text import named

__all__ = [
    "KEYCLOAKS_CLIENTS",
    "KEYCLOAKS_SCOPES",
    "forbidden_audience",
    "forbidden_client",
    "forbidden_role",
    "forbidden_scope",
]

KEYCLOAKS_CLIENTS: Final = frozenset(
    str(client["clientId"]) for client in (*builtins.CLIENTS, builtins.ADMIN_PERMISSIONS)
)
"""The clients that every realm has."""
KEYCLOAKS_SCOPES: Final = frozenset(
    (
        *(str(scope["name"]) for scope in builtins.scopes(service_account=True)[0]),
        *("openid", "offline_access", "role_list", "saml_organization", "AuthnContextClassRef"),
    )
)
"""The client scopes that every realm has."""
_REALM_ROLES: Final = frozenset({"admin", "create-realm", "offline_access", "uma_authorization"})
_DEFAULT_ROLE: Final = "default-roles-"
_SCOPE_NAME: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3: Keycloak refuses all else

_OF_A_REALM: Final = re.compile(r"[a-z][a-z0-9+.-]*:/{2}.*/realms/[^/]+(?:/protocol/openid-connect(?:/.*)?)?")


# Names are compared without regard to case: so do some of the databases below Keycloak.
_CLIENTS: Final = frozenset(name.casefold() for name in KEYCLOAKS_CLIENTS)
_SCOPES: Final = frozenset(name.casefold() for name in KEYCLOAKS_SCOPES)


def forbidden_client(client_id: str, realm: str) -> str:
    """Return why no plan may make, change or address this client, or ""."""
    if problem := name_problem(client_id):
        return f"{named(client_id)} is no name of a client: {problem}"
    plain = client_id.casefold()
    if plain in _CLIENTS:
        return f"{named(client_id)} is a client of Keycloak itself"
    if realm.casefold() == "master" and plain.endswith("-realm"):
        return f"{named(client_id)} is the client in the realm master that administers another realm"
    return ""


def forbidden_audience(audience: str, realm: str) -> str:
    """Return why no plan may put this audience into a token, or ""."""
    plain = audience.casefold().partition("?")[0].partition("#")[0].rstrip("/")
    if _OF_A_REALM.fullmatch(plain):
        return f"{named(audience)} is the issuer of a realm or one of its addresses, and Keycloak itself accepts tokens for that"
    return forbidden_client(audience, realm)


def forbidden_scope(name: str) -> str:
    """Return why no plan may make, change or assign this client scope, or ""."""
    if problem := scope_problem(name):
        return f"{named(name)} is no name of a scope: {problem}"
    if _SCOPE_NAME.fullmatch(name) is None:
        return f'{named(name)} is no name of a scope: Keycloak takes ASCII without spaces, " and \\'
    if name.casefold() in _SCOPES:
        return f"{named(name)} is a client scope of Keycloak itself"
    return ""


def _is_keycloaks_role(plain: str) -> bool:
    return plain in _REALM_ROLES or plain.startswith(_DEFAULT_ROLE)


def forbidden_role(role: Role, realm: str, reaches: Collection[Role] = ()) -> str:
    """Return why no plan may grant this role, or "". ``reaches`` are the roles that it contains, directly or not."""
    if problem := name_problem(role.name):
        return f"{named(role.name)} is no name of a role: {problem}"
    if role.client and (problem := forbidden_client(role.client, realm)):
        return f"the role {named(role.name)} cannot be granted: {problem}"
    if not role.client and _is_keycloaks_role(role.name.casefold()):
        return f"{named(role.name)} is a realm role of Keycloak itself"
    for inner in reaches:
        if problem := forbidden_role(inner, realm):
            return f"the role {named(role.name)} contains a role that cannot be granted: {problem}"
    return ""

"""What Keycloak gives every new realm, in its realm JSON: scopes, roles and clients that a file need not name."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "ADMIN_PERMISSIONS",
    "CLIENTS",
    "CLIENT_ID_MAPPERS",
    "CLIENT_ROLES",
    "OFFLINE_ACCESS",
    "account_roles",
    "management_roles",
    "scope",
    "scopes",
]

_Representation = dict[str, Any]

_IN_TOKENS: Final = {"access.token.claim": "true", "id.token.claim": "true", "introspection.token.claim": "true"}
_IN_ACCESS_TOKEN: Final = {"access.token.claim": "true", "introspection.token.claim": "true"}

# user attribute -> claim, in the scope profile
_PROFILE: Final = {
    "username": "preferred_username",
    "firstName": "given_name",
    "lastName": "family_name",
    "middleName": "middle_name",
    **{
        name: name
        for name in ("nickname", "profile", "picture", "website", "gender", "birthdate", "zoneinfo", "locale")
    },
}


def _mapper(name: str, kind: str, config: Mapping[str, str]) -> _Representation:
    return {"name": name, "protocol": "openid-connect", "protocolMapper": kind, "config": dict(config)}


def _attribute(name: str, claim: str, kind: str = "String", *, mapper: str = "attribute") -> _Representation:
    config = {"user.attribute": name, "claim.name": claim, "jsonType.label": kind, **_IN_TOKENS}
    return _mapper(claim, f"oidc-usermodel-{mapper}-mapper", config)


def _note(name: str, note: str, claim: str, kind: str = "String") -> _Representation:
    config = {"user.session.note": note, "claim.name": claim, "jsonType.label": kind, **_IN_TOKENS}
    return _mapper(name, "oidc-usersessionmodel-note-mapper", config)


def _roles(name: str, whose: str, claim: str, config: Mapping[str, str] = _IN_ACCESS_TOKEN) -> _Representation:
    complete = {"claim.name": claim, "multivalued": "true", "jsonType.label": "String", **config}
    return _mapper(name, f"oidc-usermodel-{whose}-role-mapper", complete)


def _scope(name: str, *mappers: _Representation, shown: bool = True) -> _Representation:
    attributes = {"include.in.token.scope": "true" if shown else "false"}
    return {"name": name, "protocol": "openid-connect", "attributes": attributes, "protocolMappers": list(mappers)}


CLIENT_ID_MAPPERS: Final = (
    _note("Client ID", "client_id", "client_id"),
    _note("Client Host", "clientHost", "clientHost"),
    _note("Client IP Address", "clientAddress", "clientAddress"),
)
OFFLINE_ACCESS: Final = _scope("offline_access")

_DEFAULT_SCOPES: Final = (
    _scope(
        "profile",
        *(_attribute(name, claim) for name, claim in _PROFILE.items()),
        _attribute("updatedAt", "updated_at", "long"),
        _mapper("full name", "oidc-full-name-mapper", _IN_TOKENS),
    ),
    _scope(
        "email",
        _attribute("email", "email"),
        _attribute("emailVerified", "email_verified", "boolean", mapper="property"),
    ),
    _scope(
        "roles",
        _roles("realm roles", "realm", "realm_access.roles"),
        _roles("client roles", "client", "resource_access.${client_id}.roles"),
        _mapper("audience resolve", "oidc-audience-resolve-mapper", _IN_ACCESS_TOKEN),
        shown=False,
    ),
    _scope("web-origins", _mapper("allowed web origins", "oidc-allowed-origins-mapper", _IN_ACCESS_TOKEN), shown=False),
    _scope("acr", _mapper("acr loa level", "oidc-acr-mapper", _IN_TOKENS), shown=False),
    _scope(
        "basic",
        _mapper("sub", "oidc-sub-mapper", _IN_ACCESS_TOKEN),
        _note("auth_time", "AUTH_TIME", "auth_time", "long"),
        shown=False,
    ),
)
_OPTIONAL_SCOPES: Final = (
    _scope("address", _mapper("address", "oidc-address-mapper", _IN_TOKENS)),
    _scope(
        "phone",
        _attribute("phoneNumber", "phone_number"),
        _attribute("phoneNumberVerified", "phone_number_verified", "boolean"),
    ),
    _scope("microprofile-jwt", _attribute("username", "upn"), _roles("groups", "realm", "groups", _IN_TOKENS)),
    _scope(
        "organization",
        _mapper("organization", "oidc-organization-membership-mapper", {"claim.name": "organization", **_IN_TOKENS}),
    ),
)


_SERVICE_ACCOUNT: Final = _scope("service_account", *CLIENT_ID_MAPPERS, shown=False)


def scope(name: str) -> _Representation:
    """Return the built-in scope of that name."""
    every = (*_DEFAULT_SCOPES, *_OPTIONAL_SCOPES, _SERVICE_ACCOUNT)
    return next(scope for scope in every if scope["name"] == name)


def scopes(*, service_account: bool) -> tuple[list[_Representation], list[str], list[str]]:
    """Return the built-in client scopes, and which of them every new client gets as default and as optional ones.

    ``service_account`` is the scope that newer versions give to a client with a service account, and to no other. (The
    scope offline_access is not here: a realm has it whatever its file says.)
    """
    own = [_SERVICE_ACCOUNT] if service_account else []
    default, optional = ([str(scope["name"]) for scope in group] for group in (_DEFAULT_SCOPES, _OPTIONAL_SCOPES))
    return [*_DEFAULT_SCOPES, *_OPTIONAL_SCOPES, *own], default, optional


CLIENTS: Final = (
    {"clientId": "account", "publicClient": True, "fullScopeAllowed": False},
    {
        "clientId": "account-console",
        "publicClient": True,
        "fullScopeAllowed": False,
        "protocolMappers": [_mapper("audience resolve", "oidc-audience-resolve-mapper", {})],
    },
    {
        "clientId": "admin-cli",
        "publicClient": True,
        "directAccessGrantsEnabled": True,
        "attributes": {"client.use.lightweight.access.token.enabled": "true"},
    },
    {"clientId": "broker", "bearerOnly": True, "fullScopeAllowed": False},
    {"clientId": "realm-management", "bearerOnly": True, "fullScopeAllowed": False},
    {
        "clientId": "security-admin-console",
        "publicClient": True,
        "webOrigins": ["+"],
        "attributes": {"client.use.lightweight.access.token.enabled": "true"},
        "protocolMappers": [_attribute("locale", "locale")],
    },
)

ADMIN_PERMISSIONS: Final = {"clientId": "admin-permissions", "publicClient": False}
"""The client of a realm with fine-grained admin permissions."""


def account_roles() -> list[_Representation]:
    """Return the roles of the client ``account`` that hold others."""
    return [
        {"name": "manage-account", "composites": {"client": {"account": ["manage-account-links"]}}},
        {"name": "manage-consent", "composites": {"client": {"account": ["view-consent"]}}},
    ]


def management_roles(*, organizations: bool) -> list[_Representation]:
    """Return the roles of the client ``realm-management`` that hold others."""
    inside = {"view-users": ["query-users", "query-groups"], "view-clients": ["query-clients"]}
    if organizations:
        inside["view-organizations"] = ["query-organizations"]
    kinds = ["clients", "events", "realm", "identity-providers", "authorization", "users"]
    every = [f"{verb}-{kind}" for kind in kinds + ["organizations"] * organizations for verb in ("view", "manage")]
    every += ["create-client", "impersonation", "query-clients", "query-groups", "query-realms", "query-users"]
    every += ["query-organizations"] * organizations
    return [
        {"name": name, "composites": {"client": {"realm-management": held}}}
        for name, held in {**inside, "realm-admin": every}.items()
    ]


_OF_ACCOUNT: Final = ("manage-account", "manage-account-links", "view-profile", "view-applications", "view-groups")
_OF_CONSENT: Final = ("view-consent", "manage-consent", "delete-account")
CLIENT_ROLES: Final = {
    "account": (*_OF_ACCOUNT, *_OF_CONSENT),
    "broker": ("read-token",),
    "realm-management": (
        "realm-admin",
        *management_roles(organizations=True)[-1]["composites"]["client"]["realm-management"],
    ),
}
"""The roles of Keycloak's own clients, if the document does not list these clients."""

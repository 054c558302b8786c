"""The roles of a document: which role contains which, which roles every account gets, and which are mapped to scopes and clients."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.entities import Role, Roles

__all__ = ["composites", "default_role", "every_group", "held", "inside", "named", "scope_mappings"]

_Representation = Mapping[str, Any]


def named(client: str, names: Iterable[str] | None) -> Iterator[Role]:
    """Yield the roles of a client, or of the realm, from a list of names."""
    return (Role(client, str(name).strip()) for name in names or [])


def held(holder: _Representation) -> Iterator[Role]:
    """Yield the roles of a user or a group. Keycloak creates those that are declared nowhere."""
    yield from named("", holder.get("realmRoles"))
    for client, names in (holder.get("clientRoles") or {}).items():
        yield from named(client, names)


def inside(role: _Representation) -> Iterator[Role]:
    """Yield the roles that a composite role contains directly."""
    composite = role.get("composites") or {}
    yield from named("", composite.get("realm"))
    for client, names in (composite.get("client") or {}).items():
        yield from named(client, names)


def default_role(document: _Representation) -> Role:
    """Return the role that every account gets if the server makes the account."""
    if document.get("defaultRole"):
        return Role("", str(document["defaultRole"]["name"]))
    # Rule 16: one that is declared without being named as `defaultRole` is an ordinary role, and the server makes another.
    name, taken = f"default-roles-{document['realm'].lower()}", _realm_role_names(document)
    tries = [name, *(f"{name}-{number}" for number in range(1, len(taken) + 2))]
    return Role("", next(one for one in tries if one not in taken))


def composites(document: _Representation, listed: Collection[str], *, organizations: bool) -> dict[Role, Roles]:
    """Return the roles that every composite role contains directly. ``listed`` are the clients that the document names."""
    roles = document.get("roles") or {}
    by_client: Mapping[str, Iterable[_Representation]] = roles.get("client") or {}
    # Rule 24: the server completes the roles of realm-management, also if the document lists the client; those of account, if not.
    own: dict[str, Sequence[_Representation]] = {
        "realm-management": _management_roles(document, listed, organizations=organizations)
    }
    if "account" not in listed:
        own["account"] = builtins.account_roles()
    found: dict[Role, Roles] = {}
    for declaring in (own, {"": roles.get("realm") or [], **by_client}):
        for client, declared in declaring.items():
            for role in declared:
                key = Role(client, role["name"])
                found[key] = found.get(key, frozenset()) | set(inside(role))
    everybody = default_role(document)
    return found | {everybody: found.get(everybody, frozenset()) | set(_defaults(document, listed))}


def _management_roles(
    document: _Representation, listed: Collection[str], *, organizations: bool
) -> Sequence[_Representation]:
    """Rule 24: if the document lists realm-management, its realm-admin gets only the roles that nothing in the document has made."""
    roles = builtins.management_roles(organizations=organizations)
    client = "realm-management"
    if client not in listed:
        return roles
    declared = ((document.get("roles") or {}).get("client") or {}).get(client) or []
    made = {role["name"] for role in declared}
    for holder in (*(document.get("users") or []), *every_group(document.get("groups") or [])):
        made |= {role.name for role in held(holder) if role.client == client}
    for mapping in (document.get("clientScopeMappings") or {}).get(client) or []:
        made |= {role.name for role in named(client, mapping.get("roles"))}
    return [_without_roles(role, client, made) if role["name"] == "realm-admin" else role for role in roles]


def _without_roles(role: _Representation, client: str, names: Collection[str]) -> _Representation:
    inside_of_client = [name for name in role["composites"]["client"][client] if name not in names]
    return {**role, "composites": {"client": {client: inside_of_client}}}


def _defaults(document: _Representation, listed: Collection[str]) -> Iterator[Role]:
    """Yield the roles that the server puts into the default role: its own ones, if the document does not declare them."""
    declared = _realm_role_names(document)
    scopes = {scope["name"] for scope in document.get("clientScopes") or []}
    if "offline_access" not in declared or "offline_access" not in scopes:
        yield Role("", "offline_access")
    if "uma_authorization" not in declared | set(_realm_roles_in_use(document)):  # rule 23
        yield Role("", "uma_authorization")
    if "account" not in listed:
        yield from named("account", ["view-profile", "manage-account"])
    if not document.get("defaultRole"):  # the form of before Keycloak 13
        yield from named("", document.get("defaultRoles"))
        for client in document.get("clients") or []:
            yield from named(client["clientId"], client.get("defaultRoles"))


def scope_mappings(document: _Representation, listed: Collection[str]) -> dict[tuple[str, str], Roles]:
    """Return the roles that are mapped to scopes and to clients, by (``clientScope`` or ``client``, name)."""
    mapped: dict[tuple[str, str], Roles] = {}
    by_client = document.get("clientScopeMappings") or {}
    for client, mappings in [("", document.get("scopeMappings") or []), *by_client.items()]:
        for mapping in mappings:
            kind = "clientScope" if mapping.get("clientScope") else "client"
            key = kind, str(mapping[kind])
            mapped[key] = mapped.get(key, frozenset()) | set(named(client, mapping.get("roles")))
    if "account-console" not in listed:
        mapped["client", "account-console"] = frozenset(named("account", ["manage-account", "view-groups"]))
    return mapped


def _realm_roles_in_use(document: _Representation) -> Iterator[str]:
    """Yield the realm roles that users, groups and scope mappings name. Keycloak creates them before its own ones."""
    for holder in (*(document.get("users") or []), *every_group(document.get("groups") or [])):
        yield from (role.name for role in named("", holder.get("realmRoles")))
    for mapping in document.get("scopeMappings") or []:
        yield from (role.name for role in named("", mapping.get("roles")))


def every_group(groups: Iterable[_Representation]) -> Iterator[_Representation]:
    """Yield the groups and all groups inside them."""
    for group in groups:
        yield group
        yield from every_group(group.get("subGroups") or [])


def _realm_role_names(document: _Representation) -> set[str]:
    return {role["name"] for role in (document.get("roles") or {}).get("realm") or []}

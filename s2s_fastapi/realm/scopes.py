"""Which scopes are in effect for a request, and which of the account's roles they allow into the token."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from s2s_fastapi.realm.entities import Account, Client, Realm, Role, Scope

__all__ = ["InEffect", "expanded", "in_effect", "words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InEffect:
    """The result of a valid request: the scopes in effect, and the roles that they and the client allow."""

    scopes: tuple[Scope, ...]
    """Without the client's own, whose mappers always work."""
    roles: frozenset[Role]
    openid: bool
    offline: bool
    """Whether ``offline_access`` was requested, even if Keycloak left it out."""
    offline_allowed: bool

    @property
    def text(self) -> str:
        """The member ``scope`` of token and response."""
        return " ".join(["openid"] * self.openid + [scope.name for scope in self.scopes if scope.in_token])


def words(scope: str | None) -> list[str]:
    """Split a scope parameter as Keycloak does, which is as Java splits on one space (rule 2).

    Spaces at the end vanish, any others make an empty word, and so does the empty parameter. A tab is part of a word.
    """
    if scope is None:
        return []
    if not scope:
        return [""]
    return scope.rstrip(" ").split(" ") if scope.strip(" ") else []


def in_effect(realm: Realm, client: Client, account: Account, scope: str | None) -> InEffect | None:
    """Return the result of requesting ``scope``, or None if Keycloak answers ``invalid_scope``."""
    requested_names = words(scope)
    openid = "openid" in requested_names  # rule 3: needs no assignment
    names = [name for name in dict.fromkeys(requested_names) if name != "openid"]
    assigned = {**client.optional, **client.default}
    # Rule 29: with a name or a star after it, the scope of the organizations is another request, which may have no effect.
    chosen = {name for name in names if name not in assigned and _chooses_organizations(name, assigned, realm)}
    if any(name not in assigned and name not in chosen for name in names):
        return None
    default = (scope for scope in client.default.values() if not chosen or not _of_organizations(scope))
    optional = (client.optional[name] for name in names if name in client.optional)
    requested = [*default, *(scope for scope in optional if not _of_members(scope, realm))]
    held = expanded(account.roles, realm.inside)
    scopes = tuple(scope for scope in requested if _permitted(scope, held, realm))
    offline = any(scope.name == "offline_access" for scope in requested)
    return InEffect(
        scopes=scopes,
        roles=held if client.full_scope else held & _reach(realm, client, scopes, held),
        openid=openid,
        offline=offline,
        offline_allowed=offline and Role("", "offline_access") in held,
    )


def expanded(roles: Iterable[Role], inside: Mapping[Role, frozenset[Role]]) -> frozenset[Role]:
    """Return the roles with all roles that they contain, across realm and clients (rule 8)."""
    found: set[Role] = set()
    left = list(roles)
    while left:
        role = left.pop()
        if role not in found:
            found.add(role)
            left.extend(inside.get(role, ()))
    return frozenset(found)


def _permitted(scope: Scope, held: frozenset[Role], realm: Realm) -> bool:
    """Rule 6: a scope with role mappings is left out as a whole, unless the account has one of the roles, or one that they contain."""
    return not scope.roles or not held.isdisjoint(expanded(scope.roles, realm.inside))


def _of_organizations(scope: Scope) -> bool:
    return any(mapper.kind == "oidc-organization-membership-mapper" for mapper in scope.mappers)


def _of_members(scope: Scope, realm: Realm) -> bool:
    """Return whether requesting the scope has no effect because the realm has no organizations. 26.0 accepts it anyway."""
    return _of_organizations(scope) and not realm.organizations and not realm.old


def _chooses_organizations(name: str, assigned: Mapping[str, Scope], realm: Realm) -> bool:
    """Return whether Keycloak accepts ``SCOPE:NAME``, which it does for any name if the realm has no organizations."""
    before, _, organization = name.partition(":")
    if realm.old or before not in assigned or not _of_organizations(assigned[before]):
        return False
    return bool(organization) and (organization == "*" or not realm.organizations)


def _reach(realm: Realm, client: Client, scopes: tuple[Scope, ...], held: frozenset[Role]) -> frozenset[Role]:
    """Rule 7: the roles that a narrow client lets through, of whichever the account holds."""
    own = {role for role in {*held, *realm.inside} if role.client == client.id}
    return expanded(own.union(client.own.roles, *(scope.roles for scope in scopes)), realm.inside)

"""Which mapper of which scope puts each audience and each role into a token, and which scope dropped out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from s2s_fastapi.realm.entities import Account, Client, Mapper, Realm, Role, Roles, Scope
from s2s_fastapi.realm.mappers import mapped
from s2s_fastapi.realm.scopes import InEffect, expanded, in_effect, words
from s2s_fastapi.text import names_in

__all__ = ["Dropped", "Offer", "Provenance", "Source", "audiences_brought_by", "provenance"]

_OF_ROLES = frozenset({"oidc-role-name-mapper", "oidc-hardcoded-role-mapper"})
"""Kinds of mappers that change the roles which other mappers write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One mapper that puts audiences or roles into the token."""

    scope: str
    """The client scope, or ``CLIENT-dedicated`` as the admin console calls the client's own."""
    mapper: str
    audiences: frozenset[str]
    roles: Roles


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A scope that was assigned (and requested, if it is optional), and that Keycloak left out: the account has none of these roles."""

    scope: str
    roles: Roles
    audiences: frozenset[str]
    """What it would have brought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A scope that would bring audiences, and is not in effect."""

    scope: str
    audiences: frozenset[str]
    assigned: bool
    """Whether it is an optional scope of the client, which was not requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the audiences and roles of one token come from, and where others could come from."""

    sources: tuple[Source, ...]
    dropped: tuple[Dropped, ...]
    offers: tuple[Offer, ...]
    not_assigned: tuple[str, ...]
    """Scopes that were requested and are not the client's: with one of them Keycloak gives no token."""


def provenance(realm: Realm, client: Client, account: Account, scope: str | None) -> Provenance:
    """Return where the audiences and roles of a service's token come from."""
    requested = [name for name in dict.fromkeys(words(scope)) if name != "openid"]
    assigned = [name for name in requested if name in client.default or name in client.optional]
    effect = in_effect(realm, client, account, " ".join(assigned) or None)
    if effect is None:  # an organization, perhaps: all its names were assigned
        return Provenance(sources=(), dropped=(), offers=(), not_assigned=tuple(requested))
    inside = {each.name for each in effect.scopes}
    wanted = {**client.default, **{name: client.optional[name] for name in assigned if name in client.optional}}
    held = expanded(account.roles, realm.inside)
    return Provenance(
        sources=tuple(_sources(realm, client, account, effect)),
        dropped=tuple(
            Dropped(scope=name, roles=each.roles, audiences=audiences_brought_by(each))
            for name, each in wanted.items()
            if name not in inside and each.roles and held.isdisjoint(expanded(each.roles, realm.inside))
        ),
        offers=tuple(_offers(realm, client, without=wanted)),
        not_assigned=tuple(name for name in requested if name not in assigned),
    )


def _sources(realm: Realm, client: Client, account: Account, effect: InEffect) -> Iterator[Source]:
    of_roles = [
        mapper for scope in (client.own, *effect.scopes) for mapper in scope.mappers if mapper.kind in _OF_ROLES
    ]
    for scope in (client.own, *effect.scopes):
        for mapper in scope.mappers:
            if mapper in of_roles:
                continue
            # Alone, but for those that change roles: what is in this token is what this mapper writes.
            alone = replace(client, own=replace(client.own, mappers=(*of_roles, mapper)))
            written = mapped(realm, alone, account, replace(effect, scopes=()), service=client.id, peer=None)
            audiences, roles = _in_aud(written.claims), frozenset(_in_access(written.claims))
            if audiences or roles:
                name = f"{client.id}-dedicated" if scope is client.own else scope.name
                yield Source(scope=name, mapper=mapper.name, audiences=audiences, roles=roles)


def _in_aud(claims: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(names_in(claims.get("aud")))


def _in_access(claims: Mapping[str, Any]) -> Iterator[Role]:
    resource_access = claims.get("resource_access", {})
    access = {"": claims.get("realm_access", {}), **(resource_access if isinstance(resource_access, dict) else {})}
    for owner, its in access.items():
        names = its.get("roles", ()) if isinstance(its, dict) else ()
        yield from (Role(owner, str(name)) for name in names)


def _offers(realm: Realm, client: Client, *, without: Mapping[str, Scope]) -> Iterator[Offer]:
    for name, scope in realm.scopes.items():
        if name not in without and (audiences := audiences_brought_by(scope)):
            yield Offer(scope=name, audiences=audiences, assigned=name in client.optional)


def audiences_brought_by(scope: Scope) -> frozenset[str]:
    """Return the audiences that the Audience mappers of a scope name."""
    return frozenset(filter(None, map(_audience, scope.mappers)))


def _audience(mapper: Mapper) -> str:
    if mapper.kind != "oidc-audience-mapper" or mapper.config.get("access.token.claim") != "true":
        return ""
    return mapper.config.get("included.client.audience") or mapper.config.get("included.custom.audience") or ""

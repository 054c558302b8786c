"""A realm as a server holds it: the frozen values from which the model computes its answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = [
    "FEDERATES_SINCE",
    "OIDC",
    "Account",
    "Client",
    "IdentityProvider",
    "Mapper",
    "Realm",
    "Role",
    "Roles",
    "Scope",
    "acr_levels",
]

OIDC: Final = "openid-connect"

FEDERATES_SINCE: Final = (26, 6)
"""The version from which on the token of an identity provider may prove a client."""


class Role(NamedTuple):
    """A role of a client, or of the realm itself if ``client`` is empty."""

    client: str
    name: str


Roles = frozenset[Role]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapper:
    """One protocol mapper: ``kind`` is Keycloak's ``protocolMapper``."""

    name: str
    kind: str
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A client scope, or the dedicated scope of a client: mappers, and the roles mapped to it."""

    name: str
    mappers: tuple[Mapper, ...] = ()
    roles: Roles = frozenset()
    in_token: bool = True
    """Whether its name is written into the claim ``scope``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user, or the service account of a client. ``roles`` includes those of its groups; composite roles are not expanded yet."""

    username: str
    id: str
    enabled: bool = True
    ready: bool = True
    """Whether the user has nothing left to do before the first login."""
    roles: Roles = frozenset()
    groups: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]]
    email_verified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client with everything that is assigned to it."""

    id: str
    protocol: str
    enabled: bool
    secret: str | None = field(repr=False)
    authenticator: str
    public: bool
    bearer_only: bool
    service_accounts: bool
    direct_access: bool
    consent: bool
    full_scope: bool
    attributes: Mapping[str, str]
    web_origins: frozenset[str]
    redirects: tuple[str, ...]
    not_before: int
    own: Scope
    default: Mapping[str, Scope]
    optional: Mapping[str, Scope]
    account: Account | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """Somebody else whose tokens the realm believes: ``kind`` is Keycloak's ``providerId``."""

    alias: str
    kind: str
    enabled: bool
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Realm:
    """A realm as a server of ``version`` holds it."""

    name: str
    version: tuple[int, ...]
    enabled: bool
    not_before: int
    algorithm: str
    lifespans: Mapping[str, int]
    """The members of the document that end in ``Lifespan``, in seconds, by their names."""
    clients: Mapping[str, Client]
    users: Mapping[str, Account]
    scopes: Mapping[str, Scope]
    """Every client scope, assigned to a client or not."""
    identity_providers: tuple[IdentityProvider, ...]
    inside: Mapping[Role, Roles]
    """The roles that each composite role contains directly."""
    organizations: bool
    acr_levels: Mapping[str, int]
    """The realm's own names of the levels of authentication (``acr.loa.map``)."""
    group_attributes: Mapping[str, Mapping[str, tuple[str, ...]]]
    """The attributes of each group, by its path, with those of the groups above it."""
    unknown: tuple[str, ...]
    """What in this realm can change a token in ways that the document does not show."""

    @property
    def old(self) -> bool:
        """Whether this is 26.0, which has rules of its own. The model takes every later version for the newest that was measured."""
        return self.version < (26, 1)


def acr_levels(attributes: Mapping[str, str]) -> Mapping[str, int]:
    """Return the levels of authentication of a client or a realm by their names (``acr.loa.map``), or nothing."""
    try:
        levels = json.loads((attributes.get("acr.loa.map") or "").strip() or "{}")
        return {str(name): int(level) for name, level in levels.items()}
    except (AttributeError, TypeError, ValueError):  # refusals.py says that Keycloak does not import it
        return {}

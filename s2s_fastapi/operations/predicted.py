"""The tokens that a plan is about, as the realm model predicts them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from s2s_fastapi.operations.snapshot import Snapshot
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.realm.model import Denied

__all__ = ["Predicted", "audiences_in", "claims_of", "roles_in"]

_CLAIMS: Final = ("aud", "client_id", "scope", "realm_access", "resource_access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """One token that a caller requests: its claims before and after the plan. Empty: Keycloak refuses the request."""

    caller: str
    request: str | None
    before: Mapping[str, Any]
    after: Mapping[str, Any]


def claims_of(realm: Snapshot, caller: str, request: str | None) -> dict[str, Any]:
    """Return the claims that a plan shows of the token of a service; none if Keycloak refuses the request."""
    granted = realm.model.service_token(caller, scope=request)
    if isinstance(granted, Denied):
        return {}
    return {name: granted.claims[name] for name in _CLAIMS if name in granted.claims}


def audiences_in(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the audiences of a token."""
    found = claims.get("aud", ())
    return frozenset((found,) if isinstance(found, str) else found)


def roles_in(claims: Mapping[str, Any]) -> frozenset[Role]:
    """Return the roles of a token."""
    owned = {"": claims.get("realm_access") or {}, **(claims.get("resource_access") or {})}
    return frozenset(Role(owner, name) for owner, access in owned.items() for name in access.get("roles", ()))

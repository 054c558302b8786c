"""From a verified payload to a principal: every claim that is used is of exactly the type it must have."""

from collections.abc import Mapping
from typing import Any, Final, cast

from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak.cures import token_of
from s2s_fastapi.principal import Kind, Principal, frozen
from s2s_fastapi.text import named
from s2s_fastapi.verifier.refusal import Refused

__all__ = ["read_principal", "seconds"]

_LATEST: Final = 2**53  # beyond it JSON numbers are not exact, and no token lives that long


def read_principal(claims: dict[str, Any]) -> Principal:
    """Return the caller a payload speaks of (RFC 7519 section 4, Keycloak's names for the rest).

    Raises:
        Refused: A claim is missing or has the wrong type; ``"admin"`` where a list belongs never becomes five roles.
    """
    realm_access = _object(claims, "realm_access")
    resource_access = _object(claims, "resource_access")
    return Principal(
        client_id=_name(claims, "azp"),
        kind=_kind(claims),
        issuer=_name(claims, "iss"),
        issued_at=seconds(claims, "iat"),
        expires_at=seconds(claims, "exp"),
        subject=_name(claims, "sub", default=""),
        token_id=_name(claims, "jti", default=""),
        audiences=_audiences(claims),
        # By the one space of RFC 6749 section 3.3: a name with a tab or a no-break space in it never becomes two.
        scopes=frozenset(_string(claims, "scope", default="").split(" ")) - {""},
        realm_roles=_roles(claims, realm_access, "realm_access"),
        client_roles=cast(
            "Mapping[str, frozenset[str]]",
            frozen(
                {
                    client: _roles(claims, _object(resource_access, client, claims), f"resource_access.{client}")
                    for client in resource_access
                }
            ),
        ),
        claims=cast("Mapping[str, Any]", frozen(claims)),
    )


def seconds(claims: Mapping[str, Any], name: str) -> int:
    """Return a NumericDate as whole seconds since the epoch (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LATEST:
        raise _malformed(claims, name)
    return value


def _kind(claims: Mapping[str, Any]) -> Kind:
    # Keycloak sets client_id only for the client-credentials grant, and sid only where a user has a session. A token with both
    # (or neither) proves neither; preferred_username proves nothing, since anybody may register service-account-x. A UMA ticket
    # names us in aud because of a policy of Authorization Services, not because somebody gave its client a scope for it.
    if "authorization" in claims:
        return "unknown"
    if "sid" in claims:
        session = claims["sid"]
        return "user" if isinstance(session, str) and session and "client_id" not in claims else "unknown"
    return "service" if "client_id" in claims and claims["client_id"] == claims.get("azp") else "unknown"


def _malformed(claims: Mapping[str, Any], name: str, *, roles: bool = False) -> Refused:
    cure = f"{token_of(claims)}: the claim {named(name)} is missing or malformed. Remove the mapper that overwrites it"
    return Refused(
        Reason.MALFORMED_CLAIMS, f"{cure}, or switch “Multivalued” on in it: roles are a list." if roles else f"{cure}."
    )


def _string(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = claims.get(name, default)
    if not isinstance(value, str):
        raise _malformed(claims, name)
    return value


def _name(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = _string(claims, name, default=default)
    if not value.isprintable() or (not value and default is None):
        raise _malformed(claims, name)
    return value


def _object(container: Mapping[str, Any], name: str, claims: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the object ``name`` in ``container``; ``claims`` are given if that is an object inside of them."""
    value = container.get(name, {})
    if not isinstance(value, dict):
        raise _malformed(container, name) if claims is None else _malformed(claims, f"resource_access.{name}")
    return value


def _roles(claims: Mapping[str, Any], access: Mapping[str, Any], path: str) -> frozenset[str]:
    value = access.get("roles", [])
    if not isinstance(value, list) or not all(isinstance(member, str) for member in value):
        raise _malformed(claims, f"{path}.roles", roles=True)
    return frozenset(value)


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud", [])
    members = [value] if isinstance(value, str) else value
    if not isinstance(members, list) or not all(isinstance(member, str) and member for member in members):
        raise _malformed(claims, "aud")
    return frozenset(members)

"""From a verified payload to a principal: every claim that is used is of exactly the type it must have."""

from collections.abc import Mapping
from typing import Any, Final, cast

from s2s_fastapi.decision import Reason
from s2s_fastapi.keycloak.cures import shown
from s2s_fastapi.principal import Kind, Principal, frozen
from s2s_fastapi.receiver.refusal import Refused

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
        realm_roles=_names(realm_access, "roles"),
        client_roles=cast(
            "Mapping[str, frozenset[str]]",
            frozen({client: _names(_object(resource_access, client), "roles") for client in resource_access}),
        ),
        claims=cast("Mapping[str, Any]", frozen(claims)),
    )


def seconds(claims: Mapping[str, Any], name: str) -> int:
    """Return a NumericDate as whole seconds since the epoch (RFC 7519 section 2)."""
    value = claims.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LATEST:
        raise _malformed(name)
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


def _malformed(name: str) -> Refused:
    return Refused(
        Reason.MALFORMED_CLAIMS, f"the claim {name} is missing or malformed: remove the mapper that overwrites it"
    )


def _string(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = claims.get(name, default)
    if not isinstance(value, str):
        raise _malformed(name)
    return value


def _name(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = _string(claims, name, default=default)
    if not value.isprintable() or (not value and default is None):
        raise _malformed(name)
    return value


def _object(claims: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = claims.get(name, {})
    if not isinstance(value, dict):
        raise _malformed(shown(name))
    return value


def _names(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    value = claims.get(name, [])
    if not isinstance(value, list) or not all(isinstance(member, str) for member in value):
        raise _malformed(name)
    return frozenset(value)


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud", [])
    members = [value] if isinstance(value, str) else value
    if not isinstance(members, list) or not all(isinstance(member, str) and member for member in members):
        raise _malformed("aud")
    return frozenset(members)

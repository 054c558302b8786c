"""From a verified payload to a principal. Every claim that is used has exactly the type it must have."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import token_of
from s2s_fastapi.principal import NOTHING, Kind, Principal
from s2s_fastapi.text import named

__all__ = ["read_principal"]

_LATEST: Final = 2**53  # beyond it JSON numbers are not exact, and no token lives that long


class _MalformedError(Exception):
    """A claim is missing or has the wrong type. It never leaves this module: whoever calls gets a sentence."""


def read_principal(
    claims: dict[str, Any], whole: Mapping[str, Any], *, realm: str = "", other_realm: str = ""
) -> tuple[Principal, int] | Decision:
    """Return the caller that a payload describes, and its ``nbf`` (RFC 7519 section 4, Keycloak's names for the rest).

    - ``nbf`` is in seconds since the epoch, 0 if there is none.
    - ``whole`` is the same payload as the read-only mapping that the principal keeps.
    - ``realm`` and ``other_realm`` are what the principal says of its realm.
    - It is refused if a claim is missing or has the wrong type: ``"admin"`` in the place of a list never becomes five roles.
    """
    try:
        realm_access, resource_access = _object(claims, "realm_access"), _object(claims, "resource_access")
        principal = Principal(
            client_id=_name(claims, "azp"),
            kind=_kind(claims),
            issuer=_name(claims, "iss"),
            issued_at=_seconds(claims, "iat"),
            expires_at=_seconds(claims, "exp"),
            subject=_name(claims, "sub", default=""),
            token_id=_name(claims, "jti", default=""),
            audiences=_audiences(claims),
            scopes=_scopes(_string(claims, "scope", default="")),
            realm_roles=_roles(claims, realm_access, "realm_access"),
            client_roles=_client_roles(claims, resource_access),
            claims=whole,
            realm=realm,
            other_realm=other_realm,
        )
        not_before = _not_before(claims)
    except _MalformedError as malformed:
        return Decision(reason=Reason.MALFORMED_CLAIMS, cure=str(malformed))
    return principal, not_before


def _not_before(claims: Mapping[str, Any]) -> int:
    value = claims.get("nbf", 0)
    # Old servers write nbf: 0. False equals 0, but is no date.
    return 0 if value == 0 and type(value) is not bool else _seconds(claims, "nbf")


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    """Return a NumericDate as whole seconds since the epoch (RFC 7519 section 2)."""
    value = claims.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not 0 < value < _LATEST:
        raise _malformed(claims, name)
    return value


def _kind(claims: Mapping[str, Any]) -> Kind:
    # Keycloak sets client_id only for the client-credentials grant, and sid only if a user has a session. A token with both
    # (or neither) proves neither. preferred_username proves nothing, since anybody may register service-account-x. A UMA ticket
    # names us in aud because of a policy of Authorization Services, not because somebody gave its client a scope for it.
    if "authorization" in claims:
        return "unknown"
    if "sid" in claims:
        session = claims["sid"]
        return "user" if isinstance(session, str) and session and "client_id" not in claims else "unknown"
    return "service" if "client_id" in claims and claims["client_id"] == claims.get("azp") else "unknown"


def _malformed(claims: Mapping[str, Any], name: str, *, roles: bool = False) -> _MalformedError:
    cure = f"{token_of(claims)}: the claim {named(name)} is missing or malformed. Remove the mapper that overwrites it"
    return _MalformedError(f"{cure}, or switch “Multivalued” on in it: roles are a list." if roles else f"{cure}.")


def _string(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = claims.get(name, default)
    if type(value) is not str:  # nothing that was read as JSON is a subclass
        raise _malformed(claims, name)
    return value


def _name(claims: Mapping[str, Any], name: str, *, default: str | None = None) -> str:
    value = _string(claims, name, default=default)
    if not value.isprintable() or (not value and default is None):
        raise _malformed(claims, name)
    return value


def _object(container: Mapping[str, Any], name: str, claims: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the object ``name`` in ``container``. If that is an object inside of the claims, ``claims`` are given."""
    value = container.get(name, {})
    if not isinstance(value, dict):
        raise _malformed(container, name) if claims is None else _malformed(claims, f"resource_access.{name}")
    return value


def _client_roles(claims: Mapping[str, Any], resource_access: dict[str, Any]) -> Mapping[str, frozenset[str]]:
    if not resource_access:
        return NOTHING
    return MappingProxyType(
        {
            client: _roles(claims, _object(resource_access, client, claims), f"resource_access.{client}")
            for client in resource_access
        }
    )


def _roles(claims: Mapping[str, Any], access: Mapping[str, Any], path: str) -> frozenset[str]:
    value = access.get("roles", [])
    found = _names(value) if isinstance(value, list) else None
    if found is None:
        raise _malformed(claims, f"{path}.roles", roles=True)
    return found


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud", [])
    members = [value] if isinstance(value, str) else value
    found = _names(members) if isinstance(members, list) else None
    if found is None or "" in found:
        raise _malformed(claims, "aud")
    return found


def _names(members: list[Any]) -> frozenset[str] | None:
    """Return the members as a set; None if one is not a text."""
    try:
        return _shared(tuple(members))
    except TypeError:  # an object or an array in it: it has no hash
        return None


# The tokens of one realm have few different sets: they share them, which saves memory and time.


@lru_cache(maxsize=256)
def _shared(members: tuple[Any, ...]) -> frozenset[str] | None:
    # Nothing else that JSON has equals a text, so the answer to one tuple is the answer to all that equal it.
    for member in members:
        if type(member) is not str:
            return None
    return frozenset(members)


@lru_cache(maxsize=256)
def _scopes(text: str) -> frozenset[str]:
    # By the one space of RFC 6749 section 3.3: a name with a tab or a no-break space in it never becomes two.
    return frozenset(text.split(" ")) - {""}

"""What Keycloak asks before it exchanges a token, and how `audience` narrows the result (RFC 8693; standard token exchange, 26.2 and newer)."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

from s2s_fastapi.realm.entities import Account, Client, Realm
from s2s_fastapi.realm.scopes import InEffect
from s2s_fastapi.text import names_in

__all__ = [
    "ACCESS_TOKEN",
    "ANY_SESSION",
    "ENABLED",
    "GRANT_TYPE",
    "ID_TOKEN",
    "REFRESH_TOKEN",
    "SINCE",
    "Refusal",
    "SubjectToken",
    "bound_to",
    "enabled",
    "narrowed",
    "no_result",
    "no_subject",
    "offers_refresh",
    "subject_account",
    "unsupported_type",
    "wrong_audience",
]

# GRANT_TYPE, ACCESS_TOKEN, ENABLED and SINCE stand in keycloak/exchange.py too: the model of a realm imports nothing of that room.
GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_TYPE: Final = "urn:ietf:params:oauth:token-type:"
ACCESS_TOKEN: Final = f"{_TYPE}access_token"
ID_TOKEN: Final = f"{_TYPE}id_token"
REFRESH_TOKEN: Final = f"{_TYPE}refresh_token"
_SAML: Final = f"{_TYPE}saml2"

ENABLED: Final = "standard.token.exchange.enabled"
_REFRESH: Final = "standard.token.exchange.enableRefreshRequestedTokenType"
SINCE: Final = (26, 2)

ANY_SESSION: Final[Mapping[str, str]] = MappingProxyType({"sub": "any user", "sid": "any session"})
"""The claims that make a predicted token that of a user about whom nothing is known."""

Refusal = tuple[int, str, str]
"""Status, error and description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectToken:
    """The token that a client exchanges: what Keycloak's answer depends on, if the token is genuine and has not expired."""

    client_id: str
    """``azp``."""
    audience: frozenset[str]
    username: str = ""
    """The account that the token is about. Empty: a user about whom nothing is known, who has no role and no attribute."""
    session: bool = True
    """Whether the token has a session: every user's has one, and a service's only with a refresh token."""
    service: str = ""
    """The client to whose own token the session belongs; empty for a user's session."""
    offline: bool = False
    """Whether the session is an offline session."""
    clients: frozenset[str] = frozenset()
    """The clients that take part in the session: the one through which the user logged in, and each that got a refresh token of it."""
    bound: str = ""
    """The thumbprint of the key to which the token is bound: see `bound_to`."""

    @classmethod
    def of_any_user(cls, client_id: str) -> Self:
        """Return the token of a user about whom nothing is known, logged in through the client that exchanges it."""
        return cls(client_id=client_id, audience=frozenset((client_id,)))


def enabled(realm: Realm, client: Client) -> Refusal | None:
    """Return why this client may not exchange tokens at all, or None (rule 37)."""
    if realm.version < SINCE:
        return 400, "unsupported_grant_type", "Unsupported grant_type"
    if client.attributes.get(ENABLED) != "true":
        return 400, "invalid_request", "Standard token exchange is not enabled for the requested client"
    return None


def subject_account(realm: Realm, subject: SubjectToken) -> Account | None:
    """Return the account that the token is about, or None if the token is no longer good in this realm (rule 38)."""
    client = realm.clients.get(subject.client_id)
    if client is None or not client.enabled:
        return None
    if not subject.username:
        return Account(username="", id="", attributes={})
    own = (one.account for one in realm.clients.values() if one.account is not None)
    found = realm.users.get(subject.username) or next((one for one in own if one.username == subject.username), None)
    return found if found is not None and found.enabled else None


def bound_to(claims: Mapping[str, Any]) -> str:
    """Return the thumbprint of the key to which a token is bound (``cnf.jkt``); ``?`` if it is bound in another way, empty if it is not."""
    if "cnf" not in claims:
        return ""
    confirmation = claims["cnf"]
    thumbprint = confirmation.get("jkt") if isinstance(confirmation, Mapping) else None
    return thumbprint if isinstance(thumbprint, str) and thumbprint else "?"


def no_subject(client: Client, subject: SubjectToken, jkt: str) -> Refusal | None:
    """Return why a token that is bound to a key is not exchanged, or None (rule 38). ``jkt`` is the thumbprint of the proof's key."""
    if not subject.bound:
        return None
    if subject.client_id != client.id:
        issued = "the token was not issued for the requesting client"
        return 400, "invalid_request", f"Sender-constrained token exchange rejected as {issued}"
    if not jkt:
        return 400, "invalid_request", "DPoP proof is missing"
    if jkt != subject.bound:
        return 400, "invalid_request", "DPoP confirmation doesn't match DPoP proof"
    return None


def offers_refresh(client: Client) -> bool:
    """Return whether the client may exchange for a refresh token as well."""
    return client.attributes.get(_REFRESH) == "SAME_SESSION" and client.attributes.get("use.refresh.tokens") != "false"


def unsupported_type(client: Client, requested: str) -> bool:
    """Return whether Keycloak refuses the ``requested_token_type`` before it looks at anything else."""
    return requested not in {ACCESS_TOKEN, ID_TOKEN, _SAML} and not (
        requested == REFRESH_TOKEN and offers_refresh(client)
    )


def wrong_audience(realm: Realm, client: Client, subject: SubjectToken, audiences: Collection[str]) -> Refusal | None:
    """Return what is wrong with the audiences that were asked for, or with the requester's place in the subject's, or None (rule 39)."""
    targets = [realm.clients.get(one) for one in audiences]
    if None in targets:
        return 400, "invalid_client", "Audience not found"
    if client.public:
        return 400, "invalid_client", "Public client is not allowed to exchange token"
    if not all(target.enabled for target in targets if target is not None):
        return 400, "invalid_client", "Client disabled"
    if client.id not in {subject.client_id, *subject.audience}:
        return 403, "access_denied", "Client is not within the token audience"
    return None


def no_result(client: Client, subject: SubjectToken, effect: InEffect, *, refresh: bool) -> Refusal | None:
    """Return why there is no token although scope and audiences are right, or None (rule 41)."""
    if refresh and (subject.offline or not subject.session):
        reason = "Refresh token not valid as requested_token_type because creating a new session is needed"
        return 400, "invalid_request", reason
    if refresh and effect.offline and not effect.offline_allowed:
        return 400, "not_allowed", "Offline tokens not allowed for the user or client"
    if refresh and effect.offline:
        return 400, "invalid_request", "Scope offline_access not allowed for token exchange"
    if client.consent:
        return 400, "invalid_scope", f"Missing consents for Token Exchange in client {client.id}"
    return None


def narrowed(claims: Mapping[str, Any], audiences: Collection[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the claims for these audiences alone, and which of the audiences no mapper gives (rule 40).

    Only ``aud`` and ``resource_access`` are narrowed: realm roles and claims of other names stay.
    """
    every = names_in(claims.get("aud"))
    kept = [one for one in every if one in audiences]
    roles = {client: held for client, held in claims.get("resource_access", {}).items() if client in audiences}
    return dict(_shown(claims, kept, roles)), [one for one in dict.fromkeys(audiences) if one not in every]


def _shown(claims: Mapping[str, Any], audience: list[str], roles: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in claims.items():
        if name == "aud":
            yield name, audience[0] if len(audience) == 1 else audience
        elif name != "resource_access":
            yield name, value
        elif roles:
            yield name, roles

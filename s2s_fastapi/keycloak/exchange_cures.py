"""What to change in Keycloak if it does not exchange a user's token. The calling side and the operator's tools use the same words."""

from collections.abc import Iterable
from typing import Final

from s2s_fastapi.text import listed, named

__all__ = [
    "BOUND",
    "SESSION_OVER",
    "TOO_OLD",
    "foreign_issuer",
    "no_consent",
    "not_enabled",
    "not_in_audience",
    "public_client",
    "unasked",
]

BOUND: Final = "A sender-constrained user token (DPoP or mTLS) cannot be exchanged by the service that received it."
SESSION_OVER: Final = "the session of the user is over, the user is disabled, or the token has expired"
"""What Keycloak's "Invalid token" means if it says so of one user."""
TOO_OLD: Final = (
    "Calls on behalf of a user need Keycloak 26.2 or newer, with the feature token-exchange-standard (on by default)."
)


def foreign_issuer(issuer: str) -> str:
    """Return the cure if Keycloak says "Invalid token" of every user's token."""
    return (
        f"Compare Keycloak's hostname (KC_HOSTNAME) with the issuer of the tokens, {issuer} (KEYCLOAK_PUBLIC_URL or KEYCLOAK_ISSUER): Keycloak"
        " accepts only tokens with the issuer that it has now. If all sessions of the realm were just ended, nothing is wrong: this ends with the"
        " first user who logs in again."
    )


def not_enabled(client: str) -> str:
    """Return the cure for a client that may not exchange tokens."""
    return (
        f'Switch "Standard Token Exchange" on for the client {named(client)} in Keycloak (Settings, Capability config; attribute'
        " standard.token.exchange.enabled). `s2s-fastapi plan` does it for a call on behalf of a user."
    )


def not_in_audience(client: str, front_end: str = "") -> str:
    """Return the cure for a user's token that is not for the client that exchanges it."""
    whose = f"of the client {named(front_end)}, which requests the users' tokens" if front_end else "of the front end"
    return (
        f"Give the users' tokens the audience {named(client)}: add an Audience mapper for {named(client)} to a client scope {whose}. Lightweight"
        " tokens have no audience and cannot be exchanged."
    )


def public_client(client: str) -> str:
    """Return the cure for a client without credentials."""
    return f'Switch "Client authentication" on for the client {named(client)} in Keycloak: a public client cannot exchange tokens.'


def no_consent(client: str) -> str:
    """Return the cure for a client that needs the consent of the user."""
    return (
        f'Switch "Consent required" off for the client {named(client)} in Keycloak: the user never logs in to it, so nobody could'
        " be asked."
    )


def unasked(audiences: Iterable[str], scopes: Iterable[str], client: str) -> str:
    """Say that an exchanged token is for more services than were asked for, and which scopes to look at."""
    where = listed(scopes)
    return (
        f"a token that {named(client)} exchanged is also for {listed(audiences)}, which nobody asked for and which could call other services"
        f" with it: look at the Audience mappers of {f'the scope {where} and of ' if where else ''}the default client scopes of {named(client)}, and"
        ' make those scopes optional and name the wanted one with scope= in the code, or switch "Full scope allowed" off'
    )

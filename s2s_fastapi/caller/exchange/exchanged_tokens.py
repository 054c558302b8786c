"""The tokens that were exchanged for users: one store for the whole process."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import Steps

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ExchangedToken", "ExchangedTokens"]


@dataclass(frozen=True, slots=True)
class ExchangedToken:
    """One user's token for one audience, in the store. It holds no token: the auth flow may keep it beside a request."""

    def peek(self) -> GrantedToken | None:
        """Return the token if there is one that lives; start nothing."""
        raise NotImplementedError

    def getting(self, subject: Subject) -> Steps[GrantedToken]:
        """Return the body that gives the token, and waits for one exchange if there is none.

        Raises:
            SessionEnded, NoUserToActFor, TokenRequestError (AudienceNotGranted), ConfigurationError
        """
        raise NotImplementedError

    def renewing(self, subject: Subject, seen: GrantedToken) -> Steps[GrantedToken]:
        """Return the body that gives another token than `seen`, which a receiver refused; within 10 s of its exchange, `seen` again."""
        raise NotImplementedError

    def refuse(self, seen: GrantedToken) -> None:
        """Remember that a receiver refused `seen`. Never blocks or raises."""
        raise NotImplementedError

    def used(self, token: GrantedToken) -> None:
        """Record the age of `token` at the moment when a request carries it."""
        raise NotImplementedError

    def resent(self) -> None:
        """Count a request that is sent once more, with another token."""
        raise NotImplementedError


class ExchangedTokens:
    """To come: reachable as `IN_USE.source.exchanged`."""

    def of(self, settings: "KeycloakSettings", wanted: Wanted, subject: Subject) -> ExchangedToken:
        """Return the place of one user's token for one audience; no network yet, checks the subject."""
        raise NotImplementedError

    def token(self, settings: "KeycloakSettings", wanted: Wanted, subject: Subject) -> Steps[GrantedToken]:
        """Return the body that gives a token for `wanted`, exchanged for that of `subject`."""
        return (yield from self.of(settings, wanted, subject).getting(subject))

"""The user for whom this service calls: of a request that the middleware accepted, or of a token whose text is given."""

from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from starlette.requests import HTTPConnection

from s2s_fastapi.accepted import SCOPE_KEY, AcceptedToken
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedToken
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.errors import ConfigurationError, NoUserToActFor
from s2s_fastapi.text import named

__all__ = ["ActingUser", "RequestedToken", "UsersToken"]

_NOT_A_USER: Final = {
    "service": "A service calls as itself: use service_client or service_auth without on_behalf.",
    "unknown": "Its token is neither a user's nor a service's: see the kinds of callers.",
}


class RequestedToken(Protocol):
    """A token as the auth flow uses it: this service's own, or one that is exchanged for a user's."""

    peek: Callable[[], GrantedToken | None]

    def fresh(self, min_validity: float) -> GrantedToken | None:
        """Return the token if it lives for `min_validity` more seconds; start nothing."""

    def get(self, min_validity: float = 0.0) -> GrantedToken:
        """Return the token, and request it if there is none."""

    async def aget(self, min_validity: float = 0.0) -> GrantedToken:
        """Do as `get`, without blocking the running loop."""

    def renewing(self, seen: GrantedToken) -> Steps[GrantedToken]:
        """Return the body that gives another token than `seen`, which a receiver refused."""

    def refuse(self, seen: GrantedToken) -> None:
        """Remember that a receiver refused `seen`."""

    def current(self) -> GrantedToken | None:
        """Return the last token."""

    def used(self, token: GrantedToken) -> None:
        """Record the age of `token` at the moment when a request carries it."""

    def resent(self) -> None:
        """Count a request that is sent once more, with another token."""


class ActingUser:
    """Whose token is exchanged.

    - Of an accepted request it holds no token: it asks the request for it, as long as the request runs.
    - It has no repr of its own, and it refuses to be pickled.
    """

    __slots__ = ("_source", "digest")

    def __init__(self, source: AcceptedToken | Subject) -> None:
        self._source = source
        self.digest = source.digest
        """The `digest` of the user's token: it must not be sent on."""

    @classmethod
    def of(cls, given: object) -> "ActingUser":
        """Return the user of an access token, or of a request or WebSocket that `ServiceAuthMiddleware` accepted.

        Raises:
            NoUserToActFor: There is none.
            ConfigurationError: It is something else.
        """
        if isinstance(given, str):
            try:
                return cls(Subject.of(given))
            finally:
                del given  # error trackers record the locals of each frame that raises
        if not isinstance(given, HTTPConnection):
            raise ConfigurationError(
                "on_behalf_of takes the text of a user's access token, or the Request or WebSocket that ServiceAuthMiddleware accepted, not"
                f" {type(given).__name__}."
            )
        accepted = given.scope.get(SCOPE_KEY)
        if not isinstance(accepted, AcceptedToken):
            raise NoUserToActFor(
                "There is no user to act for: the request has no token that ServiceAuthMiddleware accepted. Nothing was sent. Take its path"
                " out of public_paths and optional_paths. If the app has no ServiceAuthMiddleware, give on_behalf_of the text of the user's"
                " token after you verified it."
            )
        caller = accepted.principal
        if caller.kind != "user":
            raise NoUserToActFor(
                f"There is no user to act for: {named(caller.client_id)} called, and it is not a user. Nothing was sent. {_NOT_A_USER[caller.kind]}"
            )
        return cls(accepted)

    def subject(self) -> Subject:
        """Return the token to exchange. Do not keep it.

        Raises:
            NoUserToActFor: The request has ended.
        """
        source = self._source
        return source if isinstance(source, Subject) else Subject.of(source.token())

    def __reduce__(self) -> NoReturn:
        raise TypeError("A user's token is not pickled: it belongs to the request that brought it.")


class UsersToken:
    """The token that is exchanged for one user's, as the auth flow uses it. It may be kept beside a request."""

    __slots__ = ("_exchanged", "_user", "current", "peek", "refuse", "resent", "used")

    def __init__(self, exchanged: ExchangedToken, user: ActingUser) -> None:
        self._exchanged = exchanged
        self._user = user
        self.peek = self.current = exchanged.peek
        self.refuse, self.used, self.resent = exchanged.refuse, exchanged.used, exchanged.resent

    def fresh(self, min_validity: float) -> GrantedToken | None:
        """Return the token if there is one that lives; start nothing.

        Raises:
            ConfigurationError: `min_validity` is given.
        """
        if min_validity:
            raise ConfigurationError(
                "min_validity= is for this service's own token: an exchanged token lives no longer than the user's, and is not renewed before"
                " it ends. Leave min_validity out."
            )
        return self.peek()

    def get(self, min_validity: float = 0.0) -> GrantedToken:  # noqa: ARG002 - `fresh` refuses it before
        """Return the token; if there is none, exchange the user's."""
        return run(self._exchanged.getting(self._user.subject()))

    async def aget(self, min_validity: float = 0.0) -> GrantedToken:  # noqa: ARG002 - as above
        """Do as `get`, without blocking the running asyncio or trio loop."""
        return await arun(self._exchanged.getting(self._user.subject()))

    def renewing(self, seen: GrantedToken) -> Steps[GrantedToken]:
        """Return the body that gives another token than `seen`, which a receiver refused."""
        return self._exchanged.renewing(self._user.subject(), seen)

"""One token that all callers with the same key share: how they wait for it, and how it is kept and renewed."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from s2s_fastapi.caller.binding import BoundClients
from s2s_fastapi.caller.granted import GrantedToken
from s2s_fastapi.caller.token_endpoint import Channel
from s2s_fastapi.caller.token_errors import reach_cure, saying_when
from s2s_fastapi.caller.token_request import TokenKey, TokenRequest
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.refreshing import Refreshing, State
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import S2SError, TokenRequestError
from s2s_fastapi.telemetry.metrics import RESENDS, TOKEN_AGE
from s2s_fastapi.telemetry.spans import background, foreground, span
from s2s_fastapi.text import named

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["DEADLINE", "RENEWAL_SPACING", "SharedToken"]

DEADLINE: Final = 5.0
"""Longest time in seconds that a caller waits for a token."""
RENEWAL_SPACING: Final = 10.0
"""Seconds between the beginning of a request and the beginning of a forced one."""
_MAX_WAITERS: Final = 10_000
"""Upper bound on callers that wait for one token at a time; a waiter costs 50 bytes."""


class SharedToken:
    """One token for all callers of this process with the same key: fresh, renewed ahead, kept through failures."""

    def __init__(
        self,
        key: TokenKey,
        settings: "KeycloakSettings",
        channel: Channel,
        workers: Workers,
        clock: Callable[[], float],
        *,
        clients: BoundClients | None = None,
    ) -> None:
        self._key = key
        self._settings = settings
        self.workers = workers
        """The threads that request it. Each server has its own."""
        self._request = TokenRequest(key, settings, channel, clock, clients=clients)
        self._value = Refreshing[GrantedToken](
            self._request,
            name=f"the token of {named(settings.client_id)}",
            workers=workers,
            timeout=DEADLINE,
            clock=clock,
            spacing=RENEWAL_SPACING,
            max_waiters=_MAX_WAITERS,
            foreground=foreground,
            background=background,
            unavailable=_unavailable,
            unanswered=self._unanswered,
            inheritable=lambda token: token.binding is None,
        )
        self.peek = self._value.peek  # the hot path: no call in between

    def fresh(self, min_validity: float) -> GrantedToken | None:
        """Return the token if it is fresh and lives for `min_validity` more seconds, else None; start nothing."""
        token = self.peek()
        return token if token is not None and self._lasts(token, min_validity) else None

    def get(self, min_validity: float = 0.0) -> GrantedToken:
        """Return a token that lives for `min_validity` more seconds. If there is none, wait at most 5 s, with all other callers.

        The token stays shared: a renewal for one caller is a renewal for all, at most once in 10 s. So no caller can need more seconds
        than a token has left 10 s after it was requested.

        Raises:
            TokenRequestError: Keycloak gave no token (`AudienceNotGranted`: no token for the wanted audience), or its tokens do not
                live long enough.
            ConfigurationError: The secret cannot be read.
        """
        return run(self.getting(min_validity))

    async def aget(self, min_validity: float = 0.0) -> GrantedToken:
        """Do as `get`, without blocking the running asyncio or trio loop."""
        return await arun(self.getting(min_validity))

    def getting(self, min_validity: float = 0.0) -> Steps[GrantedToken]:
        """Return the body of `get` and `aget`."""
        self._forget_failure_of_old_secret()
        with saying_when(lambda: self.state().next_try_in):
            token = self._value.ready()
            if token is None:
                with self._waiting():
                    token = yield from self._value.reading()
            if self._lasts(token, min_validity):
                return token
            self._check_possible(token, min_validity)
            if (resting := self._resting()) is not None:
                raise resting
            another = yield from self.renewing(token)
            if self._lasts(another, min_validity):
                return another
            self._check_possible(another, min_validity)
            # Within the spacing of a request that brought nothing: the token is the one that was there.
            raise self._value.state().last_error or TokenRequestError(
                f"The token of {named(self.client_id)} has less than {min_validity:g} s left, and another token was requested just now."
            )

    def renewing(self, seen: GrantedToken) -> Steps[GrantedToken]:
        """Return the body that gives another token than `seen`, which a receiver refused. Within 10 s of the last request, it gives `seen` again.

        Raises:
            TokenRequestError: as `get`; the current token stays.
        """
        with self._waiting():
            return (yield from self._value.reading(seen=seen))

    def refuse(self, seen: GrantedToken) -> None:
        """Remember that a receiver refused `seen`: the next call waits for another token. Never blocks or raises.

        - Nothing happens if `seen` is no longer the current token.
        - Within 10 s of the last request, `seen` is used until those 10 s are over.
        - While Keycloak gives no other token, `seen` is used until it expires.
        """
        self._value.refuse(seen)

    def start(self) -> None:
        """Begin to request the token in the background, if there is none; never waits and never fails."""
        self._value.start()

    def current(self) -> GrantedToken | None:
        """Return the last token, however old."""
        return self._value.current()

    @property
    def client_id(self) -> str:
        """The client that the token belongs to."""
        return self._settings.client_id

    @property
    def issuer(self) -> str:
        """The realm that issues it."""
        return self._key.issuer

    @property
    def wanted(self) -> Wanted:
        """Its audiences and scopes."""
        return self._key.wanted

    @property
    def dpop(self) -> bool:
        """Whether it is bound to a key of this process."""
        return self._key.dpop

    def state(self) -> State:
        """Return the state of the token: its age, the last error, the next try."""
        return self._value.state()

    def used(self, token: GrantedToken) -> None:
        """Record the age of `token` at the moment when a request carries it."""
        age = self._value.age(token)
        if age != math.inf:
            TOKEN_AGE.record(age, self._request.labels)

    def resent(self) -> None:
        """Count a request that is sent once more, with another token."""
        RESENDS.add(1, self._request.labels)

    def _lasts(self, token: GrantedToken, min_validity: float) -> bool:
        return not min_validity or token.life - self._value.age(token) >= min_validity

    def _check_possible(self, token: GrantedToken, min_validity: float) -> None:
        longest = max(0.0, token.life - RENEWAL_SPACING)
        if min_validity > longest:
            raise TokenRequestError(
                f"The tokens of {named(self.client_id)} live {token.life:g} s, so min_validity={min_validity:g} is not possible"
                f" (at most {longest:g}: a token is renewed at most every {RENEWAL_SPACING:g} s).",
                cure="Lower min_validity, or raise the access token lifespan of the client or of the realm in Keycloak.",
                retryable=False,
            )

    def _resting(self) -> S2SError | None:
        """Return the failure after which Keycloak is not asked at present, if there is one: an error that was never raised."""
        state = self._value.state()
        return state.last_error if state.next_try_in is not None and not state.loading else None

    def _forget_failure_of_old_secret(self) -> None:
        """Forget that the secret was refused if its file now has another one."""
        if self._request.another_secret():
            self._value.forget_failure()

    def _unanswered(self, sentence: str) -> S2SError:
        return TokenRequestError(f"{sentence}.", cure=reach_cure(self._settings))

    def _waiting(self) -> AbstractContextManager[object]:
        """Show in the trace of a request how long it waited, also if the load of another request brought the token."""
        return span("wait for token", self._request.attributes)


def _unavailable(sentence: str) -> S2SError:
    return TokenRequestError(f"{sentence}.")

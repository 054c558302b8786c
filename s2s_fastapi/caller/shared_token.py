"""One token, shared by all who ask for the same: how it is waited for, kept and renewed."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from s2s_fastapi.caller.granted import Token
from s2s_fastapi.caller.token_errors import reach_cure
from s2s_fastapi.caller.token_key import TokenKey
from s2s_fastapi.caller.token_request import Channel, TokenRequest
from s2s_fastapi.caller.wanted import Asked
from s2s_fastapi.engine.refreshing import Refreshing, State
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import S2SError, TokenRequestError
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry.metrics import RESENDS, TOKEN_AGE
from s2s_fastapi.telemetry.spans import span
from s2s_fastapi.text import named

__all__ = ["DEADLINE", "RENEWAL_SPACING", "SharedToken"]

DEADLINE: Final = 5.0
"""Seconds anybody waits for a token."""
RENEWAL_SPACING: Final = 10.0
"""Seconds between the beginning of a request and that of one that is forced."""
_MAX_WAITERS: Final = 10_000
"""Callers who wait for one token at a time. They exist anyway; a waiter costs 50 bytes."""


class SharedToken:
    """One token, for everybody in this process who asks for the same: fresh, renewed ahead, kept through failures."""

    def __init__(
        self, key: TokenKey, settings: KeycloakSettings, channel: Channel, workers: Workers, clock: Callable[[], float]
    ) -> None:
        self._key = key
        self._settings = settings
        self.workers = workers
        """The threads that request it. Each server has its own."""
        self._request = TokenRequest(key, settings, channel, clock)
        self._value = Refreshing[Token](
            self._request,
            name=f"the token of {named(settings.client_id)}",
            workers=workers,
            timeout=DEADLINE,
            clock=clock,
            spacing=RENEWAL_SPACING,
            max_waiters=_MAX_WAITERS,
            unavailable=_unavailable,
            unanswered=self._unanswered,
        )
        self.peek = self._value.peek  # the hot path: no call in between

    def get(self) -> Token:
        """Return the token; wait for at most 5 s, with all others for one request, where there is none.

        Raises:
            TokenRequestError: Keycloak gave none (`AudienceNotGranted`: none that is for the asked audience).
            ConfigurationError: The secret cannot be read.
        """
        self._forget_failure_of_old_secret()
        if (token := self._value.ready()) is not None:
            return token
        with self._waiting():
            return self._value.get()

    async def aget(self) -> Token:
        """Do as `get`, without blocking the running asyncio or trio loop."""
        self._forget_failure_of_old_secret()
        if (token := self._value.ready()) is not None:
            return token
        with self._waiting():
            return await self._value.aget()

    def renew(self, seen: Token) -> Token:
        """Return another token than `seen`, which a receiver refused; `seen` again within 10 s of the last request.

        Raises:
            TokenRequestError: as `get`; the current token stays.
        """
        with self._waiting():
            return self._value.renew(seen)

    async def arenew(self, seen: Token) -> Token:
        """Do as `renew`, without blocking the running asyncio or trio loop."""
        with self._waiting():
            return await self._value.arenew(seen)

    def refuse(self, seen: Token) -> None:
        """Remember that a receiver refused `seen`: the next call waits for another token. Never blocks or raises.

        Nothing happens if `seen` is not the current token any more. Within 10 s of the last request `seen` is used until their end,
        and while Keycloak gives no other token as long as it lives.
        """
        self._value.refuse(seen)

    def start(self) -> None:
        """Begin to ask for the token behind, if there is none; never waits and never fails."""
        self._value.start()

    def current(self) -> Token | None:
        """Return the token that came last, however old."""
        return self._value.current()

    @property
    def client_id(self) -> str:
        """Whose token it is."""
        return self._settings.client_id

    @property
    def issuer(self) -> str:
        """Which realm gives it."""
        return self._key.issuer

    @property
    def asked(self) -> Asked:
        """What it is asked for."""
        return self._key.asked

    def state(self) -> State:
        """Return how the token is: its age, the last error, the next try."""
        return self._value.state()

    def age(self, token: Token) -> float:
        """Return how many seconds ago `token` was asked for; infinity where another one has taken its place."""
        return self._value.age(token)

    def used(self, token: Token) -> None:
        """Count how old `token` is now that a request carries it."""
        age = self._value.age(token)
        if age != math.inf:
            TOKEN_AGE.record(age, self._request.labels)

    def resent(self) -> None:
        """Count a request that is sent once more, with another token."""
        RESENDS.add(1, self._request.labels)

    def resting(self) -> S2SError | None:
        """Return the failure because of which Keycloak is left alone at present, if it is: an error that was never raised."""
        state = self._value.state()
        return state.last_error if state.next_try_in is not None and not state.loading else None

    def last_error(self) -> S2SError | None:
        """Return what the last request failed with, if it did: an error that was never raised."""
        return self._value.state().last_error

    def _forget_failure_of_old_secret(self) -> None:
        """Forget that the secret was refused once its file has another one."""
        if self._request.another_secret():
            self._value.forget_failure()

    def _unanswered(self, sentence: str) -> S2SError:
        return TokenRequestError(f"{sentence}.", cure=reach_cure(self._settings))

    def _waiting(self) -> AbstractContextManager[object]:
        """Show in a request's trace how long it waited, also where another request's load brought the token."""
        return span("wait for token", self._request.attributes)


def _unavailable(sentence: str) -> S2SError:
    return TokenRequestError(f"{sentence}.")

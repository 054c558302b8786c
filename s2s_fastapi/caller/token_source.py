"""The cache of tokens that the whole process shares."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.binding import BoundClients
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedToken, ExchangedTokens
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.shared_token import DEADLINE, SharedToken
from s2s_fastapi.caller.token_endpoint import Channel
from s2s_fastapi.caller.token_request import TokenKey
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.workers import EXCHANGES, TOKENS, Workers
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.process import watch_forks

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["IN_USE", "TokenSource", "using"]

_CAPACITY: Final = 1024


def _channel(settings: "KeycloakSettings") -> Channel:
    # No longer than the first waiter waits: otherwise requests that hang would block the worker threads for all other loads. A load
    # may still outlast its waiters (it began late, or sends two requests); its late answer is kept.
    return BackChannel.shared(settings.ca_file, DEADLINE, settings.proxy, ClientCertificate.of(settings))


class TokenSource:
    """Give every caller the same `SharedToken` for the same key.

    - At most `capacity` keys are kept. The key that was unused for longest is dropped first; a caller that holds its token keeps it.
    - `settings` returns the settings to use: those of the caller, or those of the environment for None.
    - `channel` makes the connection to Keycloak, and `workers` returns the threads for a URL; `exchange_workers` those for tokens of users.
    - `clock` is monotonic; `wall` returns seconds since the epoch.
    - Tests pass their own, and put the source in place with `using`.
    """

    def __init__(
        self,
        *,
        channel: "Callable[[KeycloakSettings], Channel]" = _channel,
        settings: "Callable[[KeycloakSettings | None], KeycloakSettings]" = settings_or_environment,
        workers: Callable[[str], Workers] = TOKENS.to,
        exchange_workers: Callable[[str], Workers] = EXCHANGES.to,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        capacity: int = _CAPACITY,
    ) -> None:
        self.settings = settings
        self._channel = channel
        self._workers = workers
        self._clock = clock
        self._capacity = capacity
        self._tokens: dict[TokenKey, SharedToken] = {}
        self._clients = BoundClients(clock=clock, wall=wall)
        self.exchanged = ExchangedTokens(
            channel=channel, workers=exchange_workers, clock=clock, wall=wall, clients=self._clients
        )
        """The tokens that were exchanged for users."""
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the tokens and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def token(self, settings: "KeycloakSettings", wanted: Wanted) -> SharedToken:
        """Return the shared token for `wanted` as the client of `settings`; no network yet.

        Raises:
            ConfigurationError: Client id or secret is not set.
        """
        key = TokenKey.of(settings, wanted)
        watch_forks(self)
        with self._lock:
            token = self._tokens.pop(key, None)
            if token is None:
                token = SharedToken(
                    key,
                    settings,
                    self._channel(settings),
                    self._workers(key.token_url),
                    self._clock,
                    clients=self._clients,
                )
                while len(self._tokens) >= self._capacity:
                    del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token  # at the end: the order is the order of last use
            return token

    def token_for(self, subject: Subject, settings: "KeycloakSettings", wanted: Wanted) -> ExchangedToken:
        """Return the place of the token for `wanted` on behalf of a user; no network yet.

        Raises:
            NoUserToActFor, SessionEnded, TokenRequestError, ConfigurationError: as `ExchangedTokens.of`.
        """
        return self.exchanged.of(settings, wanted, subject)

    def tokens(self) -> tuple[SharedToken, ...]:
        """Return the kept tokens, the least recently used one first."""
        with self._lock:
            return tuple(self._tokens.values())


class _InUse:
    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source = TokenSource()


IN_USE: Final = _InUse()
"""Holds the token source of all auth objects in this process."""


@contextmanager
def using(source: TokenSource) -> Iterator[TokenSource]:
    """Let all auth objects of this process take their tokens from `source` inside the block, existing objects too."""
    before, IN_USE.source = IN_USE.source, source
    try:
        yield source
    finally:
        IN_USE.source = before

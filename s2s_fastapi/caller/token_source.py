"""Where tokens come from: the cache that all of this process shares."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.shared_token import DEADLINE, SharedToken
from s2s_fastapi.caller.token_key import TokenKey
from s2s_fastapi.caller.token_request import Channel
from s2s_fastapi.caller.wanted import Asked
from s2s_fastapi.engine.workers import TOKENS, Workers, watch_forks
from s2s_fastapi.settings import KeycloakSettings

__all__ = ["IN_USE", "TokenSource", "using"]

_CAPACITY: Final = 1024


def _channel(settings: KeycloakSettings) -> Channel:
    # No longer than the first waiter waits: exchanges that hang would keep all other loads from the worker threads. A load may still
    # outlast its waiters (it began late, or asks twice), and its late answer is kept.
    return BackChannel.shared(settings.ca_file, DEADLINE, settings.proxy)


class TokenSource:
    """Give the one `SharedToken` there is for a key, whichever object asks.

    At most `capacity` keys are kept; the one that was not asked for longest goes first, and whoever holds its token keeps it.
    `settings` turns what an object was given (or None) into what is used, by default the environment; `channel` makes the way to
    Keycloak; `workers` gives the threads for a URL. Tests inject them, and put the source in place with `using`.
    """

    def __init__(
        self,
        *,
        channel: Callable[[KeycloakSettings], Channel] = _channel,
        settings: Callable[[KeycloakSettings | None], KeycloakSettings] = lambda given: given or KeycloakSettings(),
        workers: Callable[[str], Workers] = TOKENS.to,
        clock: Callable[[], float] = time.monotonic,
        capacity: int = _CAPACITY,
    ) -> None:
        self.settings = settings
        self._channel = channel
        self._workers = workers
        self._clock = clock
        self._capacity = capacity
        self._tokens: dict[TokenKey, SharedToken] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the tokens, replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def token(self, settings: KeycloakSettings, asked: Asked) -> SharedToken:
        """Return the shared token for `asked` as the client of `settings`; no network yet.

        Raises:
            ConfigurationError: Client id or secret is not set.
        """
        key = TokenKey.of(settings, asked)
        watch_forks(self)
        with self._lock:
            token = self._tokens.pop(key, None)
            if token is None:
                token = SharedToken(key, settings, self._channel(settings), self._workers(key.token_url), self._clock)
                while len(self._tokens) >= self._capacity:
                    del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = token  # at the end: the order is that of the last use
            return token

    def tokens(self) -> tuple[SharedToken, ...]:
        """Return the tokens that are kept, the one that was asked for longest ago first."""
        with self._lock:
            return tuple(self._tokens.values())


class _InUse:
    __slots__ = ("source",)

    def __init__(self) -> None:
        self.source = TokenSource()


IN_USE: Final = _InUse()
"""Holds the source every auth object of this process asks."""


@contextmanager
def using(source: TokenSource) -> Iterator[TokenSource]:
    """Let everything in this process take its tokens from `source` for a while, also objects that exist already."""
    before, IN_USE.source = IN_USE.source, source
    try:
        yield source
    finally:
        IN_USE.source = before

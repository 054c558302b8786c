"""Tokens that were verified before: what is remembered of them, and what must still hold at every use."""

import threading
from dataclasses import dataclass
from typing import Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import watch_forks
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.verdict import Verdict

__all__ = ["CACHED_TOKENS", "VerifiedToken", "VerifiedTokens"]

CACHED_TOKENS: Final = 10_000
_BYTES_PER_TOKEN: Final = 1_000
"""What the cache may hold for each of its tokens on average, as counted by the tokens' own length."""
_TURNS: Final = 16


@dataclass(slots=True)
class VerifiedToken:
    """One accepted token: its verdict, and what time or Keycloak can take away from it."""

    verdict: Verdict
    key: VerificationKey
    issued_at: int
    begins: float
    """Seconds since the epoch; a clock that was set back makes a token too young again."""
    ends: float
    """Seconds since the epoch: refused from then on, as a token that is seen for the first time would be."""
    keys: KeySet | None = None
    """The key set in which the key was found last."""

    def holds(self, keys: KeySet, not_before: int, now: float) -> bool:
        """Tell whether the token would be accepted again: by this clock, this ``not-before``, and the very same key."""
        if keys is not self.keys:
            found = keys.find(self.key.kid, self.key.algorithm)
            if found is None or found.thumbprint != self.key.thumbprint:
                return False
            self.keys = keys
        return self.begins <= now < self.ends and self.issued_at >= not_before


class VerifiedTokens:
    """Accepted tokens by their whole text, the least recently used ones forgotten first.

    At most ``size`` tokens, and about 1 KB of token text for each, are kept; 0 switches the cache off. Reading takes no lock: there
    are two generations, a token that is used moves to the younger one, and the elder one is dropped whole.
    """

    def __init__(self, size: int = CACHED_TOKENS) -> None:
        if type(size) is not int or size < 0:
            raise ConfigurationError(f"cached_tokens takes how many tokens to remember, 0 for none, not {size!r}.")
        self._half = (size + 1) // 2
        self._half_bytes = self._half * _BYTES_PER_TOKEN
        self._bytes = 0
        self.recent: dict[bytes, VerifiedToken] = {}
        """The younger generation, to look into without a call."""
        self._elder: dict[bytes, VerifiedToken] = {}
        self._watched = False
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the locks: threads that the child has not may have held them."""
        # Re-entrant: a signal handler that asks about a token may have interrupted the thread that verifies it.
        self._turns = tuple(threading.RLock() for _ in range(_TURNS))

    def __len__(self) -> int:
        """Return how many tokens are kept; one that is about to move may count twice."""
        return len(self.recent) + len(self._elder)

    def __contains__(self, token: object) -> bool:
        """Tell whether this very text is kept."""
        return token in self.recent or token in self._elder

    def get(self, token: bytes) -> VerifiedToken | None:
        """Return what is known of a token; whether it still holds is for the caller to ask."""
        found = self.recent.get(token)
        if found is None and (found := self._elder.get(token)) is not None:
            self.put(token, found)
        return found

    def put(self, token: bytes, verified: VerifiedToken) -> None:
        """Keep a token.

        Threads that meet here can at worst drop a generation too early, which costs a verification.
        """
        if not self._half:
            return
        if len(self.recent) >= self._half or self._bytes + len(token) > self._half_bytes:
            self._elder, self.recent, self._bytes = self.recent, {}, 0
        self.recent[token] = verified
        self._bytes += len(token)

    def drop(self, token: bytes) -> None:
        """Forget a token that does not hold any more."""
        self.recent.pop(token, None)
        self._elder.pop(token, None)

    def turn(self, token: bytes) -> threading.RLock:
        """Return the lock to hold while a token is verified, so that other threads with the same one find it here."""
        if not self._watched:
            self._watched = True
            watch_forks(self)
        return self._turns[hash(token) % _TURNS]

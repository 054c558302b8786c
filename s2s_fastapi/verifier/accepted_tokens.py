"""Tokens that were accepted before: what is remembered of each, and what must still hold at every use."""

import threading
from dataclasses import dataclass
from typing import Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import watch_forks
from s2s_fastapi.verifier.jwks import KeySet, VerificationKey
from s2s_fastapi.verifier.verdict import Verdict

__all__ = ["CACHED_TOKENS", "AcceptedTokens", "RememberedToken"]

CACHED_TOKENS: Final = 10_000
_BYTES_PER_TOKEN: Final = 1_000
"""Average length of the remembered tokens, at most. Longer tokens take the places of others."""
_LOCKS: Final = 16


@dataclass(slots=True)
class RememberedToken:
    """One accepted token: its verdict, and what time or Keycloak can take away from it."""

    verdict: Verdict
    key: VerificationKey
    issued_at: int
    begins: float
    """Seconds since the epoch. If the clock is set back before this moment, the token is too young again."""
    ends: float
    """Seconds since the epoch. From this moment on it is refused, as a token that is seen for the first time is."""
    keys: KeySet | None = None
    """The key set in which the key was found last."""

    def holds(self, keys: KeySet, not_before: int, now: float) -> bool:
        """Return whether the token would be accepted again: by this clock, this ``not-before``, and the very same key."""
        if keys is not self.keys:
            found = keys.find(self.key.kid, self.key.algorithm)
            if found is None or found.thumbprint != self.key.thumbprint:
                return False
            self.keys = keys
        return self.begins <= now < self.ends and self.issued_at >= not_before


class AcceptedTokens:
    """Accepted tokens, by the credentials they came in: the whole value of the header, ``Bearer <token>``.

    - At most ``size`` tokens are kept, and about 1 KB of token for each. 0 switches the cache off.
    - The least recently used tokens are forgotten first: there are two generations, a token that is used moves to the younger one, and
      the older one is dropped as a whole.
    - Reading takes no lock.
    """

    def __init__(self, size: int = CACHED_TOKENS) -> None:
        if type(size) is not int or size < 0:
            raise ConfigurationError(
                f"cached_tokens takes the number of tokens to remember, 0 to remember none, not {size!r}."
            )
        self._size = size
        self._half = (size + 1) // 2
        self._half_bytes = self._half * _BYTES_PER_TOKEN
        self._bytes = 0
        self.recent: dict[bytes, RememberedToken] = {}
        """The younger generation. The hot path reads it without a call."""
        self._older: dict[bytes, RememberedToken] = {}
        self._watched = False
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the locks: threads of the parent may have held them."""
        # Re-entrant: a finalizer may verify a token too, and the garbage collector runs it in any thread at any line.
        self._locks = tuple(threading.RLock() for _ in range(_LOCKS))

    def empty(self) -> "AcceptedTokens":
        """Return a place for as many other tokens."""
        return AcceptedTokens(self._size)

    def __len__(self) -> int:
        """Return how many tokens are kept. A token counts twice while it is in both generations."""
        return len(self.recent) + len(self._older)

    def __contains__(self, credentials: object) -> bool:
        """Return whether a token with exactly these credentials is kept."""
        return credentials in self.recent or credentials in self._older

    def get(self, credentials: bytes) -> RememberedToken | None:
        """Return what is remembered of a token. The caller must check whether it still holds."""
        found = self.recent.get(credentials)
        if found is None and (found := self._older.get(credentials)) is not None:
            self.put(credentials, found)
        return found

    def put(self, credentials: bytes, accepted: RememberedToken) -> None:
        """Remember a token.

        Threads that meet here can at worst drop a generation too early, which costs a verification.
        """
        if not self._half:
            return
        if len(self.recent) >= self._half or self._bytes + len(credentials) > self._half_bytes:
            self._older, self.recent, self._bytes = self.recent, {}, 0
        self.recent[credentials] = accepted
        self._bytes += len(credentials)

    def drop(self, credentials: bytes) -> None:
        """Forget a token that does not hold any more."""
        self.recent.pop(credentials, None)
        self._older.pop(credentials, None)

    def lock(self, credentials: bytes) -> threading.RLock:
        """Return the lock to hold while a token is verified: other threads with the same token wait, and then find it here."""
        if not self._watched:
            self._watched = True
            watch_forks(self)
        return self._locks[hash(credentials) % _LOCKS]

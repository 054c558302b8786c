"""Each proof is accepted once (RFC 9449 section 11.1): what a replay store is, the one in memory, and the share of one caller in it."""

import math
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from s2s_fastapi.errors import ReplayStoreUnavailable
from s2s_fastapi.process import watch_forks

__all__ = ["SIZE", "InProcessReplayStore", "ReplayQuota", "ReplayStore"]

SIZE: Final = 200_000
"""Proofs that are remembered at one time: of 45 s at 4,400 requests a second."""

_BUCKET_SECONDS: Final = 4
"""Proofs that run out within the same seconds are forgotten together, in one step."""
_KEY_BYTES: Final = 16
"""Half of a SHA-256: nobody finds two proofs with the same 128 bits."""


class ReplayStore(Protocol):
    """Remembers which proofs were used. Several apps and machines may share one."""

    async def first_use(self, key: bytes, seconds: float) -> bool:
        """Return whether `key` was never seen before. From now on it was, for that many `seconds` at least.

        `key` has 32 bytes. Of two calls with the same key at the same time, exactly one returns True.

        Raises:
            ReplayStoreUnavailable: The store cannot tell. The request is refused with 503.
        """
        ...


class InProcessReplayStore:
    """Remembers proofs in the memory of this process. A proof that was used in one process can be used once in each other one.

    - It never forgets a proof before its time. If it is full, it raises `ReplayStoreUnavailable`.
    - A proof takes about 100 bytes.
    - Threads and event loops may share it. A forked child begins with what its parent knew.
    - `clock` is monotonic and decides when a proof is forgotten. `wall` is the clock that proofs are checked with: if somebody sets it back, a
      proof that was forgotten could become young again. So the store knows up to which time of that clock it has forgotten, and
      raises `ReplayStoreUnavailable` for every proof that ends before.
    """

    def __init__(
        self,
        size: int = SIZE,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if size < 1:
            raise ValueError("size must be at least 1")
        self.size = size
        self._clock, self._wall = clock, wall
        self._buckets: dict[int, set[bytes]] = {}
        self._ends: dict[int, float] = {}
        """By bucket: the latest end of its proofs by `wall`."""
        self._forgotten = -math.inf
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """Keep what is known and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many proofs it remembers now, some of which may have run out."""
        return sum(map(len, self._buckets.values()))

    async def first_use(self, key: bytes, seconds: float) -> bool:
        """Return whether `key` was never seen before, and remember it for `seconds`. It waits for nothing.

        Raises:
            ReplayStoreUnavailable: The store is full, or the clock was set back.
        """
        short = key[:_KEY_BYTES]
        with self._lock:
            now, end = self._clock(), self._wall() + seconds
            self._forget(now)
            if any(short in bucket for bucket in self._buckets.values()):
                return False
            if end <= self._forgotten:
                raise ReplayStoreUnavailable(
                    f"The clock of this machine was set back by about {self._forgotten - end:.0f} s or more. Proofs are refused until it has"
                    " passed that time again, or until this service is restarted later than 1 minute from now."
                )
            if len(self) >= self.size:
                raise ReplayStoreUnavailable(
                    f"The replay store is full: it remembers {self.size} proofs. Give InProcessReplayStore a larger size, or use more processes"
                    " with a shared store."
                )
            number = math.ceil((now + seconds) / _BUCKET_SECONDS)
            self._buckets.setdefault(number, set()).add(short)
            self._ends[number] = max(self._ends.get(number, end), end)
            return True

    def _forget(self, now: float) -> None:
        over = [number for number in self._buckets if number * _BUCKET_SECONDS <= now]
        for number in over:
            del self._buckets[number]
            self._forgotten = max(self._forgotten, self._ends.pop(number))


class ReplayQuota:
    """Puts a limit on each caller in front of any replay store: one caller alone cannot fill it.

    - A caller is an issuer and a client id, and not a key: a client can make any number of keys.
    - Half of `size` is the share of each. It counts the proofs of the caller that are remembered now.
    """

    def __init__(self, store: ReplayStore, *, size: int = SIZE, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.share = max(1, size // 2)
        self._clock = clock

    async def first_use(self, caller: tuple[str, str], key: bytes, seconds: float) -> bool:
        """Return what the store says about `key`, if the `caller` (issuer, client id) has not used up its share.

        Raises:
            ReplayStoreUnavailable: The share is used up, or the store cannot tell.
        """
        return await self.store.first_use(key, seconds)

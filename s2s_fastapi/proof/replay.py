"""Each proof is accepted once (RFC 9449 section 11.1): what a replay store is, the one in memory, and the share of one caller in it."""

import math
import threading
import time
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol

from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.process import watch_forks
from s2s_fastapi.text import named

__all__ = ["SIZE", "InProcessReplayStore", "ReplayQuota", "ReplayStore"]

SIZE: Final = 200_000
"""Proofs that are remembered at one time, each for 45 to 60 s: enough for 4,000 requests a second. They take 16 MB."""

_BUCKET_SECONDS: Final = 4
"""Proofs that run out within the same seconds are forgotten together, in one step."""
_KEY_BYTES: Final = 16
"""Half of a SHA-256: nobody finds two proofs with the same 128 bits."""
_MOST_CALLERS: Final = 10_000
_OTHERS: Final = ("", "")
"""The key under which all further callers are counted together."""


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
    """Remembers proofs in the memory of this process. Another process does not know them, and accepts each of them once more.

    - It never forgets a proof before its time. If it is full, it raises `ReplayStoreUnavailable`. `size` is the number of proofs.
    - Threads and event loops may share it. A forked child begins with what its parent knew.
    - `clock` is monotonic: it decides when a proof is forgotten. `wall` is the clock by which the age of a proof is judged. If somebody sets that
      clock back, a proof that was forgotten is young again. So the store knows the time of `wall` up to which it has forgotten, and
      raises `ReplayStoreUnavailable` for each proof that runs out before that time. A clock that is set back by less than 15 s refuses nothing.

    Raises:
        ConfigurationError: `size` is less than 1.
    """

    def __init__(
        self,
        size: int = SIZE,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if size < 1:
            raise ConfigurationError("size= of a replay store must be at least 1: it is a number of proofs.")
        self.size = size
        self._clock, self._wall = clock, wall
        self._buckets: dict[int, _Bucket] = {}
        self._forgotten = -math.inf
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """Keep what is known and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    @property
    def remembered(self) -> int:
        """How many proofs it remembers; including those that expired since the last call."""
        return sum(len(bucket.keys) for bucket in list(self._buckets.values()))

    async def first_use(self, key: bytes, seconds: float) -> bool:
        """Return whether `key` was never seen before, and remember it for `seconds`. It waits for nothing.

        Raises:
            ReplayStoreUnavailable: The store is full, or the clock was set back.
        """
        short = key[:_KEY_BYTES]
        with self._lock:
            now, end = self._clock(), self._wall() + seconds
            self._forget(now)
            if any(short in bucket.keys for bucket in self._buckets.values()):
                return False
            if end <= self._forgotten:
                wait = math.floor(self._forgotten - end) + 1
                raise ReplayStoreUnavailable(
                    "The clock of this machine was set back, so nobody can tell which proofs were used."
                    f" New proofs are refused for {wait} s, or until this service is restarted, which forgets all of them.",
                    retry_after=wait,
                )
            if self.remembered >= self.size:
                raise ReplayStoreUnavailable(
                    f"The replay store is full: it remembers {self.size} proofs. Give InProcessReplayStore a larger size,"
                    " or let more processes share the load."
                )
            number = _bucket(now + seconds)
            bucket = self._buckets.get(number)
            if bucket is None:
                bucket = self._buckets[number] = _Bucket()
            bucket.end = max(bucket.end, end)
            bucket.keys.add(short)
            return True

    def _forget(self, now: float) -> None:
        for number in [number for number in self._buckets if number * _BUCKET_SECONDS <= now]:
            self._forgotten = max(self._forgotten, self._buckets[number].end)
            del self._buckets[number]


class ReplayQuota:
    """Stands in front of any replay store, and keeps one caller from filling it.

    - A caller is an issuer and a client id, and not a key: a client can make any number of keys.
    - Each caller may have half of `size` remembered at one time; `size` is that of the store if it has one, otherwise 200,000.
    - Only first uses count: whoever sends a stolen proof many times uses up nothing of its owner's share.
    - It counts in this process. It knows 10,000 callers; if there are more at the same time, the others have one share together.
    """

    def __init__(
        self, store: ReplayStore, *, size: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        own = getattr(store, "size", SIZE) if size is None else size
        self._share = max(1, (own if isinstance(own, int) else SIZE) // 2)
        self._clock = clock
        self._counts: dict[tuple[str, str], dict[int, int]] = {}
        """By caller, the caller of the latest proof last: how many proofs run out in which bucket."""
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """Keep what is known and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    async def first_use(self, caller: tuple[str, str], key: bytes, seconds: float) -> bool:
        """Return what the store says about `key`, unless the `caller` (issuer, client id) has used up its share.

        Raises:
            ReplayStoreUnavailable: The share is used up, or the store cannot tell.
        """
        # Counted before, because many requests of one caller may wait for the store at the same time.
        uncount = self._count(caller, seconds)
        try:
            first = await self.store.first_use(key, seconds)
        except Exception:  # not if the request was cancelled: the store may have remembered its proof
            uncount()
            raise
        if not first:
            uncount()
        return first

    def _count(self, caller: tuple[str, str], seconds: float) -> Callable[[], None]:
        """Count one more proof, and return what takes it back."""
        with self._lock:
            now = self._clock()
            self._forget(now)
            if caller not in self._counts and len(self._counts) >= _MOST_CALLERS:
                caller = _OTHERS
            counts = self._counts[caller] = self._counts.pop(caller, {})  # now the last
            for number in [number for number in counts if number * _BUCKET_SECONDS <= now]:
                del counts[number]
            if sum(counts.values()) >= self._share:
                raise ReplayStoreUnavailable(
                    f"The client {named(caller[1])} has {self._share} proofs that are still remembered, which is half of the replay store."
                    " Give the store a larger size if one client may send that many requests in 1 minute."
                )
            number = _bucket(now + seconds)
            counts[number] = counts.get(number, 0) + 1

        def uncount() -> None:
            with self._lock:
                if number in counts:
                    counts[number] -= 1

        return uncount

    def _forget(self, now: float) -> None:
        # The first has been silent for the longest time. Two in each step: the work is bounded, and faster than new callers come.
        for caller in tuple(islice(self._counts, 2)):
            if all(number * _BUCKET_SECONDS <= now for number in self._counts[caller]):
                del self._counts[caller]


class _Bucket:
    """Proofs that run out within the same few seconds."""

    __slots__ = ("end", "keys")

    def __init__(self) -> None:
        self.end = -math.inf
        """The latest end of one of them, by the clock that may be set back."""
        self.keys: set[bytes] = set()


def _bucket(end: float) -> int:
    """Return the number of the bucket for what is needed until `end`: it is never forgotten before."""
    return math.ceil(end / _BUCKET_SECONDS)

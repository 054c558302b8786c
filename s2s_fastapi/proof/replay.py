"""Each proof is accepted once (RFC 9449 section 11.1): what a replay store is, the one in memory, and the shares of callers in it."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.process import watch_forks
from s2s_fastapi.text import named

__all__ = ["SIZE", "InProcessReplayStore", "ReplayQuota", "ReplayStore", "Sender", "quota_of"]

SIZE: Final = 200_000
"""Proofs that are remembered at one time, each for 45 s or a little more: enough for 4,000 requests a second. They take 16 MB."""

_BUCKET_SECONDS: Final = 4
"""Proofs that run out within the same seconds are forgotten together, in one step."""
_KEY_BYTES: Final = 16
"""Half of a SHA-256: nobody finds two proofs with the same 128 bits."""
_USERS: Final = 10
"""One user may have this part of the share of its client."""


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
        """How many proofs it remembers; those that ran out since the last call are still among them."""
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


class Sender(NamedTuple):
    """Whose proofs count together. Not a key: a client can make any number of keys."""

    issuer: str
    client_id: str
    user: str = ""
    """The subject, if a user is calling."""
    several: bool = False
    """Whether the service accepts tokens of several realms."""
    further: bool = False
    """Whether this one's realm is not the first of them."""


class ReplayQuota:
    """Stands in front of any replay store, and keeps one caller, or one realm, from filling it.

    - Each may have half of what is above it: a client of the share of its realm; the first of several realms of the store; all further realms
      together of the store, and each of them of that half. The only realm of a service may have all. One user may have a tenth of its client.
    - `size` is that of an `InProcessReplayStore`. For every other store it is 200,000.
    - Only first uses count: whoever sends a stolen proof many times uses up nothing of its owner's share.
    - It holds a few numbers for each proof that counts, so its memory is bounded as the store's is. It counts in this process.
    """

    def __init__(
        self, store: ReplayStore, *, size: int | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        # Of no other store: what its attribute of that name means is not known.
        own = store.size if isinstance(store, InProcessReplayStore) else SIZE
        self._size = own if size is None else size
        self._clock = clock
        self._buckets: dict[int, dict[int, int]] = {}
        """By the time at which proofs run out: how many each name has. The hash of a name stands for it, however long it is."""
        self.after_fork()
        watch_forks(self)

    def after_fork(self) -> None:
        """Keep what is known and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.Lock()

    async def first_use(self, sender: Sender, key: bytes, seconds: float) -> bool:
        """Return what the store says about `key`, unless a share of the `sender` is used up.

        Raises:
            ReplayStoreUnavailable: The share is used up, or the store cannot tell.
        """
        # Counted before, because many requests of one caller may wait for the store at the same time.
        uncount = self._count(sender, seconds)
        try:
            first = await self.store.first_use(key, seconds)
        except Exception:  # not if the request was cancelled: the store may have remembered its proof
            uncount()
            raise
        if not first:
            uncount()
        return first

    def _shares(self, sender: Sender) -> Iterator[tuple[tuple[str, ...], int]]:
        """Return the names for which a proof counts, each with the most that it may have."""
        issuer, client_id, user, several, further = sender
        size = self._size // 2 if several else self._size
        if further:
            yield (), size
            size //= 2
        yield (issuer,), size
        yield (issuer, client_id), size // 2
        if user:
            yield (issuer, client_id, user), size // 2 // _USERS

    def _count(self, sender: Sender, seconds: float) -> Callable[[], None]:
        """Count one more proof, and return what takes it back."""
        names: list[int] = []
        with self._lock:
            now = self._clock()
            for number in [number for number in self._buckets if number * _BUCKET_SECONDS <= now]:
                del self._buckets[number]
            for name, share in self._shares(sender):
                hashed = hash(name)
                if sum([bucket.get(hashed, 0) for bucket in self._buckets.values()]) >= max(1, share):
                    raise ReplayStoreUnavailable(
                        f"{_told(name)} {max(1, share)} proofs that are still remembered, which is"
                        " the whole share in the replay store. Give the store a larger size if so many requests may come in 1 minute."
                    )
                names.append(hashed)
            bucket = self._buckets.setdefault(_bucket(now + seconds), {})
            for hashed in names:
                bucket[hashed] = bucket.get(hashed, 0) + 1

        def uncount() -> None:
            with self._lock:
                for hashed in names:
                    bucket[hashed] -= 1
                    if not bucket[hashed]:
                        del bucket[hashed]

        return uncount


_DEFAULT: Final[dict[str, ReplayQuota]] = {}


def quota_of(store: ReplayStore | None) -> ReplayQuota:
    """Return a quota in front of a store. None stands for the store that all apps and verifiers of this process share.

    So one that is made for each request still knows the proofs of the last one.
    """
    if store is not None:
        return ReplayQuota(store)
    # Without a lock, which a fork could find taken: of two threads that meet here, one wins.
    return _DEFAULT.get("") or _DEFAULT.setdefault("", ReplayQuota(InProcessReplayStore()))


def _told(name: tuple[str, ...]) -> str:
    if not name:
        return "The callers of all realms after the first one have together"
    who = ("The callers of", "The client", "The user")[len(name) - 1]
    of = f" of the client {named(name[1])}" if len(name) > 2 else ""  # noqa: PLR2004 - a user has its client in front
    return f"{who} {named(name[-1])}{of} {'have' if len(name) == 1 else 'has'}"


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

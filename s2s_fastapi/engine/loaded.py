"""What a load returned, and how long it counts. Pure values: the time is always passed in."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, TypeAlias, TypeVar

from s2s_fastapi.errors import S2SError

__all__ = ["Cause", "Failed", "Held", "Load", "LoadResult", "Loaded", "RememberedFailure", "State"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """The value that a load returned, and how long it counts, in the words of RFC 5861. All times are in seconds.

    - ``fresh_for``: how long the value is served as it is, counted from before the load began.
    - ``stale_while_revalidate``: how long after that it is served while one renewal runs in the background. Then it has expired.
    - ``stale_if_error``: how long after ``fresh_for`` it is served while loads fail, even if it has expired; default 0.
    """

    value: T = field(repr=False)
    fresh_for: float
    stale_while_revalidate: float
    stale_if_error: float = 0.0

    @property
    def usable_for(self) -> float:
        """Seconds from before the load began until the value expires."""
        return self.fresh_for + self.stale_while_revalidate


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a load returned no value. Each waiter raises a copy of its own: ``error.again()``.

    - ``retry_in``: seconds, and up to 10 % more, in which no further load begins by itself.
    - ``doubtful``: the next load may well succeed, so a caller without any value tries once more at once.
    - ``connected``: the other side was reached, and its answer did not come or cannot be read. Another request may get one.
    """

    error: S2SError
    retry_in: float
    doubtful: bool = False
    connected: bool = False


Cause: TypeAlias = Literal["needed", "ahead", "forced", "warm_up"]
"""Why a load begins: a caller waits for it; the value is no longer fresh; the other side refused the value; nobody has asked yet."""

LoadResult: TypeAlias = Loaded[T] | Failed
Load: TypeAlias = Callable[[], Loaded[T] | Failed]


@dataclass(frozen=True, slots=True)
class State:
    """A snapshot of a `Refreshing`, for health and tests. ``age``, ``left`` and ``next_try_in`` are in seconds, or None if there is none."""

    age: float | None
    left: float | None
    """How long the value would be served if no other one came."""
    fresh: bool
    usable: bool
    loading: bool
    last_error: S2SError | None
    next_try_in: float | None
    loads: int
    failures: int


@dataclass(frozen=True, slots=True)
class RememberedFailure:
    """A failure that is remembered until ``until``.

    - ``generation``: number of `forget_failure()` calls before the load; an older failure no longer counts.
    - ``inconclusive``: it delays loads in the background, but not the load of a caller who has no value at all.
    """

    error: S2SError
    until: float
    recent_until: float
    generation: int
    inconclusive: bool

    @classmethod
    def of(
        cls, failed: Failed, since: float, generation: int, jitter: float, *, inconclusive: bool
    ) -> "RememberedFailure":
        """Remember a failure for its ``retry_in`` and up to 10 % more, and call it recent for as long again."""
        until = since + failed.retry_in * (1.0 + 0.1 * jitter)
        return cls(failed.error, until, until + failed.retry_in, generation, inconclusive)


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """The value that is served now.

    - ``fresh_until`` includes this process's jitter; ``loaded`` is what the load returned.
    - ``refused_from``: when the other side refused the value. From then on it is served only while loads fail.
    """

    value: T = field(repr=False)
    loaded: Loaded[T]
    began: float
    fresh_until: float
    expires_at: float
    stale_if_error_until: float
    refused_from: float = math.inf

    @classmethod
    def of(cls, loaded: Loaded[T], began: float, jitter: float) -> "Held[T]":
        """Begin to serve a value. Up to 10 % of its freshness is taken away, so that processes do not renew at the same moment.

        A value that nobody may use while it is renewed stays fresh until it expires: jitter would only make callers wait earlier.
        """
        expires_at = began + loaded.usable_for
        spread = 0.1 * jitter if loaded.stale_while_revalidate else 0.0
        fresh_until = min(began + loaded.fresh_for * (1.0 - spread), expires_at)
        stale_if_error_until = max(began + loaded.fresh_for + loaded.stale_if_error, expires_at)
        return cls(loaded.value, loaded, began, fresh_until, expires_at, stale_if_error_until)

    def refused(self, since: float) -> "Held[T]":
        """Return the same value, marked as refused. A second refusal never lets it be served longer."""
        fresh_until, expires_at = min(self.fresh_until, since), min(self.expires_at, since)
        return replace(self, fresh_until=fresh_until, expires_at=expires_at, refused_from=since)

    def usable(self, now: float, *, failing: bool) -> bool:
        """Return whether the value may be served: until it expires, or longer while loads fail."""
        return now < self.expires_at or (failing and now < self.stale_if_error_until)

    def left(self, now: float) -> float:
        """Return for how many seconds the value would be served if no other one came."""
        return max(self.expires_at, self.stale_if_error_until, now) - now

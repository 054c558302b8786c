"""What a load brought, and for how long it counts. Pure values: the time is always given."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeAlias, TypeVar

from s2s_fastapi.errors import S2SError

__all__ = ["Failed", "Held", "Load", "Loaded", "Outcome", "Setback", "State"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """What a load brought. All seconds count from before the load began.

    ``fresh_for``: served without a thought. ``usable_for``: served, while one renewal runs behind; then dead. ``kept_for``: dead,
    but served as long as loads fail; not at all unless given.
    """

    value: T = field(repr=False)
    fresh_for: float
    usable_for: float
    kept_for: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a load brought nothing: a template of which each waiter raises its own ``error.again()``.

    ``retry_in``: seconds in which no further load is tried on its own, up to 10 % more. ``doubtful``: the next load may well succeed,
    so whoever has no value at all tries once more at once.
    """

    error: S2SError
    retry_in: float
    doubtful: bool = False


Outcome: TypeAlias = Loaded[T] | Failed
Load: TypeAlias = Callable[[], Loaded[T] | Failed]


@dataclass(frozen=True, slots=True)
class State:
    """A look at a `Refreshing`, for health and tests. ``age``, ``left`` and ``next_try_in`` are in seconds, None where there is none."""

    age: float | None
    left: float | None
    """For how long the value would be served if no other came."""
    fresh: bool
    usable: bool
    loading: bool
    last_error: S2SError | None
    next_try_in: float | None
    loads: int
    failures: int


@dataclass(frozen=True, slots=True)
class Setback:
    """A failure that is remembered until ``until``.

    ``pardons``: how often it was forgiven before the load began. ``inconclusive``: it holds back loads behind, but not somebody who
    has no value at all.
    """

    error: S2SError
    until: float
    recent_until: float
    pardons: int
    inconclusive: bool

    @classmethod
    def of(cls, failed: Failed, since: float, pardons: int, jitter: float, *, inconclusive: bool) -> "Setback":
        """Remember a failure for its ``retry_in`` and up to 10 % more, and call it recent for as long again."""
        until = since + failed.retry_in * (1.0 + 0.1 * jitter)
        return cls(failed.error, until, until + failed.retry_in, pardons, inconclusive)


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A value in service. ``fresh_until`` has this process's jitter in it; ``loaded`` is as the load gave it.

    ``refused_from``: from when on it is served only as long as loads fail, because the other side refused it.
    """

    value: T = field(repr=False)
    loaded: Loaded[T]
    began: float
    fresh_until: float
    usable_until: float
    kept_until: float
    refused_from: float = math.inf

    @classmethod
    def of(cls, loaded: Loaded[T], began: float, jitter: float) -> "Held[T]":
        """Put a value in service, with up to 10 % of its freshness taken away so that processes do not renew in step."""
        usable_until = began + loaded.usable_for
        fresh_until = min(began + loaded.fresh_for * (1.0 - 0.1 * jitter), usable_until)
        kept_until = max(began + loaded.kept_for, usable_until)
        return cls(loaded.value, loaded, began, fresh_until, usable_until, kept_until)

    def refused(self, since: float) -> "Held[T]":
        """Return it as one that was refused; a second refusal changes nothing to its favour."""
        fresh_until, usable_until = min(self.fresh_until, since), min(self.usable_until, since)
        return replace(self, fresh_until=fresh_until, usable_until=usable_until, refused_from=since)

    def usable(self, now: float, *, failing: bool) -> bool:
        """Tell whether the value may be served: in its time, or beyond it while loads fail."""
        return now < self.usable_until or (failing and now < self.kept_until)

    def left(self, now: float) -> float:
        """Return the seconds for which the value would be served if no other came."""
        return max(self.usable_until, self.kept_until, now) - now

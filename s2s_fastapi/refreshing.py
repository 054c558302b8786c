"""A value that is loaded, renewed ahead, and kept through failures. Keycloak's keys and our tokens are one each.

    fresh    served without a thought
    stale    served, while one renewal runs behind
    dead     callers wait together for one load in front, or get its error

A failure never displaces a value that is still usable. It is a value itself, remembered for a while, and raised anew by each waiter.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import SystemRandom
from typing import Final, Generic, TypeAlias, TypeVar

from s2s_fastapi.errors import S2SError
from s2s_fastapi.flight import Flight
from s2s_fastapi.lanes import Lane, watch_forks

__all__ = ["Failed", "Load", "Loaded", "Refreshing", "State"]

T = TypeVar("T")

# After a load that ended in a way nobody foresaw, or for which there was no thread.
_MISHAP_RETRY: Final = 5.0
_NEVER: Final = float("-inf")
_ANY: Final = object()
_random: Final = SystemRandom().random  # needs no seed of its own in a forked child


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """What a load brought. All seconds count from before the load began.

    ``fresh_for``: served without a thought. ``usable_for``: served, while one renewal runs behind; then dead.
    """

    value: T = field(repr=False)
    fresh_for: float
    usable_for: float


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a load brought nothing: a template of which each waiter raises its own ``error.again()``.

    ``retry_in``: seconds in which no further load is tried on its own, up to 10 % more.
    """

    error: S2SError
    retry_in: float


Load: TypeAlias = Callable[[], Loaded[T] | Failed]
_Outcome: TypeAlias = Loaded[T] | Failed


@dataclass(frozen=True, slots=True)
class State:
    """A look at a `Refreshing`, for health and tests. ``age`` and ``next_try_in`` are in seconds, None where there is none."""

    age: float | None
    fresh: bool
    usable: bool
    loading: bool
    last_error: S2SError | None
    next_try_in: float | None
    loads: int
    failures: int


@dataclass(frozen=True, slots=True)
class _Held(Generic[T]):
    value: T = field(repr=False)
    began: float
    fresh_for: float  # as asked, without jitter: a forked child draws its own
    fresh_until: float
    usable_until: float


@dataclass(frozen=True, slots=True)
class _Wait(Generic[T]):
    flight: Flight[_Outcome[T]]
    seat: threading.Lock
    context: contextvars.Context | None  # set where no thread can be had and the caller has to load


class Refreshing(Generic[T]):
    """One value with its loader, safe to read from threads, asyncio, trio, signal handlers and forked children.

    `load` blocks and runs on a thread of `lane`. It returns `Loaded` or `Failed`; whatever it raises is told by its type's name
    only. `timeout` is each waiter's own deadline in seconds; the load goes on after it, and a late answer is kept. `spacing`:
    forced loads (`renew`) begin at least so many seconds after the beginning of any load. At most `max_waiters` wait at a time.
    `in_front` gives the context for a load somebody waits for; a load behind has an empty one. `unavailable` turns a sentence into
    the owner's error: the deadline, too many waiters, a loader that broke. `clock` is monotonic; `dice` draws from [0, 1).

    A load must not ask for its own value (it gets an error) nor wait for another value of the same lane (both would wait for their
    deadlines).
    """

    def __init__(
        self,
        load: Load[T],
        *,
        name: str,
        lane: Lane,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        spacing: float = 0.0,
        max_waiters: int = 1000,
        in_front: Callable[[], contextvars.Context] = contextvars.Context,
        unavailable: Callable[[str], S2SError] = S2SError,
        dice: Callable[[], float] = _random,
    ) -> None:
        self._load = load
        self._name = name
        self._lane = lane
        self._timeout = timeout
        self._clock = clock
        self._spacing = spacing
        self._max_waiters = max_waiters
        self._in_front = in_front
        self._unavailable = unavailable
        self._dice = dice
        self._held: _Held[T] | None = None
        self._failed: Failed | None = None
        self._retry_at = _NEVER
        self._began = _NEVER
        self._loads = 0
        self._failures = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the value; drop what died with the parent's threads. Called in the child, and once to begin with."""
        # Re-entrant: a signal handler may read the value while its own thread is in here.
        self._lock = threading.RLock()
        self._flight: Flight[_Outcome[T]] | None = None
        # Drawn once per process, and only ever downwards: workers that were forked with one value renew it at different times.
        self._factor = 1.0 - 0.1 * self._dice()
        if (held := self._held) is not None:
            self._held = self._hold(held.value, held.began, held.fresh_for, held.usable_until)

    def peek(self) -> T | None:
        """Return the value if it is fresh, else None; start nothing."""
        held = self._held
        if held is not None and self._clock() < held.fresh_until:
            return held.value
        return None

    def get(self, *, timeout: float | None = None) -> T:
        """Return the value; wait for a load only where none is usable.

        Raises:
            S2SError: what the load failed with, or `unavailable` (no answer within `timeout` seconds, too many waiters).
        """
        held = self._held
        if held is not None and self._clock() < held.fresh_until:
            return held.value
        ready = self._stale() or self._board(sync=True)
        return ready.value if isinstance(ready, _Held) else self._sit(ready, timeout)

    async def aget(self, *, timeout: float | None = None) -> T:  # noqa: ASYNC109 (both loops, and the engine's own error)
        """Do as `get`, without blocking the running asyncio or trio loop."""
        held = self._held
        if held is not None and self._clock() < held.fresh_until:
            return held.value
        ready = self._stale() or self._board(sync=False)
        return ready.value if isinstance(ready, _Held) else await self._sit_async(ready, timeout)

    def renew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:
        """Return a value other than `seen`: the current one if it is another object, else what a load in front brings.

        Within `spacing` of the last beginning of a load: return the current value unchanged or, with `wait_for_spacing`, wait with
        all the others for one load at its end. A remembered failure does not hold this load back while the value is usable.

        Raises:
            S2SError: as `get`; the current value stays.
        """
        ready = self._board(sync=True, seen=seen, wait_for_spacing=wait_for_spacing)
        return ready.value if isinstance(ready, _Held) else self._sit(ready, timeout)

    async def arenew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:  # noqa: ASYNC109
        """Do as `renew`, without blocking the running asyncio or trio loop."""
        ready = self._board(sync=False, seen=seen, wait_for_spacing=wait_for_spacing)
        return ready.value if isinstance(ready, _Held) else await self._sit_async(ready, timeout)

    def start(self) -> None:
        """Begin a load behind, unless the value is fresh, a load is under way or a failure is remembered. Never blocks or raises."""
        if self.peek() is None:
            self._load_behind()

    def forgive(self) -> None:
        """Forget a failure, because its cause is gone (the secret changed); also that of a load that began before this call."""
        with self._lock:
            self._failed = None
            self._retry_at = _NEVER
            if self._flight is not None:
                self._flight.pardoned = True

    def state(self) -> State:
        """Return a consistent snapshot."""
        with self._lock:
            now, held, failed = self._clock(), self._held, self._failed
            return State(
                age=None if held is None else now - held.began,
                fresh=held is not None and now < held.fresh_until,
                usable=held is not None and now < held.usable_until,
                loading=self._flight is not None,
                last_error=None if failed is None else failed.error.again(),
                next_try_in=self._retry_at - now if now < self._retry_at else None,
                loads=self._loads,
                failures=self._failures,
            )

    def _stale(self) -> _Held[T] | None:
        held = self._held
        if held is None or not self._clock() < held.usable_until:
            return None
        self._load_behind()
        return held

    def _load_behind(self) -> None:
        # Without the lock first: through an outage every request comes by here.
        if self._flight is not None or self._clock() < self._retry_at:
            return
        draft = Flight[_Outcome[T]]()
        with self._lock:
            if self.peek() is not None or self._clock() < self._retry_at:
                return
            if self._flight is None:
                self._flight = draft
                self._launch(draft, contextvars.Context, sync=False)

    def _board(self, *, sync: bool, seen: object = _ANY, wait_for_spacing: bool = False) -> _Held[T] | _Wait[T]:
        """Return the value, or a seat in the one flight that will bring it.

        The draft of a flight is made first: between the last look at ``_flight`` and the assignment stands no call, so no signal
        handler slips in with a flight of its own.
        """
        draft = Flight[_Outcome[T]]()
        delay, context = 0.0, None
        with self._lock:
            now, held, flight = self._clock(), self._held, self._flight
            if held is not None and now < held.usable_until:
                if held.value is not seen:
                    return held
                delay = self._began + self._spacing - now
                if delay > 0 and not wait_for_spacing and (flight is None or flight.delayed):
                    return held
            elif flight is None and self._failed is not None and now < self._retry_at:
                raise self._failed.error.again()
            if self._flight is None:
                self._flight = draft
            flight = self._flight
            if flight.thread == threading.get_ident():
                raise self._unavailable(f"{self._name}: the load asks for its own value")
            # Not launched: it is new, or there was no thread for it, or we are a signal handler that interrupted its launch.
            # Delayed but due: it was to wait for the end of the spacing, and now nobody has a value.
            if not flight.launched or (flight.delayed and delay <= 0):
                context = self._launch(flight, self._in_front, sync=sync, delay=delay)
            seat = flight.join(self._max_waiters)
        if seat is None:
            raise self._unavailable(f"{self._name}: {self._max_waiters} are waiting already")
        return _Wait(flight, seat, context)

    def _launch(
        self,
        flight: Flight[_Outcome[T]],
        make_context: Callable[[], contextvars.Context],
        *,
        sync: bool,
        delay: float = 0.0,
    ) -> contextvars.Context | None:
        """Hand the flight to the lane. The lock is held. Return a context if the caller has to load by itself.

        A flight may be launched more than once (the second time to hasten it); the claim lets one of them load.
        """
        watch_forks(self)
        try:
            context = make_context()
            flight.delayed = delay > 0
            flight.launched = self._lane.submit(partial(self._run, flight, context), delay=max(0.0, delay))
        except BaseException:
            self._flight = None  # Ctrl-C: nobody would ever launch it, and all would wait for it
            raise
        if flight.launched:
            return None
        if sync and delay <= 0:
            return context
        if flight.claim():
            self._land(flight, self._clock(), self._mishap("no thread could be started"))
        return None

    def _sit(self, wait: _Wait[T], timeout: float | None) -> T:
        seconds = self._timeout if timeout is None else timeout
        if wait.context is not None:
            self._run(wait.flight, wait.context, inline=True)
        return self._take(wait.flight.wait(wait.seat, seconds), seconds)

    async def _sit_async(self, wait: _Wait[T], timeout: float | None) -> T:  # noqa: ASYNC109
        seconds = self._timeout if timeout is None else timeout
        return self._take(await wait.flight.wait_async(wait.seat, seconds), seconds)

    def _take(self, outcome: _Outcome[T] | None, seconds: float) -> T:
        # From the flight, not from the slot: a value that was born dead would send everybody round and round.
        if outcome is None:
            raise self._unavailable(f"{self._name}: no answer within {seconds:g} s")
        if isinstance(outcome, Failed):
            raise outcome.error.again()
        return outcome.value

    def _run(self, flight: Flight[_Outcome[T]], context: contextvars.Context, *, inline: bool = False) -> None:
        if not flight.claim():
            return
        outcome: object = None
        escaped: BaseException | None = None
        with self._lock:
            began = self._began = self._clock()
            self._loads += 1
            flight.delayed = False
            flight.thread = threading.get_ident()
        try:
            outcome = context.run(self._load)
        except BaseException as error:  # noqa: BLE001 (SystemExit and MemoryError too: somebody is waiting)
            escaped = error
        # Outside of the except block, so that nothing is chained to an exception whose frames hold the secret.
        if not isinstance(outcome, Loaded | Failed):
            ended = type(outcome if escaped is None else escaped).__name__
            outcome = self._mishap(f"the load ended with {ended}")
        self._land(flight, began, outcome)
        if inline and escaped is not None and not isinstance(escaped, Exception):
            raise escaped  # the caller's own Ctrl-C

    def _land(self, flight: Flight[_Outcome[T]], began: float, outcome: _Outcome[T]) -> None:
        try:
            with self._lock:
                if self._flight is flight:
                    self._flight = None
                if isinstance(outcome, Loaded):
                    self._held = self._hold(outcome.value, began, outcome.fresh_for, began + outcome.usable_for)
                    self._failed, self._retry_at = None, _NEVER
                else:
                    self._failures += 1
                    if not flight.pardoned:
                        self._retry_at = self._clock() + outcome.retry_in * (1.0 + 0.1 * self._dice())
                        self._failed = outcome
        finally:
            flight.land(outcome)  # whatever happened: somebody is waiting

    def _hold(self, value: T, began: float, fresh_for: float, usable_until: float) -> _Held[T]:
        return _Held(value, began, fresh_for, min(began + fresh_for * self._factor, usable_until), usable_until)

    def _mishap(self, sentence: str) -> Failed:
        return Failed(self._unavailable(f"{self._name}: {sentence}"), _MISHAP_RETRY)

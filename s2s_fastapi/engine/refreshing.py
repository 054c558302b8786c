"""A value that is loaded, renewed ahead, and kept through failures. Keycloak's keys and each of our tokens are such a value.

    fresh      served as it is
    stale      served, while one renewal runs in the background
    expired    callers wait together for one load in the foreground, or get its error

- A failure never replaces a value that is still usable. While loads fail, even an expired value may be served (``stale_if_error``).
- A failure is itself a value: it is remembered for a while, and each waiter raises a copy of its own.
"""

import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import SystemRandom
from typing import Final, Generic, TypeVar

from s2s_fastapi.engine.loaded import Cause, Failed, Held, Load, Loaded, LoadResult, RememberedFailure, State
from s2s_fastapi.engine.reports import Reports
from s2s_fastapi.engine.single_flight import SingleFlight
from s2s_fastapi.engine.steps import Steps, arun, run
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import S2SError
from s2s_fastapi.process import watch_forks

__all__ = ["Failed", "Load", "Loaded", "Refreshing", "State"]

T = TypeVar("T")

# Seconds after a load that ended in an unexpected way, or for which there was no thread.
_UNEXPECTED_RETRY: Final = 5.0
_ROUNDS: Final = 3
"""Loads that one call waits for at most: one that had begun in the background, one with a doubtful result, and one that decides."""
_STOOD_STILL: Final = 1.0
"""A waiter that wakes this many seconds too late was not scheduled: the process or the machine stood still."""
_ANY: Final = object()
_random: Final = SystemRandom().random  # needs no seed of its own in a forked child


def _always(_: object) -> bool:
    return True


def _empty_context(_: Cause) -> contextvars.Context:
    return contextvars.Context()


@dataclass(frozen=True, slots=True)
class _Wait(Generic[T]):
    single_flight: SingleFlight[LoadResult[T]]
    waiter: threading.Lock
    seconds: float
    context: contextvars.Context | None  # set if no thread can be had: a sync caller then runs the load itself


class Refreshing(Generic[T]):
    """One value with its loader, safe to read from threads, asyncio, trio and forked children.

    - `load` blocks and runs on a thread of `workers`. It returns `Loaded` or `Failed`. If it raises, only the name of the exception's
      type is reported. What it reports (`s2s_fastapi.engine.reports`) waits until its result is published.
    - `timeout`: the deadline of each waiter in seconds. The load goes on after it, and a late answer is kept.
    - `spacing`: seconds between the beginning of any load and the beginning of a forced one (`renew`, `refuse`).
    - `max_waiters`: how many callers may wait at a time.
    - `foreground` makes the context for a load that somebody waits for, `background` for a load that nobody waits for. By default it is
      empty: a load sees nothing of the request that began it.
    - `unavailable` turns a sentence into the owner's error: for the deadline, too many waiters, or a loader that broke.
      `unanswered`, if given, does so for the deadline of a load that has begun. Only then is the other side to blame.
    - A forked child keeps the value if `inheritable` returns True for it.
    - `clock` is monotonic. `jitter` returns a number in [0, 1).

    A remembered failure does not stop a caller without any value if the failure says nothing about the next load:

    - it happened in the background, or left a usable value;
    - it took so long that the process must have stood still;
    - it is doubtful (`Failed`).

    The load of that caller begins at least `apart` seconds after the beginning of the last one.

    A load must not ask for its own value (it gets an error). It must not wait for another value of the same workers either (both
    would wait until their deadlines).
    """

    def __init__(
        self,
        load: Load[T],
        *,
        name: str,
        workers: Workers,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
        spacing: float = 0.0,
        apart: float = 0.0,
        max_waiters: int = 1000,
        foreground: Callable[[Cause], contextvars.Context] = _empty_context,
        background: Callable[[Cause], contextvars.Context] = _empty_context,
        unavailable: Callable[[str], S2SError] = S2SError,
        unanswered: Callable[[str], S2SError] | None = None,
        inheritable: Callable[[T], bool] = _always,
        jitter: Callable[[], float] = _random,
    ) -> None:
        self._load = load
        self._name = name
        self._workers = workers
        self._timeout = timeout
        self._clock = clock
        self._spacing = spacing
        self._apart = apart
        self._max_waiters = max_waiters
        self._foreground = foreground
        self._background = background
        self._unavailable = unavailable
        self._unanswered = unanswered or unavailable
        self._inheritable = inheritable
        self._draw_jitter = jitter
        self._held: Held[T] | None = None
        self._last_failure: RememberedFailure | None = None
        self._generation = 0
        self._began = float("-inf")
        self._loads = 0
        self._failures = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the value if it can be inherited; drop what belongs to the parent's threads. Called in the child, and once by the constructor."""
        # Held only to look and decide, never to load or to wake a waiter. Re-entrant: the garbage collector may run a finalizer
        # while it is held, and that finalizer may ask for the value.
        self._lock = threading.RLock()
        self._single_flight: SingleFlight[LoadResult[T]] | None = None
        # Drawn once per process: worker processes that were forked with the same value renew it at different times.
        self._jitter = self._draw_jitter()
        if (held := self._held) is not None:
            again = Held.of(held.loaded, held.began, self._jitter).refused(held.refused_from)
            self._held = again if self._inheritable(held.value) else None

    def peek(self) -> T | None:
        """Return the value if it is fresh, else None; start nothing."""
        held = self._held
        if held is not None and self._clock() < held.fresh_until:
            return held.value
        return None

    def ready(self) -> T | None:
        """Return the value if no wait is needed, else None; a stale value is renewed in the background."""
        held = self._ready()
        return None if held is None else held.value

    def current(self) -> T | None:
        """Return the last value, however old; start nothing."""
        held = self._held
        return None if held is None else held.value

    def age(self, value: T) -> float:
        """Return how many seconds ago the load of `value` began; infinity if it is not the current value."""
        held = self._held
        return self._clock() - held.began if held is not None and held.value is value else float("inf")

    def get(self, *, timeout: float | None = None) -> T:
        """Return the value; wait for a load only if no value is usable.

        Raises:
            S2SError: what the load failed with, or `unavailable` (no answer within `timeout` seconds, too many waiters).
        """
        ready = self._ready()
        return ready.value if ready is not None else run(self.reading(timeout))

    async def aget(self, *, timeout: float | None = None) -> T:  # noqa: ASYNC109 (both loops, and the engine's own error)
        """Do as `get`, without blocking the running asyncio or trio loop."""
        ready = self._ready()
        return ready.value if ready is not None else await arun(self.reading(timeout))

    def renew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:
        """Return a value other than `seen`: the current one if it is another object, else the result of a load in the foreground.

        - Within `spacing` of the beginning of the last load: return the current value unchanged. With `wait_for_spacing`, wait
          together with all other callers for one load at the end of that time.
        - A remembered failure does not stop this load while the value is usable.

        Raises:
            S2SError: as `get`; the current value stays.
        """
        return run(self.reading(timeout, seen=seen, wait_for_spacing=wait_for_spacing))

    async def arenew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:  # noqa: ASYNC109
        """Do as `renew`, without blocking the running asyncio or trio loop."""
        return await arun(self.reading(timeout, seen=seen, wait_for_spacing=wait_for_spacing))

    def refuse(self, seen: T) -> None:
        """Remember that the other side refused `seen`: the next read waits for another value. Never blocks or raises.

        - Nothing happens if `seen` is no longer the current value (compare-and-set).
        - Within `spacing` of the beginning of the last load, `seen` is served until that time is over.
        - While loads fail, `seen` is served as long as without the refusal: other services may accept it.
        """
        with self._lock:
            held, now = self._held, self._clock()
            if held is not None and held.value is seen:
                coming = self._single_flight is not None and not self._single_flight.delayed
                self._held = held.refused(now if coming else max(now, self._began + self._spacing))

    def start(self) -> None:
        """Begin a load in the background, unless the value is fresh, a load is running or a failure is remembered. Never blocks or raises."""
        if self.peek() is None:
            self._load_in_background("warm_up" if self._held is None else "ahead")

    def forget_failure(self) -> None:
        """Forget a failure because its cause is gone (the secret changed), including the failure of a load that began before this call."""
        with self._lock:
            self._generation += 1

    def state(self) -> State:
        """Return a snapshot."""
        now, held, remembered = self._clock(), self._held, self._remembered()
        return State(
            age=None if held is None else now - held.began,
            left=None if held is None else held.left(now),
            fresh=held is not None and now < held.fresh_until,
            usable=held is not None and held.usable(now, failing=self._failing(now)),
            loading=self._single_flight is not None,
            last_error=None if remembered is None else remembered.error.again(),
            next_try_in=None if remembered is None or not now < remembered.until else remembered.until - now,
            loads=self._loads,
            failures=self._failures,
        )

    def _remembered(self) -> RememberedFailure | None:
        remembered = self._last_failure
        return remembered if remembered is not None and remembered.generation == self._generation else None

    def _resting(self, now: float) -> RememberedFailure | None:
        remembered = self._remembered()
        return remembered if remembered is not None and now < remembered.until else None

    def _holds_back(self, remembered: RememberedFailure, now: float) -> bool:
        """Return whether a remembered failure stops a caller who has no value at all."""
        return not remembered.inconclusive or now < self._began + self._apart

    def _failing(self, now: float) -> bool:
        """Return whether loads fail at present: the last one did, or the running one takes longer than any waiter waits.

        Only a recent failure counts. After an idle hour the next load may succeed, so a caller waits for it.
        """
        single_flight, remembered = self._single_flight, self._remembered()
        return (single_flight is not None and now >= single_flight.late_from) or (
            remembered is not None and now < remembered.recent_until
        )

    def _ready(self) -> Held[T] | None:
        held, now = self._held, self._clock()
        if held is None or now < held.fresh_until:
            return held
        if not held.usable(now, failing=self._failing(now)):
            return None
        self._load_in_background("ahead")
        return held

    def _load_in_background(self, why: Cause) -> None:
        # Checked without the lock first: during an outage every request comes here.
        under_way = self._single_flight
        if under_way is not None or self._resting(self._clock()):
            return
        with self._lock:
            if self._single_flight is not None or self.peek() is not None or self._resting(self._clock()):
                return
            single_flight = self._single_flight = SingleFlight(background=True)
        if self._begin(single_flight, partial(self._background, why)) is not None:
            self._no_thread(single_flight)

    def reading(self, timeout: float | None = None, *, seen: object = _ANY, wait_for_spacing: bool = False) -> Steps[T]:
        """Return the body of `get` and `aget`; with `seen`, of `renew` and `arenew`.

        It finds the value or waits for a load. It waits for another load if that failure says nothing about the next one.
        """
        seconds = max(0.0, self._timeout if timeout is None else timeout)
        since, excused, rounds = self._clock(), False, 0
        while True:
            ready = self._join(seen=seen, wait_for_spacing=wait_for_spacing, seconds=since + seconds - self._clock())
            if isinstance(ready, Held):
                return ready.value
            result: LoadResult[T] | None = yield partial(self._block, ready), partial(self._suspend, ready)
            # The load's own result, not the current value: one that has expired already would make every waiter load again.
            if isinstance(result, Loaded):
                return result.value
            held, now = self._held, self._clock()
            if seen is _ANY and held is not None and now < held.stale_if_error_until:
                return held.value
            rounds += 1
            if now - since > seconds + _STOOD_STILL and not excused:
                since, excused = now, True  # that time counts against nobody
            elif (
                rounds == _ROUNDS
                or now - since >= seconds
                or not ready.single_flight.inconclusive
                or self._may_go_on(seen, now)
            ):
                raise self._error(ready.single_flight, result, seconds)

    def _may_go_on(self, seen: object, now: float) -> bool:
        """Return whether the refused value `seen` may still be used: then its caller need not wait for another load."""
        held = self._held
        return held is not None and held.value is seen and now < held.expires_at

    def _error(self, single_flight: SingleFlight[LoadResult[T]], result: Failed | None, seconds: float) -> S2SError:
        if result is not None:
            return result.error.again()
        if single_flight.thread is None and not single_flight.delayed:
            return self._unavailable(
                f"{self._name}: its load did not begin within {seconds:g} s, because all threads for Keycloak are busy with other exchanges"
            )
        return self._unanswered(f"{self._name}: no answer within {seconds:g} s")

    def _block(self, wait: _Wait[T]) -> LoadResult[T] | None:
        """Wait for the result; return None at the deadline."""
        if wait.context is not None:
            self._run_here(wait.single_flight, wait.context)
        return wait.single_flight.wait(wait.waiter, wait.seconds)

    async def _suspend(self, wait: _Wait[T]) -> LoadResult[T] | None:
        """Do as `_block`, without blocking the loop. So it cannot run a load for which there is no thread."""
        if wait.context is not None:
            self._no_thread(wait.single_flight)
        return await wait.single_flight.wait_async(wait.waiter, wait.seconds)

    def _join(self, *, seen: object, wait_for_spacing: bool, seconds: float) -> Held[T] | _Wait[T]:
        """Return the value, or a place to wait for the single flight that loads it."""
        context, began = None, False
        make_context = partial(self._foreground, "needed" if seen is _ANY else "forced")
        with self._lock:
            single_flight, held, now = self._single_flight, self._held, self._clock()
            delay = 0.0
            if held is not None and held.usable(now, failing=self._failing(now)):
                if held.value is not seen:
                    return held
                if single_flight is None or single_flight.delayed:
                    delay = self._began + self._spacing - now
                    if delay > 0 and not wait_for_spacing:
                        return held
            elif (
                (single_flight is None or single_flight.delayed)
                and (remembered := self._resting(now))
                and self._holds_back(remembered, now)
            ):
                raise remembered.error.again()  # do not start a delayed load early while a failure is remembered
            if single_flight is None:
                single_flight = self._single_flight = SingleFlight(delayed=delay > 0)
                began = True
            if single_flight.thread == threading.get_ident():
                raise self._unavailable(f"{self._name}: the load asks for its own value")
            waiter = single_flight.join(self._max_waiters)
        if waiter is None:
            if seen is _ANY and held is not None and now < held.stale_if_error_until:
                return held  # those who wait get it too if the load fails
            raise self._unavailable(f"{self._name}: {self._max_waiters} callers are waiting already")
        # A delayed load is due at once if a caller now has no value at all: only the others had to wait for the end of the spacing.
        if began or (single_flight.delayed and delay <= 0):
            context = self._begin(single_flight, make_context, delay=delay)
            if context is not None and delay > 0:
                self._no_thread(single_flight)
                context = None
        return _Wait(single_flight, waiter, seconds, context)

    def _begin(
        self,
        single_flight: SingleFlight[LoadResult[T]],
        make_context: Callable[[], contextvars.Context],
        *,
        delay: float = 0.0,
    ) -> contextvars.Context | None:
        """Give the load to the workers; if they have no thread, return a context in which the caller can load.

        A load may be given to the workers twice, the second time to begin it earlier. The claim lets only one of them run.
        """
        reports = Reports()
        try:
            watch_forks(self)
            context = make_context()
            single_flight.delayed = single_flight.delayed and delay > 0
            single_flight.late_from = self._clock() + max(0.0, delay) + self._timeout
            load = partial(self._run, single_flight, context, reports)
            begun = self._workers.submit(load, delay=max(0.0, delay), afterwards=reports.deliver)
        except BaseException:
            if single_flight.claim():  # Ctrl-C: nobody else would ever begin it
                self._finish(
                    single_flight,
                    self._clock(),
                    self._unexpected_failure("the load could not begin", 0.0),
                    self._generation,
                )
            raise
        return None if begun else context

    def _no_thread(self, single_flight: SingleFlight[LoadResult[T]]) -> None:
        """End a load that nobody can run."""
        if single_flight.claim():
            failure = self._unexpected_failure("no thread could be started")
            self._finish(single_flight, self._clock(), failure, self._generation)

    def _run_here(self, single_flight: SingleFlight[LoadResult[T]], context: contextvars.Context) -> None:
        reports = Reports()
        escaped = self._run(single_flight, context, reports)
        reports.deliver()
        if escaped is not None:
            raise escaped  # the caller's own Ctrl-C

    def _run(
        self, single_flight: SingleFlight[LoadResult[T]], context: contextvars.Context, reports: Reports
    ) -> BaseException | None:
        """Load, publish the result, and return what the load raised if that is not an `Exception`."""
        if not single_flight.claim():
            return None
        result: object = None
        escaped: BaseException | None = None
        generation, began = self._generation, self._clock()
        try:
            single_flight.delayed, single_flight.thread = False, threading.get_ident()
            self._began = began
            self._loads += 1
            result = context.run(reports.collect, self._load)
            ended = type(result).__name__
        except BaseException as error:  # noqa: BLE001 - SystemExit and MemoryError too: callers are waiting
            ended = type(error).__name__
            if not isinstance(error, Exception):
                escaped = error
        # Outside the except block: otherwise the error is chained to an exception whose frames hold the secret.
        if not isinstance(result, Loaded | Failed):
            result = self._unexpected_failure(f"the load ended with {ended}")
        self._finish(single_flight, began, result, generation)
        try:
            return escaped
        finally:
            del escaped  # its traceback holds this frame

    def _finish(
        self, single_flight: SingleFlight[LoadResult[T]], began: float, result: LoadResult[T], generation: int
    ) -> None:
        try:
            with self._lock:
                if isinstance(result, Loaded):
                    self._held = Held.of(result, began, self._jitter)
                    self._last_failure = None
                else:
                    self._failures += 1
                    self._last_failure = self._failure_to_remember(single_flight, began, result, generation)
                    single_flight.inconclusive = self._last_failure.inconclusive
                    if (held := self._held) is not None and held.refused_from <= self._clock():
                        # There is no other value: serve this one until the end of the spacing, when another load is due.
                        self._held = Held.of(held.loaded, held.began, self._jitter).refused(began + self._spacing)
        finally:  # whatever happened: callers are waiting
            if self._single_flight is single_flight:
                self._single_flight = None
            single_flight.finish(result)

    def _failure_to_remember(
        self, single_flight: SingleFlight[LoadResult[T]], began: float, failed: Failed, generation: int
    ) -> RememberedFailure:
        held, now = self._held, self._clock()
        # A load that exceeded its time stood still with its process, or waited for DNS. Count from its deadline: the result is already old.
        since = min(now, began + self._timeout)
        usable = held is not None and now < held.expires_at
        inconclusive = single_flight.background or usable or since + _STOOD_STILL < now or failed.doubtful
        return RememberedFailure.of(failed, since, generation, self._draw_jitter(), inconclusive=inconclusive)

    def _unexpected_failure(self, sentence: str, retry_in: float = _UNEXPECTED_RETRY) -> Failed:
        return Failed(self._unavailable(f"{self._name}: {sentence}"), retry_in)

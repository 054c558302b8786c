"""A value that is loaded, renewed ahead, and kept through failures. Keycloak's keys and our tokens are one each.

    fresh    served without a thought
    stale    served, while one renewal runs behind
    dead     callers wait together for one load in front, or get its error

A failure never displaces a value that is still usable, and may keep a dead one in service (``kept_for``). It is a value itself,
remembered for a while, and raised anew by each waiter.
"""

import contextvars
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from random import SystemRandom
from typing import Final, Generic, TypeAlias, TypeVar

from s2s_fastapi.engine.loaded import Failed, Held, Load, Loaded, Outcome, Setback, State
from s2s_fastapi.engine.single_flight import Flight
from s2s_fastapi.engine.workers import Lane, watch_forks
from s2s_fastapi.errors import S2SError
from s2s_fastapi.telemetry.reports import Reports
from s2s_fastapi.telemetry.spans import Cause, behind, in_front

__all__ = ["Failed", "Load", "Loaded", "Refreshing", "State"]

T = TypeVar("T")

# After a load that ended in a way nobody foresaw, or for which there was no thread.
_MISHAP_RETRY: Final = 5.0
_ROUNDS: Final = 3
"""Loads that one call waits for at most: one that had begun behind, one that was in doubt, and the one that decides."""
_STOOD_STILL: Final = 1.0
"""Seconds: a waiter that wakes so much too late was not scheduled, because the process or the machine stood still."""
_ANY: Final = object()
_random: Final = SystemRandom().random  # needs no seed of its own in a forked child


@dataclass(frozen=True, slots=True)
class _Wait(Generic[T]):
    flight: Flight[Outcome[T]]
    seat: threading.Lock
    seconds: float
    context: contextvars.Context | None  # set if there is no thread: the caller has to load by itself


_Read: TypeAlias = Generator[_Wait[T], Outcome[T] | None, T]
"""A read of the value: it yields what to wait for, is sent the outcome (None at the deadline), and returns the value."""


class Refreshing(Generic[T]):
    """One value with its loader, safe to read from threads, asyncio, trio and forked children.

    `load` blocks and runs on a thread of `lane`. It returns `Loaded` or `Failed`; whatever it raises is told by its type's name
    only. What it reports (`s2s_fastapi.telemetry.reports`) waits until its outcome is published. `timeout` is each waiter's own
    deadline in seconds; the load goes on after it, and a late answer is kept. `spacing`: forced loads (`renew`, `refuse`) begin at
    least so many seconds after the beginning of any load. At most `max_waiters` wait at a time. `in_front` gives the context for a
    load that somebody waits for, `behind` for one that nobody does. `unavailable` turns a sentence into the owner's error: the
    deadline, too many waiters, a loader that broke; `unanswered`, if given, does so for the deadline of a load that has begun, since
    only then is the other side to blame. `clock` is monotonic; `dice` draws from [0, 1).

    A remembered failure does not hold back whoever has no value at all if it says nothing about the next load: it was behind or left
    a usable value, it took so long that the process must have stood still, or it is in doubt (`Failed`). That load begins at least
    `apart` seconds after the beginning of the last one.

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
        apart: float = 0.0,
        max_waiters: int = 1000,
        in_front: Callable[[Cause], contextvars.Context] = in_front,
        behind: Callable[[Cause], contextvars.Context] = behind,
        unavailable: Callable[[str], S2SError] = S2SError,
        unanswered: Callable[[str], S2SError] | None = None,
        dice: Callable[[], float] = _random,
    ) -> None:
        self._load = load
        self._name = name
        self._lane = lane
        self._timeout = timeout
        self._clock = clock
        self._spacing = spacing
        self._apart = apart
        self._max_waiters = max_waiters
        self._in_front = in_front
        self._behind = behind
        self._unavailable = unavailable
        self._unanswered = unanswered or unavailable
        self._dice = dice
        self._held: Held[T] | None = None
        self._setback: Setback | None = None
        self._pardons = 0
        self._began = float("-inf")
        self._loads = 0
        self._failures = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Keep the value; drop what died with the parent's threads. Called in the child, and once to begin with."""
        # Held only to look and decide, never to load or to wake somebody. Re-entrant: the garbage collector may run a finalizer in
        # here, and that one may ask, too.
        self._lock = threading.RLock()
        self._flight: Flight[Outcome[T]] | None = None
        # Drawn once per process, and only ever downwards: workers that were forked with one value renew it at different times.
        self._jitter = self._dice()
        if (held := self._held) is not None:
            self._held = Held.of(held.loaded, held.began, self._jitter).refused(held.refused_from)

    def peek(self) -> T | None:
        """Return the value if it is fresh, else None; start nothing."""
        held = self._held
        if held is not None and self._clock() < held.fresh_until:
            return held.value
        return None

    def ready(self) -> T | None:
        """Return the value if it can be had without waiting, else None; a stale one is renewed behind."""
        held = self._ready()
        return None if held is None else held.value

    def current(self) -> T | None:
        """Return the value that came last, however old; start nothing."""
        held = self._held
        return None if held is None else held.value

    def age(self, value: T) -> float:
        """Return how many seconds ago the load of `value` began; infinity where it is not the current value."""
        held = self._held
        return self._clock() - held.began if held is not None and held.value is value else float("inf")

    def get(self, *, timeout: float | None = None) -> T:
        """Return the value; wait for a load only where none is usable.

        Raises:
            S2SError: what the load failed with, or `unavailable` (no answer within `timeout` seconds, too many waiters).
        """
        ready = self._ready()
        return ready.value if ready is not None else self._wait(self._read(timeout, sync=True))

    async def aget(self, *, timeout: float | None = None) -> T:  # noqa: ASYNC109 (both loops, and the engine's own error)
        """Do as `get`, without blocking the running asyncio or trio loop."""
        ready = self._ready()
        return ready.value if ready is not None else await self._await(self._read(timeout, sync=False))

    def renew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:
        """Return a value other than `seen`: the current one if it is another object, else what a load in front brings.

        Within `spacing` of the last beginning of a load: return the current value unchanged or, with `wait_for_spacing`, wait with
        all the others for one load at its end. A remembered failure does not hold this load back while the value is usable.

        Raises:
            S2SError: as `get`; the current value stays.
        """
        return self._wait(self._read(timeout, sync=True, seen=seen, wait_for_spacing=wait_for_spacing))

    async def arenew(self, seen: T, *, timeout: float | None = None, wait_for_spacing: bool = False) -> T:  # noqa: ASYNC109
        """Do as `renew`, without blocking the running asyncio or trio loop."""
        return await self._await(self._read(timeout, sync=False, seen=seen, wait_for_spacing=wait_for_spacing))

    def refuse(self, seen: T) -> None:
        """Remember that the other side refused `seen`: the next read waits for another value. Never blocks or raises.

        - Compare-and-set: nothing happens if `seen` is not the current value any more.
        - Within `spacing` of the last beginning of a load, `seen` is served until its end.
        - While loads fail, `seen` is served as long as it would have been: others may accept it.
        """
        with self._lock:
            held, now = self._held, self._clock()
            if held is not None and held.value is seen:
                coming = self._flight is not None and not self._flight.delayed
                self._held = held.refused(now if coming else max(now, self._began + self._spacing))

    def start(self) -> None:
        """Begin a load behind, unless the value is fresh, a load is under way or a failure is remembered. Never blocks or raises."""
        if self.peek() is None:
            self._load_behind("warm_up" if self._held is None else "ahead")

    def forgive(self) -> None:
        """Forget a failure, because its cause is gone (the secret changed); also that of a load that began before this call."""
        with self._lock:
            self._pardons += 1

    def state(self) -> State:
        """Return a snapshot."""
        now, held, setback = self._clock(), self._held, self._remembered()
        return State(
            age=None if held is None else now - held.began,
            left=None if held is None else held.left(now),
            fresh=held is not None and now < held.fresh_until,
            usable=held is not None and held.usable(now, failing=self._failing(now)),
            loading=self._flight is not None,
            last_error=None if setback is None else setback.error.again(),
            next_try_in=None if setback is None or not now < setback.until else setback.until - now,
            loads=self._loads,
            failures=self._failures,
        )

    def _remembered(self) -> Setback | None:
        setback = self._setback
        return setback if setback is not None and setback.pardons == self._pardons else None

    def _resting(self, now: float) -> Setback | None:
        setback = self._remembered()
        return setback if setback is not None and now < setback.until else None

    def _holds_back(self, setback: Setback, now: float) -> bool:
        """Tell whether a remembered failure holds back somebody who has no value at all."""
        return not setback.inconclusive or now < self._began + self._apart

    def _failing(self, now: float) -> bool:
        """Tell whether loads fail at present: the last one did, or the one under way takes longer than anybody waits for it.

        Only a recent failure counts: after an idle hour nobody knows whether the next load would fail, so somebody waits for it.
        """
        flight, setback = self._flight, self._remembered()
        return (flight is not None and now >= flight.late_from) or (setback is not None and now < setback.recent_until)

    def _ready(self) -> Held[T] | None:
        held, now = self._held, self._clock()
        if held is None or now < held.fresh_until:
            return held
        if not held.usable(now, failing=self._failing(now)):
            return None
        self._load_behind("ahead")
        return held

    def _load_behind(self, why: Cause) -> None:
        # Without the lock first: through an outage every request comes by here.
        under_way = self._flight
        if under_way is not None or self._resting(self._clock()):
            return
        with self._lock:
            if self._flight is not None or self.peek() is not None or self._resting(self._clock()):
                return
            flight = self._flight = Flight(behind=True)
        self._launch(flight, partial(self._behind, why), sync=False)

    def _read(
        self, timeout: float | None, *, sync: bool, seen: object = _ANY, wait_for_spacing: bool = False
    ) -> _Read[T]:
        """Find the value or wait for a load, and for another one if that failed without saying anything about the next."""
        seconds = max(0.0, self._timeout if timeout is None else timeout)
        since, excused, rounds = self._clock(), False, 0
        while True:
            ready = self._board(
                sync=sync, seen=seen, wait_for_spacing=wait_for_spacing, seconds=since + seconds - self._clock()
            )
            if isinstance(ready, Held):
                return ready.value
            outcome = yield ready
            # The load's own result, not the current value: one that has expired already would make every waiter load again.
            if isinstance(outcome, Loaded):
                return outcome.value
            held, now = self._held, self._clock()
            if seen is _ANY and held is not None and now < held.kept_until:
                return held.value
            rounds += 1
            if now - since > seconds + _STOOD_STILL and not excused:
                since, excused = now, True  # nobody is to blame for that time
            elif (
                rounds == _ROUNDS
                or now - since >= seconds
                or not ready.flight.inconclusive
                or self._may_go_on(seen, now)
            ):
                raise self._error(ready.flight, outcome, seconds)

    def _may_go_on(self, seen: object, now: float) -> bool:
        """Tell whether whoever was refused with `seen` still has a use for it: then it need not wait for another load."""
        held = self._held
        return held is not None and held.value is seen and now < held.usable_until

    def _error(self, flight: Flight[Outcome[T]], outcome: Failed | None, seconds: float) -> S2SError:
        if outcome is not None:
            return outcome.error.again()
        if flight.thread is None and not flight.delayed:
            return self._unavailable(
                f"{self._name}: its load did not begin within {seconds:g} s, the threads for Keycloak are busy with other exchanges"
            )
        return self._unanswered(f"{self._name}: no answer within {seconds:g} s")

    def _wait(self, read: _Read[T]) -> T:
        try:
            wait = next(read)
            while True:
                if wait.context is not None:
                    self._run_here(wait.flight, wait.context)
                wait = read.send(wait.flight.wait(wait.seat, wait.seconds))
        except StopIteration as done:
            value: T = done.value
            return value

    async def _await(self, read: _Read[T]) -> T:
        try:
            wait = next(read)
            while True:
                wait = read.send(await wait.flight.wait_async(wait.seat, wait.seconds))
        except StopIteration as done:
            value: T = done.value
            return value

    def _board(self, *, sync: bool, seen: object, wait_for_spacing: bool, seconds: float) -> Held[T] | _Wait[T]:
        """Return the value, or a seat in the one flight that will bring it."""
        context, began = None, False
        make_context = partial(self._in_front, "needed" if seen is _ANY else "forced")
        with self._lock:
            flight, held, now = self._flight, self._held, self._clock()
            delay = 0.0
            if held is not None and held.usable(now, failing=self._failing(now)):
                if held.value is not seen:
                    return held
                if flight is None or flight.delayed:
                    delay = self._began + self._spacing - now
                    if delay > 0 and not wait_for_spacing:
                        return held
            elif (
                (flight is None or flight.delayed)
                and (setback := self._resting(now))
                and self._holds_back(setback, now)
            ):
                raise setback.error.again()  # a load that waits for its time is not hastened into the rest after a failure
            if flight is None:
                flight = self._flight = Flight(delayed=delay > 0)
                began = True
            if flight.thread == threading.get_ident():
                raise self._unavailable(f"{self._name}: the load asks for its own value")
            seat = flight.join(self._max_waiters)
        if seat is None:
            if seen is _ANY and held is not None and now < held.kept_until:
                return held  # as those in the seats will get it if the load fails
            raise self._unavailable(f"{self._name}: {self._max_waiters} are waiting already")
        # A delayed flight that is due: it was to wait for the end of the spacing, and now somebody has no value at all.
        if began or (flight.delayed and delay <= 0):
            context = self._launch(flight, make_context, sync=sync, delay=delay)
        return _Wait(flight, seat, seconds, context)

    def _launch(
        self,
        flight: Flight[Outcome[T]],
        make_context: Callable[[], contextvars.Context],
        *,
        sync: bool,
        delay: float = 0.0,
    ) -> contextvars.Context | None:
        """Hand the flight to the lane, or return a context for the caller to load in by itself.

        A flight may be launched more than once (the second time to hasten it); the claim lets one of them load.
        """
        reports = Reports()
        try:
            watch_forks(self)
            context = make_context()
            flight.delayed = flight.delayed and delay > 0
            flight.late_from = self._clock() + max(0.0, delay) + self._timeout
            load = partial(self._run, flight, context, reports)
            launched = self._lane.submit(load, delay=max(0.0, delay), afterwards=reports.deliver)
        except BaseException:
            if flight.claim():  # Ctrl-C: nobody else would ever launch it
                self._land(flight, self._clock(), self._mishap("the load could not begin", 0.0), self._pardons)
            raise
        if launched:
            return None
        if sync and delay <= 0:
            return context
        if flight.claim():
            self._land(flight, self._clock(), self._mishap("no thread could be started"), self._pardons)
        return None

    def _run_here(self, flight: Flight[Outcome[T]], context: contextvars.Context) -> None:
        reports = Reports()
        escaped = self._run(flight, context, reports)
        reports.deliver()
        if escaped is not None:
            raise escaped  # the caller's own Ctrl-C

    def _run(self, flight: Flight[Outcome[T]], context: contextvars.Context, reports: Reports) -> BaseException | None:
        """Load, publish what came of it, and return what the load raised if that was no `Exception`."""
        if not flight.claim():
            return None
        outcome: object = None
        escaped: BaseException | None = None
        pardons, began = self._pardons, self._clock()
        try:
            flight.delayed, flight.thread = False, threading.get_ident()
            self._began = began
            self._loads += 1
            outcome = context.run(reports.collect, self._load)
            ended = type(outcome).__name__
        except BaseException as error:  # noqa: BLE001 (SystemExit and MemoryError too: somebody is waiting)
            ended = type(error).__name__
            if not isinstance(error, Exception):
                escaped = error
        # Outside of the except block, so that nothing is chained to an exception whose frames hold the secret.
        if not isinstance(outcome, Loaded | Failed):
            outcome = self._mishap(f"the load ended with {ended}")
        self._land(flight, began, outcome, pardons)
        try:
            return escaped
        finally:
            del escaped  # its traceback holds this frame

    def _land(self, flight: Flight[Outcome[T]], began: float, outcome: Outcome[T], pardons: int) -> None:
        try:
            with self._lock:
                if isinstance(outcome, Loaded):
                    self._held = Held.of(outcome, began, self._jitter)
                    self._setback = None
                else:
                    self._failures += 1
                    self._setback = self._setback_of(flight, began, outcome, pardons)
                    flight.inconclusive = self._setback.inconclusive
                    if (held := self._held) is not None and held.refused_from <= self._clock():
                        # There is no other: serve it until the end of the spacing, when another load is due.
                        self._held = Held.of(held.loaded, held.began, self._jitter).refused(began + self._spacing)
        finally:  # whatever happened: somebody is waiting
            if self._flight is flight:
                self._flight = None
            flight.land(outcome)

    def _setback_of(self, flight: Flight[Outcome[T]], began: float, failed: Failed, pardons: int) -> Setback:
        held, now = self._held, self._clock()
        # A load that took longer than it may was frozen with its process, or its name hung in DNS: what was true at its end is old.
        since = min(now, began + self._timeout)
        usable = held is not None and now < held.usable_until
        inconclusive = flight.behind or usable or since + _STOOD_STILL < now or failed.doubtful
        return Setback.of(failed, since, pardons, self._dice(), inconclusive=inconclusive)

    def _mishap(self, sentence: str, retry_in: float = _MISHAP_RETRY) -> Failed:
        return Failed(self._unavailable(f"{self._name}: {sentence}"), retry_in)

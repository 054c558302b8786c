"""Threads for loads: few for each server, short-lived, daemon.

A ThreadPoolExecutor would hang in a forked child, warn at the fork, hold up the exit and refuse work once the main thread is over.
Here a thread lives as long as there is work, so an idle process has none, a forked child misses none, and the exit waits for none.
"""

import atexit
import heapq
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeAlias, TypeVar
from urllib.parse import urlsplit
from weakref import WeakSet, WeakValueDictionary

__all__ = ["KEYS", "THREADS", "TOKENS", "Lane", "Lanes", "undisturbed", "watch_forks"]

R = TypeVar("R")

THREADS: Final = 4
"""How many loads from one server run at a time."""
_EXIT_SECONDS = 0.5
_SETTLE_SECONDS = 5.0
_IMPORTLIB: Final = "<frozen importlib._bootstrap>"


def _nothing() -> None:
    pass


_Job: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""What to do, and what to do after it in a thread that keeps no other job waiting."""


class Lane:
    """A queue of jobs and at most `threads` threads that work on it; none while it is empty.

    What a job does afterwards (see `submit`) counts for nothing here: another thread takes the next job meanwhile. At most `threads`
    threads may do so; the others stay where they are and count. So a lane never has more than twice as many.
    """

    def __init__(self, name: str, *, threads: int = THREADS) -> None:
        self._name = name
        self._limit = threads
        self._order = itertools.count()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the threads, the queue and the lock: the child has none of the first, and the last may be taken for ever."""
        # Re-entrant: the garbage collector may run a finalizer in here, and that one may submit, too.
        self._changed = threading.Condition(threading.RLock())
        self._queue: list[tuple[float, int, _Job]] = []
        self._workers: set[threading.Thread] = set()
        self._finishing: set[threading.Thread] = set()
        self._watched = False  # one thread at most sleeps until the next delayed job is due
        self._closed = _exit.began

    @property
    def unsettled(self) -> bool:
        """Whether one of its threads is in the middle of an import, or of something `undisturbed`."""
        frames = sys._current_frames()  # noqa: SLF001 - documented, for purposes such as this
        for worker in [*list(self._workers), *list(self._finishing)]:
            frame = frames.get(worker.ident or 0)
            while frame is not None:
                if frame.f_code is undisturbed.__code__ or frame.f_code.co_filename == _IMPORTLIB:
                    return True
                frame = frame.f_back
        return False

    def submit(
        self, job: Callable[[], object], *, delay: float = 0.0, afterwards: Callable[[], object] = _nothing
    ) -> bool:
        """Run `job` on a thread, not before `delay` seconds are over; return False if no thread can be had.

        No thread can be had at interpreter shutdown and at the system's limit. `afterwards` runs on the same thread after `job`,
        and the next job does not wait for it.
        """
        _register(self)
        with self._changed:
            if self._closed:
                return False
            heapq.heappush(self._queue, (time.monotonic() + delay, next(self._order), (job, afterwards)))
            if self._watched:
                self._changed.notify()
            else:
                self._staff()
            if not self._workers:
                self._queue.clear()  # nobody is there, so it held no more than this
            return bool(self._workers)

    def close(self) -> list[threading.Thread]:
        """Drop what has not begun, wake who sleeps, and return the threads that still work."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._changed.notify_all()
            return [*self._workers, *self._finishing]

    def _staff(self) -> None:
        """Start a thread if there is work that nobody looks at. The lock is held."""
        if not self._queue or self._watched or self._closed or len(self._workers) >= self._limit:
            return
        thread = threading.Thread(target=self._work, name=f"s2s_fastapi-{self._name}", daemon=True)
        self._workers.add(thread)
        started = False
        try:
            thread.start()
            started = True
        except (RuntimeError, MemoryError):
            pass  # the caller sees that there are no workers
        finally:
            if not started:
                self._workers.discard(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        try:
            while thread in self._workers and (job := self._next()) is not None:
                work, afterwards = job
                del job  # or its captured value lives until the next one
                work()
                del work
                if afterwards is not _nothing:
                    self._give_way(thread)
                    afterwards()
                    self._come_back(thread)
                del afterwards
        finally:
            with self._changed:
                self._workers.discard(thread)
                self._finishing.discard(thread)
                self._staff()

    def _give_way(self, thread: threading.Thread) -> None:
        """Let another thread take the next job, unless too many threads have given way already."""
        with self._changed:
            if len(self._finishing) < self._limit:
                self._workers.discard(thread)
                self._finishing.add(thread)
                self._staff()

    def _come_back(self, thread: threading.Thread) -> None:
        with self._changed:
            if thread in self._finishing and len(self._workers) < self._limit:
                self._finishing.discard(thread)
                self._workers.add(thread)

    def _next(self) -> _Job | None:
        with self._changed:
            while self._queue:
                left = self._queue[0][0] - time.monotonic()
                if left <= 0:
                    job = heapq.heappop(self._queue)[2]
                    self._staff()
                    return job
                if self._watched:
                    break
                self._watched = True
                try:
                    self._changed.wait(left)
                finally:
                    self._watched = False
            # In the same breath as the look at the queue, or a job could be left to a thread that is on its way out.
            self._workers.discard(threading.current_thread())
            return None


class Lanes:
    """One lane for each server, so that a server that hangs, or whose name hangs in DNS, delays no other."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lanes: WeakValueDictionary[tuple[str, str], Lane] = WeakValueDictionary()
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock: a thread that the child has not may have held it."""
        self._lock = threading.RLock()

    def to(self, url: str) -> Lane:
        """Return the lane to the server of `url`: scheme, host and port. It is one for all who hold it, and gone with the last one."""
        watch_forks(self)
        there = urlsplit(url)
        with self._lock:
            lane = self._lanes.get((there.scheme, there.netloc))
            if lane is None:
                lane = self._lanes[there.scheme, there.netloc] = Lane(self._name)
            return lane


class _Forked(Protocol):
    def after_fork(self) -> None: ...


class _Exit:
    began = False


_exit: Final = _Exit()
_lanes: "WeakValueDictionary[int, Lane]" = (
    WeakValueDictionary()
)  # no WeakSet: other threads add to it while one goes through it
_forked: "WeakSet[_Forked]" = WeakSet()
_hooks: list[str] = []


def watch_forks(thing: _Forked) -> None:
    """Call `thing.after_fork()` in every forked child, as long as it lives. The hook is registered at the first use."""
    _forked.add(thing)
    if "fork" not in _hooks:
        _hooks.append("fork")
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _register(lane: Lane) -> None:
    if id(lane) in _lanes:
        return
    watch_forks(lane)
    _lanes[id(lane)] = lane
    if "exit" not in _hooks:
        _hooks.append("exit")
        atexit.register(_at_exit)


def _alive() -> list[Lane]:
    return [lane for lane in (reference() for reference in _lanes.valuerefs()) if lane is not None]


def undisturbed(work: Callable[[], R]) -> R:
    """Return what `work()` returns. No fork interrupts it on a lane's thread, so it has to be short and ask nobody.

    A child that is forked in the middle of an import has half a module for ever, and one forked while OpenSSL reads the certificates has
    a lock that nobody will open. Imports need not be wrapped.
    """
    return work()


def _before_fork() -> None:
    # The forking thread may itself hold up such an import, so there is an end to it.
    until = time.monotonic() + _SETTLE_SECONDS
    while any(lane.unsettled for lane in _alive()) and time.monotonic() < until:
        time.sleep(0.001)


def _after_fork() -> None:
    for thing in list(_forked):
        thing.after_fork()


def _at_exit() -> None:
    # A thread inside OpenSSL while the interpreter tears itself down crashes now and then: give loads a moment, but only one.
    _exit.began = True
    until = time.monotonic() + _EXIT_SECONDS
    for thread in [thread for lane in _alive() for thread in lane.close()]:
        thread.join(max(0.0, until - time.monotonic()))


KEYS: Final = Lanes("keys")
"""Apart from `TOKENS`, so that a token endpoint that hangs never keeps the receiver from its keys."""
TOKENS: Final = Lanes("tokens")

"""Threads for loads: few, short-lived, daemon.

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
from typing import Final, Protocol, TypeVar
from weakref import WeakSet

__all__ = ["KEYS", "TOKENS", "Lane", "undisturbed", "watch_forks"]

R = TypeVar("R")

_EXIT_SECONDS = 0.5
_SETTLE_SECONDS = 5.0
_IMPORTLIB: Final = "<frozen importlib._bootstrap>"


class Lane:
    """A queue of jobs and at most `threads` threads that work on it; none while it is empty.

    Keys and tokens have a lane each, so that a token endpoint that hangs never keeps the receiver from its keys.
    """

    def __init__(self, name: str, *, threads: int = 2) -> None:
        self._name = name
        self._limit = threads
        self._order = itertools.count()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the threads, the queue and the lock: the child has none of the first, and the last may be taken for ever."""
        self._changed = threading.Condition(threading.RLock())
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._workers: set[threading.Thread] = set()
        self._watched = False  # one thread at most sleeps until the next delayed job is due
        self._inside: set[int] = set()  # threads that submit: from before they take the lock until they gave it back
        self._closed = False

    @property
    def unsettled(self) -> bool:
        """Whether one of its threads is in the middle of an import, or of something `undisturbed`."""
        frames = sys._current_frames()  # noqa: SLF001 - documented, for purposes such as this
        for worker in list(self._workers):
            frame = frames.get(worker.ident or 0)
            while frame is not None:
                if frame.f_code is undisturbed.__code__ or frame.f_code.co_filename == _IMPORTLIB:
                    return True
                frame = frame.f_back
        return False

    @property
    def interrupted(self) -> bool:
        """Whether this thread is in `submit` already, and a signal handler by now: no worker can go on before it returns."""
        return threading.get_ident() in self._inside

    def submit(self, job: Callable[[], None], *, delay: float = 0.0) -> bool:
        """Run `job` on a thread, not before `delay` seconds are over; return False where no thread can be had.

        No thread can be had at interpreter shutdown, at the system's limit, and inside a signal handler that has interrupted this
        very function.
        """
        _register(self)
        if self.interrupted:
            return False
        try:
            self._inside.add(threading.get_ident())
            with self._changed:
                return self._enqueue((time.monotonic() + delay, next(self._order), job))
        finally:
            self._inside.discard(threading.get_ident())

    def _enqueue(self, entry: tuple[float, int, Callable[[], None]]) -> bool:
        if self._closed:
            return False
        heapq.heappush(self._queue, entry)
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
            return list(self._workers)

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
        try:
            while (job := self._next()) is not None:
                job()
                del job  # or its captured value lives until the next one
        finally:
            with self._changed:
                self._workers.discard(threading.current_thread())
                self._staff()

    def _next(self) -> Callable[[], None] | None:
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


class _Forked(Protocol):
    def after_fork(self) -> None: ...


_lanes: "WeakSet[Lane]" = WeakSet()
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
    if lane in _lanes:
        return
    watch_forks(lane)
    _lanes.add(lane)
    if "exit" not in _hooks:
        _hooks.append("exit")
        atexit.register(_at_exit)


def undisturbed(work: Callable[[], R]) -> R:
    """Return what `work()` returns. No fork interrupts it on a lane's thread, so it has to be short and ask nobody.

    A child that is forked in the middle of an import has half a module for ever, and one forked while OpenSSL reads the certificates has
    a lock that nobody will open. Imports need not be wrapped.
    """
    return work()


def _before_fork() -> None:
    # The forking thread may itself hold up such an import, so there is an end to it.
    until = time.monotonic() + _SETTLE_SECONDS
    while any(lane.unsettled for lane in list(_lanes)) and time.monotonic() < until:
        time.sleep(0.001)


def _after_fork() -> None:
    for thing in list(_forked):
        thing.after_fork()


def _at_exit() -> None:
    # A thread inside OpenSSL while the interpreter tears itself down crashes now and then: give loads a moment, but only one.
    until = time.monotonic() + _EXIT_SECONDS
    for thread in [thread for lane in list(_lanes) for thread in lane.close()]:
        thread.join(max(0.0, until - time.monotonic()))


KEYS = Lane("keys")
TOKENS = Lane("tokens")

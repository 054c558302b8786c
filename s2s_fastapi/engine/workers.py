"""Threads for loads: a few for each server, short-lived, daemon.

A ThreadPoolExecutor would hang in a forked child, warn at the fork, delay the exit and refuse work once the main thread has ended.
Here a thread lives only while there is work. So an idle process has no threads, and a forked child and the exit wait for none.
"""

import heapq
import itertools
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from s2s_fastapi.process import delay_forks, watch_exit, watch_forks

__all__ = ["EXCHANGES", "KEYS", "THREADS", "TOKENS", "Workers", "WorkersByServer"]

R = TypeVar("R")

THREADS: Final = 4
"""How many loads from one server run at a time."""
_EXIT_SECONDS: Final = 0.5
_IMPORTLIB: Final = "<frozen importlib._bootstrap>"


class _Exit:
    """The exit of the interpreter: from then on no load begins."""

    began = False
    until = 0.0  # all workers share this limit

    def begin(self) -> None:
        if not self.began:
            self.began, self.until = True, time.monotonic() + _EXIT_SECONDS


_exit: Final = _Exit()


def _nothing() -> None:
    pass


_Job: TypeAlias = tuple[Callable[[], object], Callable[[], object]]
"""What to do, and what to do afterwards while another thread may already take the next job."""


class Workers:
    """A queue of jobs, and at most `threads` threads that work on it. While the queue is empty there are none.

    A thread that does what follows a job (``afterwards``, see `submit`) is not counted: another thread takes the next job meanwhile.
    At most `threads` threads are left out of the count in this way. So there are never more than twice `threads`.
    """

    def __init__(self, name: str, *, threads: int = THREADS) -> None:
        self._name = name
        self._limit = threads
        self._order = itertools.count()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget threads, queue and lock: the child has no such threads, and one of them may have held the lock."""
        # Re-entrant: the garbage collector may run a finalizer while it is held, and that finalizer may submit a job.
        self._changed = threading.Condition(threading.RLock())
        self._queue: list[tuple[float, int, _Job]] = []
        self._working: set[threading.Thread] = set()
        self._finishing: set[threading.Thread] = set()
        self._watched = False  # one thread at most sleeps until the next delayed job is due

    @property
    def waiting(self) -> int:
        """How many jobs no thread has begun yet."""
        return len(self._queue)

    @property
    def unsettled(self) -> bool:
        """Whether one of its threads is in the middle of an import: libraries import at their first use."""
        frames = sys._current_frames()  # noqa: SLF001 - documented for such purposes
        for worker in [*list(self._working), *list(self._finishing)]:
            frame = frames.get(worker.ident or 0)
            while frame is not None:
                if frame.f_code.co_filename == _IMPORTLIB:
                    return True
                frame = frame.f_back
        return False

    def submit(
        self, job: Callable[[], object], *, delay: float = 0.0, afterwards: Callable[[], object] = _nothing
    ) -> bool:
        """Run `job` on a thread after `delay` seconds; return False if no thread can be had.

        - No thread can be had at interpreter shutdown, or at the system's limit.
        - `afterwards` runs on the same thread after `job`, and the next job does not wait for it.
        """
        watch_forks(self)
        delay_forks(self)
        watch_exit(self)
        with self._changed:
            if _exit.began:
                return False
            heapq.heappush(self._queue, (time.monotonic() + delay, next(self._order), (job, afterwards)))
            if self._watched:
                self._changed.notify()
            else:
                self._staff()
            if not self._working:
                self._queue.clear()  # there is no thread, so the queue held only this job
            return bool(self._working)

    def at_exit(self) -> None:
        """Drop jobs that have not begun, here and in all other workers, and give the running ones a short time to end.

        A thread inside OpenSSL may crash while the interpreter shuts down.
        """
        _exit.begin()
        with self._changed:
            self._queue.clear()
            self._changed.notify_all()
            threads = [*self._working, *self._finishing]
        for thread in threads:
            thread.join(max(0.0, _exit.until - time.monotonic()))

    def _staff(self) -> None:
        """Start a thread if there is work and no thread for it. The lock is held."""
        if not self._queue or self._watched or _exit.began or len(self._working) >= self._limit:
            return
        thread = threading.Thread(target=self._work, name=f"s2s_fastapi-{self._name}", daemon=True)
        self._working.add(thread)
        started = False
        try:
            thread.start()
            started = True
        except (RuntimeError, MemoryError):
            pass  # the caller sees that there are no workers
        finally:
            if not started:
                self._working.discard(thread)

    def _work(self) -> None:
        thread = threading.current_thread()
        try:
            while thread in self._working and (job := self._next()) is not None:
                work, afterwards = job
                del job  # otherwise what it captured lives until the next job
                work()
                del work
                if afterwards is not _nothing:
                    self._give_way(thread)
                    afterwards()
                    self._come_back(thread)
                del afterwards
        finally:
            with self._changed:
                self._working.discard(thread)
                self._finishing.discard(thread)
                self._staff()

    def _give_way(self, thread: threading.Thread) -> None:
        """Let another thread take the next job, unless too many threads have given way already."""
        with self._changed:
            if len(self._finishing) < self._limit:
                self._working.discard(thread)
                self._finishing.add(thread)
                self._staff()

    def _come_back(self, thread: threading.Thread) -> None:
        with self._changed:
            if thread in self._finishing and len(self._working) < self._limit:
                self._finishing.discard(thread)
                self._working.add(thread)

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
            # Under the same lock as the look at the queue: otherwise a job could be left to a thread that is about to end.
            self._working.discard(threading.current_thread())
            return None


class WorkersByServer:
    """Separate workers for each server: a server that hangs, or whose name hangs in DNS, delays no other server."""

    def __init__(self, name: str, *, threads: int = THREADS) -> None:
        self._name = name
        self._threads = threads
        self._pools: WeakValueDictionary[tuple[str, str], Workers] = WeakValueDictionary()
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock: a thread of the parent may have held it."""
        self._lock = threading.RLock()

    def to(self, url: str) -> Workers:
        """Return the workers for the server of `url` (scheme, host and port). All callers share them while one of them holds them."""
        watch_forks(self)
        there = urlsplit(url)
        with self._lock:
            workers = self._pools.get((there.scheme, there.netloc))
            if workers is None:
                workers = self._pools[there.scheme, there.netloc] = Workers(self._name, threads=self._threads)
            return workers


KEYS: Final = WorkersByServer("keys")
"""Separate from `TOKENS`: a token endpoint that hangs never delays the receiver's keys."""
TOKENS: Final = WorkersByServer("tokens")
EXCHANGES: Final = WorkersByServer("exchanges", threads=8)
"""Separate from `TOKENS`: however many users come, this service's own tokens never wait for theirs."""

"""One load that many wait for: from threads, from asyncio loops, from trio.

No lock is shared between waiters, so none of them, and no forked child, can find one taken. Each sync waiter sleeps on a lock of
its own, each event loop has one event, and waking one is a single step that the interpreter does not interrupt.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["SingleFlight", "running_trio"]

R = TypeVar("R")


def running_trio() -> Any:
    """Return the module trio if this code runs in one of its tasks, else None.

    Another thread may be importing trio at this moment (httpcore does, for our first exchange): then no trio task runs yet.
    """
    trio = sys.modules.get("trio")
    in_trio_task = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)
    return trio if in_trio_task is not None and in_trio_task() else None


class SingleFlight(Generic[R]):
    """One running load and all callers that wait for it.

    ``result`` is None until the load has finished. A caller that joins later finds the result there.
    """

    __slots__ = (
        "_claim",
        "_loops",
        "_waiters",
        "background",
        "delayed",
        "inconclusive",
        "late_from",
        "result",
        "thread",
    )

    def __init__(self, *, background: bool = False, delayed: bool = False) -> None:
        self.result: R | None = None
        self.background = background  # no caller waited for it when it began
        self.delayed = delayed  # it begins later, and may be begun earlier
        self.inconclusive = False  # it failed, and a caller without any value should try once more at once
        self.late_from = float("inf")  # from then on it counts as failing; set when it is given to the workers
        self.thread: int | None = None  # which thread loads
        self._claim = threading.Lock()
        self._waiters: set[threading.Lock] = set()
        self._loops: dict[object, tuple[Any, Callable[[], object]]] = {}

    def claim(self) -> bool:
        """Return True to exactly one caller, who then has to load and to call `finish`."""
        return self._claim.acquire(blocking=False)

    def join(self, limit: int) -> "threading.Lock | None":
        """Return a new waiter to wait on, or None if `limit` callers are waiting already."""
        if len(self._waiters) >= limit:
            return None
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.add(waiter)
        return waiter

    def finish(self, result: R) -> None:
        """Set the result before waking waiters: a waiter that registers in between then sees it."""
        self.result = result
        for waiter in list(self._waiters):
            waiter.release()
        for _, wake in list(self._loops.values()):
            # A loop that was closed meanwhile has no waiters (trio's RunFinishedError is a RuntimeError too).
            with contextlib.suppress(RuntimeError):
                wake()

    def wait(self, waiter: threading.Lock, timeout: float) -> R | None:
        """Block until the load has finished; return None after `timeout` seconds."""
        try:
            if self.result is None:
                waiter.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX))
            return self.result
        finally:
            self._waiters.discard(waiter)

    async def wait_async(self, waiter: threading.Lock, timeout: float) -> R | None:  # noqa: ASYNC109 (None, not TimeoutError)
        """Do as `wait`, suspended on the running asyncio or trio loop.

        - All tasks of one loop share one event, so a thousand of them cost one wake-up across threads.
        - If a task is cancelled, only its own waiter is removed.
        """
        try:
            # Checked first: in trio's guest mode an asyncio loop runs on this thread as well.
            trio = running_trio()
            if trio is not None:
                await self._wait_trio(trio, timeout)
            else:
                await self._wait_asyncio(timeout)
            return self.result
        finally:
            self._waiters.discard(waiter)

    async def _wait_asyncio(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            finished = asyncio.Event()
            self._loops[loop] = finished, lambda: loop.call_soon_threadsafe(finished.set)
        if self.result is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._loops[loop][0].wait()

    async def _wait_trio(self, trio: Any, seconds: float) -> None:
        token = trio.lowlevel.current_trio_token()
        if token not in self._loops:
            finished = trio.Event()
            self._loops[token] = finished, lambda: token.run_sync_soon(finished.set)
        if self.result is None:
            with trio.move_on_after(max(0.0, seconds)):
                await self._loops[token][0].wait()

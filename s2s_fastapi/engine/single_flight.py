"""One load that many wait for: from threads, from asyncio loops, from trio.

Nothing here takes a lock that a waiter or a forked child could find taken: each sync waiter has a lock of its own to sleep on, each
event loop one event, and both are rung through single steps that the interpreter does not interrupt.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Flight", "running_trio"]

R = TypeVar("R")


def running_trio() -> Any:
    """Return the module trio if this code runs in one of its tasks, else None.

    Another thread may be half-way through importing it (httpcore does, for our first exchange): then no task of its runs yet.
    """
    trio = sys.modules.get("trio")
    in_trio_task = getattr(getattr(trio, "lowlevel", None), "in_trio_task", None)
    return trio if in_trio_task is not None and in_trio_task() else None


class Flight(Generic[R]):
    """A load under way, with its passengers.

    ``outcome`` is None until it has landed. Who joins later finds it there.
    """

    __slots__ = ("_claim", "_loops", "_seats", "behind", "delayed", "inconclusive", "late_from", "outcome", "thread")

    def __init__(self, *, behind: bool = False, delayed: bool = False) -> None:
        self.outcome: R | None = None
        self.behind = behind  # nobody waited for it when it began
        self.delayed = delayed  # it waits for its time and could begin earlier
        self.inconclusive = False  # it failed, and whoever has no value at all should try once more at once
        self.late_from = float("inf")  # from when on it counts as a load that fails; its launch says when
        self.thread: int | None = None  # which thread loads
        self._claim = threading.Lock()
        self._seats: set[threading.Lock] = set()
        self._loops: dict[object, tuple[Any, Callable[[], object]]] = {}

    def claim(self) -> bool:
        """Return True to exactly one caller, who then has to load and to land."""
        return self._claim.acquire(blocking=False)

    def join(self, limit: int) -> "threading.Lock | None":
        """Take a seat to wait on, or None when `limit` seats are taken."""
        if len(self._seats) >= limit:
            return None
        seat = threading.Lock()
        seat.acquire()
        self._seats.add(seat)
        return seat

    def land(self, outcome: R) -> None:
        """Publish the outcome, then wake everybody. The order matters: whoever registers too late for the bell sees the outcome."""
        self.outcome = outcome
        for seat in list(self._seats):
            seat.release()
        for _, ring in list(self._loops.values()):
            # A loop that was closed meanwhile has nobody left to wake (trio's RunFinishedError is a RuntimeError, too).
            with contextlib.suppress(RuntimeError):
                ring()

    def wait(self, seat: threading.Lock, timeout: float) -> R | None:
        """Block until the flight has landed; return None after `timeout` seconds."""
        try:
            if self.outcome is None:
                seat.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX))
            return self.outcome
        finally:
            self._seats.discard(seat)

    async def wait_async(self, seat: threading.Lock, timeout: float) -> R | None:  # noqa: ASYNC109 (None, not TimeoutError)
        """Do as `wait`, suspended on the running asyncio or trio loop.

        All tasks of one loop share one event, so that a thousand of them cost one wake-up across threads. A cancelled task only
        gives its seat back.
        """
        try:
            # Asked first: in trio's guest mode an asyncio loop runs on this thread as well.
            trio = running_trio()
            if trio is not None:
                await self._wait_trio(trio, timeout)
            else:
                await self._wait_asyncio(timeout)
            return self.outcome
        finally:
            self._seats.discard(seat)

    async def _wait_asyncio(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            landed = asyncio.Event()
            self._loops[loop] = landed, lambda: loop.call_soon_threadsafe(landed.set)
        if self.outcome is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._loops[loop][0].wait()

    async def _wait_trio(self, trio: Any, seconds: float) -> None:
        token = trio.lowlevel.current_trio_token()
        if token not in self._loops:
            landed = trio.Event()
            self._loops[token] = landed, lambda: token.run_sync_soon(landed.set)
        if self.outcome is None:
            with trio.move_on_after(max(0.0, seconds)):
                await self._loops[token][0].wait()

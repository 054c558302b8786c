"""Open HTTP clients: one for each running event loop, or one for the process."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from s2s_fastapi.engine.single_flight import running_trio
from s2s_fastapi.process import watch_forks

__all__ = ["Pool", "here"]

C = TypeVar("C")


def here() -> object:
    """Return what stands for the running loop: an asyncio loop or a trio token."""
    # Checked first: in trio's guest mode an asyncio loop runs on this thread as well.
    trio = running_trio()
    if trio is not None:
        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


@dataclass(slots=True)
class _Place(Generic[C]):
    client: C | None = None
    holders: int = 0
    lent: bool = False


class Pool(Generic[C]):
    """One client for each place (a running loop, or the process), made at its first use.

    - Connections belong to the loop that made them, so a client is never used on another loop.
    - A client whose loop has ended is dropped without being closed. A forked child does not touch the clients of its parent: their
      sockets belong to the parent.
    - A holder of a place (a lifespan, ``async with``) releases it, and the last release closes its client.
    - A client that was lent to a request is closed only by a lifespan: it is unknown when the request stops using it.
    """

    def __init__(self, make: Callable[[], C], closed: Callable[[C], bool]) -> None:
        self._make = make
        self._closed = closed
        self._places: dict[object, _Place[C]] = {}
        self._inherited: list[object] = []
        self.after_fork()

    def after_fork(self) -> None:
        """Start empty, and keep a reference to the clients of the parent: the garbage collector would close them."""
        self._lock = threading.RLock()
        if self._places:
            self._inherited.append(self._places)
            self._places = {}

    def lend(self, place: object) -> C:
        """Return the client of `place` to a request; the end of its use is not reported."""
        found = self._places.get(place)
        if found is None or found.client is None or not found.lent or self._closed(found.client):
            return self._client(place, lent=True)
        return found.client

    def hold(self, place: object) -> C:
        """Return the client of `place`, and keep it open until `release`."""
        client = self._client(place, lent=False)
        self.expect(place)
        return client

    def expect(self, place: object) -> None:
        """Hold `place` without making its client yet."""
        with self._lock:
            self._at(place).holders += 1

    def release(self, place: object, *, even_lent: bool = False) -> C | None:
        """Give up a hold; return the client if it is to be closed now."""
        with self._lock:
            found = self._at(place)
            found.holders = max(0, found.holders - 1)  # the hold may be from before a fork
            if found.holders or (found.lent and not even_lent):
                return None
            return self._places.pop(place).client

    def _client(self, place: object, *, lent: bool) -> C:
        with self._lock:
            found = self._at(place)
            found.lent = found.lent or lent
            # `async with client:` in a route closes a client that others use: they get a new one.
            if found.client is None or self._closed(found.client):
                found.client = self._make()
            return found.client

    def _at(self, place: object) -> _Place[C]:
        if place not in self._places:
            watch_forks(self)
            for other in [other for other in self._places if _over(other)]:
                del self._places[other]
            self._places[place] = _Place()
        return self._places[place]


def _over(place: Any) -> bool:
    if place is None:
        return False
    if isinstance(place, asyncio.AbstractEventLoop):
        return place.is_closed()
    try:
        place.run_sync_soon(_nothing, idempotent=True)
    except RuntimeError:  # trio.RunFinishedError
        return True
    return False


def _nothing() -> None:
    pass

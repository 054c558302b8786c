"""What servers said that get our proofs: what their clocks show, their nonces (RFC 9449 sections 8 and 9), and whether a new proof helped. One memory for a process."""

import math
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from s2s_fastapi.caller.origins import Pin

__all__ = ["MOST_OFFSET", "Servers", "seconds_of"]

MOST_OFFSET: Final = 600.0
"""A clock that differs by more seconds is not followed: what answers is not the server, or this machine's clock was never set."""
_TOLERATED: Final = 1.0
"""Seconds by which a ``Date`` may be old when it is sent: many servers make it once a second."""
_MOST_SERVERS: Final = 1024
_PAUSE: Final = 10.0
"""Seconds for which requests to an origin get no new proof after one did not help: what it refuses is not how often a proof was sent."""
_NONCE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]{1,512}")
"""RFC 9449 section 8.1, with a bound. No other character reaches a proof."""


@dataclass(frozen=True, slots=True)
class _Server:
    nonce: str = ""
    shown: float | None = None
    """What its clock showed, in seconds since the epoch, at ``at`` of the monotonic clock."""
    at: float = 0.0
    stubborn: float = -math.inf
    """When it refused a new proof, too, by the monotonic clock."""


class Servers:
    """Clocks and nonces of at most 1024 origins; the least recently changed origin is forgotten first.

    - Time goes on with the monotonic clock, so a step of this machine's clock changes nothing.
    - A clock is never followed further than 10 minutes from this machine's clock. A machine that slept has the right time only there.
    - An origin that has said nothing gets the time of the Keycloak that answered last: most services have the same clock.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._wall = wall
        self._servers: OrderedDict[Pin, _Server] = OrderedDict()
        self._issuer = _Server()
        self.after_fork()

    def after_fork(self) -> None:
        """Keep what was said, and replace the lock: another thread of the parent may have held it."""
        self._lock = threading.RLock()

    def time(self, origin: Pin) -> float:
        """Return the time for a proof to `origin`, in seconds since the epoch."""
        there = self._servers.get(origin)
        return self._time(there if there is not None and there.shown is not None else self._issuer)

    def nonce(self, origin: Pin) -> str:
        """Return the last nonce of `origin`, or "" if it gave none."""
        there = self._servers.get(origin)
        return "" if there is None else there.nonce

    def gave_nonce(self, origin: Pin, nonce: str | None) -> None:
        """Remember the value of a ``DPoP-Nonce``. One that is too long, or has a character that no nonce has, is ignored."""
        if nonce is not None and nonce != self.nonce(origin) and _NONCE.fullmatch(nonce):
            with self._lock:
                self._remember(origin, replace(self._servers.get(origin, _Server()), nonce=nonce))

    def refused_new_proof(self, origin: Pin) -> None:
        """Remember that a new proof did not help."""
        with self._lock:
            self._remember(origin, replace(self._servers.get(origin, _Server()), stubborn=self.clock()))

    def worth_new_proof(self, origin: Pin) -> bool:
        """Return whether a refused request is sent once more with a new proof: not in the 10 s after that did not help."""
        there = self._servers.get(origin)
        return there is None or self.clock() - there.stubborn >= _PAUSE

    def showed_time(self, origin: Pin, date: str | None, since: float, *, issuer: bool = False) -> None:
        """Learn from the ``Date`` of an answer to a request that began at `since` of the monotonic clock.

        A ``Date`` has whole seconds, and the answer took its time: if this machine's clock may be right after all, it counts.
        """
        seconds = seconds_of(date)
        if seconds is not None:
            self.showed(origin, seconds, since, issuer=issuer)

    def showed(self, origin: Pin, seconds: float, since: float, *, issuer: bool = False) -> None:
        """Learn from what a server's clock showed, in whole seconds, while it answered a request that began at `since`."""
        now, wall = self.clock(), self._wall()
        least, most = seconds - wall, seconds + 1.0 - (wall - max(0.0, now - since))
        offset = 0.0 if least - _TOLERATED <= 0.0 <= most + _TOLERATED else (least + most) / 2
        if abs(offset) > MOST_OFFSET:
            return
        with self._lock:
            there = replace(self._servers.get(origin, _Server()), shown=wall + offset, at=now)
            if issuer:
                self._issuer = there
            self._remember(origin, there)

    def _time(self, there: _Server) -> float:
        wall = self._wall()
        if there.shown is None:
            return wall
        now = there.shown + self.clock() - there.at
        return now if abs(now - wall) <= MOST_OFFSET else wall

    def _remember(self, origin: Pin, there: _Server) -> None:
        self._servers[origin] = there
        self._servers.move_to_end(origin)
        while len(self._servers) > _MOST_SERVERS:
            self._servers.popitem(last=False)


def seconds_of(date: str | None) -> float | None:
    """Return a ``Date`` (RFC 9110 section 6.6.1) in seconds since the epoch, or None if it is none."""
    try:
        parsed = parsedate_to_datetime(date or "")
    except (ValueError, IndexError, OverflowError):
        return None
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    try:
        return (parsed - datetime.fromtimestamp(0, UTC)).total_seconds()
    except OverflowError:
        return None

"""Observe mode: until a day that the developer names, some refusals are only logged.

The report says which caller would be refused, on which route, why, how often, and what to change.
"""

import contextlib
import datetime as dt
import logging
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.process import watch_exit, watch_forks
from s2s_fastapi.telemetry import Observer
from s2s_fastapi.text import printable, quoted

__all__ = ["ObservedRefusal", "ObservedRefusals"]

_log = logging.getLogger("s2s_fastapi.observed")

_LONGEST_AHEAD: Final = 366 * 24 * 3600.0
_ROWS: Final = 1000
# A caller can invent methods, and paths of a mount with parameters: it must not fill the report alone.
_ROWS_OF_ONE_CALLER: Final = 100
_NO_ROUTE: Final = "(no route)"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "WEBSOCKET"})
_OTHER_METHOD: Final = "(other)"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_REPORT_AGAIN: Final = 3600.0
_LONGEST: Final = 256
_LONGEST_CURE: Final = 4096
_HEADINGS: Final = {
    (False, False): "no request so far will be refused",
    (False, True): "these will be refused from that day on",
    (True, False): "the day has come, and no request seen before is refused now; remove the option",
    (True, True): "the day has come, and these are refused from now on; remove the option",
}
"""The heading, by whether the day has come and whether there are rows."""


def end_of_observing(day: object, now: float) -> float:
    """Return when that day begins in UTC, in seconds since the epoch. From then on requests are refused.

    Raises:
        ConfigurationError: ``day`` is not written ``YYYY-MM-DD`` (RFC 3339 section 5.6 ``full-date``), or more than 366 days away.
    """
    # fromisoformat also reads week dates and dates without dashes, which people may misread.
    if isinstance(day, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day):
        with contextlib.suppress(ValueError):  # the 31st of February
            end = dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC).timestamp()
            if end - now > _LONGEST_AHEAD:
                raise ConfigurationError(
                    f"insecure_observe_until is {day}, more than 366 days ahead: name an earlier day."
                )
            return end
    raise ConfigurationError(f'insecure_observe_until takes a day such as "2027-01-31", not {day!r}.')


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRefusal:
    """Requests of one caller that one route accepted, and that will be refused for one reason."""

    method: str
    """``WEBSOCKET`` for a handshake."""
    route: str
    """As declared, or ``(no route)`` for all that the app answers without one."""
    client_id: str
    issuer: str
    """The realm of the caller."""
    reason: str
    status: int
    cure: str
    """What to change, as logged for the latest request."""
    count: int
    first_seen: dt.datetime
    last_seen: dt.datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedRefusals:
    """What was accepted in this process only because of ``insecure_observe_until``, the most frequent first."""

    until: dt.datetime | None
    """When refusals begin. None without the option, if the day was over at the start, or before the start."""
    rows: tuple[ObservedRefusal, ...] = ()
    others: int = 0
    """Refusals without a row: there are at most 1,000 rows, and 100 for one caller."""


class Observing:
    """Count the refusals that are only logged, by route, caller and reason, and pass each decision on to the next observer.

    - A new row is written to the logger ``s2s_fastapi.observed`` at once.
    - All rows are written an hour after something was added, when the day has come, and at the end.
    - A request without a token that the realm has signed adds nothing.

    Safe to use from threads. A forked child starts with an empty report.
    """

    def __init__(self, until: float, observer: Observer, clock: Callable[[], float]) -> None:
        self._until = until
        self._observer = observer
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Forget everything: the parent reports its own requests, and one of its threads may have held the lock."""
        self._lock = threading.Lock()
        self._rows: dict[_Key, _Row] = {}
        self._rows_of: Counter[tuple[str, str]] = Counter()
        self._others = 0
        self._news_since: float | None = None
        self._over = False

    @property
    def wants_allowed(self) -> bool:
        """Whether acceptances must be passed on: an acceptance may also be the moment to write a report that is due."""
        return self._due(self._clock()) or getattr(self._observer, "wants_allowed", True)

    def decided(self, decision: Decision) -> None:
        """Count one decision, and pass it on."""
        now = self._clock()
        if decision.observed:
            self._count(decision, now)
        if self._due(now):
            self.log()
        if decision.reason is not Reason.ALLOWED or getattr(self._observer, "wants_allowed", True):
            self._observer.decided(decision)

    def report(self) -> ObservedRefusals:
        """Return the report so far."""
        with self._lock:
            rows = tuple(row.frozen() for row in self._rows.values())
            others = self._others
        rows = tuple(
            sorted(rows, key=lambda row: (-row.count, row.client_id, row.issuer, row.route, row.method, row.reason))
        )
        return ObservedRefusals(until=_moment(self._until), rows=rows, others=others)

    def at_exit(self) -> None:
        """Write the report: below a mount, or without a lifespan, no shutdown would write it."""
        self.log()

    def log(self, *, final: bool = False) -> None:
        """Write the report if something in it is new. A ``final`` report is also written if it is empty or nothing is new."""
        with self._lock:
            now, was_over = self._clock(), self._over
            self._over = was_over or now >= self._until
            if was_over or not (final or self._over or self._news_since is not None):
                return
            self._news_since, over = None, self._over
        report = self.report()
        day = f"{report.until:%Y-%m-%d}"
        count = sum(row.count for row in report.rows)
        _log.log(
            logging.WARNING if report.rows else logging.INFO,
            "insecure_observe_until=%s: %s: refusals=%d rows=%d others=%d",
            day,
            _HEADINGS[over, bool(report.rows)],
            count,
            len(report.rows),
            report.others,
            extra={"until": day, "count": count, "rows": len(report.rows), "others": report.others},
        )
        for row in report.rows:
            seen = f" count={row.count} first_seen={row.first_seen:{_TIME}} last_seen={row.last_seen:{_TIME}}"
            _write(row, day, seen)

    def _due(self, now: float) -> bool:
        if self._over:
            return False
        since = self._news_since
        return now >= self._until or (since is not None and not 0 <= now - since < _REPORT_AGAIN)

    def _count(self, decision: Decision, now: float) -> None:
        caller = printable(decision.client_id, _LONGEST)
        route = printable(decision.route, _LONGEST) if decision.routed else _NO_ROUTE
        # A caller can invent methods. They share one row, or a hundred of them would hide the real ones.
        method = decision.method if decision.method in _METHODS else _OTHER_METHOD
        issuer = printable(decision.issuer, _LONGEST)
        key = (method, route, caller, decision.reason, issuer)
        watch_forks(self)
        watch_exit(self)
        with self._lock:
            if self._news_since is None:
                self._news_since = now
            row = self._rows.get(key)
            if new := row is None:
                if len(self._rows) >= _ROWS or self._rows_of[issuer, caller] >= _ROWS_OF_ONE_CALLER:
                    self._others += 1
                    return
                self._rows_of[issuer, caller] += 1
                row = self._rows[key] = _Row(key, now)
            row.count += 1
            row.last = now
            row.cure = decision.cure[:_LONGEST_CURE]
            added = row.frozen() if new else None
        if added is not None:
            _write(added, f"{_moment(self._until):%Y-%m-%d}")


_Key = tuple[str, str, str, Reason, str]
"""The method, the route, the caller, the reason, and the issuer of the caller's realm."""


class _Row:
    """One row of the report, while it grows."""

    __slots__ = ("count", "cure", "first", "key", "last")

    def __init__(self, key: "_Key", now: float) -> None:
        self.key = key
        self.count = 0
        self.cure = ""
        self.first = self.last = now

    def frozen(self) -> ObservedRefusal:
        method, route, client_id, reason, issuer = self.key
        return ObservedRefusal(
            method=method,
            route=route,
            client_id=client_id,
            issuer=issuer,
            reason=str(reason),
            status=reason.status,
            cure=printable(self.cure, _LONGEST_CURE),
            count=self.count,
            first_seen=_moment(self.first),
            last_seen=_moment(self.last),
        )


def _write(row: ObservedRefusal, day: str, seen: str = "") -> None:
    fields = {
        "outcome": "observed",
        "reason": row.reason,
        "status": row.status,
        "method": row.method,
        "route": row.route,
        "client_id": row.client_id,
        "issuer": row.issuer,
        "cure": row.cure,
        "until": day,
        "count": row.count,
        "first_seen": f"{row.first_seen:{_TIME}}",
        "last_seen": f"{row.last_seen:{_TIME}}",
    }
    _log.warning(
        "refused from %s on: %s %s method=%s route=%s client_id=%r cure=%r%s",
        day,
        row.status,
        row.reason,
        quoted(row.method),
        quoted(row.route),
        row.client_id,
        row.cure,
        seen,
        extra=fields,
    )


def _moment(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC)

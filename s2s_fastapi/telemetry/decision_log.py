"""The operator's log: one record with fields for each decision; in a flood most are only counted."""

import logging
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.process import watch_exit, watch_forks
from s2s_fastapi.text import printable, quoted

__all__ = ["DecisionLog"]

DECISIONS = logging.getLogger("s2s_fastapi.decisions")

_WINDOW = 10.0
_PER_WINDOW = 20
_MAX_ROUTES = 32  # of one caller in one window: a caller can invent paths that match no route
_MAX_WINDOWS = 512
_LONGEST = 256
_LONGEST_CURE = 4096
_LONGEST_NAME = 200  # a claim is cut there before it comes here
_ESCAPED = frozenset("'\"\\\N{REPLACEMENT CHARACTER}")
_EXCHANGED = "exchanged token"
_OF_ANYBODYS_CHOICE = frozenset({"method", "route", "unverified_kid"})


class DecisionLog:
    """Write refusals to the logger ``s2s_fastapi.decisions``, acceptances at DEBUG, or at INFO for an audit trail.

    - The fields are attributes of the record: ``outcome``, ``reason``, ``status``, ``method``, ``route``, ``client_id``, ``user``, ``hint``,
      ``token_id``, ``kid``, ``binding``, ``issuer``, ``cure``, ``unverified_kid``, ``trace_id``. They are printable and of limited length, whatever was sent.
    - ``explain`` is the command that explains a refusal, if the token's signature held. It is also the end of the message.
    - ``routed`` says whether the route belongs to the app.
    - A reason is written at most 20 times in 10 s for each caller, and once for each further route, up to 32 routes. So a flood hides no
      other caller and no other reason. All requests without a valid signature count as one caller.
    - ``suppressed``: the next record of that caller and reason says how many refusals were left out.
    - If no such record comes, the last refusal that was left out is written with a later record, or by `flush`. Its ``age`` says how
      many seconds ago it happened. So the records and the sum of ``suppressed`` are the number of all refusals.
    - Accepted requests are never left out. With `audit`, requests that observe mode accepts are not left out either.
    """

    def __init__(
        self,
        logger: logging.Logger = DECISIONS,
        *,
        audit: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._audit = audit
        self._allowed = logging.INFO if audit else logging.DEBUG
        self._clock = clock
        self._watched = False
        self.after_fork()

    def after_fork(self) -> None:
        """Start again: the parent logs its own floods, and one of its threads may have held the lock."""
        self._floods = _Floods()

    def at_exit(self) -> None:
        """Write what was left out: without a lifespan, no shutdown would write it."""
        self.flush()

    @property
    def wants_allowed(self) -> bool:
        """Whether accepted requests are logged: the hot path checks this before it makes a record."""
        return self._logger.isEnabledFor(self._allowed)

    @property
    def writes_allowed(self) -> bool:
        """Whether a handler takes records of accepted requests: without one they are lost, and nothing says so."""
        logger: logging.Logger | None = self._logger
        while logger is not None:
            if any(handler.level <= self._allowed for handler in logger.handlers):
                return self.wants_allowed
            logger = logger.parent if logger.propagate else None
        return False

    def decided(self, decision: Decision) -> None:
        """Write one record, unless its level is off or the flood limit is reached."""
        if not self._logger.isEnabledFor(self._level(decision)):
            return
        if decision.outcome == "allowed" or (self._audit and decision.accepted):
            self._write(_Counted(decision))
            return
        for counted in self._counting().count(decision, self._clock()):
            self._write(counted)

    def flush(self) -> None:
        """Write the refusals of floods that are not counted yet: at the end of the process no later record would do so."""
        for counted in self._counting().rest(self._clock()):
            self._write(counted)

    def _counting(self) -> "_Floods":
        if not self._watched:
            self._watched = True
            watch_forks(self)
            watch_exit(self)
        return self._floods

    def _write(self, counted: "_Counted") -> None:
        decision = counted.decision
        fields: dict[str, str | int | bool] = {
            "outcome": decision.outcome,
            "reason": str(decision.reason),
            "status": decision.status,
            "method": printable(decision.method, _LONGEST),
            "route": printable(decision.route, _LONGEST),
            "client_id": printable(decision.client_id, _LONGEST),
            "user": printable(decision.user, _LONGEST),
            "hint": _EXCHANGED if decision.exchanged else "",
            "token_id": printable(decision.token_id, _LONGEST),
            "kid": printable(decision.kid, _LONGEST),
            "binding": printable(decision.binding, _LONGEST),
            "issuer": printable(decision.issuer, _LONGEST),
            "cure": printable(decision.cure, _LONGEST_CURE),
            "unverified_kid": printable(decision.unverified_kid, _LONGEST),
            "trace_id": decision.trace_id,
            "explain": _command(decision),
            "routed": decision.routed,
            "suppressed": counted.suppressed,
            "age": counted.age,
        }
        shown = " ".join(
            f"{name}={quoted(str(fields[name])) if name in _OF_ANYBODYS_CHOICE else repr(fields[name])}"
            for name in _SHOWN
            if fields[name]
        )
        if command := fields["explain"]:  # last, and as it is: whatever stands behind it would be a part of it
            shown = f"{shown} explain: {command}"
        self._logger.log(
            self._level(decision),
            "%s %s: %s %s",
            decision.outcome,
            decision.status,
            decision.reason,
            shown,
            extra=fields,
        )

    def _level(self, decision: Decision) -> int:
        if decision.outcome == "allowed":
            return self._allowed
        return logging.ERROR if decision.outcome == "failed" else logging.WARNING


def _command(decision: Decision) -> str:
    """Return the command that explains a refusal; empty if no signature held, or if a name cannot be written without risk.

    A client may have any name. `shlex.quote` makes it one word, and a name with quotes or backslashes is left out: what a formatter of logs
    does to these characters would undo the quoting.
    """
    names = (decision.client_id, decision.receiver)
    if decision.reason is Reason.ALLOWED or not all(map(_is_safe, names)):
        return ""
    client, receiver = map(shlex.quote, names)
    bound = " --dpop" if decision.binding == "dpop" else ""
    return f"s2s-fastapi explain --client {client} --to {receiver}{bound}"


def _is_safe(name: str) -> bool:
    """Return whether a name is there, whole, and without characters that formatters escape."""
    return 0 < len(name) < _LONGEST_NAME and name.isprintable() and _ESCAPED.isdisjoint(name)


# Fields that help to act come first; fields that join the record with others come last.
_SHOWN = (
    "method",
    "route",
    "client_id",
    "user",
    "cure",
    "hint",
    "suppressed",
    "age",
    "token_id",
    "binding",
    "kid",
    "unverified_kid",
    "issuer",
    "trace_id",
)


@dataclass(frozen=True, slots=True)
class _Counted:
    """A decision to write, how many similar ones were left out before it, and how many seconds ago it happened."""

    decision: Decision
    suppressed: int = 0
    age: int = 0


@dataclass(slots=True)
class _Window:
    """Ten seconds of one caller's refusals for one reason."""

    since: float
    written: int = 0
    routes: set[str] = field(default_factory=set)
    left_out: int = 0
    last: Decision | None = None
    last_at: float = 0.0

    def admits(self, decision: Decision) -> bool:
        """Return whether to write this refusal: it is one of the first, or a known caller's first on its route."""
        new = bool(decision.client_id) and decision.route not in self.routes and len(self.routes) < _MAX_ROUTES
        if new:
            self.routes.add(decision.route)
        return new or self.written < _PER_WINDOW

    def leave_out(self, decision: Decision, now: float) -> None:
        self.left_out += 1
        self.last, self.last_at = decision, now

    def rest(self, now: float) -> list[_Counted]:
        """Return the last refusal that was left out, which counts all of them; an empty list if none was."""
        if self.last is None:
            return []
        return [_Counted(self.last, self.left_out - 1, max(0, int(now - self.last_at)))]


class _Floods:
    """Decides which refusals are written and which are only counted. Its memory is bounded, and threads may share it.

    It counts by reason and caller (the client and its realm), so one caller's flood never hides the first refusal of another. The client id is verified or empty:
    without a valid signature nobody can invent callers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._windows: dict[tuple[Reason, str, str, bool], _Window] = {}  # in the order they began

    def count(self, decision: Decision, now: float) -> list[_Counted]:
        """Return what to write now: the rest of floods that are over, and this decision unless it is left out."""
        # A refusal that was only logged so far must not hide that requests are refused now.
        key = (decision.reason, decision.client_id, decision.issuer, decision.observed)
        with self._lock:
            window, suppressed = self._windows.get(key), 0
            if window is not None and now - window.since >= _WINDOW:
                suppressed, window = self._windows.pop(key).left_out, None
            due = self._over(now)
            if window is None:
                if len(self._windows) >= _MAX_WINDOWS:
                    due += self._windows.pop(next(iter(self._windows))).rest(now)
                window = self._windows[key] = _Window(now)
            if not window.admits(decision):
                window.leave_out(decision, now)
                return due
            window.written += 1
            return [*due, _Counted(decision, suppressed)]

    def rest(self, now: float) -> list[_Counted]:
        """Return the rest of every flood, and forget them."""
        with self._lock:
            windows, self._windows = self._windows, {}
        return [counted for window in windows.values() for counted in window.rest(now)]

    def _over(self, now: float) -> list[_Counted]:
        due: list[_Counted] = []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.since < _WINDOW:
                break
            due += self._windows.pop(key).rest(now)
        return due

"""Where decisions go: one seam, and the log as what stands behind it by default."""

import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from s2s_fastapi.decision import Decision, Reason

__all__ = ["DecisionLog", "Observer", "trace_alone"]

DECISIONS = logging.getLogger("s2s_fastapi.decisions")

# What anybody can cause without a token of this realm. Only these are counted instead of written when they flood.
_ANYBODY = frozenset(
    {
        Reason.NO_CREDENTIALS,
        Reason.INVALID_REQUEST,
        Reason.MALFORMED_TOKEN,
        Reason.UNSUPPORTED_HEADER,
        Reason.ALGORITHM_NOT_ALLOWED,
        Reason.UNKNOWN_KEY,
        Reason.INVALID_SIGNATURE,
        Reason.KEYS_UNAVAILABLE,
        Reason.NOT_STARTED,
    }
)
_WINDOW = 10.0
_PER_WINDOW = 20


class Observer(Protocol):
    """Whoever wants to see decisions: called once for each, on the request's own thread, so it must not block.

    An observer with an attribute ``wants_allowed`` that is false is told of refusals only.
    """

    def decided(self, decision: Decision) -> None:
        """Take note of one decision."""


class DecisionLog:
    """Write refusals to the logger ``s2s_fastapi.decisions``, acceptances at DEBUG.

    Each record's fields are attributes of the record (``outcome``, ``reason``, ``status``, ``method``, ``route``, ``client_id``,
    ``token_id``, ``kid``, ``issuer``, ``cure``, ``unverified_kid``). What anybody can send is written at most 20 times in 10 s for each reason; the
    next record then says in ``suppressed`` how many were left out.
    """

    def __init__(self, logger: logging.Logger = DECISIONS, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[Reason, tuple[float, int]] = {}

    @property
    def wants_allowed(self) -> bool:
        """Whether acceptances are worth telling: the hot path asks before it makes a record of one."""
        return self._logger.isEnabledFor(logging.DEBUG)

    def decided(self, decision: Decision) -> None:
        """Write one record, unless the level or the flood limit says no."""
        level = logging.DEBUG if decision.outcome == "allowed" else logging.WARNING
        if decision.outcome == "failed":
            level = logging.ERROR
        if not self._logger.isEnabledFor(level):
            return
        suppressed = self._suppressed(decision.reason)
        if suppressed is None:
            return
        fields = {
            "outcome": decision.outcome,
            "reason": str(decision.reason),
            "status": decision.status,
            "method": decision.method,
            "route": decision.route,
            "client_id": decision.client_id,
            "token_id": decision.token_id,
            "kid": decision.kid,
            "issuer": decision.issuer,
            "cure": decision.cure,
            "unverified_kid": decision.unverified_kid,
            "suppressed": suppressed,
        }
        told = " ".join(f"{name}={fields[name]!r}" for name in _TOLD if fields[name])
        self._logger.log(level, "%s %s: %s %s", decision.outcome, decision.status, decision.reason, told, extra=fields)

    def _suppressed(self, reason: Reason) -> int | None:
        """Return how many records of ``reason`` were left out before this one, or None to leave this one out as well."""
        if reason not in _ANYBODY:
            return 0
        now = self._clock()
        with self._lock:
            since, count = self._windows.get(reason, (now, 0))
            if now - since < _WINDOW:
                self._windows[reason] = (since, count + 1)
                return 0 if count < _PER_WINDOW else None
            self._windows[reason] = (now, 1)
            return max(0, count - _PER_WINDOW)


# What helps stands in front; what joins the record with others, behind.
_TOLD = ("method", "route", "client_id", "cure", "suppressed", "token_id", "kid", "unverified_kid", "issuer")


def trace_alone() -> contextvars.Context:
    """Return a context that holds the current span and nothing else of the request: no baggage, no user, no inbound token."""
    context = contextvars.Context()
    # Where nobody has imported OpenTelemetry there is no span; importing it here would cost every process.
    trace: Any = sys.modules.get("opentelemetry.trace")
    api: Any = sys.modules.get("opentelemetry.context")
    if hasattr(trace, "set_span_in_context") and hasattr(
        api, "attach"
    ):  # not half-way through their import on another thread
        context.run(api.attach, trace.set_span_in_context(trace.get_current_span(), api.Context()))
    return context

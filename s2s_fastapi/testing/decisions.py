"""The decisions of a block, and which of them were made about which request."""

import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.telemetry import Observer

__all__ = ["SENDING", "Recorder", "Sending", "latest"]


@dataclass(slots=True)
class Sending:
    """One request that a test client sends."""

    trusted: Any
    """The block of the app that it is sent to."""
    certificate: str = ""
    """The client certificate of the connection (PEM); empty if it has none."""
    decisions: list[Decision] = field(default_factory=list)
    """What the middlewares of that block decided about it."""


SENDING: Final[ContextVar[Sending | None]] = ContextVar("s2s_fastapi.testing.sending", default=None)
_latest: Final[list[Decision]] = []
_lock: Final = threading.Lock()


class Recorder:
    """Records each decision of a block, and passes it on to the observer of the app."""

    wants_allowed = True

    def __init__(self, observer: Observer, decisions: list[Decision], trusted: object) -> None:
        self._observer = observer
        self._decisions = decisions
        self._trusted = trusted

    def decided(self, decision: Decision) -> None:
        """Record a decision."""
        self._decisions.append(decision)
        sending = SENDING.get()
        if sending is not None and sending.trusted is self._trusted:
            sending.decisions.append(decision)
        if not decision.accepted:
            with _lock:
                _latest[:] = [decision]
        if decision.reason is not Reason.ALLOWED or getattr(self._observer, "wants_allowed", True):
            self._observer.decided(decision)


def latest() -> Decision | None:
    """Return the last refusal of this process in a block."""
    return _latest[0] if _latest else None

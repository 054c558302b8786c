"""A load publishes its outcome before it reports it, so a test that reads reports waits for them."""

import sys
import threading
import time

from s2s_fastapi.lanes import Lane
from s2s_fastapi.telemetry.reports import Reports

_PATIENCE = 5.0
_NOT_REPORTING = {Reports.collect.__code__, Lane._next.__code__}


def reported() -> None:
    """Wait until each load that has ended has reported; a load that is under way is not waited for."""
    end = time.monotonic() + _PATIENCE
    while any(map(_reports, threading.enumerate())):
        assert time.monotonic() < end, "a load does not end to report"
        time.sleep(0.001)


def _reports(thread: threading.Thread) -> bool:
    if not thread.name.startswith("s2s_fastapi-"):
        return False
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code in _NOT_REPORTING:
            return False
        frame = frame.f_back
    return thread.is_alive()

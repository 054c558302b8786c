"""A load publishes its outcome before it reports it, so a test that reads reports waits for them."""

import sys
import threading
import time

from s2s_fastapi.engine.reports import Reports
from s2s_fastapi.engine.workers import Workers

_PATIENCE = 5.0


def reported() -> None:
    """Wait until each load that has ended has reported. Nobody waits for a load that is under way or delayed."""
    end = time.monotonic() + _PATIENCE
    while any(map(_reports, threading.enumerate())):
        assert time.monotonic() < end, "a load does not end to report"
        time.sleep(0.001)


def _reports(thread: threading.Thread) -> bool:
    if not thread.name.startswith("s2s_fastapi-"):
        return False
    frame, running = sys._current_frames().get(thread.ident or 0), set()
    while frame is not None:
        running.add(frame.f_code)
        frame = frame.f_back
    loads = Reports.collect.__code__ in running
    sleeps = {Workers._next.__code__, threading.Condition.wait.__code__} <= running
    return thread.is_alive() and not loads and not sleeps

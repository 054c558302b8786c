"""A load publishes its outcome before it reports it, so a test that reads reports waits for them."""

import sys
import threading
import time

from s2s_fastapi.engine.reports import Reports
from s2s_fastapi.engine.workers import Workers

_PATIENCE = 5.0
_SOON = 1.0


def reported() -> None:
    """Wait until each load that has ended has reported. Nobody waits for a load that is under way or delayed."""
    end = time.monotonic() + _PATIENCE
    while any(map(_reports, threading.enumerate())):
        assert time.monotonic() < end, "a load does not end to report"
        time.sleep(0.001)


def sleeping(thread: threading.Thread) -> bool:
    """Return whether a thread of ours waits for a job that is not due soon: one that an earlier test has put off."""
    frame, waits = sys._current_frames().get(thread.ident or 0), False
    while frame is not None and frame.f_code is not Workers._next.__code__:
        waits, frame = waits or frame.f_code is threading.Condition.wait.__code__, frame.f_back
    queue = frame.f_locals["self"]._queue if frame is not None and waits else []
    return bool(queue) and queue[0][0] - time.monotonic() > _SOON


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

"""Reports of a load: log records, ends of spans, metrics. They are delivered after the result of the load is published.

A log handler or an exporter may need the value that is being loaded. Inside the load it would wait for itself.
"""

import contextlib
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import TypeVar

__all__ = ["Reports", "report"]

R = TypeVar("R")


class Reports:
    """The reports of one load: collected while it runs, delivered after its result is published."""

    def __init__(self) -> None:
        self._collected: list[tuple[Context, Callable[[], object]]] = []
        self._published = False

    def collect(self, load: Callable[[], R]) -> R:
        """Return what `load()` returns, and collect its reports."""
        _of_this_load.set(self)
        return load()

    def add(self, job: Callable[[], object]) -> bool:
        """Keep `job` for later; return False if the result is published already."""
        if not self._published:
            self._collected.append((copy_context(), job))
        return not self._published

    def deliver(self) -> None:
        """Run the collected reports in order, each in its own context. Nothing is raised: a broken log handler must not fail the caller."""
        self._published = True
        collected, self._collected = self._collected, []
        for context, job in collected:
            with contextlib.suppress(Exception):
                context.run(job)


_of_this_load: ContextVar[Reports | None] = ContextVar("s2s_fastapi.reports", default=None)


def report(job: Callable[[], object]) -> None:
    """Run `job` now; inside a load, as soon as its result is published."""
    reports = _of_this_load.get()
    if reports is None or not reports.add(job):
        job()

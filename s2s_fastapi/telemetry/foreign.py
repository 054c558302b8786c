"""Log records of the HTTP library during an exchange with Keycloak: held back until the exchange is over.

httpcore logs each step of an exchange at DEBUG. A log handler that runs at such a step can do harm in two ways:

- Error trackers record the locals of all frames above a record. httpcore's frames hold the client secret, the token and the proxy's password.
- A handler may need the very token that is requested. The load would wait for the handler, and the handler for the load.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Final

from s2s_fastapi.engine.reports import report

__all__ = ["LOGGERS", "held_back"]

LOGGERS: Final = (
    *("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks"),
    *("httpx2", "httpcore2.connection", "httpcore2.http11", "httpcore2.http2", "httpcore2.proxy", "httpcore2.socks"),
)
"""All loggers of the HTTP libraries. Each has to be named: a filter on a parent does not see the records of its children."""

_of_this_exchange: ContextVar[list[logging.LogRecord] | None] = ContextVar("s2s_fastapi.foreign", default=None)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back the records that the HTTP library logs inside, and report them at the end. Other threads are not affected."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(
            _hold_back
        )  # at each exchange: adding it twice has no effect, and a logging configuration may have removed it
    records: list[logging.LogRecord] = []
    token = _of_this_exchange.set(records)
    try:
        yield
    finally:
        _of_this_exchange.reset(token)
        for record in records:
            report(partial(logging.getLogger(record.name).handle, record))


def _hold_back(record: logging.LogRecord) -> bool:
    """Return whether the record may be handled now."""
    records = _of_this_exchange.get()
    if records is not None:
        records.append(record)
    return records is None

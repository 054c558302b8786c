"""Until a day that the developer names, some refusals are only told."""

import contextlib
import datetime as dt
import re

from s2s_fastapi.errors import ConfigurationError

__all__ = ["end_of_observing"]


def end_of_observing(day: object) -> float:
    """Return when that day begins in UTC, in seconds since the epoch: from then on refusals are made.

    Raises:
        ConfigurationError: ``day`` is not written ``YYYY-MM-DD`` (RFC 3339 section 5.6 ``full-date``).
    """
    # Not everything that fromisoformat reads is a day that everybody reads the same way (week dates, no dashes).
    if isinstance(day, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day):
        with contextlib.suppress(ValueError):  # the 31st of February
            return dt.datetime.combine(dt.date.fromisoformat(day), dt.time(), dt.UTC).timestamp()
    raise ConfigurationError(f'insecure_observe_until takes a day such as "2027-01-31", not {day!r}.')

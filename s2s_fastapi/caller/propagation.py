"""The trace goes with the request, so that what the other service does is part of it (W3C Trace Context)."""

from typing import Any, Final

from s2s_fastapi.telemetry.spans import INVALID_SPAN, current_span, propagated

__all__ = ["propagate", "withdraw"]

_PROPAGATED: Final = "s2s_fastapi.propagated"


def propagate(request: Any) -> None:
    """Write the running trace into a request's headers, unless somebody else has written one.

    An instrumentation of the HTTP client makes a span of its own further down and writes that one over ours. The same ``Request``
    sent again carries what was written then: that is replaced.
    """
    if _PROPAGATED in request.extensions:
        withdraw(request)
    if current_span() is INVALID_SPAN:
        return
    names = propagated(request.headers)
    if names:
        request.extensions[_PROPAGATED] = names


def withdraw(request: Any) -> None:
    """Take off a request what `propagate` wrote into it."""
    for name in request.extensions.pop(_PROPAGATED, ()):
        request.headers.pop(name, None)

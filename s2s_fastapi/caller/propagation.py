"""The trace goes with the request, so that what the other service does is part of it (W3C Trace Context)."""

from typing import Any, Final

from s2s_fastapi.telemetry.spans import propagated

__all__ = ["propagate"]

_PROPAGATED: Final = "s2s_fastapi.propagated"


def propagate(request: Any) -> None:
    """Write the running trace into a request's headers, unless somebody else has written one.

    An instrumentation of the HTTP client makes a span of its own further down and writes that one over ours. The same ``Request``
    sent again carries what was written then: that is replaced.
    """
    headers, written = request.headers, request.extensions.get(_PROPAGATED)
    if written is not None:
        for name in written:
            headers.pop(name, None)
        del request.extensions[_PROPAGATED]
    names = propagated(headers)
    if names:
        request.extensions[_PROPAGATED] = names

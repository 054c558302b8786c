"""Where a decision was made: on which route, and in which trace."""

from dataclasses import replace
from typing import Final

from starlette.routing import Mount
from starlette.types import Scope

from s2s_fastapi.decision import Decision
from s2s_fastapi.fastapi_internals import matched_route
from s2s_fastapi.telemetry.spans import Span, trace_id
from s2s_fastapi.text import printable, without_tokens

__all__ = ["located"]

_LONGEST_ROUTE: Final = 200


def located(decision: Decision, scope: Scope, current: Span) -> Decision:
    """Return the decision with the method, the route and the trace it was made on.

    The route is the declared one. If no route was matched yet, it is the path, without a token that somebody may have put into it.
    ``current`` is the server's span.
    """
    route = matched_route(scope)
    path = getattr(route, "path_format", None) or getattr(route, "path", None)
    if not path:
        path = without_tokens(scope["path"])
    elif mounted := scope.get("root_path", ""):
        below = mounted[len(scope.get("app_root_path", mounted)) :]  # a route knows nothing of the mounts around it
        path = below + ("/{path}" if isinstance(route, Mount) else str(path))
    routed = route is not None or "endpoint" in scope
    return replace(
        decision,
        method=scope.get("method", "WEBSOCKET"),
        route=printable(str(path), _LONGEST_ROUTE),
        routed=routed,
        trace_id=trace_id(current),
    )

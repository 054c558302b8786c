"""What apps declare, in short: for tests of the commands that compare it with a realm."""

from dataclasses import replace

from s2s_fastapi.declared.access_file import AppAccess, CallAccess, RouteEntry
from s2s_fastapi.requirement.requirement import Audience, Caller, Requirement

__all__ = ["bound", "caller", "on_behalf", "receiver", "with_users"]


def receiver(
    client_id: str, *requires: Requirement | None, audience: str = "", calls: tuple[CallAccess, ...] = ()
) -> AppAccess:
    """Return an app with a route for each requirement: ``POST /0``, ``POST /1`` and so on."""
    routes = tuple(RouteEntry(f"/{number}", ("POST",), requires=each) for number, each in enumerate(requires))
    return AppAccess(client_id, Caller("service") & Audience(frozenset({audience or client_id})), routes, calls=calls)


def caller(client_id: str, *audiences: str, scope: str | tuple[str, ...] = ()) -> AppAccess:
    """Return an app that calls each of these, with one request for a token each."""
    scopes = (scope,) * bool(scope) if isinstance(scope, str) else scope
    return AppAccess(
        client_id, None, calls=tuple(CallAccess((name,), scopes) for name in audiences) or (CallAccess((), scopes),)
    )


def bound(client_id: str, *audiences: str, scope: str = "") -> AppAccess:
    """Return the same app with a bound token (DPoP) for each call."""
    app = caller(client_id, *audiences, scope=scope)
    return replace(app, calls=tuple(replace(call, dpop=True) for call in app.calls))


def with_users(app: AppAccess) -> AppAccess:
    """Return the app as it is with ``users=True``."""
    audiences = frozenset({app.client_id})
    return replace(app, requires=(Caller("service") | Caller("user")) & Audience(audiences))


def on_behalf(client_id: str, *audiences: str, scope: str = "", own: tuple[CallAccess, ...] = ()) -> AppAccess:
    """Return an app that calls each of these on behalf of users; `own` are its calls as itself."""
    scopes = (scope,) if scope else ()
    calls = (CallAccess((name,) if name else (), scopes, on_behalf=True) for name in audiences)
    return AppAccess(client_id, None, calls=(*calls, *own))

"""What apps declare, in short: for tests of the commands that compare it with a realm."""

from s2s_fastapi.declared.access_file import AppAccess, CallAccess, RouteEntry
from s2s_fastapi.requirement.requirement import Audience, Caller, Requirement

__all__ = ["caller", "receiver"]


def receiver(
    client_id: str, *requires: Requirement | None, audience: str = "", calls: tuple[CallAccess, ...] = ()
) -> AppAccess:
    """Return an app with a route for each requirement: ``POST /0``, ``POST /1`` and so on."""
    routes = tuple(RouteEntry(f"/{number}", ("POST",), requires=each) for number, each in enumerate(requires))
    return AppAccess(client_id, Caller("service") & Audience(frozenset({audience or client_id})), routes, calls=calls)


def caller(client_id: str, *audiences: str, scope: str | tuple[str, ...] = ()) -> AppAccess:
    """Return an app that calls each of these, with one request for a token each."""
    scopes = (scope,) if isinstance(scope, str) else scope
    return AppAccess(
        client_id, None, calls=tuple(CallAccess((name,), scopes) for name in audiences) or (CallAccess((), scopes),)
    )

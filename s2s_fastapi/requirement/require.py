"""What a developer writes: ``require_...(...)`` for a requirement, `CurrentPrincipal` for a route without one."""

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection  # FastAPI reads the annotation below at run time

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import not_a_dependency
from s2s_fastapi.names import checked_names, name_problem, scope_problem
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.request_state import Anonymous, Authenticated
from s2s_fastapi.requirement.requirement import Audience, Caller, HasRole, HasScope, Requirement

__all__ = [
    "FACTORIES",
    "CurrentPrincipal",
    "OptionalPrincipal",
    "current_principal",
    "optional_principal",
    "require_audience",
    "require_caller",
    "require_realm_role",
    "require_role",
    "require_scope",
    "require_service",
    "require_user",
]

# Without the mark FastAPI would call the function, inject the requirement without asking it, and let everybody in.
_with_parentheses: Final = not_a_dependency(
    "write Depends(require_...(...)) with its parentheses: without them nothing would be checked"
)


@_with_parentheses
def require_service() -> Requirement:
    """Require any service: a token of the client-credentials grant (RFC 6749 section 4.4)."""
    return Caller("service")


@_with_parentheses
def require_caller(*client_ids: str) -> Requirement:
    """Require the service account of one of these clients; letter case counts.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return Caller("service", _names("require_caller", client_ids))


@_with_parentheses
def require_user(*client_ids: str) -> Requirement:
    """Require a user, of one of these front ends if any are named. The middleware accepts users only with ``users=True``.

    Raises:
        ConfigurationError: A name is invalid.
    """
    return Caller("user", _names("require_user", client_ids) if client_ids else frozenset())


@_with_parentheses
def require_scope(*scopes: str) -> Requirement:
    """Require all of these scopes. Who is calling does not matter.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return HasScope(_names("require_scope", scopes, scope_problem))


@_with_parentheses
def require_role(*roles: str, client: str | None = None) -> Requirement:
    """Require all of these roles of a client: of the app's own client, unless ``client`` names another.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    if client is not None:
        _names("require_role", (client,))
    return HasRole(_names("require_role", roles), client)


@_with_parentheses
def require_realm_role(*roles: str) -> Requirement:
    """Require all of these realm roles.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return HasRole(_names("require_realm_role", roles), realm=True)


@_with_parentheses
def require_audience(*audiences: str, only: bool = False) -> Requirement:
    """Require a token for one of these audiences. With ``only``, it must not be for any other service as well.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return Audience(_names("require_audience", audiences), only)


FACTORIES: Final = (
    require_service,
    require_caller,
    require_user,
    require_scope,
    require_role,
    require_realm_role,
    require_audience,
)
"""All functions that make a requirement. None of them is itself a dependency."""


async def current_principal(connection: HTTPConnection, security_scopes: SecurityScopes) -> Principal:
    """Return the caller that the middleware accepted, if it has the scopes of a ``Security`` around it: behind `CurrentPrincipal`."""
    state = Authenticated.of(connection.scope)
    scopes = security_scopes.scopes
    return state.admit(connection.scope, require_scope(*scopes)) if scopes else state.principal


async def optional_principal(connection: HTTPConnection, security_scopes: SecurityScopes) -> Principal | None:
    """Return the caller like `current_principal`, or None for a request without credentials: behind `OptionalPrincipal`."""
    if Anonymous.of(connection.scope) is not None:
        return None
    return await current_principal(connection, security_scopes)


CurrentPrincipal = Annotated[Principal, Depends(current_principal)]
"""The caller, for a route that is open to every caller that the middleware accepts: ``caller: CurrentPrincipal``."""
OptionalPrincipal = Annotated[Principal | None, Depends(optional_principal)]
"""The caller, or None if the request has no credentials. For a route in ``optional_paths``: ``caller: OptionalPrincipal``."""


def _names(factory: str, names: tuple[str, ...], problem: Callable[[object], str] = name_problem) -> frozenset[str]:
    if not names:
        raise ConfigurationError(
            f"{factory} needs at least one name: without a name it could mean nobody or everybody."
        )
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f'{factory} takes names, not {type(name).__name__}: write {factory}("a", "b").')
    return checked_names(factory, names, problem)

"""What a developer writes: ``require_...(...)`` for a requirement, `CurrentPrincipal` for a route without one.

In a service of several realms, a requirement speaks of the first one. ``realm="partners"`` names another.
"""

import inspect
import math
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection  # FastAPI reads the annotation below at run time

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import is_async_callable, not_a_dependency
from s2s_fastapi.names import checked_names, name_problem, scope_problem
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.conditions import SCALARS, Condition, HasClaim, Predicate, Scalar
from s2s_fastapi.requirement.request_state import Anonymous, Authenticated
from s2s_fastapi.requirement.requirement import Audience, Bound, Caller, HasRole, HasScope, InRealm, Requirement

__all__ = [
    "FACTORIES",
    "CurrentPrincipal",
    "OptionalPrincipal",
    "current_principal",
    "optional_principal",
    "require_audience",
    "require_bound",
    "require_caller",
    "require_claim",
    "require_realm_role",
    "require_role",
    "require_scope",
    "require_service",
    "require_that",
    "require_user",
]

_INSTEAD: Final = {
    **dict.fromkeys(("azp", "client_id", "clientId"), 'write require_caller("a"), or require_user("a") for a user'),
    **dict.fromkeys(("sid", "session_state"), "write require_user() for a user"),
    "aud": 'write require_audience("a")',
    "scope": 'write require_scope("a")',
    "realm_access": 'write require_realm_role("a")',
    "resource_access": 'write require_role("a", client="b")',
    "email": (
        "an address counts only if email_verified is true: "
        'write require_that("the owner", lambda caller: caller.email == "a@b.example")'
    ),
    "cnf": "write require_bound()",
    **dict.fromkeys(
        ("iss", "exp", "iat", "nbf", "typ", "jti"), "the middleware checks it in each token, so leave it out"
    ),
}
"""Claims that have a requirement of their own, or that mean nothing without another claim, and what to write."""

# Without the mark FastAPI would call the function, inject the requirement without asking it, and let everybody in.
_with_parentheses: Final = not_a_dependency(
    "write Depends(require_...(...)) with its parentheses: without them nothing would be checked"
)


@_with_parentheses
def require_service(*, realm: str | None = None) -> Requirement:
    """Require any service: a token of the client-credentials grant (RFC 6749 section 4.4)."""
    return _in("require_service", realm, Caller("service"))


@_with_parentheses
def require_caller(*client_ids: str, realm: str | None = None) -> Requirement:
    """Require the service account of one of these clients; letter case counts.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return _in("require_caller", realm, Caller("service", _names("require_caller", client_ids)))


@_with_parentheses
def require_user(*client_ids: str, realm: str | None = None) -> Requirement:
    """Require a user, of one of these front ends if any are named. The middleware accepts users only with ``users=True``.

    Raises:
        ConfigurationError: A name is invalid.
    """
    names = _names("require_user", client_ids) if client_ids else frozenset[str]()
    return _in("require_user", realm, Caller("user", names))


@_with_parentheses
def require_scope(*scopes: str, realm: str | None = None) -> Requirement:
    """Require all of these scopes. Who is calling does not matter.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return _in("require_scope", realm, HasScope(_names("require_scope", scopes, scope_problem)))


@_with_parentheses
def require_role(*roles: str, client: str | None = None, realm: str | None = None) -> Requirement:
    """Require all of these roles of a client: of the app's own client, unless ``client`` names another.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    if client is not None:
        _names("require_role", (client,))
    return _in("require_role", realm, HasRole(_names("require_role", roles), client))


@_with_parentheses
def require_realm_role(*roles: str, realm: str | None = None) -> Requirement:
    """Require all of these realm roles.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return _in("require_realm_role", realm, HasRole(_names("require_realm_role", roles), realm=True))


@_with_parentheses
def require_audience(*audiences: str, only: bool = False, realm: str | None = None) -> Requirement:
    """Require a token for one of these audiences. With ``only``, it must not be for any other service as well.

    Raises:
        ConfigurationError: A name is missing or invalid.
    """
    return _in("require_audience", realm, Audience(_names("require_audience", audiences), only))


@_with_parentheses
def require_bound(*, realm: str | None = None) -> Requirement:
    """Require a bound token: with the proof (DPoP, RFC 9449) or the client certificate (RFC 8705) of this request. A bearer token is answered 401.

    - Either binding will do. It needs ``ServiceAuthMiddleware(dpop=...)`` or ``client_certificate=``. With ``dpop="required"`` every route
      has it already.
    - It does not say who is calling. Observe mode enforces it.
    """
    return _in("require_bound", realm, Bound())


@_with_parentheses
def require_claim(name_or_path: str | tuple[str, ...], *values: Scalar, realm: str | None = None) -> Requirement:
    """Require that a claim has one of these values, or is a list that holds one of them.

    - The JSON type counts: ``True``, ``1``, ``1.0`` and ``"1"`` are four values.
    - A tuple is a path: ``("address", "country")`` is the member ``country`` of the claim ``address``. A dot belongs to a name.
    - It does not say who is calling.

    Raises:
        ConfigurationError: The path is empty, the claim has a requirement of its own, or a value is missing or invalid.
    """
    path: Any = (name_or_path,) if isinstance(name_or_path, str) else name_or_path
    if not isinstance(path, tuple) or not path:
        raise ConfigurationError(
            'require_claim takes the name of a claim, or a tuple of names for a path: require_claim(("a", "b"), "value").'
        )
    for name in path:
        if problem := name_problem(name):
            raise ConfigurationError(f"require_claim: {name!r} is not the name of a claim: {problem}.")
    if path[0] in _INSTEAD:
        raise ConfigurationError(f'require_claim: do not compare the claim "{path[0]}": {_INSTEAD[path[0]]}.')
    if not values:
        raise ConfigurationError(
            f'require_claim needs at least one value: a claim that is merely there may also be false. Write require_claim("{path[-1]}", True).'
        )
    return _in("require_claim", realm, HasClaim.of(path, [_scalar(value) for value in values]))


@_with_parentheses
def require_that(name: str, predicate: Predicate, *, realm: str | None = None) -> Requirement:
    """Require that ``predicate(principal)`` returns True. The name is what people read of the condition.

    - The function is not async, waits for nothing, changes nothing, and returns exactly True or False. Anything else is a 500.
    - It is asked only if everything else that is joined with ``&`` holds.
    - It does not say who is calling.

    Raises:
        ConfigurationError: The name is missing, or the function is async, a generator, or does not take one argument.
    """
    if problem := name_problem(name):
        raise ConfigurationError(
            f'require_that needs a name that people understand: {problem}. Write require_that("partner of level 2", predicate).'
        )
    if problem := _predicate_problem(predicate):
        raise ConfigurationError(f'require_that("{name}"): {problem}.')
    return _in("require_that", realm, Condition(name, predicate))


FACTORIES: Final = (
    require_service,
    require_caller,
    require_user,
    require_scope,
    require_role,
    require_realm_role,
    require_audience,
    require_bound,
    require_claim,
    require_that,
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


def _in(factory: str, realm: str | None, requirement: Requirement) -> Requirement:
    """Return the requirement for callers of this realm; without a name, it speaks of the first realm of the service."""
    if realm is None:
        return requirement
    if problem := name_problem(realm):
        raise ConfigurationError(
            f"{factory}: realm= takes the name of a realm of this service, KeycloakSettings(name=...): {problem}."
        )
    return InRealm(realm, requirement)


def _names(factory: str, names: tuple[str, ...], problem: Callable[[object], str] = name_problem) -> frozenset[str]:
    if not names:
        raise ConfigurationError(
            f"{factory} needs at least one name: without a name it could mean nobody or everybody."
        )
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f'{factory} takes names, not {type(name).__name__}: write {factory}("a", "b").')
    return checked_names(factory, names, problem)


def _scalar(value: Any) -> Scalar:
    """Return the value of a claim as JSON has it: the member of an ``Enum`` becomes its value."""
    found = value.value if isinstance(value, Enum) else value
    problem = ""
    if type(found) not in SCALARS:
        problem = f"it is {type(found).__name__}, and a claim is compared with text, a number, True or False"
    elif found == "":
        problem = "it is empty"
    elif isinstance(found, float) and not math.isfinite(found):
        problem = "JSON has no such number"
    elif isinstance(found, str) and not _has_utf8(found):
        problem = "it has no UTF-8 form"
    if problem:
        raise ConfigurationError(f"require_claim: {found!r} is not the value of a claim: {problem}.")
    scalar: Scalar = found
    return scalar


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _predicate_problem(predicate: object) -> str:
    if isinstance(predicate, Requirement):
        return "this is a requirement: join it with & or | instead"
    if not callable(predicate):
        return f"the condition is a function of the principal, not {type(predicate).__name__}"
    called = getattr(predicate, "__call__", None)  # noqa: B004 - the method itself is looked at
    if is_async_callable(predicate) or any(
        kind(each)
        for kind in (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        for each in (inspect.unwrap(predicate), called)
    ):
        return "the condition is async or a generator, and would answer something that is always true. Write a plain def or lambda"
    try:
        signature = inspect.signature(predicate)
    except (TypeError, ValueError):  # some functions in C have none
        return ""
    try:
        signature.bind(None)
    except TypeError:
        return "the condition must take one argument, the principal"
    return ""

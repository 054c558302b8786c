"""Every error this package raises on purpose.

    S2SError
    ├── ConfigurationError       a setting or a route is missing or contradictory: what to set
    ├── AuthenticationError      400 or 401: the credentials were not accepted
    │   └── SessionEnded         401: the user for whom this service calls is no longer logged in
    ├── AuthorizationError       403: a valid token, but not for this caller, scope, role, claim or condition
    │   └── NoUserToActFor       403: a call on behalf of a user, and no user's token to exchange
    ├── ConditionFailed          500: the function of a condition raised, or answered neither True nor False
    ├── KeysUnavailable          503: no keys to check a signature with
    ├── ReplayStoreUnavailable   503: nobody can tell whether a proof was used before
    ├── TokenRequestError        503: Keycloak gave no token
    │   └── AudienceNotGranted   503: Keycloak gave a token that is not for the wanted audience
    └── TokenWithheld            500: a request that must not carry our token

- Errors with a status are also ``HTTPException`` of FastAPI and Starlette. Raised in a route and not caught, they become that answer,
  with one safe sentence as ``detail``.
- ``str(error)`` is for logs and scripts. It says more, but never contains a secret or a token.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from fastapi.exceptions import HTTPException  # nothing else of FastAPI: these values are also used without it

__all__ = [
    "AudienceNotGranted",
    "AuthenticationError",
    "AuthorizationError",
    "ConditionFailed",
    "ConfigurationError",
    "KeysUnavailable",
    "NoUserToActFor",
    "ReplayStoreUnavailable",
    "S2SError",
    "SessionEnded",
    "TokenRequestError",
    "TokenWithheld",
]


class S2SError(Exception):
    """The base class of all errors of this package.

    ``code`` is a stable name for programs; it does not change between releases.
    """

    code: str = "s2s_error"

    def again(self) -> Self:
        """Return an equal error that was never raised.

        Several waiters may share one failure. Each raises its own instance, without the traceback and the chain of the first one:
        those frames contain the client secret.
        """
        twin = copy.copy(self)
        twin.__traceback__ = twin.__cause__ = twin.__context__ = None
        # Headers and notes are copied: what an exception handler adds to one answer must not appear in the next.
        vars(twin).update(
            {name: copy.copy(value) for name, value in vars(self).items() if isinstance(value, dict | list)}
        )
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        # The fields are keyword-only, and HTTPException passes nothing to Exception: rebuild without __init__.
        return _rebuild, (type(self), self.args), dict(self.__dict__)


def _rebuild(kind: type[S2SError], args: tuple[Any, ...]) -> S2SError:
    return kind.__new__(kind, *args)


class ConfigurationError(S2SError):
    """A setting, a route or a call is incomplete or contradicts itself. The sentence says what to write instead."""

    code = "configuration"


class _Answer(S2SError, HTTPException):
    """An error that FastAPI and Starlette turn into an answer if a route does not catch it."""

    status: ClassVar[int] = 500

    def __init__(
        self, message: str, *, detail: str, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        HTTPException.__init__(self, status or self.status, detail, dict(headers) if headers else None)
        self.args = (message,)

    def __str__(self) -> str:
        return str(self.args[0])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


class _Refusal(_Answer):
    def __init__(
        self, message: str, *, code: str, detail: str, status: int | None = None, challenge: str | None = None
    ) -> None:
        super().__init__(
            message, detail=detail, status=status, headers={"WWW-Authenticate": challenge} if challenge else None
        )
        self.code = code
        self.challenge = challenge


class AuthenticationError(_Refusal):
    """The credentials of a request were not accepted: 400 or 401.

    ``code`` is the reason of the decision, ``challenge`` the ``WWW-Authenticate`` value (RFC 6750 section 3), ``detail`` the
    fixed sentence for the caller.
    """

    status = 401


class SessionEnded(AuthenticationError):
    """The user for whom this service calls is no longer logged in, or the user's token has expired: 401 to the user.

    Keycloak exchanges no token of such a session (RFC 8693 section 2.2.2). Nothing was sent. The front end must request another token, or
    let the user log in again.
    """

    code = "session_ended"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            code=self.code,
            detail="The session of the user has ended, or the access token has expired.",
            challenge='Bearer error="invalid_token"',
        )


class AuthorizationError(_Refusal):
    """The token is valid, but its caller is not allowed here: 403 (RFC 6750 section 3.1, ``insufficient_scope``).

    It has the same fields as `AuthenticationError`.
    """

    status = 403


class NoUserToActFor(AuthorizationError):
    """A call on behalf of a user has no user's token that can be exchanged; nothing was sent, and this service's own token is no substitute.

    The caller is a service, of another realm, or nobody; the token is bound to a key; or the request has ended.
    """

    code = "no_user_to_act_for"

    def __init__(self, message: str) -> None:
        super().__init__(
            message,
            code=self.code,
            detail="This request needs the access token of a user.",
            challenge='Bearer error="insufficient_scope"',
        )


class ConditionFailed(_Answer):
    """The function of a condition raised, or answered neither True nor False; nobody was let in. It is a mistake in the code: 500."""

    code = "condition_failed"

    def __init__(self, message: str) -> None:
        super().__init__(message, detail="Internal Server Error")


class KeysUnavailable(_Answer):
    """Keycloak's keys were never loaded, or are too old to trust: 503 with ``Retry-After``.

    ``retry_after`` is in seconds, rounded up. The status is never 401: callers would discard good tokens.
    """

    code = "keys_unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(
            message, detail="The service cannot check tokens at the moment.", headers={"Retry-After": str(retry_after)}
        )
        self.retry_after = retry_after


class ReplayStoreUnavailable(_Answer):
    """A replay store cannot tell whether a proof was used before: 503 with ``Retry-After``. Nobody was let in.

    ``retry_after`` is in seconds, rounded up. The status is never 401: the proof may be good (RFC 9449 section 11.1).
    """

    code = "replay_store_unavailable"
    status = 503

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(
            message,
            detail="The service cannot check DPoP proofs at the moment.",
            headers={"Retry-After": str(retry_after)},
        )
        self.retry_after = retry_after


class TokenRequestError(_Answer):
    """Keycloak gave no token (RFC 6749 section 5.2).

    - ``error``, ``error_description``: as Keycloak sent them, or empty.
    - ``http_status``: the status of Keycloak's answer; 0 if there was no answer.
    - ``cure``: what to change.
    - ``retryable``: whether the same request can succeed later without a change.
    - ``retry_after``: in how many seconds, rounded up; None if it cannot. Until then Keycloak is not asked again. The 503 has it as
      ``Retry-After``.
    - ``claims``: those of a token that Keycloak gave and that was not used, as far as they are readable; never the token itself.
    """

    code = "token_request"
    status = 503

    def __init__(
        self,
        message: str,
        *,
        error: str = "",
        error_description: str = "",
        http_status: int = 0,
        cure: str = "",
        retryable: bool = True,
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            f"{message} {cure}".strip(), detail="A service this one depends on cannot be called at the moment."
        )
        self.error = error
        self.error_description = error_description
        self.http_status = http_status
        self.cure = cure
        self.retryable = retryable
        self.retry_after: int | None = None
        self.claims: Mapping[str, Any] = {} if claims is None else claims


class AudienceNotGranted(TokenRequestError):
    """Keycloak gave a token, but not for the wanted audience; the token was not used.

    ``wanted`` and ``granted`` are sets of audiences.
    """

    code = "audience_not_granted"

    def __init__(
        self, message: str, *, wanted: frozenset[str], granted: frozenset[str], claims: Mapping[str, Any], cure: str
    ) -> None:
        super().__init__(message, http_status=200, cure=cure, retryable=False, claims=claims)
        self.wanted = wanted
        self.granted = granted


class TokenWithheld(_Answer):
    """A request would have sent our token to another origin, or would have forwarded a user's token; nothing was sent."""

    code = "token_withheld"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message, detail="Internal Server Error")

"""What the caller gets to see of a decision: status, challenge and one fixed sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Self

from fastapi.exceptions import WebSocketException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Scope
from starlette.websockets import WebSocketClose

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import (
    AuthenticationError,
    AuthorizationError,
    ConditionFailed,
    KeysUnavailable,
    ReplayStoreUnavailable,
    S2SError,
)

__all__ = [
    "ProtectionSpace",
    "answer",
    "challenges",
    "error_of",
    "error_within",
    "headers_of",
    "placed",
    "refused_within",
]

_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013
_CHALLENGE_FIELDS: Final = ("WWW-Authenticate", "www-authenticate")


_BEARER: Final = "Bearer"
_DPOP: Final = "DPoP"
_DPOP_REASONS: Final = frozenset(
    {
        Reason.PROOF_MISSING,
        Reason.INVALID_PROOF,
        Reason.PROOF_REPLAYED,
        Reason.NOT_BOUND,
        Reason.BEARER_NOT_ACCEPTED,
    }
)
"""Reasons for which only another token or another proof helps, sent under the scheme DPoP."""


@dataclass(frozen=True, slots=True)
class ProtectionSpace:
    """What every challenge says of the service that was called."""

    realm: str = ""
    """Its name (RFC 7235 section 2.2)."""
    resource_metadata: str = ""
    """The address of the document that describes it (RFC 9728 section 5.1). Empty if there is none."""
    dpop: Literal["", "accepted", "required"] = ""
    """Whether tokens under the scheme DPoP are accepted, beside those under Bearer or alone (RFC 9449 section 7)."""
    algorithms: tuple[str, ...] = ()
    """The algorithms of DPoP proofs that are accepted (RFC 9449 section 5.1)."""
    presented: Literal["Bearer", "DPoP"] = _BEARER
    """The scheme under which the request brought its token: its errors are told under the same one."""

    def under_dpop(self) -> Self:
        """Return the space as a request with a token under the scheme DPoP sees it."""
        return replace(self, presented=_DPOP)

    @property
    def scheme(self) -> str:
        """The scheme under which errors are told."""
        return _DPOP if self.dpop == "required" or (self.dpop and self.presented == _DPOP) else _BEARER


_UNNAMED: Final = ProtectionSpace()


def challenges(decision: Decision, space: ProtectionSpace = _UNNAMED) -> tuple[str, ...]:
    """Return the ``WWW-Authenticate`` values for a decision, one for each scheme; none if the status has none.

    - The error is told under the scheme of the request (RFC 6750 section 3, RFC 9449 section 7.1).
    - A request without credentials, or with a bound token under Bearer, learns every scheme that is accepted. Each one stands in a header
      field of its own, because many clients read only the first challenge of a field.
    """
    if decision.status not in (400, 401, 403):
        return ()
    reason, scheme = decision.reason, space.scheme
    if space.dpop and reason in _DPOP_REASONS:
        scheme = _DPOP
    parts = _parameters(space)
    if reason.error:
        parts.append(f'error="{reason.error}"')
    if reason is Reason.EXPIRED:
        parts.append(f'error_description="{reason.detail}"')
    if joined := " ".join(name for name in decision.scope.split(" ") if name and _quotable(name)):
        parts.append(f'scope="{joined}"')
    first = _challenge(scheme, parts, space)
    if scheme == _BEARER and space.dpop and reason in (Reason.NO_CREDENTIALS, Reason.SENDER_CONSTRAINED):
        return first, _challenge(_DPOP, _parameters(space), space)
    return (first,)


def placed(challenge: str, space: ProtectionSpace) -> str:
    """Return a challenge ``Bearer error=...`` with what every challenge says of the service."""
    return _challenge(space.scheme, [*_parameters(space), challenge.removeprefix("Bearer ")], space)


def headers_of(decision: Decision, space: ProtectionSpace = _UNNAMED) -> dict[str, str]:
    """Return the headers that an answer to this decision must have.

    The second of two challenges stands under a second spelling of the name: for Starlette these are two header fields.
    """
    if decision.reason in (Reason.KEYS_UNAVAILABLE, Reason.REPLAY_STORE_UNAVAILABLE):
        return {"Retry-After": str(decision.retry_after)}
    return dict(zip(_CHALLENGE_FIELDS, challenges(decision, space), strict=False))


def error_of(decision: Decision, space: ProtectionSpace = _UNNAMED) -> S2SError:
    """Return the exception for a refusal outside of a request, or in a route over HTTP. Its ``challenge`` is the first one."""
    message = f"{decision.reason}: {decision.cure or decision.reason.detail}"
    if decision.reason is Reason.KEYS_UNAVAILABLE:
        return KeysUnavailable(message, retry_after=decision.retry_after)
    if decision.reason is Reason.REPLAY_STORE_UNAVAILABLE:
        return ReplayStoreUnavailable(message, retry_after=decision.retry_after)
    if decision.reason is Reason.CONDITION_FAILED:
        return ConditionFailed(message)
    kind = AuthorizationError if decision.status == 403 else AuthenticationError  # noqa: PLR2004 - HTTP's own number
    first, *others = challenges(decision, space) or (None,)
    error = kind(
        message, code=str(decision.reason), detail=decision.reason.detail, status=decision.status, challenge=first
    )
    if others:
        error.headers = headers_of(decision, space)
    return error


def error_within(scope: Scope, decision: Decision, space: ProtectionSpace) -> Exception:
    """Return the exception to raise inside the app. Starlette answers it, whatever the connection is."""
    if scope["type"] == "websocket" and not _can_deny(scope):
        # HTTPException would be a bare 500 here: the server cannot answer a handshake with a response of ours.
        return WebSocketException(_close_code(decision), decision.reason.detail)
    return error_of(decision, space)


def refused_within(scope: Scope, error: AuthenticationError | AuthorizationError) -> Exception:
    """Return what to raise inside the app in place of a refusal, as `error_within` does."""
    if scope["type"] == "websocket" and not _can_deny(scope):
        return WebSocketException(_POLICY_VIOLATION, error.detail)
    return error


def answer(scope: Scope, decision: Decision, space: ProtectionSpace = _UNNAMED) -> ASGIApp:
    """Return what answers a request or a WebSocket handshake with a decision.

    An answer over HTTP has the bytes that FastAPI makes of `error_of`, so a caller sees one form of each refusal.
    """
    if scope["type"] == "websocket" and not _can_deny(scope):
        return WebSocketClose(_close_code(decision), decision.reason.detail)
    return JSONResponse({"detail": decision.reason.detail}, decision.status, headers_of(decision, space))


def _parameters(space: ProtectionSpace) -> list[str]:
    # A name with a character that cannot be quoted is left out: without that character it would be the name of another client or scope.
    realm = [f'realm="{space.realm}"'] if space.realm and _quotable(space.realm) else []
    return [*realm, f'resource_metadata="{space.resource_metadata}"'] if space.resource_metadata else realm


def _challenge(scheme: str, parts: Sequence[str], space: ProtectionSpace) -> str:
    algorithms = (f'algs="{" ".join(space.algorithms)}"',) if scheme == _DPOP else ()
    return f"{scheme} {', '.join((*parts, *algorithms))}".rstrip()


def _can_deny(scope: Scope) -> bool:
    return "websocket.http.response" in (scope.get("extensions") or {})


def _close_code(decision: Decision) -> int:
    return _POLICY_VIOLATION if decision.status < 500 else _TRY_AGAIN_LATER  # noqa: PLR2004 - HTTP's own border


def _quotable(text: str) -> bool:
    """Return whether a quoted parameter can hold `text`: RFC 6750 section 3 forbids quotes, backslashes and all but printable ASCII."""
    return all(" " <= character <= "~" and character not in '"\\' for character in text)

"""What the caller gets to see of a decision: status, challenge and one fixed sentence."""

from dataclasses import dataclass
from typing import Final

from fastapi.exceptions import WebSocketException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Scope
from starlette.websockets import WebSocketClose

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, ConditionFailed, KeysUnavailable, S2SError

__all__ = [
    "ProtectionSpace",
    "answer",
    "challenge",
    "error_of",
    "error_within",
    "headers_of",
    "placed",
    "refused_within",
]

_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class ProtectionSpace:
    """What every challenge says of the service that was called."""

    realm: str = ""
    """Its name (RFC 7235 section 2.2)."""
    resource_metadata: str = ""
    """The address of the document that describes it (RFC 9728 section 5.1). Empty if there is none."""


_UNNAMED: Final = ProtectionSpace()


def challenge(decision: Decision, space: ProtectionSpace = _UNNAMED) -> str:
    """Return the ``WWW-Authenticate`` value for a decision (RFC 6750 section 3); empty if the status has none."""
    if decision.status not in (400, 401, 403):
        return ""
    reason = decision.reason
    parts = _parameters(space)
    if reason.error:
        parts.append(f'error="{reason.error}"')
    if reason is Reason.EXPIRED:
        parts.append(f'error_description="{reason.detail}"')
    if joined := " ".join(name for name in decision.scope.split(" ") if name and _quotable(name)):
        parts.append(f'scope="{joined}"')
    return f"Bearer {', '.join(parts)}".rstrip()


def placed(challenge: str, space: ProtectionSpace) -> str:
    """Return a challenge ``Bearer error=...`` with what every challenge says of the service."""
    return f"Bearer {', '.join([*_parameters(space), challenge.removeprefix('Bearer ')])}"


def headers_of(decision: Decision, space: ProtectionSpace = _UNNAMED) -> dict[str, str]:
    """Return the headers that an answer to this decision must have."""
    if decision.reason is Reason.KEYS_UNAVAILABLE:
        return {"Retry-After": str(decision.retry_after)}
    value = challenge(decision, space)
    return {"WWW-Authenticate": value} if value else {}


def error_of(decision: Decision, space: ProtectionSpace = _UNNAMED) -> S2SError:
    """Return the exception for a refusal outside of a request, or in a route over HTTP."""
    message = f"{decision.reason}: {decision.cure or decision.reason.detail}"
    if decision.reason is Reason.KEYS_UNAVAILABLE:
        return KeysUnavailable(message, retry_after=decision.retry_after)
    if decision.reason is Reason.CONDITION_FAILED:
        return ConditionFailed(message)
    kind = AuthorizationError if decision.status == 403 else AuthenticationError  # noqa: PLR2004 - HTTP's own number
    return kind(
        message,
        code=str(decision.reason),
        detail=decision.reason.detail,
        status=decision.status,
        challenge=challenge(decision, space) or None,
    )


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


def _can_deny(scope: Scope) -> bool:
    return "websocket.http.response" in (scope.get("extensions") or {})


def _close_code(decision: Decision) -> int:
    return _POLICY_VIOLATION if decision.status < 500 else _TRY_AGAIN_LATER  # noqa: PLR2004 - HTTP's own border


def _quotable(text: str) -> bool:
    """Return whether a quoted parameter can hold `text`: RFC 6750 section 3 forbids quotes, backslashes and all but printable ASCII."""
    return all(" " <= character <= "~" and character not in '"\\' for character in text)

"""What the caller gets to see of a decision: status, challenge and one fixed sentence."""

import json
from collections.abc import MutableMapping
from typing import Any

from fastapi.exceptions import WebSocketException
from starlette.types import Scope, Send

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, KeysUnavailable, S2SError

__all__ = ["challenge", "error_of", "error_within", "headers_of", "send_answer"]

_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


def challenge(decision: Decision, realm: str = "") -> str:
    """Return the ``WWW-Authenticate`` value for a decision (RFC 6750 section 3), empty where the status has none."""
    if decision.status not in (400, 401, 403):
        return ""
    reason = decision.reason
    # A name that cannot be said as it is stays out: with a character less it would be the name of another client or scope.
    parts = [f'realm="{realm}"'] if realm and _quotable(realm) else []
    if reason.error:
        parts.append(f'error="{reason.error}"')
    if reason is Reason.EXPIRED:
        parts.append(f'error_description="{reason.detail}"')
    if joined := " ".join(name for name in decision.scope.split(" ") if name and _quotable(name)):
        parts.append(f'scope="{joined}"')
    return f"Bearer {', '.join(parts)}".rstrip()


def headers_of(decision: Decision, realm: str = "") -> dict[str, str]:
    """Return the headers an answer to this decision must have."""
    if decision.reason is Reason.KEYS_UNAVAILABLE:
        return {"Retry-After": str(decision.retry_after)}
    value = challenge(decision, realm)
    return {"WWW-Authenticate": value} if value else {}


def error_of(decision: Decision, realm: str = "") -> S2SError:
    """Return the exception that says a refusal outside of a request, or in a route over HTTP."""
    message = f"{decision.reason}: {decision.cure or decision.reason.detail}"
    if decision.reason is Reason.KEYS_UNAVAILABLE:
        return KeysUnavailable(message, retry_after=decision.retry_after)
    kind = AuthorizationError if decision.status == 403 else AuthenticationError  # noqa: PLR2004 - HTTP's own number
    return kind(
        message,
        code=str(decision.reason),
        detail=decision.reason.detail,
        status=decision.status,
        challenge=challenge(decision, realm) or None,
    )


def error_within(scope: Scope, decision: Decision, realm: str) -> Exception:
    """Return the exception to raise inside the app: Starlette answers it, whatever the connection is."""
    if scope["type"] == "websocket" and not _can_deny(scope):
        # HTTPException would be a bare 500 here: the server cannot answer a handshake with a response of ours.
        return WebSocketException(_close_code(decision), decision.reason.detail)
    return error_of(decision, realm)


async def send_answer(scope: Scope, send: Send, decision: Decision, realm: str) -> None:
    """Answer a request or a WebSocket handshake with a decision; nothing has been sent before."""
    if scope["type"] == "websocket" and not _can_deny(scope):
        await send({"type": "websocket.close", "code": _close_code(decision), "reason": decision.reason.detail})
        return
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    body = json.dumps({"detail": decision.reason.detail}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **headers_of(decision, realm)}
    start: MutableMapping[str, Any] = {
        "type": f"{prefix}.response.start",
        "status": decision.status,
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()],
    }
    await send(start)
    await send({"type": f"{prefix}.response.body", "body": body})


def _can_deny(scope: Scope) -> bool:
    return "websocket.http.response" in (scope.get("extensions") or {})


def _close_code(decision: Decision) -> int:
    return _POLICY_VIOLATION if decision.status < 500 else _TRY_AGAIN_LATER  # noqa: PLR2004 - HTTP's own border


def _quotable(text: str) -> bool:
    """Return whether a quoted parameter can hold `text`: RFC 6750 section 3 forbids quotes, backslashes and all but printable ASCII."""
    return all(" " <= character <= "~" and character not in '"\\' for character in text)

"""Assert that a request was refused, and why: the reason comes from the decision, since an answer does not give it away."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from starlette.websockets import WebSocketDisconnect

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.decisions import Sending, latest

__all__ = ["SENT", "assert_refused", "refused"]

SENT: Final = "s2s_fastapi.sending"
"""The extension of a response that has the decisions about its request."""


def assert_refused(response: Any, status: int, reason: str) -> Decision:
    """Check that a request or a WebSocket was refused with this status and for this `Reason`, and return the decision.

    - ``response``: what the test client returned. For a WebSocket: the ``WebSocketDenialResponse`` that it raised.
    - Of a response that another client returned, the decision is the last refusal in this process.

    Raises:
        AssertionError: It was accepted, or refused for another reason. The text has the cure.
        ConfigurationError: There is no such reason.
    """
    __tracebackhide__ = True
    expected = _reason(reason)
    response = getattr(response, "value", response)  # what pytest.raises returns
    answered: int | None = getattr(response, "status_code", None)
    decision = _decision(response)
    got = "the connection was closed" if answered is None else f"the answer is {answered}"
    if decision is None or (answered is not None and answered != decision.status):
        said = "" if decision is None else f" (the decision was {decision.status} {decision.reason})"
        raise AssertionError(
            f"Expected a refusal, {status} {reason}, but {got}, and it is not from ServiceAuthMiddleware or a requirement{said}."
        )
    if (decision.reason, decision.status) != (expected, status):
        cure = f"\n{decision.cure}" if decision.cure else ""
        raise AssertionError(
            f"Expected a refusal, {status} {reason}, but {decision.method} {decision.route} was refused with {decision.status} "
            f"{decision.reason}.{cure}"
        )
    return decision


@contextmanager
def refused(status: int, reason: str) -> Iterator[None]:
    """Check that the block opens a WebSocket and is refused.

    ``with refused(403, "caller_not_allowed"), client.websocket_connect("/ws", headers=...): ...``

    Raises:
        AssertionError: It was accepted, or refused for another reason.
    """
    __tracebackhide__ = True
    _reason(reason)
    try:
        yield
    except WebSocketDisconnect as closed:
        assert_refused(closed, status, reason)
        return
    raise AssertionError(f"Expected a refusal, {status} {reason}, but the WebSocket was accepted.")


_REFUSALS: Final = tuple(reason for reason in Reason if not Decision(reason=reason).accepted)


def _reason(reason: str) -> Reason:
    found = {str(each): each for each in _REFUSALS}.get(reason)
    if found is None:
        known = ", ".join(_REFUSALS)
        raise ConfigurationError(f"There is no reason {reason!r}. The reasons are: {known}.")
    return found


def _decision(response: Any) -> Decision | None:
    """Return the refusal that a response is about; None if nobody refused."""
    extensions = getattr(response, "extensions", None) or {}
    sending = extensions.get(SENT)
    if isinstance(sending, Sending):
        refusals = [decision for decision in sending.decisions if not decision.accepted]
        return refusals[-1] if refusals else None
    return latest()

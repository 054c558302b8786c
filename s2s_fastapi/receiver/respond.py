"""How an accepted request ends: its decision is reported once, and a refusal from inside keeps its challenge."""

from collections.abc import Awaitable
from typing import Final

from starlette.types import Message, Scope, Send

from s2s_fastapi.answers import headers_of
from s2s_fastapi.decision import Decision
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.requirement.request_state import Authenticated, located
from s2s_fastapi.telemetry.spans import INVALID_SPAN, describe

__all__ = ["report_acceptance", "reporting"]

_ERROR: Final = 400
"""The first status of an answer that shows nothing of the app."""

_ANSWERS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept", "websocket.close"}
)


def reporting(state: Authenticated, scope: Scope, send: Send) -> Send:
    """Return a ``send`` for an accepted request. When the answer starts, it reports the acceptance or completes a refusal."""

    # Not a coroutine of its own, which would cost more than all it does.
    def send_and_report(message: Message) -> Awaitable[None]:
        if state.answered or message["type"] not in _ANSWERS:
            return send(message)
        if state.unasked and message.get("status", 0) < _ERROR and message["type"] != "websocket.close":
            unasked = [each.text for each in state.unasked.values() if not each.covered(state.asked)]
            if unasked:
                raise ConfigurationError(" ".join(unasked))
        state.answered = True
        refusal = state.refusal
        if refusal is None:
            report_acceptance(state, scope)
        elif message["type"].endswith(".response.start"):
            message = _with_challenge(message, refusal, state.service.realm)
        return send(message)

    return send_and_report


def report_acceptance(state: Authenticated, scope: Scope) -> None:
    """Report why the request was accepted, now that its route is known."""
    verdict, service, current = state.verdict, state.service, state.span
    if verdict.observed:
        for decision in verdict.decisions:
            service.report(decision, scope, current)
        return
    # As `Service.report` does, without making a decision that nobody reads.
    verdict.count_acceptance()
    if current is not INVALID_SPAN:
        describe(current, verdict.decision)
    if getattr(service.observer, "wants_allowed", True):
        service.observer.decided(located(verdict.decision, scope, current))


def _with_challenge(message: Message, refusal: Decision, realm: str) -> Message:
    """Return the response start with the refusal's headers, which the app's own exception handler may have dropped."""
    if message["status"] != refusal.status:
        return message  # the app made something else of it: a redirect, a page of its own
    present = {name.lower() for name, _ in message.get("headers", ())}
    missing = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in headers_of(refusal, realm).items()
        if name.lower().encode() not in present
    ]
    return {**message, "headers": [*message.get("headers", ()), *missing]} if missing else message

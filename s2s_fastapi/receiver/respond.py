"""How an accepted request ends: its decision is reported once, and a refusal from inside keeps its challenge."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Scope, Send

from s2s_fastapi.answers import ProtectionSpace, headers_of, placed
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError, NoUserToActFor, SessionEnded
from s2s_fastapi.requirement.request_state import Anonymous, Authenticated
from s2s_fastapi.telemetry.located import located
from s2s_fastapi.telemetry.spans import INVALID_SPAN, describe

__all__ = ["report_acceptance", "reporting", "varying"]

_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_SHARED: Final = re.compile(r"(?:^|,)\s*(?:public|s-maxage|must-revalidate)\b")
"""What lets a shared cache keep the answer to a request with an Authorization header (RFC 9111 section 3.5)."""
_ERROR: Final = 400
"""The first status of an answer that shows nothing of the app."""

_CHALLENGE: Final = b"www-authenticate"

_UNPLACED: Final = {
    error.status_code: (str(error.challenge), str(error.challenge).encode())
    for error in (SessionEnded(""), NoUserToActFor(""))
}
"""The challenges of errors that a route raises without knowing which service it is in."""

_ANONYMOUS: Final = Decision(reason=Reason.ANONYMOUS)
_ANSWERS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept", "websocket.close"}
)
_LAST: Final = frozenset(
    {"http.response.body", "http.response.pathsend", "websocket.http.response.body", "websocket.close"}
)
"""What ends an answer, if no more of it is announced."""


def reporting(state: Authenticated | Anonymous, scope: Scope, send: Send) -> Send:
    """Return a ``send`` for an accepted request, with or without credentials. When the answer starts, it reports the acceptance or completes a refusal."""

    # Not a coroutine of its own, which would cost more than all it does.
    def send_and_report(message: Message) -> Awaitable[None]:
        if state.answered or message["type"] not in _ANSWERS:
            # A background task that runs after the answer is not the caller's request any more.
            if message["type"] in _LAST and not message.get("more_body"):
                state.ended()
            return send(message)
        if state.unasked and message.get("status", 0) < _ERROR and message["type"] != "websocket.close":
            unasked = [each.text for each in state.unasked.values() if not each.covered(state.asked)]
            if unasked:
                raise ConfigurationError(" ".join(unasked))
        state.answered = True
        refusal = state.refusal
        if refusal is None:
            report_acceptance(state, scope)
            if message.get("status") in _UNPLACED:
                message = _with_place(message, state.service.space)
        elif message["type"].endswith(".response.start"):
            message = _with_challenge(message, refusal, state.service.space)
        return send(message)

    return send_and_report


def report_acceptance(state: Authenticated | Anonymous, scope: Scope) -> None:
    """Report why the request was accepted, now that its route is known."""
    if isinstance(state, Anonymous):
        state.service.report(_ANONYMOUS, scope, state.span)
        return
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


def varying(send: Send, *, credentials: bool, shared: Callable[[], None]) -> Send:
    """Return a ``send`` for an optional path, so that no cache gives the answer of one caller to another (RFC 9111 sections 3.5 and 4.1).

    - Every answer says that it depends on the header Authorization.
    - The answer to a request with ``credentials`` is for its caller alone, unless the app has a Cache-Control of its own. If that one lets
      shared caches keep the answer, ``shared`` is called.
    """

    def send_with_headers(message: Message) -> Awaitable[None]:
        if message["type"] in _STARTS:
            headers = MutableHeaders(raw=[(bytes(name), bytes(value)) for name, value in message.get("headers", ())])
            varies = [name.strip().lower() for each in headers.getlist("vary") for name in each.split(",")]
            if not {"*", "authorization"} & {*varies}:
                headers.append("vary", "Authorization")
            if credentials:
                kept = ",".join(headers.getlist("cache-control")).lower()
                if not kept:
                    headers["cache-control"] = "private"
                elif _SHARED.search(kept):
                    shared()
            message = {**message, "headers": headers.raw}
        return send(message)

    return send_with_headers


def _with_place(message: Message, space: ProtectionSpace) -> Message:
    """Return the response start of a call on behalf of a user that failed: its challenge names the service, as every other one."""
    text, octets = _UNPLACED[message["status"]]
    headers = [
        (name, placed(text, space).encode("latin-1"))
        if value == octets and name.lower() == b"www-authenticate"
        else (name, value)
        for name, value in message.get("headers", ())
    ]
    return {**message, "headers": headers}


def _with_challenge(message: Message, refusal: Decision, space: ProtectionSpace) -> Message:
    """Return the response start with the refusal's headers, which the app's own exception handler may have dropped."""
    if message["status"] != refusal.status:
        return message  # the app made something else of it: a redirect, a page of its own
    headers = message.get("headers", ())
    wanted = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers_of(refusal, space).items()]
    present = {name.lower() for name, _ in headers}
    values = {bytes(value) for name, value in headers if name.lower() == _CHALLENGE}
    # A handler that keeps headers in a dict keeps one of two challenges; one that has written a challenge of its own has its reasons.
    kept = any(name == _CHALLENGE and value in values for name, value in wanted)
    missing = [
        (name, value)
        for name, value in wanted
        if name not in present or (name == _CHALLENGE and kept and value not in values)
    ]
    return {**message, "headers": [*headers, *missing]} if missing else message

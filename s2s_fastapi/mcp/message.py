"""One message of a client of a tool server: which HTTP request brought it, who sent it, and what it may call."""

import logging
from collections.abc import Awaitable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, TypeVar

from starlette.requests import Request

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.asked import plain, ways_of
from s2s_fastapi.errors import AuthenticationError, ConfigurationError
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.request_state import Authenticated
from s2s_fastapi.requirement.require import require_service
from s2s_fastapi.requirement.requirement import Caller, Requirement
from s2s_fastapi.telemetry.located import located

__all__ = [
    "CALLS",
    "MESSAGE",
    "ClientMessage",
    "Refused",
    "current_principal",
    "current_request",
    "field_of",
    "noting",
    "says_who",
]

T = TypeVar("T")

_log = logging.getLogger("s2s_fastapi")

CALLS: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
    "resources/unsubscribe": "uri",
    "completion/complete": "ref",
    "subscriptions/listen": "",
}
"""The methods that use one tool, prompt or resource, each with the parameter that names it."""

_ALLOWED: Final = Decision(reason=Reason.ALLOWED)
_SERVICES: Final = require_service()
_NO_REQUEST: Final = "no HTTP request brought the message, so nobody knows who sent it (stdio, a test in memory, or a task that outlived its request)"


class Refused(Exception):
    """A caller may not do this. The text is the fixed sentence of the reason, so whoever gets it learns nothing more."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reason.detail)
        self.decision = decision


class ClientMessage:
    """One message, for as long as the server works on it.

    It is made of the HTTP request that brought this very message. A session may live for hours, and on mcp 1.x the context variables of a
    tool are those of the request that opened the session.
    """

    def __init__(self, request: object, method: str, params: object = None, handler: object = None) -> None:
        self._request = request if isinstance(request, Request) else None
        self.method = method
        self.params = params
        self.handler = handler
        """The function that the SDK has for the method; None if it is not known."""
        self.over = False
        """The answer is made. A task that the tool has left behind must not act for the caller any more."""
        self.refusal: Decision | None = None
        self.raised: Exception | None = None
        """What a tool raised, as its SDK has wrapped it. The SDK makes an answer of it that says only its text."""
        self._decided: dict[Requirement | None, Decision | None] = {}

    @property
    def target(self) -> str:
        """The name or the URI of what the message uses; empty if it uses nothing, or if it does not say what in a text."""
        if self.method == "completion/complete":
            return self.completes[-1][1]
        named = field_of(self.params, CALLS.get(self.method, ""))
        return "" if named is None else str(named)

    @property
    def completes(self) -> list[tuple[str, str]]:
        """The prompt and the template whose argument is completed: kind, and name or URI.

        A caller may name both. The SDK then chooses by a third field, so each of them must be judged.
        """
        ref = field_of(self.params, "ref")
        named = [("prompt", field_of(ref, "name")), ("template", field_of(ref, "uri"))]
        return [(kind, str(name)) for kind, name in named if name] or [("prompt", "")]

    @property
    def uris(self) -> list[str]:
        """The resources that the message names."""
        if self.method == "subscriptions/listen":
            wished = field_of(self.params, "notifications")
            return [
                str(uri)
                for spelled in ("resourceSubscriptions", "resource_subscriptions")
                for uri in field_of(wished, spelled) or ()
            ]
        return [self.target]

    @property
    def over_http(self) -> bool:
        """Whether an HTTP request brought it."""
        return self._request is not None

    @property
    def request(self) -> Request:
        """The HTTP request.

        Raises:
            Refused: There is none, or it is over.
        """
        if self._request is None or self.over:
            _log.warning("%s was refused: %s.", self.method, _NO_REQUEST)
            raise Refused(Decision(reason=Reason.NO_CREDENTIALS))
        return self._request

    @property
    def state(self) -> Authenticated:
        """What the middleware knows about the request.

        Raises:
            Refused: It has no credentials, or no middleware has looked at it.
        """
        try:
            return Authenticated.of(self.request.scope)
        except AuthenticationError:
            raise Refused(Decision(reason=Reason.NO_CREDENTIALS)) from None
        except ConfigurationError as error:
            raise _failed(error) from None

    @property
    def inbound(self) -> bytes | None:
        """The digest of the token that came with it, which must not be sent on."""
        return self.state.verdict.digest if self.over_http else None

    def may(self, requirement: Requirement | None) -> bool:
        """Return whether the sender meets a requirement, or would be accepted while refusals are only logged. Nothing is reported."""
        if requirement is None and not self.over_http:
            return True
        try:
            return self._judged(requirement).refused is None
        except Refused:
            return False

    def admit(self, requirement: Requirement | None, name: str) -> None:
        """Return if the sender meets the requirement on ``name``; otherwise report the refusal.

        - Without a requirement, or if the requirement does not say who may call, only services of the first realm may: a user needs
          `require_user`.
        - Without a requirement, and without an HTTP request, everybody may: that is stdio, or a test in memory.

        Raises:
            Refused: The sender does not meet it.
        """
        if requirement is None and not self.over_http:
            return
        try:
            refused = self._reported(requirement, name)
        except Refused as error:
            self.refusal = error.decision
            raise
        if refused is not None:
            self.refusal = refused
            raise Refused(refused)

    def _reported(self, requirement: Requirement | None, name: str) -> Decision | None:
        """Report what is decided about the sender, once, and return the refusal."""
        scope = self.request.scope  # an answer that was made admits nobody, whatever was decided before
        if requirement not in self._decided:
            state, judged = self.state, self._judged(requirement)
            self._decided[requirement] = judged.refused
            # Where a decision was made is read from the scope, and below one HTTP route there are many tools.
            # A name that nobody has registered is the caller's own text: it must not become one of a metric.
            method = self.method if self.method in CALLS or self.handler is not None else ""
            route = " ".join(filter(None, (located(_ALLOWED, scope, state.span).route, method, name)))
            for decision in judged.decisions:
                state.service.report(
                    decision, {**scope, "root_path": "", "route": SimpleNamespace(path=route)}, state.span
                )
        return self._decided[requirement]

    def _judged(self, requirement: Requirement | None) -> "_Judged":
        state = self.state
        wanted = _SERVICES if requirement is None else requirement
        if not says_who(wanted):
            wanted = _SERVICES & wanted
        try:
            decision = wanted.judge(state.principal, state.service.client_id)
        except ConfigurationError as error:
            raise _failed(error) from None
        if decision.reason is Reason.ALLOWED:
            return _Judged()
        observed, refused = state.weighed(wanted, decision)
        return _Judged(observed if refused is None else (refused,), refused)


@dataclass(frozen=True, slots=True)
class _Judged:
    """What was decided about a sender: the decisions to report, and the one that refuses."""

    decisions: tuple[Decision, ...] = ()
    refused: Decision | None = None


MESSAGE: ContextVar[ClientMessage | None] = ContextVar("s2s_fastapi_message", default=None)
"""The message that is being answered. It is set anew for each message, in the task that answers it."""


def current_principal() -> Principal:
    """Return who called the tool, the resource or the prompt that is running: the sender of this very message.

    Raises:
        Exception: No HTTP request brought the message, or its answer was sent already. The text is a sentence that the caller may see.
    """
    return _current().state.principal


def current_request() -> Request:
    """Return the HTTP request that brought this very message, for example for `ServiceTokenAuth.on_behalf_of`.

    Raises:
        Exception: No HTTP request brought the message, or its answer was sent already. The text is a sentence that the caller may see.
    """
    return _current().request


def _failed(error: ConfigurationError) -> Refused:
    """Log a mistake in the app, which the caller must not read."""
    _log.error("a message of a tool server was refused: %s", error)
    return Refused(Decision(reason=Reason.NOT_STARTED))


def _current() -> ClientMessage:
    return MESSAGE.get() or ClientMessage(None, "a call outside of a message")


def says_who(requirement: Requirement | None) -> bool:
    """Return whether each way to meet a requirement says if a service or a user may call."""
    return all(any(isinstance(plain(leaf), Caller) for leaf in way) for way in ways_of(requirement))


async def noting(call: Awaitable[T]) -> T:
    """Return what a call of a tool returns. What it raises is noted for the message."""
    try:
        return await call
    except Exception as raised:
        if (message := MESSAGE.get()) is not None:
            message.raised = raised
        raise


def field_of(params: object, name: str) -> Any:
    """Return a parameter of a message; None if it is not there. mcp 2.x gives JSON, mcp 1.x objects."""
    return params.get(name) if isinstance(params, Mapping) else getattr(params, name, None)

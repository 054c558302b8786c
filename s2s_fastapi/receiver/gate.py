"""The way into a checked app: a request comes with a token that is accepted, or is answered here."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.exceptions import WebSocketException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi.decision import Decision
from s2s_fastapi.errors import AuthenticationError, AuthorizationError
from s2s_fastapi.keycloak.cures import credentials_cure
from s2s_fastapi.principal import INBOUND, digest
from s2s_fastapi.receiver.answers import headers_of, send_answer
from s2s_fastapi.receiver.bearer import bearer_token
from s2s_fastapi.receiver.framework import get_route_path
from s2s_fastapi.receiver.keys import KeySource
from s2s_fastapi.receiver.lifetime import until_expiry
from s2s_fastapi.receiver.public import PublicPaths
from s2s_fastapi.receiver.refusal import Refused
from s2s_fastapi.receiver.state import KEYS_KEY, SCOPE_KEY, Authenticated, Service
from s2s_fastapi.receiver.verifier import Verifier
from s2s_fastapi.telemetry.spans import current_span, hide_query

__all__ = ["Gate"]

_ANSWERS: Final = frozenset(
    {"http.response.start", "websocket.http.response.start", "websocket.accept", "websocket.close"}
)


@dataclass(frozen=True, slots=True)
class Gate:
    """A checked app's way in."""

    verifier: Verifier
    public: PublicPaths
    service: Service
    clock: Callable[[], float]

    async def pass_through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a public path or an accepted token; answer every other request."""
        scope[KEYS_KEY] = self.verifier.keys  # always, so that nothing which was there before is believed
        if self.public.entries and scope["type"] == "http" and self.public.open(scope["method"], get_route_path(scope)):
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
            inbound = INBOUND.set(_brought(scope))  # nobody has looked at it; it must not be sent on all the same
            try:
                await app(scope, receive, send)
            finally:
                INBOUND.reset(inbound)
            return
        try:
            token = bearer_token(scope["headers"], scope["query_string"], self.verifier.tokens.recent)
        except Refused as refused:
            if scope["query_string"]:
                hide_query(current_span())  # it may hold the token, and servers' spans show it
            cure = refused.cure or credentials_cure(refused.reason)
            await self._refuse(scope, send, Decision(reason=refused.reason, cure=cure))
            return
        verdict = self.verifier.known(token) or await self.verifier.adecide(token)
        principal = verdict.principal
        if principal is None or not verdict.lets_in:
            await self._refuse(scope, send, verdict.decision)
            return
        # Taken here, while it is the server's: the app makes others below it.
        scope[SCOPE_KEY] = state = Authenticated(verdict, principal, self.service, current_span())
        # New for each request: the list inside is mutable, and what one request appends must not open the next.
        scope["user"], scope["auth"] = principal, AuthCredentials(verdict.scopes)
        if scope["type"] == "websocket":
            ends = self.verifier.expectations.ends(principal)
            app = until_expiry(app, ends, self.clock, revoked=_revocation(self.verifier.keys, principal.issued_at))
        inbound = INBOUND.set(verdict.digest)
        try:
            await app(scope, receive, _telling(state, scope, send))
        except (AuthenticationError, AuthorizationError, WebSocketException):
            if state.refusal is None or state.answered:
                raise
            # There is no Starlette app around the guard to do it.
            await send_answer(scope, send, state.refusal, self.service.realm)
        finally:
            INBOUND.reset(inbound)
            if not state.answered and state.refusal is None:
                _tell(state, scope)  # it ran, even if nothing came of it

    async def _refuse(self, scope: Scope, send: Send, decision: Decision) -> None:
        self.service.tell(decision, scope, current_span())
        await send_answer(scope, send, decision, self.service.realm)


def _brought(scope: Scope) -> bytes | None:
    """Return the digest of the token that came to where none is asked for, if one did."""
    try:
        return digest(bearer_token(scope["headers"], scope["query_string"]))
    except Refused:
        return None


def _revocation(keys: KeySource, issued_at: int) -> Callable[[], bool]:
    """Return what tells whether a token of that second was revoked; asking also keeps the answer new where no request comes in."""

    def revoked() -> bool:
        if keys.peek() is None:
            keys.start()
        return issued_at < keys.not_before

    return revoked


def _telling(state: Authenticated, scope: Scope, send: Send) -> Send:
    """Return a ``send`` that sees how an accepted request ends: its refusal keeps the challenge, its acceptance is told once."""

    # Not a coroutine of its own, which would cost more than all it does.
    def telling(message: Message) -> Awaitable[None]:
        if state.answered or message["type"] not in _ANSWERS:
            return send(message)
        state.answered = True
        refusal = state.refusal
        if refusal is None:
            _tell(state, scope)
        elif message["type"].endswith(".response.start"):
            message = _with_challenge(message, headers_of(refusal, state.service.realm), refusal.status)
        return send(message)

    return telling


def _tell(state: Authenticated, scope: Scope) -> None:
    """Tell why the request was let in, now that its route is known."""
    for decision in state.verdict.decisions:
        state.service.tell(decision, scope, state.span)


def _with_challenge(message: Message, headers: dict[str, str], status: int) -> Message:
    """Return the response start with the refusal's headers, which a user's own exception handler may have dropped."""
    if message["status"] != status:
        return message  # the app made something else of it: a redirect, a page of its own
    present = {name.lower() for name, _ in message.get("headers", ())}
    missing = [
        (name.lower().encode(), value.encode("latin-1"))
        for name, value in headers.items()
        if name.lower().encode() not in present
    ]
    return {**message, "headers": [*message.get("headers", ()), *missing]} if missing else message

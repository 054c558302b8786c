"""The way into a checked app: a request comes with a token that is accepted, or is answered here."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.exceptions import WebSocketException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi.answers import headers_of, send_answer
from s2s_fastapi.decision import Decision
from s2s_fastapi.declared.late_routes import ReadRoutes
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, ConfigurationError
from s2s_fastapi.fastapi_internals import get_route_path
from s2s_fastapi.keycloak.cures import CHANGED_PATH, NEVER_PUBLIC, OTHER_PATH, credentials_cure
from s2s_fastapi.principal import INBOUND, digest
from s2s_fastapi.receiver.websocket import until_expiry
from s2s_fastapi.requirement.opened import ARRIVING, OPENED_KEY, Opened, Places
from s2s_fastapi.requirement.request_state import KEYS_KEY, SCOPE_KEY, Authenticated, Service
from s2s_fastapi.telemetry.spans import current_span, hide_query
from s2s_fastapi.verifier.bearer import bearer_credentials, token_in
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["Gate"]

_ERROR: Final = 400
"""The first status of an answer that gives nothing away."""

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
    routes: ReadRoutes
    """To see that a route was added or changed since the app was checked."""
    places: Places = field(default_factory=Places)
    meant: Mapping[str, str] = field(default_factory=dict)
    """Paths of routes that are not public, each with the public path that no route answers and that was probably meant for it."""
    root_path: str = ""
    """The root path that the app below sets when it is called, as FastAPI(root_path=...) does around which this was wrapped."""

    def pass_through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run the app for a public path or an accepted token; answer every other request."""
        if self.public.entries and scope["type"] == "http" and self.opens(scope["method"], self._route_path(scope)):
            return self._open(app, scope, receive, send)
        return self.authenticate(app, scope, receive, send)

    def opens(self, method: str, path: str) -> bool:
        """Return whether requests for ``path`` need no token."""
        return self.public.open(method, path)

    def _route_path(self, scope: Scope) -> str:
        """Return the path that the router below will match, as far as it can be known here."""
        return get_route_path({**scope, "root_path": self.root_path} if self.root_path else scope)

    async def _open(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        scope[KEYS_KEY] = self.verifier.keys
        scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        inbound = INBOUND.set(_brought(scope))  # nobody has looked at it; it must not be sent on all the same
        scope[OPENED_KEY] = opened = Opened(self)
        arriving = ARRIVING.set(opened)
        try:
            await app(scope, receive, send)
        finally:
            ARRIVING.reset(arriving)
            INBOUND.reset(inbound)

    async def authenticate(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for an accepted token; answer every other request."""
        scope[KEYS_KEY] = self.verifier.keys  # always, so that nothing which was there before is believed
        credentials = bearer_credentials(scope["headers"], scope["query_string"], self.verifier.tokens.recent)
        if isinstance(credentials, Decision):
            if scope["query_string"]:
                hide_query(current_span())  # it may hold the token, and servers' spans show it
            await self._refuse(scope, send, self._without_token(credentials, scope))
            return
        verdict = self.verifier.known(credentials) or await self.verifier.adecide(credentials)
        principal = verdict.principal
        if principal is None or not verdict.accepted:
            await self._refuse(scope, send, verdict.decision)
            return
        # Taken here, while it is the server's: the app makes others below it.
        scope[SCOPE_KEY] = state = Authenticated(verdict, principal, self.service, current_span())
        # New for each request: the list inside is mutable, and what one request appends must not open the next.
        scope["user"], scope["auth"] = principal, AuthCredentials(verdict.scopes)
        if scope["type"] == "websocket":
            ends = self.verifier.checks.ends(principal)
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

    def _without_token(self, refused: Decision, scope: Scope) -> Decision:
        """Return the refusal of a request that shows no token, with a cure that does not advise what `public_paths` already has."""
        reason = refused.reason
        if refused.cure:
            return refused
        opened = scope.get(OPENED_KEY)
        if isinstance(opened, Opened) and opened.opener is self:
            return Decision(reason=reason, cure=credentials_cure(CHANGED_PATH))
        path = self._route_path(scope)
        beside = self.public.beside(path) or self.meant.get(path, "")
        other = NEVER_PUBLIC if scope["type"] == "websocket" else OTHER_PATH
        return Decision(reason=reason, cure=credentials_cure(f"public_paths has {beside}, {other}" if beside else ""))

    async def _refuse(self, scope: Scope, send: Send, decision: Decision) -> None:
        self.service.tell(decision, scope, current_span())
        await send_answer(scope, send, decision, self.service.realm)


def _brought(scope: Scope) -> bytes | None:
    """Return the digest of the token that came to where none is asked for, if one did."""
    credentials = bearer_credentials(scope["headers"], scope["query_string"])
    return None if isinstance(credentials, Decision) else digest(token_in(credentials))


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
        if state.unasked and message.get("status", 0) < _ERROR and message["type"] != "websocket.close":
            unasked = [each.text for each in state.unasked.values() if not each.covered(state.asked)]
            if unasked:
                raise ConfigurationError(" ".join(unasked))
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
    verdict = state.verdict
    if not verdict.observed:
        state.service.tell_accepted(verdict, scope, state.span)
        return
    for decision in verdict.decisions:
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

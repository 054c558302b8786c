"""The door: every request and WebSocket that is not public brings a service's token, or is answered here."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx
from starlette._utils import get_route_path
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.exceptions import WebSocketException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, ConfigurationError
from s2s_fastapi.lanes import watch_forks
from s2s_fastapi.principal import INBOUND, digest
from s2s_fastapi.receiver.access import OWN_AUTHENTICATION, read_access, router_below
from s2s_fastapi.receiver.answers import headers_of, send_answer
from s2s_fastapi.receiver.bearer import bearer_token
from s2s_fastapi.receiver.check import AccessCheck
from s2s_fastapi.receiver.lifetime import until_expiry
from s2s_fastapi.receiver.public import PublicPaths
from s2s_fastapi.receiver.refusal import Refused
from s2s_fastapi.receiver.requirements import Requirement, require_service, require_user
from s2s_fastapi.receiver.state import SCOPE_KEY, Authenticated, located
from s2s_fastapi.receiver.verifier import TokenVerifier, Verdict
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import DecisionLog, Observer

__all__ = ["ServiceAuthMiddleware"]

_log = logging.getLogger("s2s_fastapi")

_SERVICE: Final[Requirement] = require_service()
_SERVICE_OR_USER: Final[Requirement] = require_service() | require_user()
_OPEN_TYPES: Final = ("http", "websocket")
_ANSWERS: Final = ("http.response.start", "websocket.http.response.start", "websocket.accept", "websocket.close")


class ServiceAuthMiddleware:
    """Authenticate every HTTP request and WebSocket of an app that is not public; services only, unless ``users=True``.

    One middleware is one realm and one app. At start, and before the first request where no lifespan comes, the settings and the
    app's routes are checked: what would leave a route open stops the start with a sentence that says what to change. A Keycloak
    that is down does not stop it: requests are answered 503 until it comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: KeycloakSettings | None = None,
        *,
        audience: str | Collection[str] | None = None,
        public_paths: Iterable[str] = (),
        users: bool = False,
        observer: Observer | None = None,
        warm_up: bool = True,
        insecure_skip_audience: bool = False,
        transport: Callable[[], httpx.BaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take note of everything; nothing is read, checked or fetched before the start.

        ``settings`` come from the environment unless given; ``audience`` replaces theirs. ``public_paths`` are exact paths for GET
        and HEAD, or ``"POST /hooks/x"``. ``observer`` sees every decision. ``warm_up=False`` loads the keys at the first request.
        ``transport`` makes the httpx transport for Keycloak, ``clock`` tells the seconds since the epoch.
        """
        self.app = app
        self._settings = settings
        self._audience = audience
        self._public_paths = public_paths
        self._users = users
        self._observer = observer or DecisionLog()
        self._warm_up = warm_up
        self._skip_audience = insecure_skip_audience
        self._transport = transport
        self._clock = clock
        self.after_fork()
        self._gate: _Gate | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app run for whoever is let in; answer everybody else."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] not in _OPEN_TYPES:
            raise ConfigurationError(
                f"The ASGI scope type {scope['type']!r} is unknown: nothing can be said about who is calling."
            )
        scope.pop(SCOPE_KEY, None)
        gate = self._gate
        if gate is None:
            try:
                gate = self._start(scope)
            except ConfigurationError as error:
                decision = Decision(reason=Reason.NOT_STARTED, cure=str(error))
                self._observer.decided(located(decision, scope))
                await send_answer(scope, send, decision, "")
                return
        await gate.pass_through(self.app, scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the app when its own start is over, so that all its routes are there; a failed check ends it again.

        Raising alone would not do: uvicorn takes that for an app without a lifespan, and serves. Once the failure was sent it says
        nothing more, and Starlette's TestClient, which would wait for ever for a lifespan that just ends, raises it.
        """
        failure = ""

        async def checked_send(message: Message) -> None:
            nonlocal failure
            if message["type"] == "lifespan.startup.complete":
                try:
                    self._start(scope)
                except ConfigurationError as error:
                    failure = str(error)
                    return
            if not (failure and message["type"].startswith("lifespan.shutdown.")):
                await send(message)

        async def checked_receive() -> Message:
            return {"type": "lifespan.shutdown"} if failure else await receive()

        try:
            await self.app(scope, checked_receive, checked_send)
        finally:
            if failure:
                await send({"type": "lifespan.startup.failed", "message": failure})
        if failure:
            raise ConfigurationError(failure)

    def _start(self, scope: Scope) -> "_Gate":
        """Check everything once and open the gate.

        Raises:
            ConfigurationError: A setting or a route is wrong; the next call checks again.
        """
        watch_forks(self)
        with self._lock:
            if self._gate is None:
                gate = self._checked(self._readable(scope.get("app")))
                for sentence in self._warnings():
                    _log.warning("%s", sentence)
                if self._warm_up:
                    gate.verifier.ready().keys.start()
                self._gate = gate  # last: the second request must not slip past a check that is still running
            return self._gate

    def _readable(self, app: Any) -> Any:
        """Return what to read the routes from: what is below, or ``app`` where a layer below hides them and ``app`` is ours.

        Below a mount ``scope["app"]`` is the app around it, whose routes are none of our business.
        """
        ours = any(entry.cls is type(self) for entry in getattr(app, "user_middleware", ()))
        return app if ours and router_below(self.app) is None else self.app

    def after_fork(self) -> None:
        """Replace the lock: a thread that the child has not may have held it."""
        self._lock = threading.Lock()

    def _checked(self, app: Any) -> "_Gate":
        settings = self._settings or KeycloakSettings()
        public = PublicPaths(self._public_paths)
        verifier = TokenVerifier(settings, audience=self._audience)
        check = AccessCheck(
            access=read_access(app),
            public=public,
            audiences=frozenset() if self._skip_audience else verifier.audiences,
            client_id=settings.client_id,
            users=self._users,
            skip_audience=self._skip_audience,
        )
        problems = list(check.problems())
        if problems:
            raise ConfigurationError(" ".join(problems))
        verifier = TokenVerifier(
            settings,
            audience=None if self._skip_audience else verifier.audiences or check.declared or None,
            insecure_skip_audience=self._skip_audience,
            transport=self._transport,
            clock=self._clock,
        )
        verifier.ready()
        return _Gate(
            verifier=verifier,
            public=public,
            users=self._users,
            observer=self._observer,
            client_id=settings.client_id,
            realm=settings.client_id or settings.realm,
            clock=self._clock,
        )

    def _warnings(self) -> Iterator[str]:
        if self._skip_audience:
            yield "insecure_skip_audience is on: tokens meant for other services are accepted."
        layer: Any = self.app
        inside: list[Any] = []
        while layer is not None:
            inside += [type(layer), *(entry.cls for entry in getattr(layer, "user_middleware", ()))]
            layer = None if hasattr(layer, "routes") else getattr(layer, "app", None)
        if CORSMiddleware in inside:
            yield (
                "CORSMiddleware is inside ServiceAuthMiddleware, so preflight requests are refused: add it after "
                "ServiceAuthMiddleware (what is added last is outermost)."
            )


setattr(ServiceAuthMiddleware, OWN_AUTHENTICATION, True)  # on the class: an app that was not asked yet has no instance


@dataclass(frozen=True, slots=True)
class _Gate:
    """A checked app's way in."""

    verifier: TokenVerifier
    public: PublicPaths
    users: bool
    observer: Observer
    client_id: str
    realm: str
    clock: Callable[[], float]

    async def pass_through(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a public path or an accepted token; answer every other request."""
        if scope["type"] == "http" and self.public.open(scope["method"], get_route_path(scope)):
            scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
            await app(scope, receive, send)
            return
        try:
            token = bearer_token(scope["headers"], scope["query_string"])
        except Refused as refused:
            await self._refuse(scope, send, Decision(reason=refused.reason))
            return
        verdict = await self.verifier.adecide(token)
        verdict = _of_kind(verdict, _SERVICE_OR_USER if self.users else _SERVICE)
        principal = verdict.principal
        if principal is None or verdict.decision.reason is not Reason.ALLOWED:
            await self._refuse(scope, send, verdict.decision)
            return
        state = Authenticated(principal, verdict.decision, self.client_id, self.realm, self.observer)
        scope[SCOPE_KEY] = state
        # New for each request: the list inside is mutable, and what one request appends must not open the next.
        scope["user"], scope["auth"] = principal, AuthCredentials(sorted(principal.scopes))
        if scope["type"] == "websocket":
            leeway = self.verifier.ready().settings.leeway
            app = until_expiry(app, principal.expires_at + leeway, self.clock)
        inbound = INBOUND.set(digest(token))
        answering = _Answering(scope, send, state)
        try:
            await app(scope, receive, answering)
        except (AuthenticationError, AuthorizationError, WebSocketException):
            if state.refusal is None or answering.begun:
                raise
            await send_answer(scope, send, state.refusal, self.realm)  # no Starlette app around the guard to do it
        finally:
            INBOUND.reset(inbound)

    async def _refuse(self, scope: Scope, send: Send, decision: Decision) -> None:
        self.observer.decided(located(decision, scope))
        await send_answer(scope, send, decision, self.realm)


class _Answering:
    """A ``send`` that sees how an accepted request ends: its refusal keeps the challenge, its acceptance is told once."""

    __slots__ = ("_scope", "_send", "_state", "begun")

    def __init__(self, scope: Scope, send: Send, state: Authenticated) -> None:
        self._scope = scope
        self._send = send
        self._state = state
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if not self.begun and message["type"] in _ANSWERS:
            self.begun = True
            refusal = self._state.refusal
            if refusal is None:
                if getattr(self._state.observer, "wants_allowed", True):
                    self._state.observer.decided(located(self._state.verdict, self._scope))
            elif message["type"].endswith(".response.start"):
                message = _with_challenge(message, headers_of(refusal, self._state.realm), refusal.status)
        await self._send(message)


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


def _of_kind(verdict: Verdict, kinds: Requirement) -> Verdict:
    """Return the verdict of an app that lets only these kinds of callers in."""
    if verdict.principal is None or verdict.decision.reason is not Reason.ALLOWED:
        return verdict
    decision = kinds.judge(verdict.principal)
    if decision.reason is Reason.ALLOWED:
        return verdict
    return Verdict(replace(verdict.decision, reason=decision.reason, cure=decision.cure), verdict.principal)

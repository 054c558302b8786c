"""The door: every request and WebSocket that is not public brings a service's token, or is answered here."""

import logging
import math
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import httpx
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi.answers import send_answer
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.late_routes import WATCH_KEY, Checkpoint, FailingRoute, ReadRoutes
from s2s_fastapi.declared.openapi import Documentation
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.returned import look_at_returned
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, layers, read_access, router_below
from s2s_fastapi.declared.start_check import AccessCheck, bounded
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import (
    added_middleware,
    answers_wrong_method,
    hidden_app,
    own_root_path,
    running_route,
)
from s2s_fastapi.names import NO_AUDIENCE, audience_names
from s2s_fastapi.process import watch_forks
from s2s_fastapi.receiver.gate import Gate
from s2s_fastapi.receiver.observe_mode import ObservedRefusals, Observing, end_of_observing
from s2s_fastapi.requirement.opened import Places
from s2s_fastapi.requirement.request_state import SCOPE_KEY, Authenticated, Service, located
from s2s_fastapi.requirement.require import require_service, require_user
from s2s_fastapi.telemetry import DecisionLog, Observer
from s2s_fastapi.telemetry.metrics import decided
from s2s_fastapi.telemetry.spans import current_span, describe, hide_query
from s2s_fastapi.verifier.accepted_tokens import CACHED_TOKENS, VerifiedTokens
from s2s_fastapi.verifier.checks import Expectations
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.verifier import Verifier

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ServiceAuthMiddleware", "middleware_of", "observed_refusals"]

_log = logging.getLogger("s2s_fastapi")

_SERVICE: Final = require_service()
_SERVICE_OR_USER: Final = require_service() | require_user()
_OPEN_TYPES: Final = ("http", "websocket")
_CHECK_AGAIN: Final = 1.0
"""Seconds for which a failed check stands: reading an app's routes is not work that anybody may order with each request."""


class ServiceAuthMiddleware:
    """Authenticate every HTTP request and WebSocket of an app that is not public; services only, unless ``users=True``.

    One middleware is one realm and one app. At start, and before the first request where no lifespan comes, the settings and the
    app's routes are checked: what would leave a route open stops the start with a sentence that says what to change. A Keycloak
    that is down does not stop it: requests are answered 503 until it comes.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: "KeycloakSettings | None" = None,
        *,
        audience: str | Collection[str] | None = None,
        public_paths: Iterable[str] = (),
        users: bool = False,
        observer: Observer | None = None,
        audit: bool = False,
        warm_up: bool = True,
        cached_tokens: int = CACHED_TOKENS,
        insecure_skip_audience: bool = False,
        insecure_observe_until: str | None = None,
        insecure_unchecked: Collection[str] = (),
        transport: Callable[[], httpx.BaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take note of everything; nothing is read, checked or fetched before the start.

        ``settings`` come from the environment unless given; ``audience`` replaces theirs. ``public_paths`` are exact paths for GET
        and HEAD, or ``"POST /hooks/x"``. ``observer`` sees every decision. ``audit=True`` writes accepted calls at INFO to the
        logger ``s2s_fastapi.decisions``. ``warm_up=False`` loads the keys at the first request.
        ``cached_tokens`` accepted tokens are remembered, and checked at each use for all that can change; 0 verifies each anew.
        ``insecure_observe_until="2027-01-31"``: until 00:00 UTC of that day refusals for audience, kind, caller, scope and role are
        only told, and counted for the logger ``s2s_fastapi.observed`` and `observed_refusals`.
        ``insecure_unchecked=["GET /x"]``: mistakes that the start check finds on these routes do not stop the start; each start logs them.
        ``transport`` makes the httpx transport for Keycloak, ``clock`` tells the seconds since the epoch.
        """
        self.app = app
        self._settings = settings
        self._audience = audience
        self._public_paths = public_paths
        self._users = users
        self._observer = observer or DecisionLog(audit=audit)
        self._audit = audit
        self._own_observer = observer is not None
        self._warm_up = warm_up
        self._cached_tokens = cached_tokens
        self._skip_audience = insecure_skip_audience
        self._observe_until = insecure_observe_until
        self._unchecked = insecure_unchecked
        self._transport = transport
        self._clock = clock
        self.after_fork()
        self._gate: Gate | None = None
        self._outer: Any = None
        self._warned: set[str] = set()
        self._failed: tuple[float, str] | None = None
        self._observing: Observing | None = None

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
        if gate is None or gate.routes.changed():
            try:
                gate = self._start(scope.get("app"), changed=gate)
            except ConfigurationError as error:
                await self._not_started(scope, send, str(error))
                return
        if gate.routes.problem:
            await self._not_started(scope, send, gate.routes.problem)
            return
        scope[WATCH_KEY] = gate.routes
        await gate.pass_through(self.app, scope, receive, send)

    def enter(self, checkpoint: Checkpoint, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let a request pass on to a route that was read; read the app again first if the route is not as it was."""
        gate, entry = self._gate, running_route(scope, checkpoint.entry)
        read = None if gate is None else gate.routes.at(entry)
        if read is not None:
            if not read.problem:
                return checkpoint.app(scope, receive, send)
            problem = read.problem
        else:
            try:
                routes = self._start(self._outer, changed=gate).routes
            except ConfigurationError as error:
                return self._not_started(scope, send, str(error))
            problem = routes.problem or routes.at_last(entry).problem
        if problem and not answers_wrong_method(entry, checkpoint.entry, scope):
            return self._not_started(scope, send, problem)
        return checkpoint.app(scope, receive, send)

    async def _not_started(self, scope: Scope, send: Send, problem: str) -> None:
        decision = Decision(reason=Reason.NOT_STARTED, cure=problem)
        decided(decision)
        current = current_span()
        if scope.get("query_string"):
            hide_query(current)  # nobody has looked yet whether it holds a token
        describe(current, decision)
        self._observer.decided(located(decision, scope, current))
        state = scope.get(SCOPE_KEY)
        if isinstance(state, Authenticated):
            state.refusal = decision
        await send_answer(scope, send, decision, "")

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
                    self._start(scope.get("app"), again=True)
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
            else:
                if self._observing is not None:
                    self._observing.tell(final=True)
                if isinstance(self._observer, DecisionLog):
                    self._observer.flush()  # here, since a server that is told to end by a signal runs no exit hooks
        if failure:
            raise ConfigurationError(failure)

    def _start(self, app: Any, *, again: bool = False, changed: Gate | None = None) -> Gate:
        """Check everything once and open the gate; ``app`` is the one in the ASGI scope.

        - ``again``: a later lifespan has begun, so the routes are checked as at the first start.
        - ``changed``: a route is not as it was when this gate was made, so all routes are read again, unless somebody just did.

        Raises:
            ConfigurationError: A setting or a route is wrong; the next call checks again.
        """
        watch_forks(self)
        with self._lock:
            if self._gate is None:
                self._outer = app
                gate = self._checked_gate(app)
                for sentence in self._warnings():
                    _log.warning("%s", sentence)
                if self._warm_up:
                    gate.verifier.keys.start()
                self._gate = gate  # last: the second request must not slip past a check that is still running
            elif again or self._gate is changed:
                self._gate = self._with_late_routes(self._gate, self.documentation(app) if again else self._read(app))
            return self._gate

    def _with_late_routes(self, gate: Gate, documentation: Documentation) -> Gate:
        """Return the gate of an app whose routes changed after the start; a new route that would have stopped the start answers 500."""
        check = documentation.check
        names = {id(route.entry): route.name for route in check.access.routes}
        replaced = (
            FailingRoute(
                name, entry, f"{name}: its app was replaced by one that cannot be read, so nobody knows what it asks."
            )
            for entry in gate.routes.replaced()
            for name in [names.get(id(entry), str(getattr(entry, "path", "/")))]
        )
        failing = (*check.failing(), *replaced)
        for route in failing:
            if route.name not in gate.routes.failing:
                _log.error("%s was added or changed after the start and answers 500: %s", route.name, route.problem)
        self._warn(check)
        _look_at_returned(check)
        places = self._watched(check)
        return replace(gate, routes=_read_routes(self, check, failing, gate.routes), places=places)

    def _warn(self, check: AccessCheck) -> None:
        """Log each sentence once, also if routes come later."""
        for sentence in check.warnings():
            if sentence not in self._warned:
                self._warned.add(sentence)
                _log.warning("%s", sentence)

    def documentation(self, app: Any = None) -> Documentation:
        """Return what is enforced, read from the settings and the routes and checked; ``app`` is the one in the ASGI scope.

        Raises:
            ConfigurationError: A setting or a route is wrong.
        """
        documentation = self._read(app)
        check = documentation.check
        problems = list(check.problems())
        if not problems and not (check.audiences or check.declared or self._skip_audience):
            problems = [documentation.settings.missing(NO_AUDIENCE)]
        if problems:
            raise ConfigurationError(" ".join([*problems, *check.way_out()]))
        return documentation

    def _read(self, app: Any) -> Documentation:
        settings = settings_or_environment(self._settings)
        root = self._root(app)
        # What is below, or the app itself where a layer below hides its routes.
        below = self.app if root is None or router_below(self.app) is not None else root
        named = audience_names(self._audience) or settings.audiences
        check = AccessCheck(
            access=read_access(below),
            public=PublicPaths(self._public_paths),
            audiences=frozenset() if self._skip_audience else named,
            client_id=settings.client_id,
            users=self._users,
            skip_audience=self._skip_audience,
            unchecked=_route_names(self._unchecked),
        )
        return Documentation(below, check, settings, root)

    @property
    def observed(self) -> ObservedRefusals:
        """What was let in so far although it will be refused: see `observed_refusals`."""
        observing = self._observing
        return ObservedRefusals(until=None) if observing is None else observing.report()

    @property
    def keys(self) -> KeySource | None:
        """What tokens are verified with; None before the start."""
        gate = self._gate
        return None if gate is None else gate.verifier.keys

    @property
    def problem(self) -> str:
        """Why it has not started, if the check was made and failed."""
        failed = self._failed
        return "" if self._gate is not None or failed is None else failed[1]

    def _root(self, app: Any) -> Any:
        """Return ``app`` if this was added to it, else None: below a mount it is the app around, whose routes are none of our business."""
        ours = any(entry.cls is type(self) for entry in added_middleware(app))
        below = router_below(self.app)
        return app if ours and (below is None or below is getattr(app, "router", None)) else None

    def after_fork(self) -> None:
        """Replace the lock: a thread that the child has not may have held it."""
        self._lock = threading.Lock()

    def _checked_gate(self, app: Any) -> Gate:
        """Check the app and return its gate, or fail as a moment ago."""
        now = self._clock()
        if self._failed is not None and 0 <= now - self._failed[0] < _CHECK_AGAIN:
            raise ConfigurationError(self._failed[1])
        try:
            documentation = self.documentation(app)
            gate = self._gate_for(documentation)
        except ConfigurationError as error:
            self._failed = (now, str(error))
            raise
        documentation.install()
        self._warn(documentation.check)
        open_routes = list(documentation.check.open_routes())
        if open_routes:
            _log.info(
                "any caller that the middleware accepts may call, since no requirement stands on: %s",
                bounded(open_routes),
            )
        return gate

    def _gate_for(self, documentation: Documentation) -> Gate:
        settings, check = documentation.settings, documentation.check
        audiences = frozenset[str]() if self._skip_audience else check.audiences or check.declared
        clock = self._clock
        now, observe_until = clock(), -math.inf
        if self._observe_until is not None:
            observe_until = end_of_observing(self._observe_until, now)
        self._observing = Observing(observe_until, self._observer, clock) if now < observe_until else None
        verifier = Verifier(
            Expectations.of(settings, audiences, _SERVICE_OR_USER if self._users else _SERVICE),
            KeySource.of(settings, self._transport),
            VerifiedTokens(self._cached_tokens),
            observe_until=observe_until,
            clock=clock,
        )
        service = Service(
            client_id=settings.client_id,
            realm=settings.client_id or settings.realm,
            observer=self._observing or self._observer,
            observing=lambda: clock() < observe_until,
        )
        _look_at_returned(check)
        places = self._watched(check)
        return Gate(
            verifier=verifier,
            public=check.public,
            service=service,
            clock=clock,
            routes=_read_routes(self, check),
            meant={found.nearest.path: found.entry.text for found in check.unanswered() if found.nearest is not None},
            places=places,
            root_path=own_root_path(router_below(self.app) or hidden_app(self.app)),
        )

    def _watched(self, check: AccessCheck) -> Places:
        """Return the places of all routers and guards, and let the routers compare the path of a public request again."""
        if not check.public.entries:
            return Places()
        access = check.access
        hidden = ((at.path, hidden_app(at.app)) for at in access.unread)
        places = Places(
            (getattr(at.app, "router", at.app), path + at.path)
            for path, apps in [("", access.apps), *((path, read_access(app).apps) for path, app in hidden if app)]
            for at in apps
        )
        places.watch()
        return places

    def _warnings(self) -> Iterator[str]:
        if self._audit and self._own_observer:
            yield (
                "audit=True writes nothing beside observer=, which is given the decisions instead of the logger s2s_fastapi.decisions: "
                "keep one of the two."
            )
        elif self._audit and isinstance(self._observer, DecisionLog) and not self._observer.writes_allowed:
            yield (
                "audit=True, but the logger s2s_fastapi.decisions is not enabled for INFO or has no handler for it, so no accepted call is "
                'written: logging.getLogger("s2s_fastapi.decisions").setLevel("INFO"), and logging.basicConfig() for a handler.'
            )
        if self._skip_audience:
            yield "insecure_skip_audience is on: tokens meant for other services are accepted."
        if self._observing is not None:
            yield (
                f"insecure_observe_until is on: before {self._observe_until} 00:00 UTC tokens for other audiences, and callers without "
                "the required kind, name, scope or role, are let in and only told; the logger s2s_fastapi.observed says whom that will hit."
            )
        elif self._observe_until is not None:
            yield f"insecure_observe_until is over since {self._observe_until} 00:00 UTC: everything is refused that should be, and the option can go."
        layer: Any = self.app
        inside: list[Any] = []
        while layer is not None:
            inside += [type(layer), *(entry.cls for entry in added_middleware(layer))]
            layer = None if hasattr(layer, "routes") else getattr(layer, "app", None)
        if CORSMiddleware in inside:
            yield (
                "CORSMiddleware is inside ServiceAuthMiddleware, so preflight requests are refused: add it after "
                "ServiceAuthMiddleware (what is added last is outermost)."
            )


def _look_at_returned(check: AccessCheck) -> None:
    entries = (route.entry for route in check.access.routes if route.name not in check.unchecked)
    look_at_returned(dependant for entry in entries if (dependant := getattr(entry, "dependant", None)) is not None)


def _read_routes(
    watch: ServiceAuthMiddleware,
    check: AccessCheck,
    failing: Iterable[FailingRoute] = (),
    before: ReadRoutes | None = None,
) -> ReadRoutes:
    return ReadRoutes(watch, check.access.holders, (route.entry for route in check.access.routes), failing, before)


def _route_names(names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError('insecure_unchecked takes a list of routes as the start check names them: ["GET /x"].')
    return frozenset(names)


def middleware_of(app: Any) -> ServiceAuthMiddleware | type[ServiceAuthMiddleware] | None:
    """Return the middleware on an app or around it; its class, where the app has not made it yet."""
    added = None
    for layer in layers(app):
        for inner in layers(layer, getattr(layer, "middleware_stack", None)):
            if isinstance(inner, ServiceAuthMiddleware):
                return inner
        if any(entry.cls is ServiceAuthMiddleware for entry in added_middleware(layer)):
            added = ServiceAuthMiddleware
    return added


def observed_refusals(app: ASGIApp) -> ObservedRefusals:
    """Return what ``insecure_observe_until`` let in so far in this process: who, where, why, how often, and what to change.

    ``app`` is the one the middleware was added to, or the middleware itself. Empty before the start and where nothing is observed.

    Raises:
        ConfigurationError: There is no `ServiceAuthMiddleware` on ``app``.
    """
    found = middleware_of(app)
    if isinstance(found, ServiceAuthMiddleware):
        return found.observed
    if found is not None:
        return ObservedRefusals(until=None)  # nothing has come in yet
    raise ConfigurationError("observed_refusals takes the app that ServiceAuthMiddleware was added to.")


setattr(ServiceAuthMiddleware, OWN_AUTHENTICATION, True)  # on the class: an app that was not asked yet has no instance

"""The middleware: every request and WebSocket that is not public brings an accepted token, or is answered here."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

import httpx
from starlette.authentication import AuthCredentials, UnauthenticatedUser
from starlette.exceptions import WebSocketException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s_fastapi import environment
from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.answers import answer
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.declared.late_routes import WATCH_KEY, Checkpoint
from s2s_fastapi.declared.openapi import Documentation
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, layers
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, ConditionFailed, ConfigurationError
from s2s_fastapi.fastapi_internals import added_middleware, answers_wrong_method, running_route
from s2s_fastapi.keycloak.cures import (
    CHANGED_PATH,
    NEVER_PUBLIC,
    OTHER_CREDENTIALS,
    OTHER_PATH,
    SHARED_ANSWER,
    credentials_cure,
)
from s2s_fastapi.proof.replay import ReplayStore
from s2s_fastapi.receiver.observe_mode import ObservedRefusals
from s2s_fastapi.receiver.respond import report_acceptance, reporting, varying
from s2s_fastapi.receiver.start import CheckedApp, Options, Start
from s2s_fastapi.receiver.websocket import revocation, until_expiry
from s2s_fastapi.requirement.opened import ARRIVING, OPENED_KEY, Opened, Places, method_of
from s2s_fastapi.requirement.request_state import (
    ANONYMOUS_KEY,
    SCOPE_KEY,
    VERIFIER_KEY,
    Anonymous,
    Authenticated,
    Service,
)
from s2s_fastapi.telemetry import Observer
from s2s_fastapi.telemetry.located import located
from s2s_fastapi.telemetry.metrics import decided
from s2s_fastapi.telemetry.spans import current_span, describe, hide_query
from s2s_fastapi.verifier.accepted_tokens import CACHED_TOKENS
from s2s_fastapi.verifier.bearer import BEARER_OR_DPOP, brings_credentials, credentials_in, is_dpop, token_in
from s2s_fastapi.verifier.bound import certified
from s2s_fastapi.verifier.checks import MAX_LIFETIME
from s2s_fastapi.verifier.client_certificate import CertificateSource
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import BoundVerdict
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["ServiceAuthMiddleware", "middleware_of", "observed_refusals"]

_CONNECTIONS: Final = ("http", "websocket")


class ServiceAuthMiddleware:
    """Authenticate every HTTP request and WebSocket that is not public. Only services are accepted, unless ``users=True``.

    - One middleware is for one app. It accepts tokens of one realm, or of several: ``settings=[corp, partners]``.
    - At the start, or before the first request if no lifespan comes, the settings and the app's routes are checked. If a mistake would
      leave a route unprotected, the app refuses to start and tells you what to change.
    - If Keycloak is down, the app starts all the same. Requests are answered 503 until Keycloak comes.
    - The start replaces ``app.openapi``, so that the document shows what each route requires.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: "environment.KeycloakSettings | Sequence[environment.KeycloakSettings] | None" = None,
        *,
        audience: str | Collection[str] | None = None,
        public_url: str | Collection[str] | None = None,
        resource: bool = False,
        dpop: Literal["accepted", "required"] | None = None,
        replay_store: ReplayStore | None = None,
        client_certificate: CertificateSource | None = None,
        public_paths: Iterable[str] = (),
        optional_paths: Iterable[str] = (),
        users: bool = False,
        observer: Observer | None = None,
        audit: bool = False,
        warm_up: bool = True,
        cached_tokens: int = CACHED_TOKENS,
        max_lifetime: float = MAX_LIFETIME,
        insecure_skip_audience: bool = False,
        insecure_observe_until: str | None = None,
        insecure_unchecked: Collection[str] = (),
        ready: Collection[str] = (),
        transport: Callable[[], httpx.BaseTransport] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take note of everything. Nothing is read, checked or fetched before the start.

        - ``settings``: read from the environment at the start, unless given. A list accepts tokens of several realms: a requirement speaks
          of the first one unless it says ``realm=``. ``audience`` replaces the audience in them.
        - ``public_url``: the URL at which callers reach this app, such as ``"https://tools.example.com/mcp"``: ASCII, https (http on
          loopback addresses only), without user name, query and fragment. It is compared exactly, and never guessed from a request. An app
          that is reached at several URLs names all of them in a list.
        - ``resource=True``: the app is a protected resource (RFC 9728), as tool servers are (MCP). ``public_url`` is then its only audience,
          in each realm, in place of the settings' client id and audience. If ``audience`` is given too, only that counts. Every
          challenge names the document at ``https://tools.example.com/.well-known/oauth-protected-resource/mcp``. The middleware answers
          GET, HEAD and CORS preflight requests for it without a token. It names ``public_url`` and the issuers of the settings, and nothing else.
          The proxy must pass that path on unchanged. Of several URLs in ``public_url`` the first one is the resource.
        - ``dpop="accepted"``: a token that is bound to a key is accepted under the scheme DPoP, with a new proof in each request (RFC 9449),
          and bearer tokens as before. ``dpop="required"``: only bound tokens are accepted. Both need ``public_url``, because a proof names the
          URL that the caller called. Without ``dpop`` a bound token is refused.
        - ``replay_store``: where proofs are remembered, so that none counts twice. By default it is the memory of this process: if several
          processes serve the app, give them one store, such as `s2s_fastapi.redis.RedisReplayStore`.
        - ``client_certificate``: where the client certificate of a request is found. A token that is bound to a certificate (RFC 8705 section 3)
          is then accepted with that certificate, and every other token as before. ``"tls"``: the server ends TLS and has the ASGI TLS
          extension; uvicorn and hypercorn have none. ``CertificateHeader(...)``: a proxy ends TLS and passes the certificate on, with a secret.
          Without ``client_certificate`` a token that is bound to one is refused. A token that is bound to a key as well needs ``dpop``, too.
        - ``public_paths``: exact paths for GET and HEAD, or ``"POST /hooks/x"``.
        - ``optional_paths``: written like ``public_paths``, or as ``"WEBSOCKET /x"``. A request without any credentials is accepted there,
          and a request with credentials is judged as everywhere. See `OptionalPrincipal` and `Requirement.optional`.
        - ``observer``: gets every decision. Without it, decisions are logged to the logger ``s2s_fastapi.decisions``.
        - ``audit=True``: that logger gets accepted calls at INFO.
        - ``warm_up=False``: the keys are loaded at the first request, not at the start.
        - ``cached_tokens``: how many accepted tokens are remembered. At each use a remembered token is checked for all that can change.
          0 verifies each token each time.
        - ``max_lifetime``: the seconds that a token may live, from ``iat`` to ``exp``: from 60 seconds to 30 days, by default 24 hours.
        - ``insecure_observe_until="2027-01-31"``: until 00:00 UTC of that day, refusals for audience, kind, caller, scope and role are
          only logged, and counted for the logger ``s2s_fastapi.observed`` and `observed_refusals`.
        - ``insecure_unchecked=["GET /x"]``: mistakes that the start check finds on these routes do not stop the start. Each start logs
          them.
        - ``ready=["partners"]``: names of further realms without whose keys `auth_ready` answers 503. The first one always counts.
        - ``transport``: makes the httpx transport for Keycloak. ``clock``: returns the seconds since the epoch.
        """
        self.app = app
        options = Options(
            settings=settings,
            audience=audience,
            public_url=public_url,
            resource=resource,
            dpop=dpop,
            replay_store=replay_store,
            client_certificate=client_certificate,
            # The app is read more than once, and an iterator would be empty then.
            public_paths=tuple(public_paths) if isinstance(public_paths, Iterator) else public_paths,
            optional_paths=tuple(optional_paths) if isinstance(optional_paths, Iterator) else optional_paths,
            users=users,
            observer=observer,
            audit=audit,
            warm_up=warm_up,
            cached_tokens=cached_tokens,
            max_lifetime=max_lifetime,
            insecure_skip_audience=insecure_skip_audience,
            insecure_observe_until=insecure_observe_until,
            insecure_unchecked=insecure_unchecked,
            ready=ready,
            keys=partial(KeySource.of, transport=transport),
            clock=clock,
        )
        self._clock = clock
        self._start = Start(self, app, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for every request that is accepted or public; answer every other request."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        if scope["type"] not in _CONNECTIONS:
            raise ConfigurationError(
                f"The ASGI scope type {scope['type']!r} is unknown: ServiceAuthMiddleware cannot find out who is calling."
            )
        scope.pop(SCOPE_KEY, None)
        checked = self._start.checked
        if checked is None or checked.routes.changed():
            try:
                checked = self._start.run(scope.get("app")) if checked is None else self._start.read_again(checked)
            except ConfigurationError as error:
                await self._not_started(scope, receive, send, str(error))
                return
        if checked.routes.problem:
            await self._not_started(scope, receive, send, checked.routes.problem)
            return
        if checked.resource is not None and scope["type"] == "http":
            if checked.resource.answers(scope):
                await checked.resource(scope, receive, send)
                return
            if problem := checked.resource.out_of_reach(scope):
                self._start.warn(problem)
        scope[WATCH_KEY] = checked.routes
        if (
            checked.public.entries
            and scope["type"] == "http"
            and checked.public.open(scope["method"], checked.route_path(scope))
        ):
            await self._open(checked, scope, receive, send)
            return
        if checked.optional.entries and checked.optional.open(method_of(scope), checked.route_path(scope)):
            await self._optional(checked, scope, receive, send)
            return
        await self._authenticate(checked, self.app, scope, receive, send)

    def enter(self, checkpoint: Checkpoint, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Let a request pass on to a route that was read. If the route is not as it was, read the app again first."""
        checked, entry = self._start.checked, running_route(scope, checkpoint.entry)
        read = None if checked is None else checked.routes.at(entry)
        if read is not None:
            if not read.problem:
                return checkpoint.app(scope, receive, send)
            problem = read.problem
        else:
            try:
                routes = self._start.read_again(checked).routes
            except ConfigurationError as error:
                return self._not_started(scope, receive, send, str(error))
            problem = routes.problem or routes.at_last(entry).problem
        if problem and not answers_wrong_method(entry, checkpoint.entry, scope):
            return self._not_started(scope, receive, send, problem)
        return checkpoint.app(scope, receive, send)

    def documentation(self, app: Any = None) -> Documentation:
        """Return what is enforced, read from the settings and the routes, and checked. ``app`` is the one in the ASGI scope.

        Raises:
            ConfigurationError: A setting or a route is wrong.
        """
        return self._start.documentation(app)

    @property
    def observed(self) -> ObservedRefusals:
        """What was accepted so far although it will be refused: see `observed_refusals`."""
        return self._start.observed

    @property
    def keys(self) -> KeySource | None:
        """What tokens of the first realm are verified with; None before the start."""
        checked = self._start.checked
        return None if checked is None else checked.verifier.keys

    @property
    def verifier(self) -> Verifier | RealmsVerifier | None:
        """What tokens are verified with; None before the start."""
        checked = self._start.checked
        return None if checked is None else checked.verifier

    @property
    def problem(self) -> str:
        """Why it has not started, if the check was made and failed."""
        return self._start.problem

    async def _authenticate(
        self,
        checked: CheckedApp,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        root_path: str | None = None,
    ) -> None:
        """Run ``app`` for an accepted token; answer every other request.

        ``root_path`` is the one with which the request came here, if it is below mounts by now.
        """
        verifier, service = checked.verifier, checked.service
        scope[VERIFIER_KEY] = verifier  # always, so that nothing which was there before is believed
        schemes, bound = checked.schemes, checked.bound
        credentials = credentials_in(scope["headers"], scope["query_string"], verifier.tokens.recent, schemes)
        if isinstance(credentials, Decision):
            if scope["query_string"]:
                hide_query(current_span())  # it may hold the token, and servers' spans show it
            await self._refuse(service, scope, receive, send, self._without_token(checked, credentials, scope))
            return
        if bound is not None and is_dpop(credentials):
            service = bound.service
            verdict = await bound.tokens.decide(credentials, scope, checked.root_path or root_path)
        else:
            verdict = verifier.known(credentials) or await verifier.adecide(credentials)
        principal = verdict.principal
        if principal is None or not verdict.accepted:
            # A token that is bound to a certificate is a refusal until the certificate of this request is known.
            if isinstance(verdict, BoundVerdict) and verdict.certificate and not verdict.thumbprint:
                verdict = certified(verdict, checked.certificates, scope)
                principal = verdict.principal
            if principal is None or not verdict.accepted:
                await self._refuse(service, scope, receive, send, verdict.decision)
                return
        if principal.other_realm:
            service = service.further[principal.issuer]
        # Taken here, while it is the server's: the app makes others below it.
        scope[SCOPE_KEY] = state = Authenticated(
            principal, verdict.digest, credentials, verdict, service, current_span()
        )
        # New for each request: the list inside is mutable, and what one request appends must not open the next.
        scope["user"], scope["auth"] = principal, AuthCredentials(verdict.scopes)
        if scope["type"] == "websocket":
            own = verifier.of(principal)
            ends = own.checks.ends(principal)
            app = until_expiry(app, ends, self._clock, revoked=revocation(own.keys, principal.issued_at))
        inbound = INBOUND.set(verdict.digest)
        try:
            await app(scope, receive, reporting(state, scope, send))
        except (AuthenticationError, AuthorizationError, ConditionFailed, WebSocketException):
            if state.refusal is None or state.answered:
                raise
            # There is no Starlette app around the guard to do it.
            await answer(scope, state.refusal, service.space)(scope, receive, send)
        finally:
            INBOUND.reset(inbound)
            state.ended()
            if not state.answered and state.refusal is None:
                report_acceptance(state, scope)  # it ran, even if nothing came of it

    async def _optional(self, checked: CheckedApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a request without credentials, too."""
        credentials = brings_credentials(scope["headers"], scope["query_string"])
        send = varying(send, credentials=credentials, shared=lambda: self._start.warn(SHARED_ANSWER))
        if credentials:
            await self._authenticate(checked, self.app, scope, receive, send)
            return
        scope[ANONYMOUS_KEY] = state = Anonymous(checked.service, current_span())
        try:
            with self._opened(checked, scope, anonymous=state):
                await self.app(scope, receive, reporting(state, scope, send))
        except (AuthenticationError, WebSocketException):
            if state.refusal is None or state.answered:
                raise
            await answer(scope, state.refusal, checked.service.space)(scope, receive, send)
        finally:
            if not state.answered and state.refusal is None:
                report_acceptance(state, scope)

    async def _open(self, checked: CheckedApp, scope: Scope, receive: Receive, send: Send) -> None:
        scope.pop(ANONYMOUS_KEY, None)
        credentials = credentials_in(scope["headers"], scope["query_string"], schemes=BEARER_OR_DPOP)
        # Nobody has checked a token that came here. It must not be sent on all the same.
        inbound = None if isinstance(credentials, Decision) else digest(token_in(credentials))
        with self._opened(checked, scope, inbound=inbound):
            await self.app(scope, receive, send)

    @contextmanager
    def _opened(
        self, checked: CheckedApp, scope: Scope, *, inbound: bytes | None = None, anonymous: Anonymous | None = None
    ) -> Iterator[None]:
        """Prepare a request that runs without a token, because its path is public or optional, for as long as it runs."""
        scope[VERIFIER_KEY] = checked.verifier
        scope["user"], scope["auth"] = UnauthenticatedUser(), AuthCredentials()
        scope[OPENED_KEY] = opened = Opened(_Opener(self, checked, anonymous, str(scope.get("root_path") or "")))
        arriving, before = ARRIVING.set(opened), INBOUND.set(inbound)
        try:
            yield
        finally:
            INBOUND.reset(before)
            ARRIVING.reset(arriving)

    async def _refuse(self, service: Service, scope: Scope, receive: Receive, send: Send, decision: Decision) -> None:
        service.report(decision, scope, current_span())
        await answer(scope, decision, service.space)(scope, receive, send)

    def _without_token(self, checked: CheckedApp, refusal: Decision, scope: Scope) -> Decision:
        """Return the refusal of a request without a token. Its cure does not advise what `public_paths` already has."""
        if refusal.cure:
            return refusal
        dpop = checked.service.space.dpop
        opened = scope.get(OPENED_KEY)
        if isinstance(opened, Opened) and isinstance(opened.opener, _Opener) and opened.opener.middleware is self:
            return Decision(reason=refusal.reason, cure=credentials_cure(CHANGED_PATH, dpop))
        path = checked.route_path(scope)
        if checked.optional.open(method_of(scope), path):
            return Decision(reason=refusal.reason, cure=credentials_cure(OTHER_CREDENTIALS, dpop))
        beside = checked.public.beside(path) or checked.meant.get(path, "")
        other = NEVER_PUBLIC if scope["type"] == "websocket" else OTHER_PATH
        said = f"public_paths has {beside}, {other}" if beside else ""
        if not said and (beside := checked.optional.beside(path)):
            said = f"optional_paths has {beside}, {OTHER_PATH}"
        return Decision(reason=refusal.reason, cure=credentials_cure(said, dpop))

    async def _not_started(self, scope: Scope, receive: Receive, send: Send, problem: str) -> None:
        decision = Decision(reason=Reason.NOT_STARTED, cure=problem)
        decided(decision)
        current = current_span()
        if scope.get("query_string"):
            hide_query(current)  # nobody has looked yet whether it holds a token
        describe(current, decision)
        self._start.observer.decided(located(decision, scope, current))
        state = scope.get(SCOPE_KEY)
        if isinstance(state, Authenticated):
            state.refusal = decision
        await answer(scope, decision)(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the app when its own start is over, so that all its routes are there. A failed check ends it again.

        To raise is not enough: uvicorn takes that for an app without a lifespan, and serves. After the failure was sent, uvicorn prints
        nothing more. Starlette's TestClient would wait forever for a lifespan that just ends, so it gets the exception as well.
        """
        failure = ""

        async def checked_send(message: Message) -> None:
            nonlocal failure
            if message["type"] == "lifespan.startup.complete":
                try:
                    self._start.run(scope.get("app"), again=True)
                    await self._start.ask_store()
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
                self._start.end()
        if failure:
            raise ConfigurationError(failure)


@dataclass(frozen=True, slots=True)
class _Opener:
    """What a middleware says of a request that one of its public or optional paths opened."""

    middleware: ServiceAuthMiddleware
    checked: CheckedApp
    anonymous: Anonymous | None = None
    """The state of a request that an optional path opened, because it has no credentials."""
    root_path: str = ""
    """The one with which the request came in. A mount on its way down adds its own path, which the caller used."""

    @property
    def places(self) -> Places:
        """Where the routers and guards of the app stand."""
        return self.checked.places

    def opens(self, method: str, path: str) -> bool:
        """Return whether such requests for ``path`` need no token."""
        checked = self.checked
        return checked.public.open(method, path) or (self.anonymous is not None and checked.optional.open(method, path))

    def mark(self, scope: Scope) -> None:
        """Note in a scope that the middleware looked for credentials and found none."""
        if self.anonymous is not None:
            scope[ANONYMOUS_KEY] = self.anonymous

    def authenticate(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run ``app`` for an accepted token; answer every other request."""
        if self.anonymous is not None:
            scope.pop(ANONYMOUS_KEY, None)
            self.anonymous.answered = True  # what comes now is decided and reported anew
        return self.middleware._authenticate(self.checked, app, scope, receive, send, root_path=self.root_path)  # noqa: SLF001 - one module


def middleware_of(app: Any) -> ServiceAuthMiddleware | type[ServiceAuthMiddleware] | None:
    """Return the middleware on an app or around it; its class, if the app has not made it yet."""
    added = None
    for layer in layers(app):
        for inner in layers(layer, getattr(layer, "middleware_stack", None)):
            if isinstance(inner, ServiceAuthMiddleware):
                return inner
        if any(entry.cls is ServiceAuthMiddleware for entry in added_middleware(layer)):
            added = ServiceAuthMiddleware
    return added


def observed_refusals(app: ASGIApp) -> ObservedRefusals:
    """Return what was accepted so far only because of ``insecure_observe_until``: who, where, why, how often, and what to change.

    - ``app`` is the one that the middleware was added to, or the middleware itself.
    - The report is of this process. It is empty before the start, and without the option.

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

"""The start of an app: its settings and routes are read and checked once, and again if routes are added later."""

import logging
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Scope

from s2s_fastapi.answers import ProtectionSpace
from s2s_fastapi.declared.late_routes import FailingRoute, ReadRoutes, Watch
from s2s_fastapi.declared.openapi import Documentation
from s2s_fastapi.declared.public_paths import OPTIONAL, PublicPaths
from s2s_fastapi.declared.returned import look_at_returned
from s2s_fastapi.declared.routes import read_access, router_below
from s2s_fastapi.declared.start_check import AccessCheck, RealmAccess, bounded
from s2s_fastapi.environment import realms_of
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import added_middleware, get_route_path, hidden_app, own_root_path
from s2s_fastapi.names import NO_AUDIENCE, audience_names
from s2s_fastapi.process import watch_forks
from s2s_fastapi.proof.replay import ReplayStore
from s2s_fastapi.receiver.observe_mode import ObservedRefusals, Observing, end_of_observing
from s2s_fastapi.receiver.resource import ProtectedResource, resource_url
from s2s_fastapi.requirement.opened import Places
from s2s_fastapi.requirement.request_state import Service
from s2s_fastapi.requirement.require import require_service, require_user
from s2s_fastapi.requirement.service_route import asks_first
from s2s_fastapi.telemetry import DecisionLog, Observer
from s2s_fastapi.text import listed, named
from s2s_fastapi.verifier.accepted_tokens import AcceptedTokens
from s2s_fastapi.verifier.bearer import BEARER_OR_DPOP, ONLY_BEARER
from s2s_fastapi.verifier.bound import BoundTokens, DpopOptions
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.client_certificate import CertificateSource, ClientCertificates, checked_source
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verifier import Verifier

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["CheckedApp", "Options", "Start"]

_log = logging.getLogger("s2s_fastapi")

_CHECK_AGAIN: Final = 1.0
"""Seconds for which the result of a failed check is kept: nobody may order the reading of all routes with each request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `ServiceAuthMiddleware` was called with; see there."""

    settings: "KeycloakSettings | Sequence[KeycloakSettings] | None"
    audience: str | Collection[str] | None
    public_url: str | Collection[str] | None
    resource: bool
    dpop: Literal["accepted", "required"] | None
    replay_store: ReplayStore | None
    client_certificate: CertificateSource | None
    public_paths: Iterable[str]
    optional_paths: Iterable[str]
    users: bool
    observer: Observer | None
    audit: bool
    warm_up: bool
    cached_tokens: int
    max_lifetime: float
    insecure_skip_audience: bool
    insecure_observe_until: str | None
    insecure_unchecked: Collection[str]
    ready: Collection[str]
    keys: "Callable[[KeycloakSettings], KeySource]" = field(repr=False)
    """Makes the source of the realm's keys."""
    clock: Callable[[], float] = field(repr=False)

    @property
    def resource_url(self) -> str:
        """The URL of the app, if it is a protected resource; empty if it is none.

        Raises:
            ConfigurationError: ``public_url`` or ``resource`` is wrong.
        """
        return resource_url(self.public_url, self.resource)

    @property
    def proving(self) -> DpopOptions:
        """How the app accepts bound tokens.

        Raises:
            ConfigurationError: ``dpop``, ``public_url`` or ``replay_store`` is wrong.
        """
        return DpopOptions.of(self.dpop, self.public_url, self.replay_store)

    @property
    def certificate_source(self) -> CertificateSource | None:
        """Where client certificates come from.

        Raises:
            ConfigurationError: ``client_certificate`` is something else.
        """
        return checked_source(self.client_certificate)

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences that the code names, in every realm; empty if the settings name them.

        Raises:
            ConfigurationError: ``audience``, ``public_url`` or ``resource`` is wrong.
        """
        url = self.resource_url
        return audience_names(self.audience) or frozenset((url,) if url else ())


@dataclass(frozen=True, slots=True)
class BoundApp:
    """An app as requests with a token under the scheme DPoP see it."""

    tokens: BoundTokens
    service: Service


@dataclass(frozen=True, slots=True)
class CheckedApp:
    """An app that passed its start check: what the middleware needs to let requests in."""

    verifier: Verifier | RealmsVerifier
    public: PublicPaths
    optional: PublicPaths
    service: Service
    routes: ReadRoutes
    """To see that a route was added or changed since the app was checked."""
    places: Places
    meant: Mapping[str, str]
    """Paths of routes that are not public, each with the public path that no route answers and that was probably meant for it."""
    schemes: Mapping[bytes, bytes]
    """Those under which the app takes credentials: `BEARER_OR_DPOP` if bound tokens are accepted."""
    bound: BoundApp | None = None
    """None if tokens under the scheme DPoP are not accepted."""
    certificates: ClientCertificates | None = None
    """None if tokens that are bound to a client certificate are not accepted."""
    resource: ProtectedResource | None = None
    """The document about the app that everybody may read."""
    root_path: str = ""
    """The root path that the app below sets when it is called: FastAPI(root_path=...)."""

    def route_path(self, scope: Scope) -> str:
        """Return the path that the router below will match, as far as it can be known in front of it."""
        return get_route_path({**scope, "root_path": self.root_path} if self.root_path else scope)


class Start:
    """The start of one app behind one middleware, and its state since then. Safe to use from threads."""

    def __init__(self, middleware: Watch, app: ASGIApp, options: Options) -> None:
        """Take note of everything. Nothing is read, checked or fetched yet. ``app`` is the one below ``middleware``."""
        self._middleware = middleware
        self._app = app
        self.options = options
        self.observer: Observer = options.observer or DecisionLog(audit=options.audit)
        self.checked: CheckedApp | None = None
        """None before the start, and if the check failed. The hot path reads it without a call."""
        self._outer: Any = None
        self._logged: set[str] = set()
        self._failed: tuple[float, str] | None = None
        self._observing: Observing | None = None
        self.after_fork()

    def after_fork(self) -> None:
        """Replace the lock: a thread of the parent may have held it."""
        self._lock = threading.Lock()

    @property
    def problem(self) -> str:
        """Why the app has not started, if the check was made and failed."""
        failed = self._failed
        return "" if self.checked is not None or failed is None else failed[1]

    @property
    def observed(self) -> ObservedRefusals:
        """What was accepted so far although it will be refused."""
        observing = self._observing
        return ObservedRefusals(until=None) if observing is None else observing.report()

    def run(self, app: Any, *, again: bool = False) -> CheckedApp:
        """Check everything, unless that was done. ``app`` is the one in the ASGI scope.

        - ``again``: a later lifespan has begun, so the routes are checked as at the first start.

        Raises:
            ConfigurationError: A setting or a route is wrong; the next call checks again.
        """
        watch_forks(self)
        with self._lock:
            if self.checked is None:
                self._outer = app
                checked = self._first(app)
                self._warn(self._warnings())
                if self.options.warm_up:
                    for realm in checked.verifier.realms:
                        realm.keys.start()
                self.checked = checked  # last: the second request must not pass while the check is still running
            elif again:
                self.checked = self._with_late_routes(self.checked, self.documentation(app))
            return self.checked

    def read_again(self, changed: CheckedApp | None) -> CheckedApp:
        """Read all routes again, because a route is not as it was in ``changed``; do nothing if somebody just did.

        Raises:
            ConfigurationError: A setting is wrong; the next call checks again.
        """
        if changed is None:
            return self.run(self._outer)
        with self._lock:
            if self.checked is changed:
                self.checked = self._with_late_routes(changed, self._read(self._outer))
            return self.checked or changed

    def documentation(self, app: Any = None) -> Documentation:
        """Return what is enforced, read from the settings and the routes, and checked. ``app`` is the one in the ASGI scope.

        Raises:
            ConfigurationError: A setting or a route is wrong.
        """
        documentation = self._read(app)
        check = documentation.check
        problems = list(check.problems())
        if not problems and not (check.audiences or check.declared or self.options.insecure_skip_audience):
            problems = [documentation.settings.missing(NO_AUDIENCE)]
        if problems:
            raise ConfigurationError(" ".join([*problems, *check.way_out()]))
        return documentation

    async def ask_store(self) -> None:
        """Log what is wrong with the replay store, if it is one that can say so (`RedisReplayStore.problems_at_start`).

        Raises:
            ConfigurationError: The store cannot work in this app.
        """
        problems = getattr(self.options.replay_store, "problems_at_start", None)
        if problems is not None and (said := await problems()):
            self.warn(said)

    def warn(self, sentence: str) -> None:
        """Log a sentence once."""
        self._warn([sentence])

    def install(self, documentation: Documentation) -> None:
        """Let the app's OpenAPI document show what is enforced."""
        documentation.install()

    def end(self) -> None:
        """Write what is still to be logged. Called when the app ends: a server that a signal ends runs no exit hooks."""
        if self._observing is not None:
            self._observing.log(final=True)
        if isinstance(self.observer, DecisionLog):
            self.observer.flush()

    def _read(self, app: Any) -> Documentation:
        options = self.options
        settings, *others = realms_of(options.settings)
        root = self._root(app)
        # What is below, or the app itself if a layer below hides its routes.
        below = self._app if root is None or router_below(self._app) is not None else root
        audience = options.audiences
        realms = [
            RealmAccess(
                name=each.name,
                issuer=each.issuer,
                audiences=frozenset() if options.insecure_skip_audience else audience or each.audiences,
                client_id=each.client_id,
            )
            for each in (settings, *others)
        ]
        for each, realm in zip(others, realms[1:], strict=True):
            if not (realm.audiences or options.insecure_skip_audience):
                raise ConfigurationError(each.missing(NO_AUDIENCE))
        _check_ready(options.ready, realms)
        check = AccessCheck(
            access=read_access(below),
            public=PublicPaths(options.public_paths),
            optional=PublicPaths(options.optional_paths, OPTIONAL),
            audiences=realms[0].audiences,
            client_id=settings.client_id,
            users=options.users,
            skip_audience=options.insecure_skip_audience,
            realms=tuple(realms),
            unchecked=_route_names(options.insecure_unchecked),
            dpop=options.proving.mode,
            public_urls=options.proving.urls,
            certificate=options.certificate_source is not None,
        )
        resource, proving = self._resource(check), options.proving
        space = ProtectionSpace(settings.client_id or settings.realm, resource.address if resource else "")
        return Documentation(below, check, settings, root, tuple(others), proving.placed(space))

    def _resource(self, check: AccessCheck) -> ProtectedResource | None:
        url = self.options.resource_url
        return ProtectedResource.of(url, [realm.issuer for realm in check.realms], check.dpop) if url else None

    def _root(self, app: Any) -> Any:
        """Return ``app`` if the middleware was added to it, else None: below a mount it is the outer app, whose routes are not ours."""
        ours = any(entry.cls is type(self._middleware) for entry in added_middleware(app))
        below = router_below(self._app)
        return app if ours and (below is None or below is getattr(app, "router", None)) else None

    def _first(self, app: Any) -> CheckedApp:
        """Check the app, or fail as a moment ago."""
        now = self.options.clock()
        if self._failed is not None and 0 <= now - self._failed[0] < _CHECK_AGAIN:
            raise ConfigurationError(self._failed[1])
        try:
            documentation = self.documentation(app)
            checked = self._checked(documentation)
        except ConfigurationError as error:
            self._failed = (now, str(error))
            raise
        self.install(documentation)
        self._warn(documentation.check.warnings())
        self._warn(self._beside_the_resource(documentation))
        open_routes = list(documentation.check.open_routes())
        realms = documentation.check.realms
        if len(realms) > 1:
            _log.info(
                "tokens of %d realms are accepted: %s. A requirement that names no realm speaks of %s.",
                len(realms),
                ", ".join(f"{named(realm.name)} ({realm.issuer})" for realm in realms),
                named(realms[0].name),
            )
        if checked.resource is not None:
            _log.info(
                "the app is a protected resource: tokens for %s are accepted, and %s needs no token.",
                listed(documentation.check.audiences, " or ") or "any service",
                checked.resource.address,
            )
        for level, said in self.options.proving.said:
            if level == logging.INFO:
                _log.info("%s", said)
        if checked.certificates is not None:
            _log.info(
                "tokens that are bound to a client certificate are accepted: certificates are read from %s.",
                checked.certificates.described,
            )
        if open_routes:
            _log.info(
                "any caller that the middleware accepts may call, since no requirement stands on: %s",
                bounded(open_routes),
            )
        optional_routes = list(documentation.check.optional_routes())
        if optional_routes:
            _log.info(
                "requests without credentials are accepted, as optional_paths say, on: %s", bounded(optional_routes)
            )
        first = [route.name for route in documentation.check.access.routes if asks_first(route.entry)]
        if first:
            _log.info("ServiceRoute asks the requirements before the body is read on: %s", bounded(first))
        return checked

    def _beside_the_resource(self, documentation: Documentation) -> Iterator[str]:
        """Yield a warning for everything that works no more because the app is a protected resource."""
        resource, options = self._resource(documentation.check), self.options
        if resource is None:
            return
        for settings in (documentation.settings, *documentation.others) if options.audience is None else ():
            if unused := {*settings.audience} - options.audiences:
                yield settings.worded(
                    f"resource=True: public_url is the only audience, so KEYCLOAK_AUDIENCE ({listed(unused)}) is not accepted. "
                    "Remove that setting; or write audience=[...] with every audience that is accepted."
                )
        hidden = [route.name for route in documentation.check.access.routes if route.path == resource.path]
        if hidden:
            yield f"resource=True: the middleware answers {resource.path}, so this route is never reached: {bounded(hidden)}. Remove it."

    def _checked(self, documentation: Documentation) -> CheckedApp:
        options, settings, check = self.options, documentation.settings, documentation.check
        audiences = frozenset[str]() if options.insecure_skip_audience else check.audiences or check.declared
        clock = options.clock
        now, observe_until = clock(), -math.inf
        if options.insecure_observe_until is not None:
            observe_until = end_of_observing(options.insecure_observe_until, now)
        self._observing = Observing(observe_until, self.observer, clock) if now < observe_until else None
        verifier = self._verifier(settings, audiences, observe_until)
        others = [
            self._verifier(each, realm.audiences, observe_until, first=False)
            for each, realm in zip(documentation.others, check.realms[1:], strict=True)
        ]
        service = Service(
            client_id=settings.client_id,
            space=documentation.space,
            observer=self._observing or self.observer,
            observing=lambda: clock() < observe_until,
        )
        _look_at_returned(check)
        places = _watched(check)
        accepting = RealmsVerifier((verifier, *others), ready=options.ready) if others else verifier
        proving, certificates = options.proving, ClientCertificates.of(options.certificate_source)
        further = {each.issuer: replace(service, client_id=each.client_id) for each in documentation.others}
        service = replace(service, further=further)
        return CheckedApp(
            verifier=accepting,
            public=check.public,
            optional=check.optional,
            service=service,
            routes=_read_routes(self._middleware, check),
            places=places,
            bound=BoundApp(BoundTokens(accepting, proving, certificates), service.under_dpop())
            if proving.mode
            else None,
            certificates=certificates,
            schemes=BEARER_OR_DPOP if proving.mode else ONLY_BEARER,
            meant={found.nearest.path: found.entry.text for found in check.unanswered() if found.nearest is not None},
            resource=self._resource(check),
            root_path=own_root_path(router_below(self._app) or hidden_app(self._app)),
        )

    def _verifier(
        self, settings: "KeycloakSettings", audiences: frozenset[str], observe_until: float, *, first: bool = True
    ) -> Verifier:
        options = self.options
        realm = None if first else settings.name
        accepts = (
            require_service(realm=realm) | require_user(realm=realm) if options.users else require_service(realm=realm)
        )
        return Verifier(
            Checks.of(
                settings,
                audiences,
                accepts,
                first=first,
                max_lifetime=options.max_lifetime,
                dpop=options.proving.mode,
                certificate=options.certificate_source is not None,
            ),
            options.keys(settings),
            AcceptedTokens(options.cached_tokens),
            observe_until=observe_until,
            clock=options.clock,
        )

    def _with_late_routes(self, checked: CheckedApp, documentation: Documentation) -> CheckedApp:
        """Return an app whose routes changed after the start. A new route that would have stopped the start answers 500."""
        check = documentation.check
        names = {id(route.entry): route.name for route in check.access.routes}
        replaced = (
            FailingRoute(
                name, entry, f"{name}: its app was replaced by one that cannot be read, so nobody knows what it asks."
            )
            for entry in checked.routes.replaced()
            for name in [names.get(id(entry), str(getattr(entry, "path", "/")))]
        )
        failing = (*check.failing(), *replaced)
        for route in failing:
            if route.name not in checked.routes.failing:
                _log.error("%s was added or changed after the start and answers 500: %s", route.name, route.problem)
        self._warn(check.warnings())
        _look_at_returned(check)
        places = _watched(check)
        return replace(checked, routes=_read_routes(self._middleware, check, failing, checked.routes), places=places)

    def _warn(self, sentences: Iterable[str]) -> None:
        """Log each sentence once, also if routes come later."""
        for sentence in sentences:
            if sentence not in self._logged:
                self._logged.add(sentence)
                _log.warning("%s", sentence)

    def _warnings(self) -> Iterator[str]:
        options, log = self.options, self.observer
        if options.audit and options.observer is not None:
            yield (
                "audit=True writes nothing beside observer=, which is given the decisions instead of the logger s2s_fastapi.decisions: "
                "keep one of the two."
            )
        elif options.audit and isinstance(log, DecisionLog) and not log.writes_allowed:
            yield (
                "audit=True, but the logger s2s_fastapi.decisions is not enabled for INFO or has no handler for it, so no accepted call is "
                'written: logging.getLogger("s2s_fastapi.decisions").setLevel("INFO"), and logging.basicConfig() for a handler.'
            )
        yield from (said for level, said in options.proving.said if level == logging.WARNING)
        if options.insecure_skip_audience:
            yield "insecure_skip_audience is on: tokens meant for other services are accepted."
        if self._observing is not None:
            yield (
                f"insecure_observe_until is on: before {options.insecure_observe_until} 00:00 UTC tokens for other audiences, and callers "
                "without the required kind, name, scope or role, are accepted and only logged; the logger s2s_fastapi.observed names those "
                "that will be refused."
            )
        elif options.insecure_observe_until is not None:
            yield (
                f"insecure_observe_until is over since {options.insecure_observe_until} 00:00 UTC: everything is refused that should be. "
                "Remove the option."
            )
        layer: Any = self._app
        inside: list[Any] = []
        while layer is not None:
            inside += [type(layer), *(entry.cls for entry in added_middleware(layer))]
            layer = None if hasattr(layer, "routes") else getattr(layer, "app", None)
        if CORSMiddleware in inside:
            yield (
                "CORSMiddleware is inside ServiceAuthMiddleware, so preflight requests are refused: add it after "
                "ServiceAuthMiddleware (what is added last is outermost)."
            )


def _watched(check: AccessCheck) -> Places:
    """Return the places of all routers and guards, and let the routers compare the path of a public request again."""
    if not (check.public.entries or check.optional.entries):
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


def _look_at_returned(check: AccessCheck) -> None:
    entries = (route.entry for route in check.access.routes if route.name not in check.unchecked)
    look_at_returned(dependant for entry in entries if (dependant := getattr(entry, "dependant", None)) is not None)


def _read_routes(
    watch: Watch, check: AccessCheck, failing: Iterable[FailingRoute] = (), before: ReadRoutes | None = None
) -> ReadRoutes:
    return ReadRoutes(watch, check.access.holders, (route.entry for route in check.access.routes), failing, before)


def _check_ready(ready: Collection[str], realms: Sequence[RealmAccess]) -> None:
    known = [realm.name for realm in realms]
    if isinstance(ready, str) or not set(ready) <= set(known):
        raise ConfigurationError(
            f"ready= takes a list of names of this service's realms, without whose keys it is not ready (known: {listed(known)})."
        )


def _route_names(names: Collection[str]) -> frozenset[str]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError('insecure_unchecked takes a list of routes as the start check names them: ["GET /x"].')
    return frozenset(names)

"""An app that is guarded by our middleware, as it is in production: which middleware stands in front of which route."""

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

from starlette.applications import Starlette
from starlette.routing import Host, Mount, Router

from s2s_fastapi.decision import Reason
from s2s_fastapi.declared.routes import OWN_AUTHENTICATION, layers, read_access
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import added_middleware, later_routes, mounted_app, original_route, route_contexts
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware
from s2s_fastapi.testing.attack.asgi import BASE_URL, AsgiSender, Outgoing
from s2s_fastapi.testing.attack.ground import UNMARKED, AttackedRoute, Ground, unread_routes
from s2s_fastapi.testing.attack.permits import UNDECIDED, permits_of
from s2s_fastapi.testing.attack.realm import AttackedRealm, attacking_issuer
from s2s_fastapi.testing.attack.routes import FoundRoute, is_named, routes_of
from s2s_fastapi.testing.found import find
from s2s_fastapi.testing.marked_endpoints import Marker, marked_endpoints
from s2s_fastapi.testing.trust import Trusted, proof_url
from s2s_fastapi.testing.unread import unread_apps

__all__ = ["OwnApp", "places_below"]

_CONDITION: Final = (
    "Its condition (require_that) is not met by a made-up caller, and only the app can tell which caller meets it."
)
_OF_ANOTHER_REALM: Final = "Only callers of a further realm may call it, and the suite makes good tokens of the first realm alone. Access tests try it."


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnApp:
    """An app with `ServiceAuthMiddleware`. While it is attacked, it trusts an issuer of the suite.

    - ``client_id``: the client that the app is, unless its settings name one.
    - ``public``: routes that anybody may call on purpose and that stand in front of no middleware: ``"GET /health"`` or ``"/health"``.
    - ``base_url``: the scheme and the host of every request, for an app that insists on them.
    """

    app: Any = field(repr=False)
    client_id: str | None = None
    public: Collection[str] = ()
    base_url: str = BASE_URL

    @contextmanager
    def __call__(self, prepare: Callable[[AttackedRealm], None] | None = None) -> Iterator[Ground]:
        """Open the app: let it trust the issuer, start it, put markers in the place of its endpoints.

        Raises:
            ConfigurationError: There is no middleware of ours, or the app does not start.
        """
        issuer = attacking_issuer()
        realm = AttackedRealm(issuer)
        if prepare is not None:
            prepare(realm)
        with ExitStack() as stack:
            trusted = stack.enter_context(issuer.trusted_by(self.app, client_id=self.client_id))
            everything = find(self.app)
            found = everything.middlewares
            if not found:
                raise ConfigurationError(
                    "This app has no ServiceAuthMiddleware: pass the app that it was added to, or write a Target for another guard."
                )
            for middleware, owner in found:
                _start(middleware, owner, trusted)
            own_last = sorted(found, key=lambda each: id(each[0]) not in everything.below)
            owners = {id(owner): middleware for middleware, owner in own_last}
            routes: list[AttackedRoute] = []
            markers: list[Marker] = []
            places = tuple(places_below(self.app))
            unread = unread_routes(unread_apps(self.app, [read_access(place.app) for place in places]))
            for place in places:
                declared = tuple(routes_of(place.app, place.prefix, place.host))
                marker = stack.enter_context(marked_endpoints(place.app))
                markers.append(marker)
                unmarked = {id(route.entry) for route in marker.unmarked}
                guard = _Guard.of(_middleware_of(place.app, owners), place, trusted)
                routes += [
                    self._route(each, place, guard, unmarked=id(each.access.entry) in unmarked) for each in declared
                ]
            yield Ground(
                routes=(*routes, *unread),
                realm=realm,
                sender=stack.enter_context(AsgiSender(self.app, base_url=self.base_url)),
                public=next((route.sample.path for route in routes if route.public), "/docs"),
                now=issuer.time.now,
                turn=issuer.time.forward,
                reached=lambda: (
                    markers[0].reached if len(markers) == 1 else [each for marker in markers for each in marker.reached]
                ),
                decisions=trusted.decisions,
                own=True,
            )

    def _route(self, found: FoundRoute, place: "Place", guard: "_Guard", *, unmarked: bool) -> AttackedRoute:
        permits = permits_of(
            found.access.requirement,
            audiences=guard.audiences,
            client_id=guard.client_id,
            users=guard.users,
            realm=guard.realm,
            bound=guard.dpop == "required",
        )
        refused = permits.refused(permits.claims)
        untried = _CONDITION if refused in UNDECIDED else _OF_ANOTHER_REALM if refused == Reason.OTHER_REALM else ""
        public = is_named(found, self.public)
        return AttackedRoute(
            method=found.method,
            path=found.path,
            host=found.host,
            sample=found.sample,
            permits=permits,
            guard=guard.name,
            further=guard.further,
            leeway=guard.leeway,
            public=public or guard.opens(found.method, found.sample.path.removeprefix(place.prefix)),
            anonymous=guard.opens_without_credentials(found.method, found.sample.path.removeprefix(place.prefix)),
            left_out=UNMARKED if unmarked else untried,
            dpop=guard.dpop,
            proof_url=guard.proof_url,
            entry=found.access.entry,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guard:
    """What stands in front of an app: a middleware of ours, or nothing."""

    audiences: frozenset[str]
    client_id: str
    name: str = ""
    users: bool = False
    realm: str = ""
    """What requirements call the first realm."""
    further: str = ""
    """A further realm of the test issuer, if there is one."""
    leeway: float = 30.0
    dpop: Literal["", "accepted", "required"] = ""
    proof_url: Callable[[str], str] = str
    opens: Callable[[str, str], bool] = lambda _method, _path: False
    opens_without_credentials: Callable[[str, str], bool] = lambda _method, _path: False

    @classmethod
    def of(cls, middleware: ServiceAuthMiddleware | None, place: "Place", trusted: Trusted) -> "_Guard":
        app = place.app
        if middleware is None:
            return cls(audiences=trusted.audiences, client_id=trusted.client_id)
        documentation = middleware.documentation(app)  # reads all routes, so it is asked once
        check = documentation.check
        first, *others = trusted.realms_of(middleware)
        return cls(
            audiences=first.audiences,
            client_id=check.client_id,
            name=str(id(middleware)),
            users=check.users,
            realm=check.realms[0].name,
            further=others[0].realm if others else "",
            leeway=documentation.settings.leeway,
            dpop=(proving := middleware._start.options.proving).mode,  # noqa: SLF001 - what the app was given
            proof_url=partial(proof_url, public_urls=proving.urls, root_path=place.prefix) if proving.mode else str,
            opens=check.public.open,
            opens_without_credentials=check.optional.open,
        )


def _start(middleware: ServiceAuthMiddleware, owner: Any, trusted: Trusted) -> None:
    """Let a middleware read its app, as a first request does; the request is refused, and no code of the app runs.

    Raises:
        ConfigurationError: The app does not start.
    """
    before = len(trusted.decisions)
    with AsgiSender(middleware, owner) as sender:
        sender.send(Outgoing(method="GET", path="/", headers=(("authorization", "Bearer nothing"),)))
    if middleware.problem:
        raise ConfigurationError(middleware.problem)
    del trusted.decisions[before:]


@dataclass(frozen=True, slots=True)
class Place:
    """An app whose routes are read together, and the path and the host in front of them."""

    app: Any
    prefix: str = ""
    host: str = ""


def places_below(app: Any, prefix: str = "", host: str = "") -> Iterator[Place]:
    """Yield the app, and each app below it that has a middleware of its own."""
    yield Place(app, prefix, host)
    yield from _below(app, prefix, host)


def _below(app: Any, prefix: str, host: str) -> Iterator[Place]:
    for layer in layers(app):
        router = getattr(layer, "router", layer) if isinstance(layer, Starlette) else layer
        if not isinstance(router, Router):
            continue
        for entry in (*router.routes, *later_routes(router)):
            for context in route_contexts(entry):
                original = original_route(context)
                if not isinstance(original, Mount | Host):
                    continue
                at = original.host if isinstance(original, Host) else host
                path = f"{prefix}{getattr(context, 'path', '') or ''}"
                mounted = mounted_app(context)
                inner = context.app if mounted is None or _authenticates(context.app) else mounted
                yield from places_below(inner, path, at) if _authenticates(inner) else _below(inner, path, at)
        return


def _authenticates(app: Any) -> bool:
    return any(
        getattr(each, OWN_AUTHENTICATION, False)
        for layer in layers(app)
        for each in (layer, *(entry.cls for entry in added_middleware(layer)), *_stack(layer))
    )


def _stack(layer: Any) -> Iterator[Any]:
    """Yield the middleware that a router, or the router of an app, was made with."""
    router = getattr(layer, "router", layer)
    return layers(router.middleware_stack) if isinstance(router, Router) else iter(())


def _middleware_of(app: Any, owners: dict[int, ServiceAuthMiddleware]) -> ServiceAuthMiddleware | None:
    """Return the middleware around an app, or the one that was added to it. ``owners`` has the latter, by the identity of the app."""
    for layer in layers(app):
        if isinstance(layer, ServiceAuthMiddleware):
            return layer
        if id(layer) in owners:
            return owners[id(layer)]
        for each in _stack(layer):
            if isinstance(each, ServiceAuthMiddleware):
                return each
    return None

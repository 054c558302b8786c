"""An app that is guarded by something else than our middleware: how it comes to trust the realm of the attack, and who may call it."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from s2s_fastapi.declared.routes import read_access
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.asgi import BASE_URL, AsgiSender
from s2s_fastapi.testing.attack.ground import UNMARKED, AttackedRoute, Ground, Permits, unread_routes
from s2s_fastapi.testing.attack.prover import binding
from s2s_fastapi.testing.attack.realm import REALM, AttackedRealm, attacking_issuer, foreign_keys
from s2s_fastapi.testing.attack.routes import FoundRoute, is_named, routes_of
from s2s_fastapi.testing.marked_endpoints import marked_endpoints
from s2s_fastapi.testing.unread import unread_apps

__all__ = ["Target", "TrustedIssuer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """What an app needs to trust the realm of the attack. The addresses are served on this machine while the app is attacked."""

    url: str
    """The address of the server, as a Keycloak's."""
    realm: str
    issuer: str
    """The claim ``iss``."""
    jwks_url: str
    clock: Callable[[], float] = field(repr=False)
    """The time of the attack, in seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An app guarded by something else: a hand-written guard, or another package.

    - ``make``: makes the app so that it trusts the given issuer. It is called several times, and each app must be new. Its lifespan runs.
    - ``audience``: what the app accepts in ``aud``.
    - ``callers``: the client ids that may call, for all routes or by route: ``{"GET /x": ["billing"]}``. Empty: any service may.
    - ``users``: whether users may call.
    - ``public``: the routes that anybody may call: ``"GET /health"``, or ``"/health"`` for GET and HEAD.
    - ``claims``: further claims of a good token, for example roles.
    - ``turns_clock``: whether the app reads its time from `TrustedIssuer.clock` alone. Otherwise no case that needs time is tried.
    - ``run_dependencies``: whether dependencies of FastAPI run. They must if one of them is the guard.
    - ``base_url``: the scheme and the host of every request, for an app that insists on them.
    - ``dpop``: whether the app accepts tokens that are bound to a key (RFC 9449), beside bearer tokens (``"accepted"``) or alone (``"required"``).
    - ``public_url``: the URL at which callers reach the app: proofs name it in ``htu``. The default is ``base_url``.
    """

    make: Callable[[TrustedIssuer], Any] = field(repr=False)
    audience: str
    callers: Collection[str] | Mapping[str, Collection[str]] = ()
    users: bool = False
    public: Collection[str] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    turns_clock: bool = False
    run_dependencies: bool = True
    base_url: str = BASE_URL
    dpop: Literal["accepted", "required"] | None = None
    public_url: str = ""

    @contextmanager
    def __call__(self, prepare: Callable[[AttackedRealm], None] | None = None) -> Iterator[Ground]:
        """Open the app: serve the issuer, make the app, put markers in the place of its endpoints.

        Raises:
            ConfigurationError: The app has no route.
        """
        issuer = attacking_issuer()
        with ExitStack() as stack:
            stack.enter_context(issuer.serving())
            realm = AttackedRealm(issuer, jwks_foreign=stack.enter_context(foreign_keys()))
            if prepare is not None:
                prepare(realm)
            app = self.make(
                TrustedIssuer(
                    url=issuer.url,
                    realm=REALM,
                    issuer=realm.issuer,
                    jwks_url=f"{realm.issuer}/protocol/openid-connect/certs",
                    clock=issuer.time.now,
                )
            )
            found = tuple(routes_of(app))
            if not found:
                raise ConfigurationError(
                    "This app has no route to attack: `make` must return the app with all its routes."
                )
            unread = unread_routes(unread_apps(app, [read_access(app)]))
            marker = stack.enter_context(marked_endpoints(app, run_dependencies=self.run_dependencies))
            unmarked = {id(route.entry) for route in marker.unmarked}
            yield Ground(
                routes=(*(self._route(each, unmarked=id(each.access.entry) in unmarked) for each in found), *unread),
                realm=realm,
                sender=stack.enter_context(AsgiSender(app, lifespan=True, base_url=self.base_url)),
                public=next((path.split()[-1] for path in self.public), "/health"),
                now=issuer.time.now,
                turn=issuer.time.forward if self.turns_clock else None,
                reached=lambda: marker.reached,
                own=False,
            )

    def _route(self, found: FoundRoute, *, unmarked: bool) -> AttackedRoute:
        name = f"{found.method} {found.path}"
        callers = self.callers.get(name, ()) if isinstance(self.callers, Mapping) else self.callers
        client_id = min(callers, default="calling-service")
        bound = binding() if self.dpop == "required" else {}
        return AttackedRoute(
            method=found.method,
            path=found.path,
            host=found.host,
            sample=found.sample,
            permits=Permits(
                claims={**self.claims, "azp": client_id, "client_id": client_id, "aud": self.audience, **bound},
                refused=lambda claims: self._refused(claims, callers),
            ),
            public=is_named(found, self.public),
            left_out=UNMARKED if unmarked else "",
            dpop=self.dpop or "",
            proof_url=lambda path: f"{(self.public_url or self.base_url).rstrip('/')}{path}",
            entry=found.access.entry,
        )

    def _refused(self, claims: Mapping[str, Any], callers: Collection[str]) -> str:
        if "sid" in claims and not self.users:
            return "not_a_service"
        return "caller_not_allowed" if callers and claims.get("azp") not in callers else ""

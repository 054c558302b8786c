"""What is known of a service and its Keycloak, before it makes a call. Each thing is read or asked for once."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.backchannel.channel import BackChannel, BackChannelError, Reply
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.granted import GrantedToken, claims_of
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.declared.asked import leaves_of
from s2s_fastapi.declared.routes import Access, read_access
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.environment import settings_or_environment
from s2s_fastapi.errors import ConfigurationError, S2SError
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.operations.admin import AdminApi
from s2s_fastapi.operations.applications import FunctionNamed, documentation_of, imported
from s2s_fastapi.operations.declarations import audiences_of
from s2s_fastapi.operations.inspection import Inspection, inspected
from s2s_fastapi.operations.plan_hint import plan_command
from s2s_fastapi.operations.tokens import TIMEOUT, requested
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.verifier.jwks import KeySet

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.declared.openapi import Documentation
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Answer", "Facts"]

_OK = 200
_MOST_SECONDS: Final = 60.0
"""For all tokens together."""
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a URL answered, or why there is no answer."""

    url: str
    reply: Reply | None
    problem: str
    at: float
    """The moment in the middle of the exchange, in seconds since the epoch."""

    @property
    def unreadable(self) -> str:
        """Why an answer with status 200 is no JSON object; empty if it is one."""
        try:
            if self.reply is not None and self.reply.status == _OK:
                self.reply.json_object()
        except BackChannelError as error:
            return str(error)
        return ""

    @property
    def content(self) -> Mapping[str, Any]:
        """The JSON object of an answer with status 200; empty if it is none."""
        if self.reply is None or self.reply.status != _OK or self.unreadable:
            return {}
        return self.reply.json_object()


class Facts:
    """One service as its environment describes it.

    - `app` names the app, ``module:app``, if it shall be read.
    - `apps` are what access files say; one of them may be this service. `files` are their names.
    - `admin` is the client that reads the realm, if somebody may; `admin_problem` says why there is none although it was asked for.
    - `admin_required` makes that a problem.
    - `settings` replaces the environment.
    - `clock` returns the seconds since the epoch, `monotonic` seconds that only grow.
    """

    def __init__(
        self,
        *,
        app: str = "",
        apps: Iterable[AppAccess] = (),
        files: Iterable[str] = (),
        admin: AdminApi | None = None,
        admin_problem: str = "",
        admin_required: bool = False,
        settings: "KeycloakSettings | None" = None,
        environment: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.environment = environment
        self.clock = clock
        self.apps = tuple(apps)
        self.files = tuple(files)
        self.admin = admin
        self.admin_problem = admin_problem
        self.admin_required = admin_required
        self._app = app
        self._settings = settings
        self._tokens: dict[tuple[Wanted, bool], GrantedToken | S2SError] = {}
        self.monotonic = monotonic
        self.own_token_at = 0.0
        """The moment in the middle of the request for the first token, in seconds since the epoch."""
        self._waited = 0.0

    # What is declared

    @property
    def app_name(self) -> str:
        """The app, as it was named; empty if none was."""
        return self._app

    @cached_property
    def _declared(self) -> "tuple[Any, Documentation | None, str]":
        """The app, what its middleware enforces, and why it cannot be imported or would not start."""
        if not self._app:
            return None, None, ""
        app = None
        try:
            app = imported(self._app, self.environment)
            return app, documentation_of(app), ""
        except FunctionNamed:
            raise
        except ConfigurationError as error:
            return app, None, str(error)

    @property
    def documentation(self) -> "Documentation | None":
        """What the app's middleware enforces; None if there is no app or no middleware, or the app would not start."""
        return self._declared[1]

    @property
    def start_problem(self) -> str:
        """Why the app cannot be imported or would not start; empty if it would.

        Raises:
            ConfigurationError: A function was named, and not an app.
        """
        return self._declared[2]

    @cached_property
    def access(self) -> Access | None:
        """What the app declares; None if there is no app, or it cannot be imported."""
        app, documentation, _ = self._declared
        if app is None:
            return None
        return read_access(app) if documentation is None else documentation.check.access

    @cached_property
    def downstreams(self) -> tuple[Downstream, ...]:
        """Whom this service calls as the client of its settings: as the app says, or else the access files.

        Raises:
            ConfigurationError: A base URL is a function, and it failed.
        """
        return tuple(each for each in self._calls if each.is_of(self.settings.client_id, self.settings.issuer))

    @cached_property
    def calls_of_others(self) -> tuple[Downstream, ...]:
        """Whom the app calls with settings of another realm or client.

        Raises:
            ConfigurationError: as `downstreams`.
        """
        return tuple(each for each in self._calls if not each.is_of(self.settings.client_id, self.settings.issuer))

    @cached_property
    def _calls(self) -> tuple[Downstream, ...]:
        if self.access is None:
            return tuple(
                Downstream(
                    origins=each.origins,
                    audiences=frozenset(each.audiences),
                    scopes=frozenset(each.scopes),
                    on_behalf=each.on_behalf,
                    dpop=each.dpop,
                )
                for app in self.own_apps
                for each in app.calls
            )
        try:
            return tuple(
                sorted(
                    self.access.downstreams,
                    key=lambda each: (
                        sorted(each.audiences),
                        sorted(each.scopes),
                        each.on_behalf,
                        each.dpop,
                        (each.settings.issuer, each.settings.client_id) if each.settings is not None else ("", ""),
                    ),
                )
            )
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - the function is the app's own
            problem = type(error).__name__
        raise ConfigurationError(f"A base URL is a function, and it failed with {problem}.")

    @property
    def own_apps(self) -> tuple[AppAccess, ...]:
        """What the access files say of this service."""
        return tuple(app for app in self.apps if app.client_id == self.settings.client_id)

    @property
    def front_ends(self) -> tuple[str, ...]:
        """The other clients that a route of this service names in ``require_user``: users call it through them."""
        routes = self.access.routes if self.access is not None else ()
        required = [
            *(route.requirement for route in routes),
            *(route.requires for app in self.own_apps for route in app.routes),
        ]
        users = (
            leaf for one in required for leaf in leaves_of(one) if isinstance(leaf, Caller) and leaf.kind == "user"
        )
        return tuple(sorted({name for leaf in users for name in leaf.client_ids} - {self.settings.client_id}))

    @property
    def binding_mode(self) -> str:
        """Whether this service itself accepts or requires bound tokens, as its middleware's option says; empty if it refuses them."""
        if self.documentation is not None:
            return self.documentation.check.dpop
        return next((app.dpop for app in self.own_apps), "")

    def receivers(self, audience: str) -> tuple[AppAccess, ...]:
        """Return the apps of the access files that answer to an audience."""
        return tuple(
            app for app in self.apps if app.requires is not None and audience in (app.client_id, *audiences_of(app))
        )

    def plan(self, audience: str = "") -> str:
        """Return the command that plans what this service declares, with its access file and that of the called service.

        ``audience`` is that of one call; without it, all calls count. A file that was not given has the name of its client.
        """
        called = {audience} if audience else {name for each in self.downstreams for name in each.audiences}
        lacking = ["" if self.own_apps else self.settings.client_id]
        lacking += sorted(name for name in called if not self.receivers(name))
        return plan_command(*self.files, *(_file_of(name) for name in lacking if name))

    @cached_property
    def planned(self) -> tuple[AppAccess, ...]:
        """The apps for which there is a plan; none unless the files of this service and of all services that it calls are given.

        Without them a caller would grant itself what it declares.
        """
        called = {name for app in self.own_apps for each in app.calls for name in each.audiences}
        whole = bool(self.own_apps) and all(map(self.receivers, called))
        return tuple(app.within(self.settings.issuer) for app in self.apps) if whole else ()

    @cached_property
    def inspection(self) -> Inspection | str:
        """What an administrator sees of this service in its realm, or why that is not known."""
        if self.admin is None:
            return self.admin_problem
        try:
            return inspected(
                self.admin,
                self.settings.client_id,
                self.downstreams,
                apps=self.planned,
                front_ends=self.front_ends,
                realm=self.admin.target.realm,
                reader=self.admin.target.login.client_id,
            )
        except S2SError as error:
            return str(error)

    @cached_property
    def settings(self) -> "KeycloakSettings":
        """The settings of this service.

        - Those that the app's code gives to its middleware.
        - If it has none, and code gives each call its settings: those of the first call. The app reads no environment.
        - Else those of the environment.

        Raises:
            ConfigurationError: They are incomplete or contradict each other.
        """
        if self._settings is not None or not self._app or self.start_problem:
            return settings_or_environment(self._settings)
        if self.documentation is not None:
            return self.documentation.settings
        try:
            given = [each.settings for each in self._calls]
        except ConfigurationError:  # said by the check of the app
            given = []
        return settings_or_environment(given[0] if all(given) and given else None)

    def beside(self, settings: "KeycloakSettings") -> "Facts":
        """Return the facts of other settings of this app."""
        return Facts(settings=settings, environment=self.environment, clock=self.clock, monotonic=self.monotonic)

    # What Keycloak answers

    @cached_property
    def _channel(self) -> BackChannel:
        return BackChannel(
            ca_file=self.settings.ca_file,
            proxy=self.settings.proxy,
            certificate=ClientCertificate.of(self.settings),
            timeout=TIMEOUT,
        )

    def answer(self, url: str) -> Answer:
        """Return the answer of a public page of the realm."""
        began = self.clock()
        try:
            reply, problem = self._channel.get(url), ""
        except (BackChannelError, ConfigurationError) as error:  # the latter: KEYCLOAK_CA_FILE cannot be read
            reply, problem = None, self.settings.worded(str(error))
        return Answer(url, reply, problem, (began + self.clock()) / 2)

    @property
    def endpoints(self) -> Endpoints:
        """The URLs of the realm."""
        return Endpoints.of(self.settings)

    @cached_property
    def certs(self) -> Answer:
        """The answer of the page with the realm's keys."""
        return self.answer(self.endpoints.jwks)

    @cached_property
    def realm_page(self) -> Answer:
        """The answer of the realm's public page."""
        return self.answer(self.endpoints.realm)

    @cached_property
    def discovery(self) -> Answer:
        """The answer of the realm's discovery document."""
        return self.answer(f"{self.endpoints.realm}/.well-known/openid-configuration")

    @cached_property
    def keys(self) -> KeySet:
        """The published keys."""
        return KeySet.read(self.certs.content)

    @cached_property
    def binds(self) -> bool:
        """Whether this service requests bound tokens only: as its declared calls say, or else its settings."""
        try:
            calls = self.downstreams
        except ConfigurationError:  # said by another check
            calls = ()
        return all(each.dpop for each in calls) if calls else self.settings.dpop

    def token(self, wanted: Wanted, *, dpop: bool | None = None) -> GrantedToken | S2SError:
        """Return a token, or why there is none. It is requested once. With `dpop` it is bound; None: as this service requests its tokens."""
        asked = wanted, self.binds if dpop is None else dpop
        if asked not in self._tokens:
            began, wall = self.monotonic(), self.clock()
            if self._waited > _MOST_SECONDS:
                self._tokens[asked] = ConfigurationError(
                    f"The token was not requested: Keycloak took more than {_MOST_SECONDS:g} s for those before. Look at its load and at the"
                    " way to it."
                )
            else:
                self._tokens[asked] = requested(self.settings, wanted, dpop=asked[1])
            self._waited += self.monotonic() - began
            self.own_token_at = self.own_token_at or (wall + self.clock()) / 2
        return self._tokens[asked]

    @property
    def own_token(self) -> GrantedToken:
        """The token without any audience or scope. Only for checks that come after the check of the credentials."""
        found = self.token(Wanted())
        if isinstance(found, S2SError):
            raise found
        return found

    @cached_property
    def own_claims(self) -> Mapping[str, Any]:
        """The claims of that token; empty if it cannot be read."""
        return claims_of(self.own_token.value) or {}

    @property
    def only_for_users(self) -> bool:
        """Whether every declared call is on behalf of a user. Then the client needs no token of its own, and so no service account."""
        return bool(self.downstreams) and all(each.on_behalf for each in self.downstreams)

    @cached_property
    def declares_no_call(self) -> bool:
        """Whether the app, or the access file of this service, was read and declares no call. Its code may make one all the same."""
        known = not self.start_problem if self._app else bool(self.own_apps)
        try:
            return known and not self.downstreams
        except ConfigurationError:  # it calls somebody: another check says why that is not known
            return False

    @property
    def gets_token(self) -> bool:
        """Whether Keycloak gives this service a token of its own."""
        return self.proves_itself and not isinstance(self.token(Wanted()), S2SError)

    @property
    def proves_itself(self) -> bool:
        """Whether this service has something that proves who it is."""
        settings = self.settings
        proofs = (settings.client_secret, settings.client_secret_file, settings.client_key_file)
        return any((*proofs, settings.client_assertion_file)) or settings.client_auth == "tls_client_auth"


def _file_of(name: str) -> str:
    """Return what the access file of a service may be called; "" if its name is no name of a file."""
    return f"{name}.json" if _PLAIN.fullmatch(name) else ""

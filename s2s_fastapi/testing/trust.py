"""An app as it is in production, which trusts an embedded issuer for the time of a block."""

import inspect
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from s2s_fastapi.answers import ProtectionSpace
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedToken
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.caller.shared_token import DEADLINE, SharedToken
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.decision import Decision
from s2s_fastapi.declared.openapi import Documentation
from s2s_fastapi.declared.public_paths import PublicPaths
from s2s_fastapi.declared.routes import read_access, router_below
from s2s_fastapi.declared.start_check import AccessCheck
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import DOCUMENT, hidden_app, own_root_path
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.names import audience_names
from s2s_fastapi.proof.replay import InProcessReplayStore
from s2s_fastapi.receiver.middleware import ServiceAuthMiddleware
from s2s_fastapi.receiver.start import CheckedApp, Options, Start
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import DecisionLog, Observer
from s2s_fastapi.testing import calling
from s2s_fastapi.testing.calling import CallingLayer
from s2s_fastapi.testing.client_certificates import first_certificate
from s2s_fastapi.testing.clock import IssuerTime
from s2s_fastapi.testing.decisions import SENDING, Recorder
from s2s_fastapi.testing.found import Found, find
from s2s_fastapi.testing.served import from_elsewhere, refuse_served
from s2s_fastapi.testing.swapping import Swap, original, present, swapping
from s2s_fastapi.verifier.accepted_tokens import AcceptedTokens
from s2s_fastapi.verifier.bound import BoundTokens, DpopOptions
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.client_certificate import ClientCertificates
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.public_url import PublicUrls
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["MADE_UP", "Trusted", "TrustedIssuer", "TrustedRealm", "proof_url", "trusting"]

_log: Final = logging.getLogger("s2s_fastapi.testing")
_TIMEOUT: Final = 3.0
_OWN_FILES: Final = {"private_key_jwt": ("client_key_file",), "federated_jwt": ("client_assertion_file",)}
"""By what an app proves itself also to the test issuer: its own key, and its own token of an identity provider."""
MADE_UP: Final = "service-under-test"
"""The client of an app that does not say which one it is."""


class TrustedIssuer(Protocol):
    """What an issuer is to those who trust it."""

    time: IssuerTime

    def transport(self, *, certificate: bytes = b"") -> httpx.BaseTransport:
        """Return what takes requests to it, over a connection with this client certificate (PEM)."""

    def place(
        self, realm: str, settings: KeycloakSettings | None = None, *, further: bool = False
    ) -> Mapping[str, str]:
        """Return ``url``, ``auth_path``, ``realm`` and ``issuer``, as settings name them. An empty name is the only realm.

        ``settings`` are those of the app for the realm. ``further``: the app has another realm, which comes first.
        """

    def realm_of(self, issuer: str) -> str:
        """Return the name of the realm with this ``iss``; empty if there is none."""

    def credentials(self, realm: str, client_id: str) -> Mapping[str, str]:
        """Return the credentials of a client, as settings name them."""

    def needs(self, realm: str, client_id: str) -> None:
        """Raise a ConfigurationError if the realm file has no such client."""

    def asked(self, realm: str, client_id: str, wanted: Wanted) -> None:
        """Note that a client will ask for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedRealm:
    """A realm of the issuer, in the place of one that an app accepts tokens of."""

    realm: str
    """Its name in the issuer."""
    client_id: str
    """The client that the app is there."""
    audiences: frozenset[str]
    """What the app accepts in ``aud`` of its tokens; empty if that is not looked at."""


class Trusted:
    """The apps that trust an issuer inside one block."""

    def __init__(
        self,
        issuer: TrustedIssuer,
        name: str,
        found: Found,
        *,
        client_id: str | None,
        audience: frozenset[str],
        realm: str,
    ) -> None:
        self.issuer = issuer
        self.name = name
        """The name of the app."""
        self.client_id = client_id or ""
        """The client that the app is, unless its settings name one."""
        self.decisions: list[Decision] = []
        """The decisions inside of the block, in their order."""
        self.realm = realm
        """Its realm, if the issuer has several."""
        self._found = found
        self._audience = audience
        self._is_named = bool(client_id)
        self._open = False
        self.realms: dict[str, str] = {}
        """The realms of the issuer by the name that an app of several realms gives them, and by the issuer that they stand for."""
        self._accepted: dict[int, tuple[TrustedRealm, ...]] = {}
        self._further: frozenset[str] = frozenset()
        self._workers = Workers("test keys"), Workers("test tokens")
        self._proofs = InProcessReplayStore()  # by the real clocks: a test may turn its own ones back
        self._logs: list[DecisionLog] = []
        self._caller = calling.CallingApp(name, tuple(map(id, found.outermost)) or id(self), self._source())

    def __repr__(self) -> str:
        return f"Trusted({self.name}, client_id={self.client_id!r}, audiences={sorted(self.audiences)})"

    @property
    def middlewares(self) -> tuple[ServiceAuthMiddleware, ...]:
        """The middlewares that were found."""
        return tuple(middleware for middleware, _ in self._found.middlewares)

    @property
    def verifiers(self) -> tuple[TokenVerifier, ...]:
        """The verifiers that were given."""
        return self._found.verifiers

    @property
    def audiences(self) -> frozenset[str]:
        """The audiences that the middlewares and verifiers accept; empty if they accept every token, or if there are none."""
        return frozenset(name for realm in self._every_realm for name in realm.audiences)

    @property
    def _every_realm(self) -> list[TrustedRealm]:
        return [realm for realms in self._accepted.values() for realm in realms]

    @property
    def receivers(self) -> tuple[ServiceAuthMiddleware | TokenVerifier, ...]:
        """Both of them."""
        return (*self.middlewares, *self.verifiers)

    def accepted_by(self, receiver: ServiceAuthMiddleware | TokenVerifier) -> frozenset[str]:
        """Return the audiences that one of them accepts."""
        return frozenset(name for realm in self.realms_of(receiver) for name in realm.audiences)

    def realms_of(self, receiver: ServiceAuthMiddleware | TokenVerifier) -> tuple[TrustedRealm, ...]:
        """Return the realms whose tokens one of them accepts, the first one first."""
        return self._accepted[id(receiver)]

    def public_url_of(self, url: str) -> str:
        """Return the URL that the proof of a request must name (``htu``): below the app's public URL, whatever the test client calls.

        ``url`` may be a path of the app. If the app accepts no bound tokens, the URL stays as it is.
        """
        for middleware, owner in self._found.middlewares:
            options = middleware._start.options.proving  # noqa: SLF001 - what the app was given
            if options.mode:
                below = router_below(middleware.app) or hidden_app(middleware.app) if owner is None else owner
                return proof_url(url, options.urls, root_path=own_root_path(below))
        for verifier in self._found.verifiers:
            options = verifier._dpop  # noqa: SLF001 - what it was given
            if options.mode:
                return proof_url(url, options.urls)
        return url

    def audiences_in(self, realm: str) -> frozenset[str]:
        """Return the audiences that the middlewares and verifiers accept in tokens of one realm."""
        return frozenset(name for each in self._every_realm if each.realm == realm for name in each.audiences)

    def client_in(self, realm: str) -> str:
        """Return the client that the app is in one realm."""
        further = (each.client_id for realms in self._accepted.values() for each in realms[1:] if each.realm == realm)
        return next(further, self.client_id)

    def reset(self) -> None:
        """Forget tokens, keys and failures, and the decisions so far. The next request starts the apps anew.

        Raises:
            ConfigurationError: The block has ended: nothing may trust the issuer any more.
        """
        with swapping:
            self._reset()

    def _reset(self) -> None:
        if not self._open:
            raise ConfigurationError(
                f"The block in which {self.name} trusted the test issuer has ended: reset it inside."
            )
        self.decisions.clear()
        self._proofs = InProcessReplayStore()
        self._caller.source = self._source()
        for middleware, _ in self._found.middlewares:
            options = middleware._start.options  # noqa: SLF001 - its whole state
            options = replace(options, replay_store=self._proofs if options.dpop else None)
            middleware._start = self._start(middleware, options)  # noqa: SLF001 - its whole state
        for verifier in self._found.verifiers:
            vars(verifier).update(self._verifier(verifier))

    def begin(self, stack: ExitStack) -> None:
        """Swap everything. `stack` brings it back.

        Raises:
            ConfigurationError: An app trusts another issuer at the moment, or a setting is wrong.
        """
        self._open = True
        stack.callback(self._end)
        declared = {id(middleware): _declared(middleware, owner) for middleware, owner in self._found.middlewares}
        every = frozenset[str]().union(*declared.values())
        if not self.client_id:
            self.client_id = next(iter(every)) if len(every) == 1 else MADE_UP
        for app, layers in self._found.stacks:
            layers = layers.app if isinstance(layers, CallingLayer) else layers  # noqa: PLW2901 - of a block around this one
            if app in self._found.outermost:
                layers = CallingLayer(layers, self._caller)  # noqa: PLW2901 - see above
            document = present(app, DOCUMENT) if isinstance(app, FastAPI) else {}
            _swap(stack, Swap(app, {**document, "middleware_stack": layers}, self.issuer))
        for middleware, _ in self._found.middlewares:
            options = self._options(middleware, declared[id(middleware)])
            attributes = {
                "_start": self._start(middleware, options),
                "_clock": options.clock,
                "_authenticate": _here_only(middleware),
            }
            _swap(stack, Swap(middleware, attributes, self.issuer))
        for verifier in self._found.verifiers:
            _swap(stack, Swap(verifier, self._verifier(verifier), self.issuer))
        calling.begin(self._caller)
        stack.callback(calling.end, self._caller)
        stack.callback(self._flush)

    def _options(self, middleware: ServiceAuthMiddleware, declared: frozenset[str]) -> Options:
        options: Options = original(middleware)["_start"].options
        given = options.settings
        named = options.audiences
        settings = self._all_settings(given, frozenset() if named or self._is_named else declared)
        skips = options.insecure_skip_audience
        self._accepted[id(middleware)] = self._realms_of(settings, named, skips=skips)
        return replace(
            options,
            settings=_as_given(settings),
            keys=self._keys,
            clock=self.issuer.time.now,
            replay_store=self._proofs if options.dpop else None,
        )

    def _start(self, middleware: ServiceAuthMiddleware, options: Options) -> Start:
        start = _Start(middleware, middleware.app, options)
        start.observer = self._recorder(start.observer)
        return start

    def _verifier(self, verifier: TokenVerifier) -> Mapping[str, Any]:
        """Return the attributes of a verifier that was made of the settings for this block."""
        before = original(verifier)
        settings = self._all_settings(before["_given"], frozenset())
        skips = before["_skip_audience"]
        named: frozenset[str] = before["_audience"]
        self._accepted[id(verifier)] = self._realms_of(settings, named, skips=skips)
        other = TokenVerifier(
            _as_given(settings),
            audience=before["_audience"] or None,
            cached_tokens=before["_cached_tokens"],
            max_lifetime=before["_max_lifetime"],
            insecure_skip_audience=skips,
            clock=self.issuer.time.now,
        )
        realms = tuple(
            Verifier(
                Checks.of(
                    each,
                    frozenset() if skips else named or each.audiences,
                    first=each is settings[0],
                    max_lifetime=before["_max_lifetime"],
                    dpop=before["_dpop"].mode,
                    certificate=before["_certificate_source"] is not None,
                ),
                self._keys(each),
                AcceptedTokens(before["_cached_tokens"]),
                clock=self.issuer.time.now,
            )
            for each in settings
        )
        made = RealmsVerifier(realms) if len(realms) > 1 else realms[0]
        dpop: DpopOptions = before["_dpop"]
        dpop = replace(dpop, store=self._proofs) if dpop.mode else dpop
        certificates = ClientCertificates.of(before["_certificate_source"])
        return {
            **vars(other),
            "_verifier": made,
            "_dpop": dpop,
            "_bound": BoundTokens(made, dpop, certificates) if dpop.mode else None,
            "_certificates": certificates,
            "_client_ids": {each.issuer: each.client_id for each in settings},
            "_protects": dpop.placed(ProtectionSpace(settings[0].client_id or settings[0].realm)),
            "_log": self._recorder(DecisionLog()),
        }

    def _end(self) -> None:
        with swapping:
            self._open = False

    def _flush(self) -> None:
        for log in self._logs:
            log.flush()

    def _recorder(self, observer: Observer) -> Recorder:
        if isinstance(observer, DecisionLog):
            self._logs.append(observer)
        return Recorder(observer, self.decisions, self)

    def _keys(self, settings: KeycloakSettings) -> KeySource:
        return KeySource(
            Endpoints.of(settings),
            BackChannel(transport=self.issuer.transport, timeout=_TIMEOUT),
            issuer=settings.issuer,
            worded=settings.worded,
            clock=self.issuer.time.monotonic,
            spacing=0.0,  # otherwise an unknown key would wait 5 s for the next fetch
            workers=self._workers[0],
        )

    def _source(self) -> TokenSource:
        return _Source(
            self._asked,
            channel=lambda settings: BackChannel(transport=partial(self._transport, settings), timeout=DEADLINE),
            settings=self._of_caller,
            workers=lambda _: self._workers[1],
            exchange_workers=lambda _: self._workers[1],
            clock=self.issuer.time.monotonic,
            wall=self.issuer.time.now,
        )

    def _transport(self, settings: KeycloakSettings) -> httpx.BaseTransport:
        """Return what takes the requests of a calling app to the issuer, with the client certificate that its settings name."""
        file = settings.client_cert_file
        return self.issuer.transport(certificate=first_certificate(file) if file is not None else b"")

    def _asked(self, settings: KeycloakSettings, wanted: Wanted) -> None:
        self.issuer.asked(self.issuer.realm_of(settings.issuer), settings.client_id, wanted)

    def _of_caller(self, given: KeycloakSettings | None) -> KeycloakSettings:
        return self._settings(given, frozenset(), calls=True)

    def _all_settings(
        self, given: KeycloakSettings | Sequence[KeycloakSettings] | None, declared: frozenset[str]
    ) -> tuple[KeycloakSettings, ...]:
        """Return settings for the issuer, in the place of those of each realm.

        Raises:
            ConfigurationError: The app accepts tokens of several realms, and the issuer has not all of them.
        """
        several = (given,) if given is None or isinstance(given, KeycloakSettings) else tuple(given)
        known = [each for each in several if each is not None]
        self._further |= {each.issuer for each in known[1:]}
        made = tuple(self._settings(each, frozenset() if number else declared) for number, each in enumerate(several))
        if len({each.issuer for each in made}) < len(made):
            raise ConfigurationError(
                f"{self.name} accepts tokens of several realms, {', '.join(each.realm for each in known)}: make the test issuer of a realm "
                "file for each of them. A test issuer without a realm file has a realm for each."
            )
        if len(made) > 1:
            for each, stands in zip(known, made, strict=True):
                realm = self.issuer.realm_of(stands.issuer)
                self.realms |= {each.issuer: realm, each.name: realm}
        return made

    def _realms_of(
        self, settings: tuple[KeycloakSettings, ...], named: frozenset[str], *, skips: bool
    ) -> tuple[TrustedRealm, ...]:
        return tuple(
            TrustedRealm(
                realm=self.issuer.realm_of(each.issuer),
                client_id=each.client_id,
                audiences=frozenset() if skips else named or each.audiences,
            )
            for each in settings
        )

    def _settings(
        self, given: KeycloakSettings | None, declared: frozenset[str], *, calls: bool = False
    ) -> KeycloakSettings:
        """Return settings for the issuer. Settings that the app was given keep their client, their audience and their leeway.

        The environment has no part in them: the realm is an argument.
        """
        further = given is not None and given.issuer in self._further
        place = self.issuer.place((given.realm if given else "") or self.realm, given, further=further)
        values: dict[str, Any] = dict(place)
        values["client_id"] = client_id = (given.client_id if given else "") or self.client_id
        realm = self.issuer.realm_of(values["issuer"])
        if not calls and ((given is not None and given.client_id) or self._is_named):
            self.issuer.needs(realm, client_id)
        own = given if given is not None and given.audiences else None  # named by an audience, or by a client id
        audience = own.audience if own is not None else tuple(sorted(self._audience or declared))
        values |= {"audience": audience} if audience else {}
        values |= {"leeway": given.leeway, "name": given.name, "dpop": given.dpop} if given is not None else {}
        if calls:
            values |= self.issuer.credentials(realm, client_id)
            own_files = {name: getattr(given, name, None) for name in _OWN_FILES.get(values.get("client_auth", ""), ())}
            values |= {name: file for name, file in own_files.items() if file is not None}
            values |= _certificate_of(given)
            if (
                values.get("client_auth") == "tls_client_auth"
            ):  # settings take it with an https URL only, and here no URL is called
                values["url"] = values["url"].replace("http://", "https://", 1)
        return KeycloakSettings(**values)


class _Start(Start):
    """The start of an app inside a block. If it ends after the block, it leaves nothing in the app."""

    def install(self, documentation: Documentation) -> None:
        with swapping:
            if self._middleware._start is self:  # type: ignore[attr-defined] # noqa: SLF001 - the middleware's whole state
                super().install(documentation)


def _here_only(middleware: ServiceAuthMiddleware) -> Callable[..., Awaitable[None]]:
    """Return what authenticates requests inside a block: those that come from this machine.

    The server may have been started after the block, may be another one than uvicorn, and may be a child of this process.
    """

    async def authenticate(
        checked: CheckedApp, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, root_path: str | None = None
    ) -> None:
        elsewhere = from_elsewhere(scope)
        if elsewhere:
            problem = (
                f"A request came in at {elsewhere}, and the app trusts a test issuer: bind the server to 127.0.0.1."
            )
            await middleware._not_started(scope, receive, send, problem)  # noqa: SLF001 - answers 500 and says why
            return
        sending = SENDING.get()
        if sending is not None and sending.certificate:  # as a server with the ASGI TLS extension
            tls = {"client_cert_chain": [sending.certificate], "client_cert_error": None}
            scope["extensions"] = {**scope.get("extensions", {}), "tls": tls}
        await ServiceAuthMiddleware._authenticate(middleware, checked, app, scope, receive, send, root_path=root_path)  # noqa: SLF001 - what it stands for

    return authenticate


class _Source(TokenSource):
    """Says which tokens a client will ask for, before it asks."""

    def __init__(self, asked: Callable[[KeycloakSettings, Wanted], None], **options: Any) -> None:
        super().__init__(**options)
        self._asked = asked

    def token(self, settings: KeycloakSettings, wanted: Wanted) -> SharedToken:
        self._asked(settings, wanted)
        return super().token(settings, wanted)

    def token_for(self, subject: Subject, settings: KeycloakSettings, wanted: Wanted) -> ExchangedToken:
        self._asked(settings, wanted)
        return super().token_for(subject, settings, wanted)


@contextmanager
def trusting(
    issuer: TrustedIssuer,
    targets: tuple[Any, ...],
    *,
    client_id: str | None,
    audience: frozenset[str],
    realm: str,
) -> Iterator[Trusted]:
    """Let `targets` trust `issuer` inside the block, and bring everything back whatever happens.

    Raises:
        ConfigurationError: Nothing of ours was found, uvicorn serves the app to other machines, or an app trusts another issuer.
    """
    for target in targets:
        _refuse_no_app(target)
    found = find(*targets)
    name = next((str(getattr(target, "title", "") or type(target).__name__) for target in targets), "no app")
    if found.unguarded or not (found.middlewares or found.verifiers or found.calls):
        calls = "" if found.calls else " and calls no service"
        raise ConfigurationError(
            f"The app {name!r} has no ServiceAuthMiddleware{calls}. Add it: app.add_middleware(ServiceAuthMiddleware). If the middleware is "
            "around the app, pass the middleware. If the app calls with an object that no route names, pass it too: client_of(app, crm)."
        )
    refuse_served({id(app) for app, _ in found.stacks} | {id(target) for target in targets}, _ids)
    trusted = Trusted(issuer, name, found, client_id=client_id, audience=audience, realm=realm)
    with ExitStack() as stack:
        trusted.begin(stack)
        _log.warning(
            "Test only: the app %r now trusts the embedded issuer (as client %s%s) until the test ends.",
            name,
            trusted.client_id,
            ", a name made up for the test" if trusted.client_id == MADE_UP else "",
        )
        yield trusted


def _refuse_no_app(target: Any) -> None:
    """Raise if somebody passed the name of an app, its class, or a function that makes it."""
    if isinstance(target, str | bytes) or target is None:
        raise ConfigurationError(f"{target!r} is no app. Import the app and pass it: client_of(app).")
    if inspect.isclass(target):
        raise ConfigurationError(f"{target.__name__} is a class: make an app of it, and pass the app: client_of(app).")
    if inspect.isfunction(target) and not _takes_a_request(target):
        name = target.__name__
        raise ConfigurationError(f"{name} is a function: write client_of({name}()).")


def _takes_a_request(function: FunctionType) -> bool:
    """Return whether a function can be called as an ASGI app is: with scope, receive and send."""
    try:
        inspect.signature(function).bind(None, None, None)
    except TypeError:
        return False
    return not all(each.default is not each.empty for each in inspect.signature(function).parameters.values())


def _swap(stack: ExitStack, swap: Swap) -> None:
    swap.begin()
    stack.callback(swap.end)


def _declared(middleware: ServiceAuthMiddleware, owner: Any) -> frozenset[str]:
    """Return the audiences that the middleware or its settings are given, or else those that the routes declare.

    The URL of a resource is none of them: an app is never a client of that name.
    """
    options: Options = original(middleware)["_start"].options
    given = options.settings
    first = given if given is None or isinstance(given, KeycloakSettings) else next(iter(given), None)
    named = audience_names(options.audience) or (first.audiences if first is not None else frozenset())
    if named:
        return named
    below = owner if router_below(middleware.app) is None and owner is not None else middleware.app
    return AccessCheck(
        access=read_access(below),
        public=PublicPaths(()),
        audiences=frozenset(),
        client_id="",
        users=options.users,
        skip_audience=options.insecure_skip_audience,
    ).declared


def proof_url(url: str, public_urls: Collection[str], *, root_path: str = "") -> str:
    """Return the URL that callers reach, for a path or a URL that a test client calls. It is below the first public URL."""
    path = urlsplit(url).path
    found = PublicUrls.of(tuple(public_urls)[:1]).of_request({"raw_path": path.encode() or b"/"}, root_path)
    return min(found, default=url)


def _certificate_of(given: KeycloakSettings | None) -> dict[str, Any]:
    """Return the client certificate that an app shows beside its other credentials, as settings name it."""
    if given is None or given.client_cert_file is None:
        return {}
    return {"client_cert_file": given.client_cert_file, "client_cert_key_file": given.client_cert_key_file}


def _as_given(settings: tuple[KeycloakSettings, ...]) -> KeycloakSettings | tuple[KeycloakSettings, ...]:
    return settings if len(settings) > 1 else settings[0]


def _ids(app: Any) -> set[int]:
    return {id(app), *(id(each) for each, _ in find(app).stacks)} if app is not None else set()

"""The services that an app calls, as FastAPI dependencies: `service_client` and `service_auth`."""

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NoReturn, TypeVar, cast, overload
from weakref import WeakKeyDictionary, WeakSet

import httpx
from starlette.requests import HTTPConnection

from s2s_fastapi import environment
from s2s_fastapi.answers import refused_within
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.borrowing import Template
from s2s_fastapi.caller.carried import anote_refusal, astrip_elsewhere, note_refusal, strip_elsewhere
from s2s_fastapi.caller.client_tls import with_certificate
from s2s_fastapi.caller.dependants import dependences
from s2s_fastapi.caller.origins import base
from s2s_fastapi.caller.pool import Pool, here
from s2s_fastapi.caller.token_source import IN_USE, TokenSource
from s2s_fastapi.caller.wanted import BaseUrl, Names, Wanted, written_in_code
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import AuthenticationError, AuthorizationError, ConfigurationError
from s2s_fastapi.fastapi_internals import awaited

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "CALLERS",
    "FOR_USERS",
    "OnBehalfAuth",
    "OnBehalfClient",
    "ServiceAuth",
    "ServiceClient",
    "SyncOnBehalfClient",
    "SyncServiceClient",
    "service_auth",
    "service_client",
]

A = TypeVar("A")
S = TypeVar("S")
T = TypeVar("T")

_BY_HAND: Final[Any] = None
"""No connection: a developer awaited the dependency, not FastAPI."""

_NO_USER_YET: Final = (
    "Write Depends(crm.on_behalf), without parentheses: FastAPI passes the request, and the request has the user. Without FastAPI write"
    " `await crm.on_behalf(request)`, or auth=crm.auth.on_behalf_of(request) for a single call."
)

_PROCESS: Final = None  # the place of the sync client, which all threads share

# Requests of many users share a client: a session cookie for one user must not reach the next.
_NO_COOKIES: Final = DefaultCookiePolicy(allowed_domains=())


@dataclass(frozen=True, slots=True)
class ServiceAuth:
    """The dependency that `service_auth` returns. Equal objects are one key in ``app.dependency_overrides``."""

    auth: ServiceTokenAuth

    @property
    def downstream(self) -> Downstream:
        """Origins, audiences and scopes of the called service."""
        return self.auth.downstream

    @property
    def on_behalf(self) -> "OnBehalfAuth":
        """The dependency that gives an auth object for the calls of the request's user: see `ServiceTokenAuth.on_behalf_of`."""
        return OnBehalfAuth(self.auth)

    @awaited
    def __call__(self) -> "_NotYet[ServiceTokenAuth]":
        """Return an awaitable of the auth object."""
        return _NotYet(
            lambda: self.auth,
            "Do not call what service_auth(...) returned. In a route write Depends(bob), without parentheses after bob. Elsewhere use"
            " ServiceTokenAuth itself.",
        )


@dataclass(frozen=True, slots=True)
class OnBehalfAuth:
    """The dependency ``bob.on_behalf`` of `service_auth`. Only a request that a user sent gets an object; every other one is answered 403."""

    auth: ServiceTokenAuth
    acts_for_user: ClassVar[bool] = True
    """The start check sees that users may call the route."""

    @property
    def downstream(self) -> Downstream:
        """Origins, audiences and scopes of the called service."""
        return replace(self.auth.downstream, on_behalf=True)

    @awaited
    def __call__(self, connection: HTTPConnection = _BY_HAND) -> "_NotYet[ServiceTokenAuth]":
        """Return an awaitable of the auth object; FastAPI passes the `connection`."""
        return _NotYet(lambda: _acting_for(self.auth, connection), _NO_USER_YET)


@written_in_code
def service_auth(
    *origins: str,
    audience: Names = None,
    scope: Names = None,
    settings: "environment.KeycloakSettings | None" = None,
    insecure_any_origin: bool = False,
    dpop: bool | None = None,
) -> ServiceAuth:
    """Return a dependency that gives the shared `ServiceTokenAuth`, for routes that bring their own httpx client.

    ``bob: Annotated[ServiceTokenAuth, Depends(service_auth("http://bob:8000", audience="bob"))]``. The arguments are those of `ServiceTokenAuth`.

    Raises:
        ConfigurationError: An origin or a name is malformed.
    """
    return ServiceAuth(
        ServiceTokenAuth(
            *origins,
            audience=audience,
            scope=scope,
            settings=settings,
            insecure_any_origin=insecure_any_origin,
            dpop=dpop,
        )
    )


class _ClientAuth(ServiceTokenAuth):
    """The auth object of the clients of one `service_client`."""

    _elsewhere_cure = "A service_client calls one origin: write another one for another service, or for another address of this service."


@dataclass(frozen=True, slots=True)
class _Made(Generic[T]):
    """An open client, and what clients of single users are copied from."""

    client: T
    template: Template


@dataclass(frozen=True, slots=True)
class _Pools(Generic[A, S]):
    """The open clients of one `service_client`, for async code and for other code."""

    asynchronous: Pool[_Made[A]]
    sync: Pool[_Made[S]]


class ServiceClient(Generic[A, S]):
    """The result of `service_client`: a dependency, and a context manager, both sync and async."""

    def __init__(
        self,
        base_url: BaseUrl,
        wanted: Wanted,
        settings: "environment.KeycloakSettings | None",
        client_class: type[A],
        options: dict[str, Any],
        *,
        dpop: bool | None = None,
    ) -> None:
        self._dpop = dpop
        self._base_url = base_url
        self._wanted = wanted
        self._settings = settings
        self._client_class = client_class
        self._options = options
        self._resolved: tuple[str, ServiceTokenAuth] | None = None
        self._made: dict[str, tuple[str, ServiceTokenAuth]] = {}
        self._looked_at: WeakSet[Any] = WeakSet()
        self._pools: WeakKeyDictionary[TokenSource, _Pools[A, S]] = WeakKeyDictionary()
        self._newest: tuple[TokenSource | None, _Pools[A, S] | None] = (None, None)
        if isinstance(base_url, str):
            self._resolve()  # a mistake in the URL raises where it is written

    @property
    def auth(self) -> ServiceTokenAuth:
        """The auth object of its clients."""
        return self._resolve()[1]

    @property
    def downstream(self) -> Downstream:
        """Origin, audiences and scopes of the called service.

        If the base URL is a function, it is called.
        """
        return self.auth.downstream

    @property
    def client_class(self) -> type[A]:
        """The class of the clients that async routes get."""
        return self._client_class

    @property
    def sync(self) -> "SyncServiceClient[S]":
        """The dependency for ``def`` routes: gives the ``Client`` that all threads share."""
        return SyncServiceClient(self)

    @property
    def on_behalf(self) -> "OnBehalfClient[A, S]":
        """The dependency for calls on behalf of the request's user: gives a client whose requests carry the user's exchanged token.

        - ``Depends(crm.on_behalf)`` in async routes, ``Depends(crm.on_behalf.sync)`` in ``def`` routes.
        - Only a request that a user sent gets a client; every other one is answered 403. See `ServiceTokenAuth.on_behalf_of`.
        """
        return OnBehalfClient(self)

    @awaited
    def __call__(self, connection: HTTPConnection = _BY_HAND) -> "_NotYet[A]":
        """Return an awaitable of the client of the running loop.

        FastAPI passes the `connection`: the first request to a route checks that its parameters fit their clients.
        """
        if connection is not _BY_HAND:
            self.look_at(connection.scope.get("endpoint"))
        return _NotYet(
            lambda: self._open().asynchronous.lend(here()).client,
            "Do not call what service_client(...) returned. In a route write Depends(crm), without parentheses after crm. Elsewhere write"
            " `with crm as client` or `async with crm as client`.",
        )

    def look_at(self, endpoint: Any) -> None:
        """Check once that the parameters of a route fit their clients.

        Raises:
            ConfigurationError: A parameter is annotated with another client class.
        """
        # Only the signatures of routines are read. They are hashable; other objects may not be.
        if inspect.isroutine(endpoint) and endpoint not in self._looked_at:
            _look_at(endpoint, self)
            self._looked_at.add(endpoint)

    def lend_sync(self) -> S:
        """Return the sync client of this process."""
        return self._open().sync.lend(_PROCESS).client

    def lend_to(self, user: ServiceTokenAuth) -> A:
        """Return a client of one user, on the connections of the running loop's client."""
        made = self._open().asynchronous.lend(here())
        return cast("A", made.template.client(user, made.client))

    def lend_sync_to(self, user: ServiceTokenAuth) -> S:
        """Return a sync client of one user, on the connections of the process's client."""
        made = self._open().sync.lend(_PROCESS)
        return cast("S", made.template.client(user, made.client))

    async def __aenter__(self) -> A:
        """Return the client of the running loop, open until the last ``async with`` on that loop ends."""
        return self._open().asynchronous.hold(here()).client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close it if nobody else uses it."""
        await _aclose(self._open().asynchronous.release(here()))

    def __enter__(self) -> S:
        """Return the sync client, open until the last ``with`` ends."""
        return self._open().sync.hold(_PROCESS).client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close it if nobody else uses it."""
        _close(self._open().sync.release(_PROCESS))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep the clients of this loop and of the process open while an app runs, and close them after it."""
        place, pools = here(), self._open()
        pools.asynchronous.hold(place)
        pools.sync.expect(_PROCESS)
        try:
            yield
        finally:
            _close(pools.sync.release(_PROCESS, even_lent=True))
            await _aclose(pools.asynchronous.release(place, even_lent=True))

    def _open(self) -> "_Pools[A, S]":
        """Return the open clients. They live as long as the source that their tokens are from."""
        source, pools = self._newest
        if pools is None or source is not IN_USE.source:
            source = IN_USE.source
            made = _Pools(Pool(self._make_async, _is_closed), Pool(self._make_sync, _is_closed))
            pools = self._pools.setdefault(source, made)
            self._newest = source, pools
        return pools

    def _resolve(self) -> tuple[str, ServiceTokenAuth]:
        if self._resolved is None:
            text = self._base_url() if callable(self._base_url) else self._base_url
            url = base(text)
            origin = str(url.copy_with(path="/"))
            auth = _ClientAuth(
                origin,
                audience=self._wanted.audiences or None,
                scope=self._wanted.scopes or None,
                settings=self._settings,
                dpop=self._dpop,
            )
            # Several threads may come here, and the function may return a different URL to each: the first one counts for all.
            self._resolved = self._made.setdefault("resolved", (text, auth))
        return self._resolved

    def _make_async(self) -> _Made[A]:
        return self._made_with_template(self._make(self._client_class, asynchronous=True))

    def _make_sync(self) -> _Made[S]:
        return self._made_with_template(self._make(_twin(self._client_class), asynchronous=False))

    def _made_with_template(self, client: Any) -> _Made[Any]:
        # Now: a route may change the client that it gets, and what is for one user must not reach the next.
        return _Made(client, Template(client, self._options.get("cookies")))

    def _make(self, kind: Any, *, asynchronous: bool) -> Any:
        url, auth = self._resolve()
        # A proxy named in the environment would get the token, unencrypted if the service is called by http.
        options: dict[str, Any] = {"trust_env": False, "cookies": CookieJar(_NO_COOKIES)} | self._options
        hooks = {name: list(given) for name, given in (options.pop("event_hooks", None) or {}).items()}
        if not asynchronous:
            transport = options.get("transport")
            if any(inspect.iscoroutinefunction(hook) for given in hooks.values() for hook in given) or (
                transport is not None and not hasattr(transport, "handle_request")
            ):
                raise ConfigurationError(
                    f"The client for {url} has event hooks or a transport that only async clients can use: def routes need another"
                    " service_client, with sync ones."
                )
        # Last: it sees the request as the other hooks left it.
        hooks["request"] = [*hooks.get("request", []), astrip_elsewhere if asynchronous else strip_elsewhere]
        # First: another hook may raise, as in the example of httpx (raise_for_status).
        hooks["response"] = [anote_refusal if asynchronous else note_refusal, *hooks.get("response", [])]
        settings = auth.settings_if_complete()
        if settings is not None:
            options = with_certificate(options, kind, settings, auth.pins, asynchronous=asynchronous)
        return kind(base_url=url, auth=auth, event_hooks=hooks, **options)

    def _value(self) -> tuple[object, ...]:
        return self._base_url, self._wanted, self._settings, self._client_class, self._dpop

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceClient):
            return NotImplemented
        return self._value() == other._value() and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._value())

    def __copy__(self) -> "ServiceClient[A, S]":
        return self  # immutable

    def __deepcopy__(self, memo: object) -> "ServiceClient[A, S]":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Settings with a secret refuse to be pickled, and say what to do instead.
        given = self._base_url, self._wanted, self._settings, self._client_class, self._options
        return partial(ServiceClient, dpop=self._dpop), given

    if not TYPE_CHECKING:  # mypy says it by itself

        def __getattr__(self, name: str) -> NoReturn:
            _no_attribute(self, name)

    def __repr__(self) -> str:
        names = "".join(
            f", {what}={sorted(names)!r}"
            for what, names in (("audience", self._wanted.audiences), ("scope", self._wanted.scopes))
            if names
        )
        bound = "" if self._dpop is None else f", dpop={self._dpop}"
        return f"service_client({self._base_url!r}{names}{bound})"


@dataclass(frozen=True, slots=True)
class SyncServiceClient(Generic[S]):
    """The dependency ``crm.sync``: gives ``def`` routes the sync client."""

    client: ServiceClient[Any, S]

    @property
    def downstream(self) -> Downstream:
        """Origin, audiences and scopes of the called service."""
        return self.client.downstream

    @property
    def client_class(self) -> type[S]:
        """The class of the client that routes get."""
        return cast("type[S]", _twin(self.client.client_class))

    @awaited
    def __call__(self, connection: HTTPConnection = _BY_HAND) -> "_NotYet[S]":
        """Return an awaitable of the sync client of this process; FastAPI passes the `connection`."""
        if connection is not _BY_HAND:
            self.client.look_at(connection.scope.get("endpoint"))
        return _NotYet(
            self.client.lend_sync,
            "Do not call crm.sync. In a def route write Depends(crm.sync), without parentheses after sync. Elsewhere write"
            " `with crm as client`, which gives the sync client.",
        )

    def __repr__(self) -> str:
        return f"{self.client!r}.sync"

    if not TYPE_CHECKING:  # mypy says it by itself

        def __getattr__(self, name: str) -> NoReturn:
            _no_attribute(self, name)

        def __enter__(self) -> NoReturn:
            raise ConfigurationError(
                "crm.sync is for Depends(crm.sync). In a script write `with crm as client`: that is the sync client."
            )

        def __exit__(self, *error: object) -> None:
            """Is never reached."""

        async def __aenter__(self) -> NoReturn:
            raise ConfigurationError(
                "crm.sync gives a sync client. Write `with crm as client` for that one, or `async with crm as client` for the async one."
            )

        async def __aexit__(self, *error: object) -> None:
            """Is never reached."""


@dataclass(frozen=True, slots=True)
class OnBehalfClient(Generic[A, S]):
    """The dependency ``crm.on_behalf``: gives async routes a client of the user who sent the request.

    - It is a client for this request: what a route changes in it, cookies and headers too, reaches no other request. Its connections are
      those that ``crm`` uses; to close it does not close them.
    """

    client: ServiceClient[A, S]
    acts_for_user: ClassVar[bool] = True
    """The start check sees that users may call the route."""

    @property
    def downstream(self) -> Downstream:
        """Origin, audiences and scopes of the called service."""
        return replace(self.client.downstream, on_behalf=True)

    @property
    def client_class(self) -> type[A]:
        """The class of the client that routes get, or one derived from it."""
        return self.client.client_class

    @property
    def sync(self) -> "SyncOnBehalfClient[S]":
        """The dependency for ``def`` routes."""
        return SyncOnBehalfClient(self.client)

    @awaited
    def __call__(self, connection: HTTPConnection = _BY_HAND) -> "_NotYet[A]":
        """Return an awaitable of the client; FastAPI passes the `connection`."""
        if connection is not _BY_HAND:
            self.client.look_at(connection.scope.get("endpoint"))
        return _NotYet(lambda: self.client.lend_to(_acting_for(self.client.auth, connection)), _NO_USER_YET)

    def __repr__(self) -> str:
        return f"{self.client!r}.on_behalf"

    if not TYPE_CHECKING:  # mypy says it by itself

        def __getattr__(self, name: str) -> NoReturn:
            _no_attribute(self, name)


@dataclass(frozen=True, slots=True)
class SyncOnBehalfClient(Generic[S]):
    """The dependency ``crm.on_behalf.sync``: gives ``def`` routes a sync client of the user who sent the request."""

    client: ServiceClient[Any, S]
    acts_for_user: ClassVar[bool] = True
    """The start check sees that users may call the route."""

    @property
    def downstream(self) -> Downstream:
        """Origin, audiences and scopes of the called service."""
        return replace(self.client.downstream, on_behalf=True)

    @property
    def client_class(self) -> type[S]:
        """The class of the client that routes get, or one derived from it."""
        return self.client.sync.client_class

    @awaited
    def __call__(self, connection: HTTPConnection = _BY_HAND) -> "_NotYet[S]":
        """Return an awaitable of the client; FastAPI passes the `connection`."""
        if connection is not _BY_HAND:
            self.client.look_at(connection.scope.get("endpoint"))
        return _NotYet(lambda: self.client.lend_sync_to(_acting_for(self.client.auth, connection)), _NO_USER_YET)

    def __repr__(self) -> str:
        return f"{self.client!r}.on_behalf.sync"

    if not TYPE_CHECKING:  # mypy says it by itself

        def __getattr__(self, name: str) -> NoReturn:
            _no_attribute(self, name)


FOR_USERS: Final = (OnBehalfClient, SyncOnBehalfClient, OnBehalfAuth)
"""The dependencies that call on behalf of a request's user."""
CALLERS: Final = (ServiceTokenAuth, ServiceAuth, ServiceClient, SyncServiceClient, *FOR_USERS)
"""All that calls another service."""


class _NotYet(Generic[T]):
    """The result of calling a dependency. Awaited it gives the client; any other use raises and says what to write instead.

    FastAPI calls the dependency and awaits the result. With ``Depends(crm())`` or ``with crm() as client`` the developer called it.
    """

    __slots__ = ("_cure", "_lend")

    def __init__(self, lend: Callable[[], T], cure: str) -> None:
        self._lend = lend
        self._cure = cure

    def __await__(self) -> Generator[Any, None, T]:
        yield from ()  # nothing to wait for
        return self._lend()

    if not TYPE_CHECKING:

        def _refuse(self, *_: object, **__: object) -> NoReturn:
            raise ConfigurationError(self._cure)

        __call__ = __enter__ = __exit__ = __aenter__ = __aexit__ = _refuse
        __signature__ = property(_refuse)  # FastAPI reads it for Depends(crm())

        def __getattr__(self, name: str) -> NoReturn:
            if name.startswith("_"):
                raise AttributeError(name)
            self._refuse()


def _no_attribute(client: Any, name: str) -> NoReturn:
    """Raise, and say how to get the HTTP client that a developer expected `client` to be."""
    if name.startswith("_") or not hasattr(httpx.AsyncClient, name):
        raise AttributeError(f"{type(client).__name__!r} object has no attribute {name!r}")
    dependency = {ServiceClient: "crm", SyncServiceClient: "crm.sync", OnBehalfClient: "crm.on_behalf"}.get(
        type(client), "crm.on_behalf.sync"
    )
    kind = "httpx.Client" if dependency.endswith("sync") else "httpx.AsyncClient"
    elsewhere = "" if "on_behalf" in dependency else ", or `with crm as client` elsewhere"
    raise AttributeError(
        f"{client!r} is not an HTTP client itself. Write `client: Annotated[{kind}, Depends({dependency})]` in a route{elsewhere},"
        f" and then client.{name}."
    )


def _look_at(endpoint: Any, client: ServiceClient[Any, Any]) -> None:
    """Check that the parameters of a route and of its dependencies fit the client that they get from `client`.

    Raises:
        ConfigurationError: A parameter is annotated with another client class.
    """
    for found in dependences(endpoint):
        owner = found.dependency
        # Compared by equality: typing caches Annotated for equal arguments, so this may be another, equal client.
        if not isinstance(owner, ServiceClient | SyncServiceClient | OnBehalfClient | SyncOnBehalfClient) or client != (
            owner if isinstance(owner, ServiceClient) else owner.client
        ):
            continue
        given, say = (
            owner.client_class,
            f"{found.parameter} of {getattr(found.function, '__qualname__', found.function)}",
        )
        if _is_client_class(found.annotation) and not (
            issubclass(given, found.annotation) or issubclass(found.annotation, given)
        ):
            raise ConfigurationError(
                f"The parameter {say} is annotated with {_named(found.annotation)} and gets {_named(given)}. Write"
                " Annotated[httpx.AsyncClient, Depends(crm)] in an async def route, Annotated[httpx.Client, Depends(crm.sync)] in a def"
                " route, with the classes of the package that service_client(client_class=...) was given."
            )


def _is_client_class(annotation: Any) -> bool:
    return inspect.isclass(annotation) and any(
        kind.__name__ in {"Client", "AsyncClient"} and kind.__module__.partition(".")[0] in {"httpx", "httpx2"}
        for kind in inspect.getmro(annotation)
    )


def _named(kind: Any) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"


@overload
def service_client(
    base_url: BaseUrl,
    *,
    audience: Names = None,
    scope: Names = None,
    settings: "environment.KeycloakSettings | None" = None,
    client_class: type[httpx.AsyncClient] = ...,
    dpop: bool | None = None,
    **client_options: Any,
) -> ServiceClient[httpx.AsyncClient, httpx.Client]: ...
@overload
def service_client(
    base_url: BaseUrl,
    *,
    audience: Names = None,
    scope: Names = None,
    settings: "environment.KeycloakSettings | None" = None,
    client_class: "type[httpx2.AsyncClient]",
    dpop: bool | None = None,
    **client_options: Any,
) -> "ServiceClient[httpx2.AsyncClient, httpx2.Client]": ...
@written_in_code
def service_client(
    base_url: BaseUrl,
    *misplaced: object,
    audience: Names = None,
    scope: Names = None,
    settings: "environment.KeycloakSettings | None" = None,
    client_class: Any = httpx.AsyncClient,
    dpop: bool | None = None,
    **client_options: Any,
) -> ServiceClient[Any, Any]:
    """Return a dependency that gives an HTTP client for one other service, with this service's token.

    - ``Depends(crm)`` gives async routes an ``AsyncClient``; ``Depends(crm.sync)`` gives ``def`` routes a ``Client``. Scripts write
      ``with crm as client`` or ``async with crm as client``.
    - There is one client for each running loop, on asyncio and trio. Nothing is opened before the first use.
    - The token is sent only to the origin of `base_url`. A redirect to another origin, or from http to https, carries no token.
    - If the settings have a client certificate, connections to the origin show it (RFC 8705), unless ``transport``, ``cert`` or a TLS context of
      your own as ``verify`` is given. ``verify=client_tls(ca_file="ca.pem")`` chooses which services are trusted. A token that is bound to a certificate goes over connections that show this one, also while it is renewed.

    Args:
        base_url: The URL of the service, or a function that returns it; called at the first use.
        misplaced: Must be empty: all other arguments are given by name.
        audience: The service the token is for, or several; compared with ``aud`` before the token is used.
        scope: A client scope to ask for, or several.
        settings: Instead of the environment.
        client_class: ``AsyncClient`` of httpx or httpx2, or a subclass. ``.sync`` gives the ``Client`` of the same package.
        dpop: Whether to bind the token to a key of this process, so that each request carries a proof (RFC 9449). None: as the settings say
            (``KEYCLOAK_DPOP``).
        client_options: Arguments of that class, such as ``timeout`` or ``headers``. All clients made here share an object such as
            ``transport``. Cookies that a service sets are kept only if ``cookies`` is given. The environment of httpx
            (``HTTP_PROXY``, ``SSL_CERT_FILE``) is read only with ``trust_env=True``.

    Raises:
        ConfigurationError: The URL, a name or an option cannot be used.
    """
    if not isinstance(base_url, str) and not callable(base_url):
        raise ConfigurationError(
            "base_url must be a text such as http://crm-gateway:8000, or a function that returns one."
        )
    if misplaced:
        example = repr(misplaced[0]) if isinstance(misplaced[0], str) else '"crm-api-gateway"'
        raise ConfigurationError(
            f"service_client takes only the URL without a name. Write service_client({base_url!r}, audience={example})."
        )
    _twin(client_class)
    if "auth" in client_options:
        raise ConfigurationError(
            "service_client sets its own auth: leave auth= out, or use httpx itself with ServiceTokenAuth."
        )
    if any(name.lower() == "authorization" for name in httpx.Headers(client_options.get("headers"))):
        raise ConfigurationError(
            "headers= contains an Authorization header: service_client sets that header, and refuses requests that have one."
        )
    return ServiceClient(base_url, Wanted.of(audience, scope), settings, client_class, client_options, dpop=dpop)


def _twin(kind: Any) -> Any:
    """Return the sync client class of the same package."""
    for ancestor in inspect.getmro(kind) if inspect.isclass(kind) else ():
        package = vars(sys.modules[ancestor.__module__.partition(".")[0]])
        if ancestor.__name__ == "AsyncClient" and ancestor is package.get("AsyncClient"):
            return package["Client"]
    raise ConfigurationError(
        "client_class= must be httpx.AsyncClient, httpx2.AsyncClient or a class derived from one; crm.sync gives its sync twin."
    )


def _is_closed(made: _Made[Any]) -> bool:
    return bool(made.client.is_closed)


async def _aclose(made: _Made[Any] | None) -> None:
    if made is not None:
        await made.client.aclose()


def _close(made: _Made[Any] | None) -> None:
    if made is not None:
        made.client.close()


def _acting_for(auth: ServiceTokenAuth, connection: HTTPConnection) -> ServiceTokenAuth:
    """Return the auth object of the user who sent a request.

    Raises:
        NoUserToActFor, SessionEnded: as `ServiceTokenAuth.on_behalf_of`; in a WebSocket that cannot be answered otherwise, what closes it.
    """
    if connection is _BY_HAND:
        raise ConfigurationError(_NO_USER_YET)
    try:
        return auth.on_behalf_of(connection)
    except (AuthenticationError, AuthorizationError) as error:
        raise refused_within(connection.scope, error) from error

"""Whom a service calls, as FastAPI dependencies: `service_client` and `service_auth`."""

import inspect
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

import httpx

from s2s_fastapi.caller.asked import Asked
from s2s_fastapi.caller.attached import astrip_elsewhere, strip_elsewhere
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.given import BaseUrl, GivenSettings, Names
from s2s_fastapi.caller.origins import base
from s2s_fastapi.caller.pool import Pool, here
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:
    import httpx2

__all__ = ["ServiceAuth", "ServiceClient", "SyncServiceClient", "service_auth", "service_client"]

A = TypeVar("A")
S = TypeVar("S")

_PROCESS: Final = None  # the place of the sync client: threads share it

# Requests of many users share a client: the session a service opened for one of them must not reach the next.
_NO_COOKIES: Final = DefaultCookiePolicy(allowed_domains=())


@dataclass(frozen=True, slots=True)
class ServiceAuth:
    """The dependency `service_auth` returns. Equal ones are the same to ``app.dependency_overrides``."""

    auth: ServiceTokenAuth

    @property
    def downstream(self) -> Downstream:
        """Whom it calls, as a value."""
        return self.auth.downstream

    async def __call__(self) -> ServiceTokenAuth:  # a plain function would be sent to the thread pool
        """Return the auth object."""
        return self.auth


def service_auth(
    *origins: str,
    audience: Names = None,
    scope: Names = None,
    settings: GivenSettings = None,
    insecure_any_origin: bool = False,
) -> ServiceAuth:
    """Return a dependency that gives the shared `ServiceTokenAuth`, for routes that bring their own httpx client.

    ``bob: Annotated[ServiceTokenAuth, Depends(service_auth("http://bob:8000", audience="bob"))]``. Arguments as there.

    Raises:
        ConfigurationError: An origin or a name is malformed.
    """
    return ServiceAuth(
        ServiceTokenAuth(
            *origins, audience=audience, scope=scope, settings=settings, insecure_any_origin=insecure_any_origin
        )
    )


class ServiceClient(Generic[A, S]):
    """What `service_client` returns: a dependency, and a context manager, sync and async."""

    def __init__(
        self,
        base_url: BaseUrl,
        asked: Asked,
        settings: GivenSettings,
        kind: type[A],
        options: dict[str, Any],
    ) -> None:
        self._base_url = base_url
        self._asked = asked
        self._settings = settings
        self._kind = kind
        self._options = options
        self._resolved: tuple[str, ServiceTokenAuth] | None = None
        self._made: dict[str, tuple[str, ServiceTokenAuth]] = {}
        self._async: Pool[A] = Pool(self._make_async, _is_closed)
        self._sync: Pool[S] = Pool(self._make_sync, _is_closed)
        if isinstance(base_url, str):
            self._resolve()  # a mistake in it shows where it is written

    @property
    def auth(self) -> ServiceTokenAuth:
        """The auth object of its clients."""
        return self._resolve()[1]

    @property
    def downstream(self) -> Downstream:
        """Whom it calls, as a value.

        Asks for the base URL, where that is a function.
        """
        return self.auth.downstream

    @property
    def sync(self) -> "SyncServiceClient[S]":
        """The dependency for ``def`` routes: gives the one ``Client`` all threads share."""
        return SyncServiceClient(self)

    async def __call__(self) -> A:
        """Return the client of the running loop."""
        return self._async.lend(here())

    def lend_sync(self) -> S:
        """Return the sync client of this process."""
        return self._sync.lend(_PROCESS)

    async def __aenter__(self) -> A:
        """Return the client of the running loop, open until the last ``async with`` on that loop ends."""
        return self._async.hold(here())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close it if nobody else uses it."""
        await _aclose(self._async.release(here()))

    def __enter__(self) -> S:
        """Return the sync client, open until the last ``with`` ends."""
        return self._sync.hold(_PROCESS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Close it if nobody else uses it."""
        _close(self._sync.release(_PROCESS))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Keep the clients of this loop and of the process for as long as an app runs, and close them with it."""
        place = here()
        self._async.hold(place)
        self._sync.expect(_PROCESS)
        try:
            yield
        finally:
            _close(self._sync.release(_PROCESS, even_lent=True))
            await _aclose(self._async.release(place, even_lent=True))

    def _resolve(self) -> tuple[str, ServiceTokenAuth]:
        if self._resolved is None:
            text = self._base_url() if callable(self._base_url) else self._base_url
            url = base(text)
            origin = str(url.copy_with(path="/"))
            auth = ServiceTokenAuth(
                origin,
                audience=self._asked.audiences or None,
                scope=self._asked.scopes or None,
                settings=self._settings,
            )
            # Threads may meet here, and a function may tell each something else: the first of them wins, for all.
            self._resolved = self._made.setdefault("resolved", (text, auth))
        return self._resolved

    def _make_async(self) -> A:
        return cast("A", self._make(self._kind, asynchronous=True))

    def _make_sync(self) -> S:
        return cast("S", self._make(_twin(self._kind), asynchronous=False))

    def _make(self, kind: Any, *, asynchronous: bool) -> Any:
        url, auth = self._resolve()
        # A proxy that somebody named in the environment would get the token, in clear where the service is called by http.
        options: dict[str, Any] = {"trust_env": False, "cookies": CookieJar(_NO_COOKIES)} | self._options
        hooks = {name: list(given) for name, given in (options.pop("event_hooks", None) or {}).items()}
        if not asynchronous:
            transport = options.get("transport")
            if any(inspect.iscoroutinefunction(hook) for given in hooks.values() for hook in given) or (
                transport is not None and not hasattr(transport, "handle_request")
            ):
                raise ConfigurationError(
                    f"The client for {url} has event hooks or a transport for async clients only: def routes need a service_client of"
                    " their own, with sync ones."
                )
        # Last: it sees what the others made of the request.
        hooks["request"] = [*hooks.get("request", []), astrip_elsewhere if asynchronous else strip_elsewhere]
        return kind(base_url=url, auth=auth, event_hooks=hooks, **options)

    def _value(self) -> tuple[object, ...]:
        return self._base_url, self._asked, self._settings, self._kind

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ServiceClient):
            return NotImplemented
        return self._value() == other._value() and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._value())

    def __repr__(self) -> str:
        names = "".join(
            f", {what}={sorted(names)!r}"
            for what, names in (("audience", self._asked.audiences), ("scope", self._asked.scopes))
            if names
        )
        return f"service_client({self._base_url!r}{names})"


@dataclass(frozen=True, slots=True)
class SyncServiceClient(Generic[S]):
    """The dependency ``crm.sync``: gives the sync client to ``def`` routes."""

    client: ServiceClient[Any, S]

    @property
    def downstream(self) -> Downstream:
        """Whom it calls, as a value."""
        return self.client.downstream

    async def __call__(self) -> S:
        """Return the sync client of this process."""
        return self.client.lend_sync()


@overload
def service_client(
    base_url: BaseUrl,
    *,
    audience: Names = None,
    scope: Names = None,
    settings: GivenSettings = None,
    client: type[httpx.AsyncClient] = ...,
    **client_options: Any,
) -> ServiceClient[httpx.AsyncClient, httpx.Client]: ...
@overload
def service_client(
    base_url: BaseUrl,
    *,
    audience: Names = None,
    scope: Names = None,
    settings: GivenSettings = None,
    client: "type[httpx2.AsyncClient]",
    **client_options: Any,
) -> "ServiceClient[httpx2.AsyncClient, httpx2.Client]": ...
def service_client(
    base_url: BaseUrl,
    *,
    audience: Names = None,
    scope: Names = None,
    settings: GivenSettings = None,
    client: Any = httpx.AsyncClient,
    **client_options: Any,
) -> ServiceClient[Any, Any]:
    """Return a client for one other service, to depend on: it carries this service's token there and nowhere else.

    ``Depends(crm)`` in async routes gives an ``AsyncClient``, ``Depends(crm.sync)`` in ``def`` routes a ``Client``; scripts write
    ``with crm as client`` or ``async with crm as client``. There is one client for each running loop, on asyncio and trio. Nothing
    is opened before the first use. A redirect to another origin carries no token, nor does one from http to https.

    Args:
        base_url: Where the service is, or a function that says so at the first use.
        audience: The service the token is for, or several; compared with ``aud`` before the token is used.
        scope: A client scope to ask for, or several.
        settings: Instead of the environment.
        client: The async class of httpx or httpx2, or one derived from it; its sync twin is the ``Client`` of the same package.
        client_options: What that class takes, such as ``timeout`` or ``headers``. An object such as ``transport`` is shared by all
            clients made here. Cookies that a service sets are not kept unless ``cookies`` is given. The environment of httpx
            (``HTTP_PROXY``, ``SSL_CERT_FILE``) is not read unless ``trust_env=True`` is.

    Raises:
        ConfigurationError: The URL, a name or an option cannot be used.
    """
    if not isinstance(base_url, str) and not callable(base_url):
        raise ConfigurationError(
            "base_url must be a text such as http://crm-gateway:8000, or a function that returns one."
        )
    _twin(client)
    if "auth" in client_options:
        raise ConfigurationError(
            "service_client brings its own auth: leave auth= out, or use httpx itself with ServiceTokenAuth for another arrangement."
        )
    if any(name.lower() == "authorization" for name in httpx.Headers(client_options.get("headers"))):
        raise ConfigurationError(
            "headers= holds an Authorization header: service_client sets it, and refuses requests that have one."
        )
    return ServiceClient(base_url, Asked.of(audience, scope), settings, client, client_options)


def _twin(kind: Any) -> Any:
    """Return the sync client class of the package an async one comes from."""
    for ancestor in inspect.getmro(kind) if inspect.isclass(kind) else ():
        package = vars(sys.modules[ancestor.__module__.partition(".")[0]])
        if ancestor.__name__ == "AsyncClient" and ancestor is package.get("AsyncClient"):
            return package["Client"]
    raise ConfigurationError(
        "client= must be httpx.AsyncClient, httpx2.AsyncClient or a class derived from one; crm.sync gives its sync twin."
    )


def _is_closed(client: Any) -> bool:
    return bool(client.is_closed)


async def _aclose(client: Any) -> None:
    if client is not None:
        await client.aclose()


def _close(client: Any) -> None:
    if client is not None:
        client.close()

"""The lifespan of an app that calls other services: open the clients, check them, close them."""

import inspect
import logging
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Final, TypeAlias

import anyio

from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.dependants import endpoints
from s2s_fastapi.caller.service_client import (
    CALLERS,
    FOR_USERS,
    OnBehalfAuth,
    OnBehalfClient,
    ServiceAuth,
    ServiceClient,
    SyncOnBehalfClient,
    SyncServiceClient,
)
from s2s_fastapi.caller.token_source import IN_USE
from s2s_fastapi.downstream import Downstream
from s2s_fastapi.engine.workers import THREADS, Workers
from s2s_fastapi.errors import ConfigurationError, S2SError, TokenRequestError
from s2s_fastapi.telemetry.spans import warming_up
from s2s_fastapi.text import listed

__all__ = ["Lifespan", "ServiceLifespan", "service_lifespan"]

LOG: Final = logging.getLogger("s2s_fastapi.caller")

Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Any]]
"""What FastAPI and Starlette take as ``lifespan``."""

_Acting: TypeAlias = OnBehalfClient[Any, Any] | SyncOnBehalfClient[Any] | OnBehalfAuth
_Called: TypeAlias = ServiceClient[Any, Any] | SyncServiceClient[Any] | ServiceAuth | ServiceTokenAuth | _Acting

_OF_A_CLIENT: Final = (SyncServiceClient, OnBehalfClient, SyncOnBehalfClient)
"""The dependencies that are made of a `ServiceClient`."""


class ServiceLifespan:
    """What `service_lifespan` returns: give it to ``FastAPI(lifespan=...)``."""

    def __init__(self, clients: tuple[_Called, ...], lifespan: Lifespan | None, *, warm_up: bool) -> None:
        self.clients = clients
        """What was given to `service_lifespan`."""
        self._lifespan = lifespan
        self._warm_up = warm_up

    @property
    def downstreams(self) -> tuple[Downstream, ...]:
        """The services that the app calls, each once."""
        return tuple(dict.fromkeys(client.downstream for client in self.clients))

    @asynccontextmanager
    async def __call__(self, app: Any) -> AsyncIterator[Any]:
        """Open the clients, get their tokens, run the app's own lifespan inside, and close.

        Raises:
            S2SError: A token cannot be granted with these settings, or the annotation of a route's parameter does not fit its client.
                Its traceback is printed without frames.
        """
        refused: S2SError | None = None
        async with AsyncExitStack() as stack:
            try:
                for client in self.clients:
                    owner = client.client if isinstance(client, _OF_A_CLIENT) else client
                    if isinstance(owner, ServiceClient):
                        for endpoint in endpoints(app):
                            owner.look_at(endpoint)
                        await stack.enter_async_context(owner.serving())
                refused = await _warm(self.clients) if self._warm_up else None
            except ConfigurationError as error:
                refused = error.again()
            if refused is None:
                yield await stack.enter_async_context(self._lifespan(app)) if self._lifespan is not None else None
        if refused is not None:
            raise _sentence_alone(refused)


def service_lifespan(*clients: _Called, lifespan: Lifespan | None = None, warm_up: bool = True) -> ServiceLifespan:
    """Return a lifespan that opens, checks and closes `clients`: ``FastAPI(lifespan=service_lifespan(crm))``.

    - Before the app serves requests, the token of each client is requested.
    - If a token is not granted, or credentials or settings are wrong, the app refuses to start and says what to change.
    - If Keycloak cannot be reached, the app starts and logs a warning.
    - At shutdown the clients are closed after the app's own lifespan.

    Args:
        clients: What `service_client` and `service_auth` returned, or `ServiceTokenAuth` objects. For ``crm.on_behalf`` no token is
            requested: there is no user yet.
        lifespan: The app's own lifespan. It runs inside this one, and what it yields becomes the state.
        warm_up: With False no token is requested before the first request.

    Raises:
        ConfigurationError: An argument is something else.
    """
    for client in clients:
        if not isinstance(client, CALLERS):
            raise ConfigurationError(
                "service_lifespan takes what service_client(...) or service_auth(...) returned;"
                f" {type(client).__name__} is neither. The app's own lifespan goes in as lifespan=..."
            )
    if lifespan is not None and inspect.isasyncgenfunction(lifespan):
        lifespan = asynccontextmanager(lifespan)  # Starlette's older form
    return ServiceLifespan(clients, lifespan, warm_up=warm_up)


async def _warm(clients: tuple[_Called, ...]) -> S2SError | None:
    """Request all tokens; return the first reason why the app must not start.

    - At most as many requests wait for a server as it has worker threads. So each request has its full 5 s, even with a slow Keycloak.
    - After a request without any answer, no other request waits for that server.
    """
    # There is no user yet whose token to exchange.
    own = [client for client in clients if not isinstance(client, FOR_USERS)]
    auths = list(dict.fromkeys(client if isinstance(client, ServiceTokenAuth) else _auth(client) for client in own))
    refused: dict[int, S2SError] = {}
    turns: dict[Workers, anyio.CapacityLimiter] = {}
    silent: set[Workers] = set()

    async def ask(number: int, auth: ServiceTokenAuth) -> None:
        try:
            shared = auth._own(IN_USE.source)  # noqa: SLF001 - of the same room, and users need no such method
            async with turns.setdefault(shared.workers, anyio.CapacityLimiter(THREADS)):
                if shared.workers in silent:
                    shared.start()
                    LOG.warning(
                        "starting without a token for %s: Keycloak did not answer a request for another one",
                        _target(auth),
                    )
                    return
                await auth._aready()  # noqa: SLF001 - as above
        except TokenRequestError as error:
            if not error.retryable:
                refused[number] = error.again()
                return
            if not error.http_status:
                silent.add(shared.workers)
            # The request logs the cure.
            LOG.warning(
                "starting without a token for %s: %s", _target(auth), str(error).removesuffix(error.cure).strip()
            )
        except ConfigurationError as error:
            refused[number] = error.again()

    with warming_up():
        async with anyio.create_task_group() as group:
            for number, auth in enumerate(auths):
                group.start_soon(ask, number, auth)
    return refused[min(refused)] if refused else None


def _target(auth: ServiceTokenAuth) -> str:
    """Return what is called, as code names it."""
    called = auth.downstream
    return called.target if called.audiences or not called.origins else listed(called.origins)


def _auth(client: ServiceClient[Any, Any] | SyncServiceClient[Any] | ServiceAuth) -> ServiceTokenAuth:
    return client.client.auth if isinstance(client, SyncServiceClient) else client.auth


class _WithoutTraceback:
    """Print the sentence of an error without its frames: Starlette sends ``traceback.format_exc()`` to the server, which prints it.

    From Python 3.12 on, the standard library asks the exception for its traceback. Python 3.11 reads the frames first, and then asks
    the exception whether to suppress its context; there the frames are removed again.
    """

    @property
    def __traceback__(self) -> TracebackType | None:
        return None

    @__traceback__.setter
    def __traceback__(self, value: TracebackType | None) -> None:
        pass

    @property
    def __suppress_context__(self) -> bool:
        if sys.version_info < (3, 12):
            asking = sys._getframe(1)  # noqa: SLF001 - the only way on 3.11
            if asking.f_code is traceback.TracebackException.__init__.__code__:
                asking.f_locals["self"].stack = None
        return True

    def __reduce__(self: Any) -> Any:
        return self.original.__reduce__()


def _sentence_alone(error: S2SError) -> S2SError:
    """Return an equal error of the same type that is printed without frames."""
    kind = type(error)
    quiet = type(kind.__name__, (_WithoutTraceback, kind), {"__module__": kind.__module__, "original": error})
    twin: S2SError = quiet.__new__(quiet, *error.args)
    twin.__dict__.update(error.__dict__)
    return twin

"""Test clients for an app as it is, which trusts an embedded issuer while the client is open."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import anyio
import httpx
from starlette.types import Message, Receive, Scope, Send

from s2s_fastapi.caller.wanted import Names
from s2s_fastapi.engine.single_flight import running_trio
from s2s_fastapi.testing.decisions import SENDING, Sending
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.refusals import SENT
from s2s_fastapi.testing.trust import Trusted

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    class TrustingClient(TestClient):
        """FastAPI's TestClient, for an app inside a block of `EmbeddedIssuer.trusted_by`."""

        trusted: Trusted


__all__ = ["TrustingAsyncClient", "async_client_of", "client_of"]


@contextmanager
def client_of(
    app: Any,
    *also: Any,
    issuer: EmbeddedIssuer | None = None,
    client_id: str | None = None,
    audience: Names = None,
    realm: str = "",
    lifespan: bool = True,
    **options: Any,
) -> "Iterator[TrustingClient]":
    """Give FastAPI's TestClient for an app that trusts the issuer as long as the client is open.

    - ``also``, ``client_id``, ``audience``, ``realm``: see `EmbeddedIssuer.trusted_by`.
    - ``lifespan=False``: the app is not started.
    - ``options`` are those of TestClient. ``client.trusted`` is the block.

    Raises:
        ConfigurationError: See `EmbeddedIssuer.trusted_by`.
    """
    issuer = issuer or EmbeddedIssuer.for_tests()
    with issuer.trusted_by(app, *also, client_id=client_id, audience=audience, realm=realm) as trusted:
        client = _client_class()(app, trusted, **options)
        with client if lifespan else nullcontext():
            yield client


@asynccontextmanager
async def async_client_of(
    app: Any,
    *also: Any,
    issuer: EmbeddedIssuer | None = None,
    client_id: str | None = None,
    audience: Names = None,
    realm: str = "",
    lifespan: bool = True,
    **options: Any,
) -> "AsyncIterator[TrustingAsyncClient]":
    """Give an ``httpx.AsyncClient`` that calls the app on the running loop (asyncio or trio). The rest is as in `client_of`.

    Raises:
        ConfigurationError: See `EmbeddedIssuer.trusted_by`.
    """
    issuer = issuer or EmbeddedIssuer.for_tests()
    with issuer.trusted_by(app, *also, client_id=client_id, audience=audience, realm=realm) as trusted:
        options.setdefault("base_url", "http://testserver")
        async with (
            _started(app) if lifespan else nullcontext(app) as started,
            TrustingAsyncClient(trusted, transport=httpx.ASGITransport(started), **options) as client,
        ):
            yield client


class TrustingAsyncClient(httpx.AsyncClient):
    """An ``httpx.AsyncClient`` that notes which app it asks."""

    def __init__(self, trusted: Trusted, **options: Any) -> None:
        super().__init__(**options)
        self.trusted = trusted

    async def send(self, request: httpx.Request, **arguments: Any) -> httpx.Response:
        """Send a request to the app."""
        sending = Sending(self.trusted)
        token = SENDING.set(sending)
        try:
            response = await super().send(request, **arguments)
        finally:
            SENDING.reset(token)
        response.extensions[SENT] = sending
        return response


@cache
def _client_class() -> Any:
    """Return a TestClient that notes which app it asks. It is a client of httpx2 if httpx2 is installed."""
    with warnings.catch_warnings():
        # Without httpx2 Starlette warns at the import, and a test run may turn warnings into errors.
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient  # noqa: PLC0415 - see above

    class Client(TestClient):
        def __init__(self, app: Any, trusted: Trusted, **options: Any) -> None:
            super().__init__(app, **options)
            self.trusted = trusted

        def send(self, request: Any, **arguments: Any) -> Any:
            sending = Sending(self.trusted)
            token = SENDING.set(sending)
            try:
                response = super().send(request, **arguments)
            finally:
                SENDING.reset(token)
            response.extensions[SENT] = sending
            return response

    Client.__name__ = Client.__qualname__ = "TestClient"
    return Client


@asynccontextmanager
async def _started(app: Any) -> AsyncIterator[Any]:
    """Run the lifespan of an app in a task of its own, as a server does; give the app with the state of its lifespan."""
    lifespan = _Lifespan(app)
    task: asyncio.Task[None] | None = None
    if running_trio() is not None:
        import trio  # noqa: PLC0415 - it is running, so it is there

        trio.lowlevel.spawn_system_task(lifespan.run)
    else:
        task = asyncio.ensure_future(lifespan.run())
    await lifespan.message("startup")
    try:
        yield lifespan.answer
    finally:
        await lifespan.message("shutdown")
        if task is not None:
            await task


class _Lifespan:
    """The lifespan of one app."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._messages: list[str] = []
        self._sent, self._answered = anyio.Event(), anyio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Run the app until it ends."""
        try:
            await self._app(
                {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self._state}, self._next, self._send
            )
        except Exception as error:  # noqa: BLE001 - raised by `message`
            self._failure = error
        finally:
            self._answered.set()

    async def message(self, name: str) -> None:
        """Send a message, and wait for the answer or for the end of the app."""
        self._messages.append(name)
        self._sent.set()
        await self._answered.wait()
        self._answered = anyio.Event()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app for a request, with the state of the lifespan."""
        await self._app({**scope, "state": dict(self._state)}, receive, send)

    async def _next(self) -> Message:
        while not self._messages:
            self._sent = anyio.Event()
            await self._sent.wait()
        return {"type": f"lifespan.{self._messages.pop(0)}"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            self._failure = RuntimeError(str(message.get("message", "")))  # unless the app raises, which says more
        else:
            self._answered.set()

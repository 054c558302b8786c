"""Ways to get a token onto a request, each as its own documentation shows it, and as people write it by hand.

A way is asked by threads through `sync`, and by the tasks of a loop through what `of_loop` returns inside of that loop: where a client
belongs to one loop, each loop has its own.
"""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any

import httpx
import httpx2
from authlib.integrations.httpx_client import AsyncOAuth2Client
from httpx_auth import OAuth2ClientCredentials

from benchmarks.caller import rows
from benchmarks.realm import REALM, RECEIVER
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth
from s2s_fastapi.testing import EmbeddedIssuer

ORIGIN = f"http://{RECEIVER}:8000"
URL = f"{ORIGIN}/customers/17"
Attach = Callable[[], str]
AsyncAttach = Callable[[], Awaitable[str]]


@dataclass(frozen=True)
class Way:
    """Both return the Authorization header of a request that is ready to be sent."""

    sync: Attach
    of_loop: Callable[[], AsyncAttach]


@dataclass(frozen=True)
class Client:
    """Who asks for tokens, and where."""

    token_url: str
    client_id: str
    secret: str
    settings: KeycloakSettings

    @classmethod
    def of(cls, issuer: EmbeddedIssuer, client_id: str) -> "Client":
        secret = issuer.secrets(REALM)[client_id]
        settings = KeycloakSettings(url=issuer.url, realm=REALM, client_id=client_id, client_secret=secret)
        return cls(f"{issuer.issuer(REALM)}/protocol/openid-connect/token", client_id, secret, settings)


class StaticHeader(httpx.Auth):
    """The header that is always the same, as httpx's documentation writes an auth of one's own."""

    def __init__(self, header: str) -> None:
        self.header = header

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        request.headers["Authorization"] = self.header
        yield request


class StaticHeader2(httpx2.Auth):
    """Likewise for httpx2."""

    def __init__(self, header: str) -> None:
        self.header = header

    def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        request.headers["Authorization"] = self.header
        yield request


class ByHand(httpx.Auth):
    """A token and when it expires, looked at before each request: what people write."""

    def __init__(self, client: Client, asynchronous: httpx.AsyncClient | None = None) -> None:
        self._client = client
        self._http = httpx.Client()
        self._async_http = asynchronous
        self._token = ""
        self._expires = 0.0

    def _asked(self) -> dict[str, Any]:
        credentials = {"client_id": self._client.client_id, "client_secret": self._client.secret}
        return {"data": {"grant_type": "client_credentials", **credentials}}

    def _keep(self, answer: httpx.Response) -> None:
        given = answer.raise_for_status().json()
        self._token, self._expires = given["access_token"], time.time() + given["expires_in"] - 30

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        if time.time() >= self._expires:
            self._keep(self._http.post(self._client.token_url, **self._asked()))
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        if time.time() >= self._expires:
            if self._async_http is None:
                self._async_http = httpx.AsyncClient()
            self._keep(await self._async_http.post(self._client.token_url, **self._asked()))
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def ours(client: Client) -> ServiceTokenAuth:
    return ServiceTokenAuth(ORIGIN, audience=RECEIVER, settings=client.settings)


def httpx_auth(client: Client) -> OAuth2ClientCredentials:
    return OAuth2ClientCredentials(client.token_url, client_id=client.client_id, client_secret=client.secret)


def authlib(client: Client) -> AsyncOAuth2Client:
    return AsyncOAuth2Client(
        client.client_id, client.secret, token_endpoint=client.token_url, grant_type="client_credentials"
    )


def attached(auth: Any) -> str:
    flow = auth.sync_auth_flow(httpx.Request("GET", URL))
    header: str = next(flow).headers["Authorization"]
    flow.close()
    return header


async def aattached(auth: Any, request: Any = None) -> str:
    flow = auth.async_auth_flow(httpx.Request("GET", URL) if request is None else request)
    header: str = (await anext(flow)).headers["Authorization"]
    await flow.aclose()
    return header


def _through(auth: Any) -> Way:
    return Way(lambda: attached(auth), lambda: lambda: aattached(auth))


def _tasks_only() -> str:
    raise NotImplementedError("an AsyncOAuth2Client is for tasks")


def _authlib(client: Client) -> Way:
    def of_loop() -> AsyncAttach:
        session = authlib(client)

        async def attach() -> str:
            if not session.token:
                await session.fetch_token()
            await session.ensure_active_token(session.token)  # as its `request` does
            return await aattached(session.token_auth, httpx2.Request("GET", URL))

        return attach

    return Way(_tasks_only, of_loop)


def _by_hand(client: Client) -> Way:
    threads = ByHand(client)

    def of_loop() -> AsyncAttach:
        tasks = ByHand(client)
        return lambda: aattached(tasks)

    return Way(lambda: attached(threads), of_loop)


WAYS: dict[str, Callable[[Client], Way]] = {
    rows.OURS: lambda client: _through(ours(client)),
    rows.HTTPX_AUTH: lambda client: _through(httpx_auth(client)),
    rows.AUTHLIB: _authlib,
    rows.BY_HAND: _by_hand,
}

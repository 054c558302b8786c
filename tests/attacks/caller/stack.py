"""The whole stack of a caller: httpx and httpx2, sync and async, sockets on both sides, the embedded issuer as Keycloak."""

import asyncio
import ssl
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Coroutine
from json import loads
from typing import Any

import httpx
import httpx2
import trio

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer, Exchange
from tests.testing.asking import SECRET, client, document

SECONDS = 20.0
TLS = ssl.create_default_context()  # each client would take 30 ms to make its own
Main = Callable[[], Coroutine[Any, Any, Any]]
Send = Callable[..., Any]


def in_asyncio(main: Main) -> Any:
    return asyncio.run(main())


def in_trio(main: Main) -> Any:
    return trio.run(main)


def plainly(package: Any) -> Send:
    def send(auth: Any, method: str, url: str, client: dict[str, Any] | None = None, **options: Any) -> Any:
        with package.Client(auth=auth, verify=TLS, **(client or {})) as opened:
            return opened.request(method, url, **options)

    return send


def within(package: Any, run: Callable[[Main], Any]) -> Send:
    def send(auth: Any, method: str, url: str, client: dict[str, Any] | None = None, **options: Any) -> Any:
        async def main() -> Any:
            async with package.AsyncClient(auth=auth, verify=TLS, **(client or {})) as opened:
                return await opened.request(method, url, **options)

        return run(main)

    return send


WAYS: dict[str, Send] = {
    "httpx": plainly(httpx),
    "httpx-asyncio": within(httpx, in_asyncio),
    "httpx-trio": within(httpx, in_trio),
    "httpx2": plainly(httpx2),
    "httpx2-asyncio": within(httpx2, in_asyncio),
    "httpx2-trio": within(httpx2, in_trio),
}


def realm(**changes: Any) -> dict[str, Any]:
    """Return a realm whose client ``caller`` gets tokens for ``receiver`` that live 300 s."""
    made = document(**changes)
    return {**made, "clients": [*made["clients"], client("another", secret=f"{SECRET}-of-another")]}


def settings(issuer: EmbeddedIssuer, client_id: str = "caller", **changes: Any) -> KeycloakSettings:
    given = {"url": issuer.url, "realm": "corp", "client_id": client_id, "client_secret": SECRET, **changes}
    return KeycloakSettings(**{name: value for name, value in given.items() if value is not None})


def asked(issuer: EmbeddedIssuer) -> tuple[Exchange, ...]:
    """Return the token requests so far."""
    return issuer.requests("token")


def claims(token: str) -> Any:
    part = token.split(".")[1]
    return loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def working() -> set[threading.Thread]:
    """Return the threads of the package."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("s2s_fastapi-")}


others: set[threading.Thread] = set()
"""Threads of the package from before the test: one may sleep for a minute until another test's retry is due."""


def idle() -> None:
    """Wait until no thread of the package is left that this test started."""
    until(lambda: not working() - others)

"""CPU time of the auth flow alone, without network: up to the request that is ready to be sent, then a 200, as the clients drive it.

The requests are made outside of the clock, each is used once, and the rows come in small shuffled batches of one run.
"""

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx2

from benchmarks import batches
from benchmarks.caller import rows, ways
from benchmarks.caller.rows import ATTACH, Attach
from benchmarks.caller.ways import URL, ByHand, Client, StaticHeader, StaticHeader2
from benchmarks.figures import Figure
from benchmarks.realm import CALLER, token
from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.testing import EmbeddedIssuer

BATCH, WARM_UP = 100, 20
Prepare = Callable[[], Awaitable[None]]


class Todo:
    """One row, ready to be driven: its requests, its auth, and what stands before the flow."""

    def __init__(self, row: Attach, auth: Any, *, inbound: bytes | None = None, before: Prepare | None = None) -> None:
        library: Any = httpx2 if row.client in (rows.HTTPX2, rows.ASYNC_HTTPX2) else httpx
        self.row = row
        self.asynchronous = row.client in (rows.ASYNC_HTTPX, rows.ASYNC_HTTPX2)
        self.auth = auth
        self.inbound = inbound
        self.before = before
        self._client = library.Client()
        self._response = library.Response

    def requests(self) -> list[tuple[Any, Any]]:
        requests = [self._client.build_request("GET", URL) for _ in range(BATCH)]
        return [(request, self._response(200, request=request)) for request in requests]


def _drive(todo: Todo, requests: list[tuple[Any, Any]]) -> float:
    auth = todo.auth
    began = time.thread_time_ns()
    for request, response in requests:
        flow = auth.sync_auth_flow(request)
        next(flow)
        try:  # noqa: SIM105 - as the client does it: `suppress` would cost as much as what is measured
            flow.send(response)
        except StopIteration:
            pass
        flow.close()
    return (time.thread_time_ns() - began) / BATCH / 1000


async def _adrive(todo: Todo, requests: list[tuple[Any, Any]]) -> float:
    auth, before = todo.auth, todo.before
    began = time.thread_time_ns()
    for request, response in requests:
        if before is not None:
            await before()
        flow = auth.async_auth_flow(request)
        await flow.__anext__()
        try:  # noqa: SIM105 - likewise
            await flow.asend(response)
        except StopAsyncIteration:
            pass
        await flow.aclose()
    return (time.thread_time_ns() - began) / BATCH / 1000


@contextmanager
def _inside(inbound: bytes | None) -> Iterator[None]:
    before = INBOUND.set(inbound)
    try:
        yield
    finally:
        INBOUND.reset(before)


async def batch(todo: Todo) -> float:
    """Return the microseconds of one flow."""
    requests = todo.requests()
    with _inside(todo.inbound):
        return await _adrive(todo, requests) if todo.asynchronous else _drive(todo, requests)


async def _todo(issuer: EmbeddedIssuer) -> list[Todo]:
    client = Client.of(issuer, CALLER)
    header, inbound = f"Bearer {token(issuer)}", digest(token(issuer))
    session = ways.authlib(client)
    await session.fetch_token()

    async def active() -> None:
        await session.ensure_active_token(session.token)  # `request` does it before each flow

    def made(row: Attach) -> Todo:
        old = row.client in (rows.HTTPX, rows.ASYNC_HTTPX)
        if row.name == rows.NO_TOKEN:
            return Todo(row, httpx.Auth() if old else httpx2.Auth())
        if row.name == rows.STATIC:
            return Todo(row, StaticHeader(header) if old else StaticHeader2(header))
        if row.name == rows.HTTPX_AUTH:
            return Todo(row, ways.httpx_auth(client))
        if row.name == rows.BY_HAND:
            return Todo(row, ByHand(client))
        if row.name == rows.AUTHLIB:
            return Todo(row, session.token_auth, before=active)
        return Todo(row, ways.ours(client), inbound=inbound if row.name == rows.INSIDE else None)

    return [made(row) for row in ATTACH]


async def _measured(issuer: EmbeddedIssuer, rounds: int) -> dict[Attach, Figure]:
    todo = await _todo(issuer)
    samples: dict[Attach, list[float]] = {row: [] for row in ATTACH}
    for one in todo:
        for _ in range(WARM_UP):
            await batch(one)
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for one in random.sample(todo, len(todo)):
            samples[one.row].append(await batch(one))
    gc.unfreeze()
    return {row: batches.figure(values) for row, values in samples.items()}


def measure(issuer: EmbeddedIssuer, rounds: int) -> dict[Attach, Figure]:
    """Return the figure of each row, in the rows' order; the issuer is asked once for each way, before anything is timed."""
    return asyncio.run(_measured(issuer, rounds))

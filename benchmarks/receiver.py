"""What a guarded route costs over the same route without a guard: CPU time, in shuffled small batches, in one run.

Wall clock in whole rounds drowned in noise; the thread's own CPU time, taken in batches of 50 and read at a low percentile, does not.
"""

import asyncio
import platform
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI

sys.path.insert(0, str(Path(__file__).parents[1]))

from joserfc import jwt
from starlette.requests import HTTPConnection

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_audience, require_caller
from tests.realm import Realm, settings

BATCH, ROUNDS, PERCENTILE = 50, 60, 0.2
Call = Callable[[], Awaitable[None]]


def bare() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def route() -> str:
        return "ok"

    return app


def floor() -> FastAPI:
    """What nobody can go below: a middleware that passes through, one look into a dict, one async dependency."""
    app = FastAPI()
    known: dict[bytes, str] = {}

    class PassThrough:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            known.get(b"token")
            await self.app(scope, receive, send)

    async def dependency(connection: HTTPConnection) -> str:
        return connection.scope["type"]

    @app.get("/")
    async def route(caller: Annotated[str, Depends(dependency)]) -> str:
        return "ok"

    app.add_middleware(PassThrough)
    return app


def guarded(realm: Realm, *, combined: bool = False) -> FastAPI:
    app = FastAPI()
    app.add_middleware(ServiceAuthMiddleware, settings(), transport=realm.transport)
    requirement = require_caller("chat-app-service")
    if combined:
        requirement = require_audience("crm-api-gateway") & requirement

    @app.get("/")
    async def route(caller: Annotated[Principal, Depends(requirement)]) -> str:
        return "ok"

    return app


def request(app: FastAPI, tokens: Callable[[], str | None]) -> Call:
    sent: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            sent.append(message["status"])

    async def call() -> None:
        token = tokens()
        headers = [(b"host", b"test"), (b"accept", b"*/*")]
        if token is not None:
            headers.append((b"authorization", b"Bearer " + token.encode()))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": "/",
            "raw_path": b"/",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": headers,
            "server": ("test", 80),
            "client": ("test", 1),
        }
        await app(scope, receive, send)
        if sent.pop() != 200:
            raise RuntimeError("the benchmark was refused")

    return call


async def measure(calls: dict[str, Call]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(20):
            await call()
    for _ in range(ROUNDS):
        for name in random.sample(sorted(calls), len(calls)):
            call = calls[name]
            began = time.thread_time_ns()
            for _ in range(BATCH):
                await call()
            samples[name].append((time.thread_time_ns() - began) / BATCH / 1000)
    return {name: sorted(values)[int(len(values) * PERCENTILE)] for name, values in samples.items()}


def main() -> None:
    realm = Realm()
    repeated = realm.token()
    fresh = [realm.token() for _ in range((BATCH * ROUNDS + 20) * 2)]
    joserfc_tokens = iter(fresh[len(fresh) // 2 :])
    new_tokens = iter(fresh[: len(fresh) // 2])

    async def joserfc() -> None:
        jwt.decode(next(joserfc_tokens), realm.key.private, algorithms=["RS256"])

    figures = asyncio.run(
        measure(
            {
                "bare route": request(bare(), lambda: None),
                "floor": request(floor(), lambda: repeated),
                "guarded, repeated token": request(guarded(realm), lambda: repeated),
                "guarded, a & b": request(guarded(realm, combined=True), lambda: repeated),
                "guarded, new token": request(guarded(realm), lambda: next(new_tokens)),
                "joserfc decode alone": joserfc,
            }
        )
    )
    bare_cost = figures["bare route"]
    floor_cost = figures["floor"] - bare_cost
    print(
        f"Python {platform.python_version()}, {platform.machine()}; us of CPU, {PERCENTILE:.0%} of {ROUNDS} batches of {BATCH}\n"
    )
    print(f"{'':28}{'us':>8}{'over bare':>12}{'x floor':>10}")
    for name, cost in figures.items():
        over = "" if name.startswith("joserfc") else f"{cost - bare_cost:12.1f}{(cost - bare_cost) / floor_cost:10.2f}"
        print(f"{name:28}{cost:8.1f}{over}")


if __name__ == "__main__":
    main()

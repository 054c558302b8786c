"""Clients of an app as it is: on which loop, with which lifespan."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from fastapi import Depends, FastAPI, Request

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, require_audience
from s2s_fastapi.testing import EmbeddedIssuer, assert_refused, async_client_of, client_of

Run = Callable[..., Any]


def make_app(events: list[str], *, fails: bool = False) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append("started")
        if fails:
            raise ValueError("no database")
        yield {"note": "of the lifespan"}
        events.append("ended")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(ServiceAuthMiddleware, public_paths=["/state"])

    @app.get("/x", dependencies=[Depends(require_audience("x"))])
    async def x() -> str:
        return "x"

    @app.get("/state")
    async def state(request: Request) -> str:
        return str(request.state.note)

    return app


@pytest.fixture
def issuer() -> EmbeddedIssuer:
    return EmbeddedIssuer.for_tests()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_client_runs_the_lifespan_and_the_routes_on_its_loop(issuer: EmbeddedIssuer, backend: str) -> None:
    events: list[str] = []

    async def ask() -> None:
        async with async_client_of(make_app(events), issuer=issuer) as client:
            assert (await client.get("/state")).json() == "of the lifespan"
            assert (await client.get("/x", auth=issuer.as_service("a"))).json() == "x"
            assert_refused(await client.get("/x"), 401, "no_credentials")
            assert events == ["started"]

    anyio.run(ask, backend=backend)
    assert events == ["started", "ended"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("fails", [True, False], ids=["the lifespan raises", "the start check refuses"])
def test_an_async_client_raises_why_the_app_did_not_start(issuer: EmbeddedIssuer, backend: str, fails: bool) -> None:
    app = make_app([], fails=fails)
    if not fails:
        app.post("/x", dependencies=[Depends(require_audience("another"))])(lambda: None)
        app.add_middleware(ServiceAuthMiddleware, audience="x")

    async def ask() -> None:
        with pytest.raises(ValueError if fails else ConfigurationError):
            async with async_client_of(app, issuer=issuer):
                pytest.fail("it started")

    anyio.run(ask, backend=backend)


def test_without_lifespan_the_app_is_not_started(issuer: EmbeddedIssuer) -> None:
    events: list[str] = []
    with client_of(make_app(events), issuer=issuer, lifespan=False) as client:
        assert client.get("/x", auth=issuer.as_service("a")).status_code == 200

    async def ask() -> None:
        async with async_client_of(make_app(events), issuer=issuer, lifespan=False) as client:
            assert (await client.get("/x", auth=issuer.as_service("a"))).status_code == 200

    anyio.run(ask)
    assert events == []


def test_the_sync_client_runs_the_app_on_trio_too(issuer: EmbeddedIssuer) -> None:
    with client_of(make_app([]), issuer=issuer, backend="trio") as client:
        assert client.get("/x", auth=issuer.as_service("a")).status_code == 200
        assert_refused(client.get("/x"), 401, "no_credentials")


@pytest.mark.parametrize("package", [httpx, httpx2], ids=lambda package: package.__name__)
def test_the_auth_objects_are_for_clients_of_both_packages(issuer: EmbeddedIssuer, package: Any) -> None:
    app = make_app([])

    async def ask() -> int:
        transport = package.ASGITransport(app)
        async with package.AsyncClient(transport=transport, base_url="http://x", auth=issuer.as_service("a")) as client:
            answer: int = (await client.get("/x")).status_code
            return answer

    with issuer.trusted_by(app):
        assert anyio.run(ask) == 200


def test_without_an_issuer_a_client_has_one_of_its_own() -> None:
    with client_of(make_app([])) as client:
        assert client.get("/x").status_code == 401
        assert client.get("/x", auth=client.trusted.issuer.as_service("a")).status_code == 200  # type: ignore[attr-defined]

"""An app or a router with code in front of its routes is read, and listed as opaque: it may answer before any of them."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from s2s_fastapi import ConfigurationError, ServiceAuthMiddleware, read_access, require_service, require_user
from tests.kit.receiving import Client, Options

EITHER = require_service() | require_user()


async def plain(request: Request) -> PlainTextResponse:
    return PlainTextResponse("plain")


class OwnCall(FastAPI):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class OwnStarlette(Starlette):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)


class OwnApp(Router):
    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        await super().app(scope, receive, send)


class OwnHandle(APIRouter):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None: ...


class Plain(FastAPI):
    """A subclass without an answer of its own."""


def routes() -> list[Any]:
    return [Route("/x", EITHER.guard(plain))]


def own_call() -> FastAPI:
    app = OwnCall(openapi_url=None)
    app.get("/x", dependencies=[Depends(EITHER)])(lambda: None)
    return app


def an_attribute_of_the_object() -> Starlette:
    app = Starlette(routes=routes())
    app.router.app = app.router.app  # type: ignore[method-assign]
    app.router.handle = lambda *args: None  # type: ignore[attr-defined]
    return app


@pytest.mark.parametrize(
    "make",
    [
        own_call,
        lambda: OwnStarlette(routes=routes()),
        lambda: OwnApp(routes()),
        lambda: OwnHandle(routes=routes()),
        an_attribute_of_the_object,
    ],
    ids=["FastAPI.__call__", "Starlette.__call__", "Router.app", "APIRouter.handle", "attribute"],
)
@pytest.mark.parametrize("mounted", [False, True])
def test_it_is_read_and_opaque_and_needs_a_guard_with_users(
    client: Client, options: Options, make: Callable[[], Any], *, mounted: bool
) -> None:
    def app(*, guarded: bool) -> Any:
        inner = EITHER.guard(make()) if guarded else make()
        return Starlette(routes=[Mount("/m", inner)]) if mounted else inner

    read = [(route.name, route.opaque) for route in read_access(app(guarded=False)).routes]
    assert read == [("/m" if mounted else "/", True), ("GET /m/x" if mounted else "GET /x", False)]
    for users, guarded in ((False, False), (True, True)):
        with client(ServiceAuthMiddleware(app(guarded=guarded), **options(users=users))):
            pass
    with (
        pytest.raises(ConfigurationError, match="cannot be read"),
        client(ServiceAuthMiddleware(app(guarded=False), **options(users=True))),
    ):
        pass


@pytest.mark.parametrize(
    "app", [FastAPI(openapi_url=None), Plain(openapi_url=None), Starlette(), Router(), APIRouter()]
)
def test_an_app_as_it_comes_is_not_opaque(app: Any) -> None:
    assert read_access(app).routes == ()

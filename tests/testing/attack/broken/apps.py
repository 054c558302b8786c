"""One app behind each guard that was written by hand: with the kinds of routes that a guard can forget."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from s2s_fastapi.testing.attack import Target, TrustedIssuer
from tests.testing.attack.broken.guard import AUDIENCE, CALLER, PUBLIC, Guard, Refused


def app_behind(guard: Callable[..., Any]) -> Callable[[TrustedIssuer], Any]:
    """Return what makes the app behind a guard. Its endpoints raise: none of them may run."""

    def make(trusted: TrustedIssuer) -> FastAPI:
        app = FastAPI()
        for method, path in (
            ("GET", PUBLIC),
            ("GET", "/orders"),
            ("POST", "/orders"),
            ("DELETE", "/orders/{number}"),
            ("GET", "/orders/{number}"),
        ):
            app.add_api_route(path, runs, methods=[method])
        app.router.routes.append(Route("/page", page))
        app.add_api_websocket_route("/live", live)
        mounted = FastAPI()
        mounted.add_api_route("/inner", runs)
        app.mount("/mounted", mounted)
        app.add_middleware(guard, trusted=trusted)
        return app

    return make


def behind_a_dependency(trusted: TrustedIssuer) -> FastAPI:
    """Return an app whose guard is a dependency of a router, started by its lifespan; one route stands outside of the router."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.guard = Guard(None, trusted)
        yield
        app.state.guard = None

    def guarded(request: Request) -> None:
        try:
            request.app.state.guard.check(request.scope)
        except Refused as refused:
            raise HTTPException(refused.status, headers={"WWW-Authenticate": "Bearer"}) from None

    app = FastAPI(lifespan=lifespan)
    router = APIRouter(dependencies=[Depends(guarded)])
    router.add_api_route("/orders", runs)
    app.include_router(router)
    app.add_api_route("/forgotten", runs)
    return app


def target(guard: Callable[..., Any] = Guard) -> Target:
    return Target(
        make=app_behind(guard), audience=AUDIENCE, callers=[CALLER], public=[f"GET {PUBLIC}"], turns_clock=True
    )


async def runs() -> None:
    raise AssertionError("code of the app ran")


async def page(request: Request) -> PlainTextResponse:
    raise AssertionError("code of the app ran")


async def live(websocket: WebSocket) -> None:
    raise AssertionError("code of the app ran")

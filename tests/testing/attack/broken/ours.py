"""Apps with our own middleware, used in a wrong way or in a right and unusual one."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from s2s_fastapi import (
    KeycloakSettings,
    ServiceAuthMiddleware,
    require_audience,
    require_caller,
    require_role,
    require_scope,
    require_service,
    require_user,
)
from s2s_fastapi.declared.routes import layers


async def runs() -> None:
    raise AssertionError("code of the app ran")


async def page(request: Request) -> PlainTextResponse:
    raise AssertionError("code of the app ran")


CALLER = (Depends(require_caller("shop")),)


def orders(middleware: Any = ServiceAuthMiddleware, *, requires: Any = CALLER, **options: Any) -> FastAPI:
    """Return an app. If its routes require nothing, only the middleware protects them."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(middleware, public_paths=["/health"], audience="orders", **options)
    app.add_api_route("/health", runs)
    for method, path in (("GET", "/orders"), ("DELETE", "/orders"), ("GET", "/orders/{number}")):
        app.add_api_route(path, runs, methods=[method], dependencies=requires)

    @app.websocket("/live", dependencies=requires)
    async def live(websocket: WebSocket) -> None:
        raise AssertionError("code of the app ran")

    return app


class _Opening(ServiceAuthMiddleware):
    """Lets some requests pass without a look at them."""

    def opens(self, scope: Scope) -> bool:
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan" and self.opens(scope):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


class OpensDelete(_Opening):
    def opens(self, scope: Scope) -> bool:
        return bool(scope.get("method") == "DELETE")


class OpensWebSockets(_Opening):
    def opens(self, scope: Scope) -> bool:
        return bool(scope["type"] == "websocket")


class OpensByPath(_Opening):
    def opens(self, scope: Scope) -> bool:
        return "health" in scope["path"]


class SwallowsErrors(ServiceAuthMiddleware):
    """Answers a refusal of ours by running the app all the same."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or scope["path"] == "/health":
            await super().__call__(scope, receive, send)
            return
        refused = False

        async def look(message: Any) -> None:
            nonlocal refused
            refused = refused or message.get("status") == 401

        await super().__call__(scope, receive, look)
        await self.app(scope, receive, send)


def outside_of_the_guarded_app() -> Any:
    inner = FastAPI()
    inner.add_middleware(ServiceAuthMiddleware)
    inner.add_api_route("/orders", runs, dependencies=[Depends(require_caller("shop"))])
    return Starlette(routes=[Mount("/api", inner), Route("/forgotten", page)])


def added_to_the_outer_app_only_by_path() -> Any:
    """Return an app in front of which somebody sends one path past the middleware."""
    app = orders(requires=())

    async def past(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/orders/"):
            inside = next(layer for layer in layers(app.middleware_stack) if isinstance(layer, ServiceAuthMiddleware))
            await inside.app(scope, receive, send)
        else:
            await app(scope, receive, send)

    return Around(past, app)


class Around:
    """A layer around an app that keeps it as ``app``."""

    def __init__(self, call: Callable[..., Any], app: Any) -> None:
        self._call = call
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._call(scope, receive, send)


def observed() -> FastAPI:
    return orders(insecure_observe_until=str(date.today() + timedelta(days=100)))  # noqa: DTZ011 - a day on either side


def without_audience() -> FastAPI:
    return orders(insecure_skip_audience=True)


HOLES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "delete open": (lambda: orders(OpensDelete, requires=()), "DELETE /orders", "no-token"),
    "websocket open": (lambda: orders(OpensWebSockets, requires=()), "WEBSOCKET /live", "no-token"),
    "path by a part": (
        lambda: orders(OpensByPath, requires=()),
        "GET /orders/{number}",
        "parameter-named-like-a-public-page",
    ),
    "refusal swallowed": (lambda: orders(SwallowsErrors, requires=()), "GET /orders", "audience-other"),
    "route outside": (outside_of_the_guarded_app, "GET /forgotten", "no-token"),
    "past the middleware": (added_to_the_outer_app_only_by_path, "GET /orders/{number}", "no-token"),
    "observed only": (observed, "GET /orders", "audience-other"),
    "audience skipped": (without_audience, "GET /orders", "audience-other"),
}
"""What was built, and a route and a case that show its hole."""


def two_services() -> Any:
    """Return two apps, each with a middleware and settings of its own, mounted beside each other."""
    apps = []
    for name in ("crm", "billing"):
        app = FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, KeycloakSettings(url="http://k:8080", realm="corp", client_id=name))
        app.add_api_route(f"/{name}/{{number}}", runs, dependencies=[Depends(require_caller("shop"))])
        apps.append(Mount(f"/{name}", app))
    return Starlette(routes=apps)


def many_requirements() -> Any:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience=["crm", "crm-admin"], users=True)
    for number, requirement in enumerate(
        (
            require_service() & require_scope("orders:read") & require_role("writer", client="crm"),
            require_audience("crm-admin", only=True) & require_caller("shop"),
            require_user("front-end"),
            require_user() | require_caller("shop"),
        )
    ):
        app.add_api_route(f"/{number}", runs, dependencies=[Depends(requirement)])
    return app


def thirty_routes() -> Any:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)
    router = APIRouter(prefix="/v1")
    for number in range(30):
        router.add_api_route(f"/orders-{number}", runs, dependencies=[Depends(require_caller("shop"))])
    app.include_router(router)
    return app


def plain_starlette() -> Any:
    async def answer(request: Request) -> JSONResponse:
        raise AssertionError("code of the app ran")

    app = Starlette(routes=[Route("/orders", require_caller("shop").guard(answer), methods=["GET", "POST"])])
    app.add_middleware(ServiceAuthMiddleware)
    return app


RIGHT: dict[str, Callable[[], Any]] = {
    "orders": orders,
    "two services": two_services,
    "many requirements": many_requirements,
    "plain Starlette": plain_starlette,
}


class RefusesEverybody(ServiceAuthMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            scope["headers"] = [(b"authorization", b"Bearer x")]
        await super().__call__(scope, receive, send)


def refuses_everybody() -> FastAPI:
    return orders(RefusesEverybody)

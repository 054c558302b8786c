"""Apps whose routes differ by their host alone, and of which one host has a hole."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.types import Message, Receive, Scope, Send

from s2s_fastapi import ServiceAuthMiddleware, require_caller

LEAKING = "api.x.test"


class Leaks:
    """Answers 200 in the place of each 401 of one host."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        leaks = (b"host", LEAKING.encode()) in scope.get("headers", ())
        await self.app(scope, receive, _opened(send) if leaks else send)


def _opened(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def changed(message: Message) -> None:
        await send({**message, "status": 200} if message.get("status") == 401 else message)

    return changed


async def endpoint(_: Any) -> PlainTextResponse:
    raise AssertionError("the app's own code ran")


def runs() -> None:
    raise AssertionError("the app's own code ran")


def below_one_middleware() -> Starlette:
    hosts = [(LEAKING, "a"), ("api.y.test", "b")]
    routes = [Host(host, Router([Route("/s", require_caller(who).guard(endpoint))])) for host, who in hosts]
    return Starlette(routes=routes, middleware=[Middleware(Leaks), Middleware(ServiceAuthMiddleware, audience="svc")])


def each_with_its_own() -> Starlette:
    return Starlette(routes=[Host("api.y.test", _guarded()), Host(LEAKING, _guarded())], middleware=[Middleware(Leaks)])


def mounts_with_middleware() -> FastAPI:
    """Return an app with a middleware, a mount that has another, and a mounted router that has a third."""
    guard = [Middleware(ServiceAuthMiddleware, audience="svc")]
    app = _guarded()
    mounted, routed = (Route("/s", require_caller("a").guard(endpoint)) for _ in range(2))
    deep = Mount("/mount", routes=[mounted], middleware=guard)
    for part in "cba":  # so deep that it is found after the one of the app
        deep = Mount(f"/{part}", routes=[deep])
    app.router.routes.append(deep)
    app.mount("/router", Router([routed], middleware=guard))
    return app


def _guarded() -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, audience="svc")
    app.add_api_route("/s", runs, dependencies=[Depends(require_caller("a"))])
    return app

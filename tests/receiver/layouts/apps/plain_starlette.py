"""Starlette without FastAPI: guards around functions, classes, partials and mounted apps, and ``@requires`` below a guard."""

import functools
from typing import Any

from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.endpoints import HTTPEndpoint
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


@CHAT.guard
async def function(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.user.client_id)


@CHAT.guard
def in_a_thread(request: Request) -> PlainTextResponse:
    return PlainTextResponse("thread")


@CHAT.guard
@requires("tickets:read")
async def with_requires(request: Request) -> PlainTextResponse:
    return PlainTextResponse("scoped")


@CHAT.guard
class Endpoint(HTTPEndpoint):
    async def get(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("class")


class Views:
    @staticmethod
    @CHAT.guard
    async def static(request: Request) -> PlainTextResponse:
        return PlainTextResponse("static")

    async def bound(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse("bound")


async def greeting(word: str, request: Request) -> PlainTextResponse:
    return PlainTextResponse(word)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("asgi")(scope, receive, send)


inner = Router([Route("/x", CHAT.guard(require_scope("tickets:read").guard(functools.partial(greeting, "twice"))))])
app = Starlette(
    routes=[
        Route("/healthz", functools.partial(greeting, "ok")),
        Route("/function", function),
        Route("/thread", in_a_thread),
        Route("/requires", with_requires),
        Route("/class", Endpoint),
        Route("/static", Views.static),
        Route("/bound", CHAT.guard(Views().bound)),
        Route("/asked", functools.partial(greeting, "anybody")),
        Mount("/inner", CHAT.guard(inner)),
        Mount("/asgi", CHAT.guard(asgi)),
    ],
    middleware=[Middleware(ServiceAuthMiddleware, public_paths=["/healthz"], **TRUST)],
)

ANSWERS = [
    ("GET /healthz", FOR_ALL),
    *((f"GET /{name}", FOR_CHAT) for name in ("function", "thread", "requires", "class", "static", "bound")),
    ("GET /inner/x", FOR_CHAT),
    ("GET /asgi/", FOR_CHAT),
    ("GET /asked", FOR_SERVICES),
]

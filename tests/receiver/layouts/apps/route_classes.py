"""Custom route classes and routers: timing, own requests, own names, a router that adds what is required to each route."""

import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, TRUST

CHAT = require_caller("chat-app-service")


class Timed(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def timed(request: Request) -> Response:
            before = time.perf_counter()
            response = await original(request)
            response.headers["X-Time"] = str(time.perf_counter() - before)
            return response

        return timed


class Tagged(Timed):
    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **{**options, "tags": ["tagged"]})


class ForChat(APIRouter):
    """A router on which every route is for the chat app, whoever adds it."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        options["dependencies"] = [*(options.get("dependencies") or ()), Depends(CHAT)]
        super().add_api_route(path, endpoint, **options)


class Service(FastAPI):
    """An app class of a company: it adds the middleware by itself."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_middleware(ServiceAuthMiddleware, **TRUST)
        self.router.route_class = Timed


timed, tagged, for_chat = APIRouter(route_class=Timed), APIRouter(route_class=Tagged), ForChat(prefix="/chat")


@timed.get("/timed")
async def in_time(caller: Annotated[Principal, Depends(CHAT)]) -> str:
    return caller.client_id


@tagged.get("/tagged", dependencies=[Depends(CHAT)])
def with_tag() -> str:
    return "tagged"


@for_chat.get("/one")
def one() -> str:
    return "one"


@for_chat.api_route("/two", methods=["PUT", "PATCH"])
def two() -> str:
    return "two"


app = Service()
app.include_router(timed)
app.include_router(tagged)
app.include_router(for_chat)


@app.get("/own", dependencies=[Depends(CHAT)])
def own() -> str:
    return "own"


ANSWERS = [
    ("GET /timed", FOR_CHAT),
    ("GET /tagged", FOR_CHAT),
    ("GET /chat/one", FOR_CHAT),
    ("PUT /chat/two", FOR_CHAT),
    ("PATCH /chat/two", FOR_CHAT),
    ("GET /own", FOR_CHAT),
]

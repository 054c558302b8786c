"""An app that answers everybody on some routes, and says more to callers that it knows: on a route, below a mount, on a WebSocket."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from s2s_fastapi import (
    OptionalPrincipal,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_scope,
    require_service,
)
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

FOR_CHAT_OR_NOBODY = {**FOR_CHAT, "nobody": 200}
FOR_SERVICES_OR_NOBODY = {**FOR_SERVICES, "nobody": 200}


def anybody(caller: OptionalPrincipal) -> Principal | None:
    return caller


async def page(request: Request) -> Response:
    return PlainTextResponse(str(request.user.is_authenticated))


search = APIRouter(prefix="/search", dependencies=[Depends(require_caller("chat-app-service").optional())])


@require_service().optional().guard
class Page(HTTPEndpoint):
    async def get(self, request: Request) -> Response:
        return await page(request)


below = Starlette(routes=[Route("/page", page), Route("/class", Page), Route("/closed", page)])
app = FastAPI(dependencies=[Depends(require_service().optional())], openapi_url=None)
app.add_middleware(
    ServiceAuthMiddleware,
    optional_paths=[
        "/search/things",
        "POST /search/things",
        "/items/{item}",
        "/below/page",
        "/below/class",
        "WEBSOCKET /live",
        "/caller",
    ],
    public_paths=["/below/closed"],
    **TRUST,
)


@search.get("/things")
@search.post("/things")
@search.put("/things")
async def things(caller: Annotated[Principal | None, Depends(require_caller("chat-app-service").optional())]) -> str:
    return "nobody" if caller is None else caller.client_id


@app.get("/items/{item}")
def read_item(item: str, caller: Annotated[Principal | None, Depends(anybody)]) -> str:
    return item if caller is None else f"{item} for {caller.client_id}"


@app.get("/caller")
async def by_hand(request: Request) -> bool:
    await (require_service() | require_scope("x")).optional()(request)
    return request.user.is_authenticated


@app.get("/plain")
def plain(caller: Annotated[Principal, Depends(require_service())]) -> str:
    return caller.client_id


@app.websocket("/live")
async def live(websocket: WebSocket, caller: OptionalPrincipal) -> None:
    await websocket.accept()
    await websocket.send_text("nobody" if caller is None else caller.client_id)
    await websocket.close()


app.include_router(search)
app.mount("/below", require_service().optional().guard(below))

ANSWERS = [
    ("GET /search/things", FOR_CHAT_OR_NOBODY),
    ("POST /search/things", FOR_CHAT_OR_NOBODY),
    ("PUT /search/things", FOR_CHAT),
    ("GET /items/1", FOR_SERVICES_OR_NOBODY),
    ("GET /caller", FOR_SERVICES_OR_NOBODY),
    ("GET /plain", FOR_SERVICES),
    ("WEBSOCKET /live", FOR_SERVICES_OR_NOBODY),
    ("GET /below/page", FOR_SERVICES_OR_NOBODY),
    ("GET /below/class", FOR_SERVICES_OR_NOBODY),
    ("GET /below/closed", FOR_ALL),
]

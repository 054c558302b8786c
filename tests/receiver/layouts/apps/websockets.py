"""WebSockets: requirements of the route, of a router, below a dependency with ``yield``, in a mounted app, and of Starlette's own."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from starlette.endpoints import WebSocketEndpoint
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


async def channel(
    caller: Annotated[Principal, Depends(CHAT)], connection: HTTPConnection, room: str = "hall"
) -> AsyncIterator[str]:
    yield f"{room} of {caller.client_id} at {connection.url.path}"


async def say(websocket: WebSocket, text: str) -> None:
    await websocket.accept()
    await websocket.send_text(text)
    await websocket.close()


@CHAT.guard
async def starlettes(websocket: WebSocket) -> None:
    await say(websocket, "starlette")


class Echo(WebSocketEndpoint):
    encoding = "text"

    async def on_connect(self, websocket: WebSocket) -> None:
        await say(websocket, "endpoint")


app = FastAPI(routes=[WebSocketRoute("/starlette", starlettes), WebSocketRoute("/endpoint", CHAT.guard(Echo))])
app.add_middleware(ServiceAuthMiddleware, **TRUST)
router = APIRouter(dependencies=[Depends(CHAT)])
below = FastAPI()


@app.websocket("/open")
async def open_(websocket: WebSocket, caller: CurrentPrincipal) -> None:
    await say(websocket, caller.client_id)


@app.websocket("/scoped", dependencies=[Depends(require_scope("tickets:read"))])
async def scoped(websocket: WebSocket) -> None:
    await say(websocket, "scoped")


@router.websocket("/router/{number}")
async def in_a_router(websocket: WebSocket, number: int, text: Annotated[str, Depends(channel)]) -> None:
    await say(websocket, text)


@below.websocket("/ws")
async def mounted(socket: WebSocket, caller: Annotated[Any, Depends(CHAT)]) -> None:
    await say(socket, caller.client_id)


app.include_router(router)
app.mount("/below", below)

ANSWERS = [
    ("WEBSOCKET /open", FOR_SERVICES),
    ("WEBSOCKET /scoped", FOR_CHAT),
    ("WEBSOCKET /router/1", FOR_CHAT),
    ("WEBSOCKET /below/ws", FOR_CHAT),
    ("WEBSOCKET /starlette", FOR_CHAT),
    ("WEBSOCKET /endpoint", FOR_CHAT),
]

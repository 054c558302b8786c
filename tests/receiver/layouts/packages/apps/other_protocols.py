"""A Flask app through a2wsgi, Socket.IO, and server-sent events, each below a mount or on a route."""

import socketio
from a2wsgi import WSGIMiddleware
from fastapi import Depends, FastAPI
from flask import Flask
from sse_starlette import EventSourceResponse

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
legacy, sockets = Flask("legacy"), socketio.AsyncServer(async_mode="asgi", cors_allowed_origins=[])


@legacy.get("/page")
def page() -> str:
    return "page"


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.mount("/legacy", WSGIMiddleware(legacy))
app.mount("/guarded", CHAT.guard(WSGIMiddleware(legacy)))
app.mount("/sockets", CHAT.guard(socketio.ASGIApp(sockets, socketio_path="sockets/io")))


@app.get("/events", dependencies=[Depends(CHAT)])
async def events() -> EventSourceResponse:
    async def three():
        for number in range(3):
            yield {"data": number}

    return EventSourceResponse(three())


ANSWERS = [
    ("GET /legacy/page", FOR_SERVICES),
    ("GET /guarded/page", FOR_CHAT),
    ("GET /sockets/io/?EIO=4&transport=polling", FOR_CHAT),
    ("GET /events", FOR_CHAT),
]

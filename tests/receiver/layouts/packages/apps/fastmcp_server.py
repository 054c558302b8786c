"""A tool server of FastMCP below a mount: its lifespan joined, and a guard around it."""

from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from fastmcp import FastMCP

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")
tools, open_tools = FastMCP("tools"), FastMCP("open tools")


@tools.tool
def add(one: int, other: int) -> int:
    return one + other


@open_tools.tool
def ping() -> str:
    return "pong"


served = tools.http_app(path="/", stateless_http=True, json_response=True)
served_open = open_tools.http_app(path="/mcp", stateless_http=True, json_response=True)


@asynccontextmanager
async def lifespan_of_both(app: FastAPI):
    async with served.lifespan(app), served_open.lifespan(app):
        yield


app = FastAPI(lifespan=lifespan_of_both)
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.mount("/tools", CHAT.guard(served))


@app.get("/tickets")
def tickets(caller: Annotated[Principal, Depends(CHAT)]) -> str:
    return caller.client_id


app.mount("/", served_open)

INITIALIZE = {
    "json": {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        },
    },
    "headers": {"Accept": "application/json, text/event-stream"},
}
ANSWERS = [
    (Ask("POST /tools/", INITIALIZE), FOR_CHAT),
    (Ask("POST /mcp", INITIALIZE), FOR_SERVICES),
    ("GET /tickets", FOR_CHAT),
]

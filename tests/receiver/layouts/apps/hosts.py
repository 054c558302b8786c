"""Several hosts in one app, each with routes of its own."""

from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Route, Router

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")


async def tenant(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.path_params.get("tenant", "none"))


api = FastAPI(dependencies=[Depends(CHAT)])
api.get("/tickets")(lambda: ["broken"])

app = Starlette(
    routes=[
        Host("api.example.test", api, name="api"),
        Host("{tenant}.tenants.test", Router([Route("/who", CHAT.guard(tenant))])),
        Route("/who", tenant),
    ]
)
app.add_middleware(ServiceAuthMiddleware, **TRUST)

ANSWERS = [
    (Ask("GET /tickets", {"headers": {"Host": "api.example.test"}}), FOR_CHAT),
    (Ask("GET /who", {"headers": {"Host": "acme.tenants.test"}}), FOR_CHAT),
    ("GET /who", FOR_SERVICES),
]

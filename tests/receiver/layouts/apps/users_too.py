"""An app that lets users in as well: each route says who may call it, at the level that its author chose."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, WebSocket

from s2s_fastapi import (
    DOCS,
    Principal,
    ServiceAuthMiddleware,
    auth_ready,
    require_caller,
    require_service,
    require_user,
)
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, FOR_USERS, TRUST

BOTH = require_service() | require_user()
User = Annotated[Principal, Depends(require_user("crm-ui"))]

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/readyz", *DOCS], **TRUST)
app.add_api_route("/readyz", auth_ready)
both, services, below = APIRouter(dependencies=[Depends(BOTH)]), APIRouter(), FastAPI()


@both.get("/both")
def for_both() -> str:
    return "both"


@both.get("/narrowed")
def narrowed(caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> str:
    return caller.client_id


@services.get("/services")
def for_services() -> str:
    return "services"


@app.get("/me")
def me(user: User) -> str:
    return user.subject


@app.websocket("/feed")
async def feed(websocket: WebSocket, user: User) -> None:
    await websocket.accept()
    await websocket.send_text(user.subject)
    await websocket.close()


@below.get("/x")
def in_the_guarded_app() -> str:
    return "x"


app.include_router(both)
app.include_router(services, dependencies=[Depends(require_service())])
app.mount("/below", require_user().guard(below))

ANSWERS = [
    ("GET /readyz", FOR_ALL),
    ("GET /openapi.json", FOR_ALL),
    ("GET /both", {"chat": 200, "billing": 200, "user": 200, "nobody": 401}),
    ("GET /narrowed", FOR_CHAT),
    ("GET /services", FOR_SERVICES),
    ("GET /me", FOR_USERS),
    ("WEBSOCKET /feed", FOR_USERS),
    ("GET /below/x", FOR_USERS),
]

"""An app without a client id: its routes declare the audience, and a public webhook declares none."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_audience, require_caller
from tests.kit.realm import settings
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

GATEWAY = require_audience("crm-api-gateway")
Chat = Annotated[Principal, Depends(GATEWAY & require_caller("chat-app-service"))]

router = APIRouter(dependencies=[Depends(GATEWAY)])
app = FastAPI(openapi_url=None)
app.add_middleware(
    ServiceAuthMiddleware,
    **{**TRUST, "settings": settings(client_id=None)},
    public_paths=["POST /hooks/{provider}", "/healthz", "POST /hooks"],
)


@app.post("/hooks")
async def any_hook(request: Request) -> int:
    return len(await request.body())


@app.post("/hooks/{provider}")
async def hook(provider: str) -> str:
    return provider


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.post("/tickets")
def open_ticket(caller: Chat) -> str:
    return caller.client_id


@router.get("/tickets")
def tickets() -> list[str]:
    return []


app.include_router(router)

ANSWERS = [
    ("POST /hooks", FOR_ALL),
    ("POST /hooks/github", FOR_ALL),
    ("GET /healthz", FOR_ALL),
    ("POST /tickets", FOR_CHAT),
    ("GET /tickets", FOR_SERVICES),
]

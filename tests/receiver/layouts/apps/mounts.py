"""Sub-apps below sub-apps, files and a foreign ASGI app below mounts: some for every service, some with a guard."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


async def foreign(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("foreign")(scope, receive, send)


async def health(request: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


reports = FastAPI(dependencies=[Depends(CHAT)])


@reports.get("/monthly")
def monthly() -> str:
    return "monthly"


admin, users = FastAPI(), APIRouter(dependencies=[Depends(CHAT)])
users.get("/users")(lambda: ["alice"])
admin.include_router(users)
admin.mount("/reports", reports)

app = FastAPI(routes=[Route("/healthz", health), Mount("/nested", routes=[Route("/x", CHAT.guard(health))])])
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz"], **TRUST)
app.mount("/admin", admin)
app.mount("/foreign", foreign)
app.mount("/guarded", CHAT.guard(foreign))
app.mount("/source", StaticFiles(directory=Path(__file__).parent))

ANSWERS = [
    ("GET /healthz", FOR_ALL),
    ("GET /admin/users", FOR_CHAT),
    ("GET /admin/reports/monthly", FOR_CHAT),
    ("GET /nested/x", FOR_CHAT),
    ("GET /guarded/anything", FOR_CHAT),
    ("GET /foreign/anything", FOR_SERVICES),
    ("GET /source/mounts.py", FOR_SERVICES),
]

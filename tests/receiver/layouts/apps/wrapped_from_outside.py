"""Our middleware as a wrapper around the app instead of in it, with another wrapper between the two."""

from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.gzip import GZipMiddleware

from s2s_fastapi import ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

api = FastAPI()


@api.get("/chat", dependencies=[Depends(require_caller("chat-app-service"))])
def chat() -> str:
    return "chat"


@api.get("/services")
def services() -> str:
    return "services"


@api.get("/healthz")
def healthz() -> str:
    return "ok"


app: Any = ServiceAuthMiddleware(GZipMiddleware(api), public_paths=["/healthz"], **TRUST)

ANSWERS = [("GET /chat", FOR_CHAT), ("GET /services", FOR_SERVICES), ("GET /healthz", FOR_ALL)]

"""Versions as sub-apps, and one router that is included several times under different prefixes and requirements."""

from fastapi import APIRouter, Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_ALL, FOR_CHAT, FOR_SERVICES, TRUST

tickets = APIRouter(prefix="/tickets", tags=["tickets"])


@tickets.get("")
def list_tickets() -> list[str]:
    return []


@tickets.get("/{number}")
def ticket(number: int) -> int:
    return number


def version(number: int, *routers: APIRouter) -> FastAPI:
    app = FastAPI(title=f"version {number}", dependencies=[Depends(require_caller("chat-app-service"))])
    for router in routers:
        app.include_router(router)
    return app


app = FastAPI()
app.add_middleware(
    ServiceAuthMiddleware, public_paths=["/v1/openapi.json", "/v2/openapi.json", "/latest/openapi.json"], **TRUST
)
first, second = version(1, tickets), version(2, tickets)
app.mount("/v1", first)
app.mount("/v2", second)
app.mount("/latest", second)
app.include_router(tickets, prefix="/open")
app.include_router(tickets, prefix="/internal", dependencies=[Depends(require_caller("chat-app-service"))])
app.include_router(tickets, prefix="/scoped", dependencies=[Depends(require_scope("tickets:read"))])

ANSWERS = [
    *((f"GET /{name}/tickets", FOR_CHAT) for name in ("v1", "v2", "latest", "internal", "scoped")),
    *((f"GET /{name}/tickets/7", FOR_CHAT) for name in ("v1", "v2", "latest", "internal", "scoped")),
    *((f"GET /{name}/openapi.json", FOR_ALL) for name in ("v1", "v2", "latest")),
    ("GET /open/tickets/7", FOR_SERVICES),
]

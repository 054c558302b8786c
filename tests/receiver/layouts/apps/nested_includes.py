"""Requirements at every level of included routers, and scopes that a ``Security`` around them adds."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.security import SecurityScopes

from s2s_fastapi import (
    CurrentPrincipal,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
)
from s2s_fastapi.requirement.require import current_principal
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")


async def writer(caller: Annotated[Principal, Security(CHAT, scopes=["tickets:write"])]) -> Principal:
    return caller


def told_scopes(scopes: SecurityScopes, caller: CurrentPrincipal) -> list[str]:
    return scopes.scopes


inner = APIRouter(prefix="/inner")
middle = APIRouter(prefix="/middle", dependencies=[Depends(require_service())])
outer = APIRouter(prefix="/outer", dependencies=[Depends(require_service()), Depends(require_service())])
roles = APIRouter(prefix="/roles", dependencies=[Security(require_service(), scopes=["tickets:read"])])


@inner.get("/x")
def x() -> str:
    return "x"


@inner.get("/secured")
def secured(
    caller: Annotated[Principal, Security(current_principal, scopes=["tickets:read", "tickets:write"])],
) -> str:
    return caller.client_id


@inner.get("/told")
def told(scopes: Annotated[list[str], Security(told_scopes, scopes=["tickets:read"])]) -> list[str]:
    return scopes


@roles.get("/client", dependencies=[Depends(require_role("writer"))])
def client_role() -> str:
    return "client"


@roles.get("/realm", dependencies=[Depends(require_realm_role("staff") & require_scope("tickets:read"))])
def realm_role() -> str:
    return "realm"


@roles.get("/either", dependencies=[Depends(CHAT | require_caller("shop-api"))])
def either(caller: Annotated[Principal, Security(writer, scopes=["tickets:read"])]) -> str:
    return caller.client_id


middle.include_router(inner, dependencies=[Depends(CHAT)])
outer.include_router(middle)
outer.include_router(roles, prefix="/of-outer")
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.include_router(outer, prefix="/api")
app.include_router(inner, prefix="/plain")

ANSWERS = [
    *((f"GET /api/outer/middle/inner/{name}", FOR_CHAT) for name in ("x", "secured", "told")),
    *((f"GET /api/outer/of-outer/roles/{name}", FOR_CHAT) for name in ("client", "realm", "either")),
    ("GET /plain/inner/x", FOR_SERVICES),
    ("GET /plain/inner/secured", FOR_CHAT),
    ("GET /plain/inner/told", FOR_CHAT),
]

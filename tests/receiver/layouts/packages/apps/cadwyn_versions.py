"""Versions by date with Cadwyn, which makes the routes of each version from those of the newest."""

import datetime as dt
from typing import Annotated

from cadwyn import Cadwyn, HeadVersion, Version, VersionBundle, VersionedAPIRouter
from fastapi import Depends

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")
router = VersionedAPIRouter()


@router.get("/tickets")
async def tickets(caller: Annotated[Principal, Depends(CHAT)]) -> str:
    return caller.client_id


@router.get("/guarded", dependencies=[Depends(CHAT)])
async def guarded() -> str:
    return "guarded"


@router.get("/services")
async def services(caller: CurrentPrincipal) -> str:
    return caller.client_id


app = Cadwyn(versions=VersionBundle(HeadVersion(), Version(dt.date(2026, 1, 1)), Version(dt.date(2025, 1, 1))))
app.generate_and_include_versioned_routers(router)
app.add_middleware(ServiceAuthMiddleware, **TRUST)

OLD = {"headers": {"x-api-version": "2025-01-01"}}
ANSWERS = [
    (Ask("GET /tickets", OLD), FOR_CHAT),
    (Ask("GET /guarded", OLD), FOR_CHAT),
    (Ask("GET /guarded", {"headers": {"x-api-version": "2026-01-01"}}), FOR_CHAT),
    (Ask("GET /services", OLD), FOR_SERVICES),
]

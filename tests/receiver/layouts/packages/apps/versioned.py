"""One app for each version, made by fastapi-versioning; our middleware is on the app around them."""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi_versioning import VersionedFastAPI, version

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
declared = FastAPI()


@declared.get("/tickets")
@version(1)
def tickets(caller: Annotated[Principal, Depends(CHAT)]) -> str:
    return caller.client_id


@declared.get("/tickets")
@version(2)
def tickets_of_services(caller: CurrentPrincipal) -> str:
    return caller.client_id


app = VersionedFastAPI(declared, version_format="{major}", prefix_format="/v{major}", enable_latest=True)
app.add_middleware(ServiceAuthMiddleware, **TRUST)

ANSWERS = [
    ("GET /v1/tickets", FOR_CHAT),
    ("GET /v2/tickets", FOR_SERVICES),
    ("GET /latest/tickets", FOR_SERVICES),
]

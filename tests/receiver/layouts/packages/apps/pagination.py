"""``add_pagination``, which changes the routes of the app when it starts."""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI
from fastapi_pagination import LimitOffsetPage, Page, add_pagination, paginate
from fastapi_pagination.utils import disable_installed_extensions_check
from pydantic import BaseModel

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST


class Ticket(BaseModel):
    number: int = 0


disable_installed_extensions_check()  # it would warn that SQLModel is there
router = APIRouter(prefix="/router", dependencies=[Depends(require_caller("chat-app-service"))])
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/tickets")
def tickets(caller: Annotated[Principal, Depends(require_caller("chat-app-service"))]) -> Page[Ticket]:
    return paginate([Ticket()] * 3)


@app.get("/open")
def open_tickets(caller: CurrentPrincipal) -> LimitOffsetPage[Ticket]:
    return paginate([Ticket()] * 3)


@router.get("/tickets", response_model=Page[Ticket])
async def below() -> object:
    return paginate([])


app.include_router(router)
add_pagination(app)

ANSWERS = [("GET /tickets?size=2", FOR_CHAT), ("GET /router/tickets", FOR_CHAT), ("GET /open", FOR_SERVICES)]

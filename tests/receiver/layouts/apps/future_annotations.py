"""Annotations that are text, of names that exist at run time; what only the type checker knows is on no parameter."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from pydantic import BaseModel

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

if TYPE_CHECKING:
    from decimal import Decimal

Chat = Annotated[Principal, Depends(require_caller("chat-app-service"))]


class Kind(StrEnum):
    OPEN = "open"


class Filter(BaseModel):
    limit: int = 10
    kind: Kind | None = None


def total(prices: list[Decimal]) -> Decimal | int:
    return sum(prices)


def tenant(caller: Chat, request: Request) -> str:
    return f"{caller.client_id} at {request.url.path}"


router = APIRouter()


@router.get("/tenant")
async def show(
    tenant: Annotated[str, Depends(tenant)], q: Annotated[list[str] | None, Query()] = None
) -> dict[str, Any]:
    return {"tenant": tenant, "total": total([]), "q": q}


@router.get("/price", response_model=None)
async def price(caller: Chat) -> Decimal | int:
    return total([])


@router.get("/tickets")
async def tickets(caller: CurrentPrincipal, asked: Annotated[Filter, Depends()]) -> int:
    return asked.limit


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)
app.include_router(router)

ANSWERS = [("GET /tenant", FOR_CHAT), ("GET /price", FOR_CHAT), ("GET /tickets", FOR_SERVICES)]

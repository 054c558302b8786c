"""A policy table and one helper that looks the request up in it and asks ``.check``."""

from typing import Annotated

from fastapi import Depends, FastAPI, Request

from s2s_fastapi import (
    CurrentPrincipal,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_scope,
    require_service,
)
from s2s_fastapi.requirement.requirement import Requirement
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

CHAT = require_caller("chat-app-service")
POLICIES: dict[tuple[str, str], Requirement] = {
    ("GET", "/tickets"): require_service(),
    ("POST", "/tickets"): CHAT & require_scope("tickets:write"),
    ("DELETE", "/tickets/{number}"): CHAT,
}
ASKED_BY_HAND = True


def policy_for(request: Request) -> Requirement:
    return POLICIES[request.method, request.scope["route"].path]


def enforce(caller: Principal, request: Request) -> Principal:
    return policy_for(request).check(caller)


def by_policy(caller: CurrentPrincipal, request: Request) -> Principal:
    return enforce(caller, request)


app = FastAPI(dependencies=[Depends(by_policy)])
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/tickets")
def list_tickets(caller: Annotated[Principal, Depends(by_policy)]) -> str:
    return caller.client_id


@app.post("/tickets")
def open_ticket() -> str:
    return "opened"


@app.delete("/tickets/{number}")
def close_ticket(number: int) -> int:
    return number


ANSWERS = [("GET /tickets", FOR_SERVICES), ("POST /tickets", FOR_CHAT), ("DELETE /tickets/1", FOR_CHAT)]

"""Story 1, the receiver: only services whose token is for crm-api-gateway, and on each route only the ones it names."""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_audience, require_caller

app = FastAPI(title="CRM gateway")
# For development. In production leave DOCS out: everybody can read /docs and /openapi.json, and they name who may call.
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


class Ticket(BaseModel):
    """What a customer wants."""

    subject: str


opened: list[str] = []


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks: a probe brings no token."""
    return "ok"


@app.post("/tickets", status_code=201)
async def open_ticket(
    ticket: Ticket,
    caller: Annotated[Principal, Depends(require_audience("crm-api-gateway") & require_caller("chat-app-service"))],
) -> dict[str, str | int]:
    """Open a ticket for the chat app, and for nobody else."""
    opened.append(ticket.subject)
    return {"number": len(opened), "opened_by": caller.client_id}


@app.get("/tickets", dependencies=[Depends(require_caller("chat-app-service", "billing"))])
async def list_tickets() -> list[str]:
    """List the tickets for the chat app and for billing."""
    return opened

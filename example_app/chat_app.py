"""Story 1, the caller: a chat that a person gave up on becomes a ticket."""

import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI

from s2s_fastapi import service_client, service_lifespan

crm = service_client(os.environ.get("CRM_URL", "http://localhost:8001"), audience="crm-api-gateway")
app = FastAPI(title="Chat app", lifespan=service_lifespan(crm))  # does not start if Keycloak refuses the token


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


# This route is open to everybody. In production, protect it too: see the page "Protect a service".
@app.post("/escalate", status_code=201)
async def escalate(client: Annotated[httpx.AsyncClient, Depends(crm)]) -> dict[str, str | int]:
    """Open a ticket at the CRM gateway; the client brings the token."""
    response = await client.post("/tickets", json={"subject": "the chat bot did not help"})
    ticket: dict[str, str | int] = response.raise_for_status().json()
    return ticket

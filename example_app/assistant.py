"""Story 4, the agent: calls the tool server as itself, and the calendar on behalf of the user who asked."""

import os
from typing import Annotated, Any

import httpx
import httpx2
from fastapi import Depends, FastAPI
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from s2s_fastapi import (
    DOCS,
    Principal,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    require_user,
    service_client,
    service_lifespan,
)

TOOLS_URL = os.environ.get("TOOLS_URL", "http://localhost:8011")
CALENDAR_URL = os.environ.get("CALENDAR_URL", "http://localhost:8012")

tools = ServiceTokenAuth(TOOLS_URL, audience="https://tools.workshop.example/mcp", scope="tools-audience")
calendar = service_client(CALENDAR_URL, audience="calendar-api", scope="calendar-audience")

app = FastAPI(title="Assistant", lifespan=service_lifespan(calendar))
app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/healthz", *DOCS])

User = Annotated[Principal, Depends(require_user("assistant-ui"))]


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.get("/agenda")
async def agenda(user: User, client: Annotated[httpx.AsyncClient, Depends(calendar.on_behalf)]) -> dict[str, str]:
    """Read the user's own calendar: the calendar sees the user, and that the assistant asks."""
    response = await client.get("/appointments")
    found: dict[str, str] = response.raise_for_status().json()
    return {**found, "asked_by": user.username or user.subject}


@app.get("/agenda/as-myself")
async def agenda_as_myself(user: User, client: Annotated[httpx.AsyncClient, Depends(calendar)]) -> dict[str, Any]:
    """Try the same with the assistant's own token, which is for the calendar, too. The calendar refuses: it shows users what is theirs."""
    response = await client.get("/appointments")
    return {"status": response.status_code, "asked_by": user.username or user.subject}


@app.get("/note")
async def note(user: User) -> dict[str, str]:
    """Use a tool as the assistant itself, with the official SDK's own client."""
    async with (
        httpx2.AsyncClient(auth=tools) as http,
        Client(streamable_http_client(f"{TOOLS_URL}/mcp", http_client=http)) as session,
    ):
        result: Any = await session.call_tool("publish", {"text": f"a note of {user.username}"})
    return {"tool": result.content[0].text}

"""Story 3, a receiver that Alice does not trust: it tries the tokens it is given elsewhere."""

import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Request

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_service, require_user

CHARLES_URL = os.environ.get("CHARLES_URL", "http://localhost:8006")
GULLIBLE_URL = os.environ.get("GULLIBLE_URL", "http://localhost:8007")

app = FastAPI(title="Bob")
# Bob also serves the front end's users, so each route says who may call it.
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS], users=True)
Caller = Annotated[Principal, Depends(require_service() | require_user("abc-ui"))]


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/messages")
async def receive(caller: Caller) -> dict[str, str]:
    """Take a message."""
    return {"for": "bob", "from": caller.client_id}


@app.post("/replays")
async def replay(request: Request, caller: Caller) -> list[int]:  # noqa: ARG001 - asked for, so that it is checked
    """Do what no honest service does: send the caller's own token on, by hand. Our client would refuse to."""
    stolen = {"Authorization": request.headers["Authorization"]}
    async with httpx.AsyncClient(headers=stolen) as client:
        return [(await client.post(f"{url}/messages")).status_code for url in (CHARLES_URL, GULLIBLE_URL)]

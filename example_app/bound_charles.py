"""Story 5, a receiver that lets nobody in without a proof of the key: a token alone is of no use here."""

import os
from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_service

PUBLIC_URL = os.environ.get("CHARLES_URL", "http://localhost:8006")

app = FastAPI(title="Charles")
app.add_middleware(ServiceAuthMiddleware, dpop="required", public_url=PUBLIC_URL, public_paths=["/healthz", *DOCS])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/letters")
async def receive(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
    """Take a letter."""
    return {"for": "charles", "from": caller.client_id, "binding": caller.binding}

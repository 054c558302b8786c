"""Story 5, the caller: each token of Alice is bound to a key that never leaves this process."""

import os
from typing import Literal

import httpx
from fastapi import FastAPI

from s2s_fastapi import ServiceTokenAuth

BOB_URL = os.environ.get("BOB_URL", "http://localhost:8005")
CHARLES_URL = os.environ.get("CHARLES_URL", "http://localhost:8006")

app = FastAPI(title="Alice")
# One token for both: the realm writes both names into aud.
friends = ServiceTokenAuth(BOB_URL, CHARLES_URL, audience=["bob", "charles"], dpop=True)


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/letters/{recipient}")
async def send(recipient: Literal["bob", "charles"]) -> dict[str, str]:
    """Send a letter. The request carries the token and a proof of the key, made for this one request."""
    url = BOB_URL if recipient == "bob" else CHARLES_URL
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{url}/letters", auth=friends)
    answer: dict[str, str] = response.raise_for_status().json()
    return answer

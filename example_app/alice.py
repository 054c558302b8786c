"""Story 3, the caller: Alice asks for one audience at a time, and chooses it for each call."""

import os
from typing import Literal

import httpx
from fastapi import FastAPI

from s2s_fastapi import ServiceTokenAuth

BOB_URL = os.environ.get("BOB_URL", "http://localhost:8005")
CHARLES_URL = os.environ.get("CHARLES_URL", "http://localhost:8006")

app = FastAPI(title="Alice")
bob = ServiceTokenAuth(BOB_URL, audience="bob", scope="untrusted-audience")
charles = bob.asking(audience="charles", scope="charles-audience", origins=[CHARLES_URL])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/messages/{recipient}")
async def send(recipient: Literal["bob", "charles"]) -> dict[str, str]:
    """Send a message with a token that is good for its recipient and for nobody else."""
    url, auth = (BOB_URL, bob) if recipient == "bob" else (CHARLES_URL, charles)
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{url}/messages", auth=auth)
    answer: dict[str, str] = response.raise_for_status().json()
    return answer


@app.post("/replays")
async def send_to_bob_who_replays() -> list[int]:
    """Send Bob a message, of which he makes what he can."""
    async with httpx.AsyncClient() as client:
        response = await client.post(f"{BOB_URL}/replays", auth=bob)
    answer: list[int] = response.raise_for_status().json()
    return answer

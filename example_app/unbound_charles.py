"""Story 5, how it was before: Charles without bound tokens. Whoever has a bearer token is its owner, and Bob has one of Dora."""

from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_service

app = FastAPI(title="Charles, before")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/letters")
async def receive(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
    """Believe that the owner of the token is calling."""
    return {"for": "charles", "from": caller.client_id}

"""Story 3, how not to: a service that does not look at aud takes any service's token, whoever sends it. Bob abuses it."""

from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_service

app = FastAPI(title="Gullible")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS], insecure_skip_audience=True)


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/messages")
async def receive(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
    """Believe that Alice is calling: the token says so, and it was never meant for us."""
    return {"for": "gullible", "from": caller.client_id}

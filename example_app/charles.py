"""Story 3, the receiver that must not be reached with a token meant for Bob."""

from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_audience, require_service

app = FastAPI(title="Charles")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/messages")
async def receive(caller: Annotated[Principal, Depends(require_service())]) -> dict[str, str]:
    """Take a message."""
    return {"for": "charles", "from": caller.client_id}


@app.post("/secrets")
async def receive_secret(
    caller: Annotated[Principal, Depends(require_service() & require_audience("charles", only=True))],
) -> dict[str, str]:
    """Take a message whose token nobody else could have been given for: one that is also for Bob is refused."""
    return {"for": "charles alone", "from": caller.client_id}

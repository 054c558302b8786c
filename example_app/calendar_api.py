"""Story 4, the second service: a user's calendar. The user comes through the assistant, which exchanged the user's token."""

from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_user

app = FastAPI(title="Calendar API")
app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/healthz", *DOCS])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.get("/appointments")
async def appointments(user: Annotated[Principal, Depends(require_user("assistant"))]) -> dict[str, str]:
    """Show a user's own appointments. The assistant by itself is refused: it is no user."""
    return {"of": user.username or user.subject, "through": user.client_id}

"""Story 2, the receiver: only shop-api may send notifications, and only as itself."""

from typing import Annotated

from fastapi import Depends, FastAPI
from pydantic import BaseModel

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_caller

app = FastAPI(title="Notification service")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


class Notification(BaseModel):
    """What to tell whom."""

    to: str
    text: str


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/notifications", status_code=202)
async def send(
    notification: Notification, caller: Annotated[Principal, Depends(require_caller("shop-api"))]
) -> dict[str, str]:
    """Send a notification for shop-api. A user's token is refused, even one that was obtained through shop-api."""
    return {"to": notification.to, "sent_for": caller.client_id}

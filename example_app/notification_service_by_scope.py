"""Story 2, the form that scales: no list of callers in the code, the realm says which services may send."""

from typing import Annotated

from fastapi import Depends, FastAPI

from example_app.notification_service import Notification
from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_role, require_scope

app = FastAPI(title="Notification service, by scope")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS])


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/notifications", status_code=202)
async def send(
    notification: Notification, caller: Annotated[Principal, Depends(require_scope("notifications:send"))]
) -> dict[str, str]:
    """Send for every service with the scope. Users may have it too: the middleware lets only services in."""
    return {"to": notification.to, "sent_for": caller.client_id}


@app.post("/notifications/urgent", status_code=202)
async def send_urgently(
    notification: Notification, caller: Annotated[Principal, Depends(require_role("notifications:send"))]
) -> dict[str, str]:
    """Send for every service whose account has the role notifications:send of this service's client."""
    return {"to": notification.to, "sent_for": caller.client_id}

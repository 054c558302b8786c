"""notification-service of story 2 without a warm-up: the first notification waits for Keycloak's keys, and its trace shows it."""

from fastapi import FastAPI

from example_app.notification_service import healthz, send
from s2s_fastapi import DOCS, ServiceAuthMiddleware

app = FastAPI(title="Notification service")
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS], warm_up=False)
app.get("/healthz")(healthz)
app.post("/notifications", status_code=202)(send)

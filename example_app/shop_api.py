"""Story 2, the caller: a token from a request, an incoming webhook and a background task, all from one cache."""

import os
from typing import Annotated

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI

from s2s_fastapi import service_client, service_lifespan

NOTIFICATIONS_URL = os.environ.get("NOTIFICATIONS_URL", "http://localhost:8004")

notifications = service_client(NOTIFICATIONS_URL, audience="notification-service")
app = FastAPI(title="Shop API", lifespan=service_lifespan(notifications))

Notifications = Annotated[httpx.AsyncClient, Depends(notifications)]


async def notify(client: httpx.AsyncClient, text: str) -> dict[str, str]:
    """Send one notification to the customer."""
    response = await client.post("/notifications", json={"to": "customer", "text": text})
    answer: dict[str, str] = response.raise_for_status().json()
    return answer


@app.get("/healthz")
async def healthz() -> str:
    """Answer whoever asks."""
    return "ok"


@app.post("/checkout")
async def checkout(client: Notifications) -> dict[str, str]:
    """Sell something and tell the customer."""
    return await notify(client, "thank you")


@app.post("/checkout/sync")
def checkout_sync(client: Annotated[httpx.Client, Depends(notifications.sync)]) -> dict[str, str]:
    """Do the same from a route that is a plain function."""
    response = client.post("/notifications", json={"to": "customer", "text": "thank you"})
    answer: dict[str, str] = response.raise_for_status().json()
    return answer


@app.post("/checkout/later", status_code=202)
async def checkout_later(client: Notifications, background: BackgroundTasks) -> str:
    """Sell something and tell the customer after the answer."""
    background.add_task(notify, client, "thank you, a little later")
    return "accepted"


@app.post("/hooks/payment")
async def payment(client: Notifications) -> dict[str, str]:
    """Take a payment provider's webhook, which carries no token of the realm, and call out as ourselves."""
    return await notify(client, "your payment arrived")

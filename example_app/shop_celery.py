"""Story 2 from a Celery worker: a task that calls another service as this one."""

import os

from celery import Celery, Task

from s2s_fastapi import TokenRequestError, service_client


def notifications_url() -> str:
    """Return where notifications go; asked at the first call, not when the tasks are imported."""
    return os.environ.get("NOTIFICATIONS_URL", "http://localhost:8004")


app = Celery("shop", broker=os.environ.get("BROKER_URL", "memory://"))
notifications = service_client(notifications_url, audience="notification-service")


@app.task(bind=True, max_retries=10)
def notify(self: "Task[[str], int]", order: str) -> int:
    """Tell the customer of an order; while Keycloak is down, try again later."""
    try:
        with notifications as client:
            response = client.post("/notifications", json={"to": "customer", "text": f"order {order} is on its way"})
    except TokenRequestError as error:
        if not error.retryable:
            raise
        raise self.retry(countdown=error.retry_after, exc=error) from None  # Keycloak is not asked before
    return response.raise_for_status().status_code

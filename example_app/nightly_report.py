"""Story 2 from a cron job: no app, no event loop, the same client."""

import os

from s2s_fastapi import service_client

NOTIFICATIONS_URL = os.environ.get("NOTIFICATIONS_URL", "http://localhost:8004")


def main() -> None:
    """Send the nightly report."""
    with service_client(NOTIFICATIONS_URL, audience="notification-service") as client:
        response = client.post("/notifications", json={"to": "owner", "text": "all is well"})
        print(response.status_code)


if __name__ == "__main__":
    main()

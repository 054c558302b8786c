"""Story 1 from a script: what a caller sees when its token is not granted for whom it calls."""

import os
import sys

from s2s_fastapi import AudienceNotGranted, service_client

CRM_URL = os.environ.get("CRM_URL", "http://localhost:8001")


def main() -> None:
    """Open one ticket, or say why not."""
    with service_client(CRM_URL, audience="crm-api-gateway") as client:
        try:
            response = client.post("/tickets", json={"subject": "from a script"})
        except AudienceNotGranted as error:  # nothing was sent
            sys.exit(f"AudienceNotGranted: {error}")
    print(response.status_code)


if __name__ == "__main__":
    main()

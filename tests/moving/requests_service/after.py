"""The same service after the move."""

import os

import requests

from s2s_fastapi import ServiceTokenAuth

CRM = os.environ["CRM_URL"]
session = ServiceTokenAuth(CRM, audience=os.environ["CRM_AUDIENCE"]).for_requests()


def tickets() -> requests.Response:
    return session.get(f"{CRM}/tickets", timeout=5)

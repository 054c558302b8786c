"""A service that calls another one with requests, and gets and keeps its token by hand, as many do."""

import os
import time

import requests
from requests.auth import AuthBase

CRM = os.environ["CRM_URL"]
REALM = f"{os.environ['KEYCLOAK_URL']}/realms/{os.environ['KEYCLOAK_REALM']}"


class Token:
    """The token, until 10 s before it expires."""

    def __init__(self) -> None:
        self.value: str | None = None
        self.good_until = 0.0

    def get(self) -> str:
        if self.value is None or time.time() >= self.good_until:
            answer = requests.post(
                f"{REALM}/protocol/openid-connect/token",
                data={
                    "grant_type": "client_credentials",
                    "client_id": os.environ["KEYCLOAK_CLIENT_ID"],
                    "client_secret": os.environ["KEYCLOAK_CLIENT_SECRET"],
                    "audience": os.environ["CRM_AUDIENCE"],
                },
                timeout=10,
            )
            if answer.status_code != 200:
                raise RuntimeError(f"Keycloak gave no token: {answer.status_code} {answer.text[:200]}")
            fields = answer.json()
            self.value = fields["access_token"]
            self.good_until = time.time() + max(0, fields.get("expires_in", 60) - 10)
        return self.value

    def forget(self) -> None:
        self.value = None


class WithToken(AuthBase):
    """Attaches it."""

    def __init__(self, token: Token) -> None:
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self.token.get()}"
        return request


token = Token()
session = requests.Session()
session.auth = WithToken(token)


def tickets() -> requests.Response:
    answer = session.get(f"{CRM}/tickets", timeout=5)
    if answer.status_code == 401:
        token.forget()
        answer = session.get(f"{CRM}/tickets", timeout=5)
    return answer

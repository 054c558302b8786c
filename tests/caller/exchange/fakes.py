"""A Keycloak that exchanges users' tokens at the channel seam, its users, and a wall clock."""

import json
import threading
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.caller.exchange.subject import Subject
from s2s_fastapi.settings import KeycloakSettings
from tests.caller.fakes import Asked, jwt, refusal, reply

ISSUER = "http://keycloak:8080/realms/corp"
CLIENT = "chat-app-service"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
NOW = 1_900_000_000
"""The wall clock of these tests, in seconds since the epoch."""


class Wall:
    """A wall clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = float(NOW)

    def __call__(self) -> float:
        return self.now


def claims_of_user(name: str = "ann", **changes: Any) -> dict[str, Any]:
    claims = {
        "iss": ISSUER,
        "azp": "front-end",
        "aud": [CLIENT],
        "typ": "Bearer",
        "sub": f"id-of-{name}",
        "sid": f"session-of-{name}",
        "iat": NOW - 10,
        "exp": NOW + 290,
        "jti": f"jti-of-{name}",
    }
    return {claim: value for claim, value in (claims | changes).items() if value is not None}


def user(name: str = "ann", **changes: Any) -> Subject:
    return Subject.of(jwt(**claims_of_user(name, **changes)))


def read(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


@dataclass
class ExchangingKeycloak:
    """Answers with what stands in `answers`, then with `always`, then with a token for `aud` that belongs to the user of the request."""

    aud: Any = "bob"
    life: int = 300
    delay: float = 0.0
    claims: dict[str, Any] = field(default_factory=dict)
    """Claims that the exchanged tokens have instead; None leaves one out."""
    body: dict[str, Any] = field(default_factory=dict)
    answers: list[Reply | BackChannelError | Callable[[Asked], Reply]] = field(default_factory=list)
    always: Reply | BackChannelError | None = None
    logged_out: set[str] = field(default_factory=set)
    """Sessions that are over."""
    requests: list[Asked] = field(default_factory=list)
    most_at_a_time: int = 0
    running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    gate: threading.Event | None = None
    """If set, no request is answered before the event is."""

    def __call__(self, settings: KeycloakSettings) -> "ExchangingKeycloak":
        return self

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        asked = Asked(url, form, headers or {})
        with self.lock:
            self.requests.append(asked)
            self.running += 1
            self.most_at_a_time = max(self.most_at_a_time, self.running)
            number = len(self.requests)
            answer = self.answers.pop(0) if self.answers else self.always
        try:
            if self.gate is not None:
                assert self.gate.wait(10)
            if self.delay:
                time.sleep(self.delay)
            if isinstance(answer, BackChannelError):
                raise answer
            if callable(answer):
                return answer(asked)
            return answer or self.exchange(asked, number)
        finally:
            with self.lock:
                self.running -= 1

    def exchange(self, asked: Asked, number: int) -> Reply:
        if asked.form["grant_type"] == "client_credentials":
            token = jwt(iss=ISSUER, azp=CLIENT, client_id=CLIENT, aud=self.aud, iat=NOW, exp=NOW + self.life)
            return reply(200, {"access_token": token, "expires_in": self.life, "token_type": "Bearer"})
        subject = read(asked.form["subject_token"])
        if subject["sid"] in self.logged_out:
            return INVALID_TOKEN
        claims = {
            "iss": subject["iss"],
            "azp": CLIENT,
            "aud": self.aud,
            "typ": "Bearer",
            "sub": subject["sub"],
            "sid": subject["sid"],
            "iat": NOW,
            "exp": NOW + self.life,
            "jti": f"ntrtte:{number}",
        }
        token = jwt(**{name: value for name, value in (claims | self.claims).items() if value is not None})
        body = {
            "access_token": token,
            "expires_in": self.life,
            "token_type": "Bearer",
            "issued_token_type": ACCESS_TOKEN,
            "scope": asked.form.get("scope", ""),
        }
        return reply(200, {name: value for name, value in (body | self.body).items() if value is not None})


INVALID_TOKEN = refusal(400, "invalid_request", "Invalid token")

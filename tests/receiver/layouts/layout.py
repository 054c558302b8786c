"""What the apps of this folder share: the realm that they trust, and the answers that each caller must get."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from starlette.testclient import TestClient, WebSocketDenialResponse

from tests.kit.realm import Realm, settings

__all__ = [
    "FOR_ALL",
    "FOR_CHAT",
    "FOR_SERVICES",
    "FOR_USERS",
    "TRUST",
    "Answers",
    "Ask",
    "assert_right",
]

_REALM: Final = Realm()
TRUST: Final[Mapping[str, Any]] = {"settings": settings(), "transport": _REALM.transport}
"""Keyword arguments of a middleware that trusts the realm."""

Answers = Mapping[str, int]
FOR_CHAT: Final[Answers] = {"chat": 200, "billing": 403, "user": 403, "nobody": 401}
FOR_SERVICES: Final[Answers] = {"chat": 200, "billing": 200, "user": 403, "nobody": 401}
FOR_USERS: Final[Answers] = {"chat": 403, "billing": 403, "user": 200, "nobody": 401}
FOR_ALL: Final[Answers] = {"chat": 200, "billing": 200, "user": 200, "nobody": 200}

_CHAT: Final[dict[str, Any]] = {
    "scope": "profile tickets:read tickets:write",
    "realm_access": {"roles": ["staff"]},
    "resource_access": {"crm-api-gateway": {"roles": ["writer"]}},
}
_TOKENS: Final = {
    "chat": lambda: _REALM.token(**_CHAT),
    "billing": lambda: _REALM.token(azp="billing", client_id="billing"),
    "user": lambda: _REALM.user_token(**_CHAT),
}


@dataclass(frozen=True)
class Ask:
    """A request that needs more than a method and a path; ``given`` are arguments of the client."""

    text: str
    given: Mapping[str, Any]


def assert_right(module: ModuleType) -> None:
    """Assert that an app starts without a warning, and gives each caller the answer that its module promises.

    A module has ``app`` and ``ANSWERS``: pairs of a request and its answers, where 200 stands for any success. A module with
    ``ASKED_BY_HAND`` keeps requirements where FastAPI does not ask them, and asks them in its own code. Nobody can tell that from a
    requirement that was forgotten, so that one warning is right there.
    """
    assert module.ANSWERS
    with (
        _warnings() as warnings,
        TestClient(module.app, raise_server_exceptions=False, follow_redirects=False) as client,
    ):
        told = [*warnings]
        wrong = [
            f"{who}, {ask}: {status} instead of {right}"
            for ask, answers in module.ANSWERS
            for who, right in answers.items()
            if (status := _status(client, ask, who)) != right
        ]
    assert len(told) <= bool(getattr(module, "ASKED_BY_HAND", False)), told
    assert not wrong, wrong


def _status(client: TestClient, ask: str | Ask, who: str) -> int:
    text, given = (ask.text, {**ask.given}) if isinstance(ask, Ask) else (ask, {})
    method, path = text.split(" ")
    headers = {**given.pop("headers", {})}
    if who in _TOKENS:
        headers["Authorization"] = f"Bearer {_TOKENS[who]()}"
    if method == "WEBSOCKET":
        try:
            with client.websocket_connect(path, headers=headers, **given) as websocket:
                websocket.receive_text()
        except WebSocketDenialResponse as denial:
            return denial.status_code
        return 200
    response = client.request(method, path, headers=headers, **given)
    return 200 if response.is_success else response.status_code


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collect what our loggers say at WARNING and above; refusals are no warnings about the app."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    logger, listener = logging.getLogger("s2s_fastapi"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield told
    finally:
        logger.removeHandler(listener)

"""One Keycloak, one clock and one empty cache for each test."""

from collections.abc import Iterator

import pytest

from s2s_fastapi.caller.token_source import TokenSource, using
from tests.caller.fakes import SECRET, Clock, Keycloak, Receiver, receiver


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keycloak() -> Keycloak:
    return Keycloak()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of one service: settings come from there, as they do in production."""
    for name, value in (
        ("URL", "http://keycloak:8080"),
        ("REALM", "corp"),
        ("CLIENT_ID", "chat-app-service"),
        ("CLIENT_SECRET", SECRET),
    ):
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    return monkeypatch


@pytest.fixture
def source(keycloak: Keycloak, clock: Clock, environment: object) -> Iterator[TokenSource]:
    with using(TokenSource(channel=keycloak, clock=clock)) as source:
        yield source


@pytest.fixture
def bob() -> Iterator[Receiver]:
    with receiver() as there:
        yield there


@pytest.fixture
def charles() -> Iterator[Receiver]:
    with receiver() as there:
        yield there

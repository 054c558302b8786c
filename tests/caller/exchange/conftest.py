"""One Keycloak that exchanges, two clocks and one empty store for each test."""

import pytest

from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from tests.caller.exchange.fakes import ExchangingKeycloak, Wall
from tests.caller.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def keycloak() -> ExchangingKeycloak:
    return ExchangingKeycloak()


@pytest.fixture
def tokens(keycloak: ExchangingKeycloak, clock: Clock, wall: Wall) -> ExchangedTokens:
    return ExchangedTokens(channel=keycloak, clock=clock, wall=wall)

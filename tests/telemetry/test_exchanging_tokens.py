"""The span `exchange token` and its metric: whose they are, and what they say of a failure."""

from typing import Any

import pytest

from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import run
from s2s_fastapi.errors import SessionEnded
from tests.caller.exchange.fakes import NOW, ExchangingKeycloak, user
from tests.caller.fakes import Clock, settings
from tests.kit.tracing import Measured, Traces, request

BOB = Wanted.of("bob", "bob-aud")
LABELS = {"s2s_fastapi.client_id": "chat-app-service", "s2s_fastapi.audience": "bob"}


@pytest.fixture
def keycloak() -> ExchangingKeycloak:
    return ExchangingKeycloak()


@pytest.fixture
def tokens(keycloak: ExchangingKeycloak) -> ExchangedTokens:
    return ExchangedTokens(channel=keycloak, wall=lambda: float(NOW))


def test_the_request_that_needs_an_exchange_has_wait_and_exchange_below_it(
    tokens: ExchangedTokens, traces: Traces, metrics_read: Measured
) -> None:
    with request() as server:
        token = run(tokens.token(settings(), BOB, user()))
        run(tokens.token(settings(), BOB, user()))

    assert traces.below(server) == [("wait for token", [("exchange token", [])])]
    attributes: dict[str, Any] = dict(traces.one("exchange token").attributes or {})
    assert attributes == {
        **LABELS,
        "s2s_fastapi.scope": "bob-aud",
        "s2s_fastapi.issuer": "http://keycloak:8080/realms/corp",
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "granted",
        "s2s_fastapi.token_id": token.token_id,
    }
    (point,) = metrics_read("s2s_fastapi.token.exchange.duration")
    assert point.attributes == {**LABELS, "s2s_fastapi.cause": "needed", "s2s_fastapi.outcome": "granted"}


def test_a_refused_exchange_is_marked_by_its_error_and_names_no_user_in_the_metric(
    tokens: ExchangedTokens, keycloak: ExchangingKeycloak, traces: Traces, metrics_read: Measured
) -> None:
    keycloak.logged_out = {"session-of-ann"}

    with request(), pytest.raises(SessionEnded):
        run(tokens.token(settings(), BOB, user()))

    attributes: dict[str, Any] = dict(traces.one("exchange token").attributes or {})
    assert attributes["error.type"] == "session_ended"
    (point,) = metrics_read("s2s_fastapi.token.exchange.duration")
    assert point.attributes == {
        **LABELS,
        "s2s_fastapi.cause": "needed",
        "s2s_fastapi.outcome": "failed",
        "error.type": "session_ended",
    }


def test_the_exchange_after_a_401_is_forced_and_the_age_is_that_of_the_token_in_use(
    keycloak: ExchangingKeycloak, traces: Traces, metrics_read: Measured
) -> None:
    clock = Clock()
    tokens = ExchangedTokens(channel=keycloak, clock=clock, wall=lambda: float(NOW))
    place = tokens.of(settings(), BOB, user())
    seen = run(place.getting(user()))
    clock.now += 12
    place.used(seen)
    place.refuse(seen)
    run(place.renewing(user(), seen))
    place.used(seen)
    place.resent()

    causes = [(span.attributes or {})["s2s_fastapi.cause"] for span in traces.named("exchange token")]
    assert causes == ["needed", "forced"]
    (age,) = metrics_read("s2s_fastapi.token.age")
    assert (age.attributes, age.value, age.sum) == (LABELS, 1, 12)
    assert [point.attributes for point in metrics_read("s2s_fastapi.resends")] == [LABELS]

"""A realm that receivers trust, an issuer that callers ask, and somebody who sees what is told of both."""

from collections.abc import Iterator

import pytest

from example_app.realm import REALMS
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import metrics
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.realm import Clock, Realm
from tests.kit.tracing import AnotherFormat, Measured, Traces, listening, measuring, propagating


@pytest.fixture
def traces() -> Iterator[Traces]:
    with listening() as traces:
        yield traces


@pytest.fixture
def metrics_read() -> Iterator[Measured]:
    with measuring() as measured:
        yield measured


@pytest.fixture(autouse=True)
def no_audience_is_named_yet() -> Iterator[None]:
    """Audiences have names for as long as the process lives: those of other tests leave no place for ours, nor ours for theirs."""
    metrics._audiences.clear()
    yield
    metrics._audiences.clear()


@pytest.fixture
def another_format() -> Iterator[None]:
    with propagating(AnotherFormat()):
        yield


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture(scope="session")
def techstore() -> EmbeddedIssuer:
    """The issuer all tests share: its keys are made once."""
    return EmbeddedIssuer.read(REALMS["techstore"])


@pytest.fixture
def issuer(techstore: EmbeddedIssuer) -> EmbeddedIssuer:
    techstore.faults.clear()
    techstore.requests.clear()
    return techstore


@pytest.fixture
def shop_api(issuer: EmbeddedIssuer) -> KeycloakSettings:
    """The settings of the service that calls others."""
    return KeycloakSettings(
        url=issuer.url,
        realm="techstore",
        client_id="shop-api",
        client_secret=issuer.values["SHOP_API_SECRET"],
    )


@pytest.fixture
def source(issuer: EmbeddedIssuer, clock: Clock) -> Iterator[TokenSource]:
    """An empty cache of tokens over the issuer, on a clock of the test's own."""
    with using(
        TokenSource(channel=lambda _: BackChannel(transport=issuer.transport, timeout=5.0), clock=clock)
    ) as source:
        yield source

"""One Keycloak on a socket for all attacks on the caller, and an empty cache with a clock of its own for each."""

from collections.abc import Iterator

import pytest

from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from tests.attacks.caller.stack import WAYS, Send, idle, others, realm, working
from tests.caller.fakes import Clock
from tests.kit.calling import bob, charles, clock, environment, keycloak
from tests.testing.asking import SECRET

__all__ = ["bob", "charles", "clock", "environment", "issuer", "keycloak", "send", "served", "source"]


@pytest.fixture(scope="session")
def served() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer(realm())
    issuer.service_token("corp", "caller")  # its keys take their time to be made
    with issuer.serving():
        yield issuer


@pytest.fixture
def issuer(served: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedIssuer]:
    """The Keycloak that the environment names, whose ``caller`` asks for tokens."""
    served.faults.clear()
    served.requests.clear()
    for name, value in (("URL", served.url), ("REALM", "corp"), ("CLIENT_ID", "caller"), ("CLIENT_SECRET", SECRET)):
        monkeypatch.setenv(f"KEYCLOAK_{name}", value)
    yield served
    served.faults.clear()


@pytest.fixture
def source(issuer: EmbeddedIssuer, clock: Clock) -> Iterator[TokenSource]:
    others.clear()
    others.update(working())
    with using(TokenSource(clock=clock)) as source:
        yield source
    idle()


@pytest.fixture(params=WAYS)
def send(request: pytest.FixtureRequest) -> Send:
    return WAYS[str(request.param)]

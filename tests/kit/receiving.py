"""One realm for each test, the tokens it gives, and apps whose middleware trusts it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, process
from s2s_fastapi.decision import Decision
from s2s_fastapi.receiver.observe_mode import Observing
from s2s_fastapi.telemetry import DecisionLog
from tests.kit.realm import Realm, settings

App = Callable[..., FastAPI]
"""The fixture `make_app`."""
Client = Callable[[Any], TestClient]
"""The fixture `client`."""
Headers = Callable[..., dict[str, str]]
"""The fixtures `service` and `user`."""
Options = Callable[..., dict[str, Any]]
"""The fixture `options`."""


class Observed:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def decided(self, decision: Decision) -> None:
        self.decisions.append(decision)

    @property
    def reasons(self) -> list[str]:
        return [str(decision.reason) for decision in self.decisions]


@pytest.fixture(autouse=True)
def nothing_to_report_at_exit() -> Iterator[None]:
    """Apps that observe and were never shut down would write their reports when the tests are over, and logs the rest of floods."""
    yield
    for key, thing in list(process._exiting.items()):
        if isinstance(thing, DecisionLog | Observing):
            del process._exiting[key]


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
def service(realm: Realm) -> Headers:
    """Headers with a service's token."""
    return lambda **changes: {"Authorization": f"Bearer {realm.token(**changes)}"}


@pytest.fixture
def user(realm: Realm) -> Headers:
    """Headers with a user's token."""
    return lambda **changes: {"Authorization": f"Bearer {realm.user_token(**changes)}"}


@pytest.fixture
def options(realm: Realm, observed: Observed) -> Options:
    """Keyword arguments of a middleware that trusts the realm."""
    return lambda **changes: {
        "settings": settings(),
        "transport": realm.transport,
        "observer": observed,
        **changes,
    }


@pytest.fixture
def make_app(options: Options) -> App:
    """A FastAPI app without documentation behind our middleware."""

    def make(*, app: FastAPI | None = None, **changes: Any) -> FastAPI:
        app = app or FastAPI(openapi_url=None)
        app.add_middleware(ServiceAuthMiddleware, **options(**changes))
        return app

    return make


@pytest.fixture
def client() -> Client:
    """A client that sees a 500 as a 500."""
    return lambda app: TestClient(app, raise_server_exceptions=False, follow_redirects=False)

"""Real servers, started when the first test asks for one and stopped at the end of the session."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.kit.otlp import Collector
from tests.real.distribution import obstacle
from tests.real.server import NEWEST, VERSIONS, Keycloak

UNDER_AUTH = f"{NEWEST} under /auth"
_HERE = Path(__file__).parent
# A worker that takes a long file last leaves the other one idle.
_FIRST = ("test_caller_outage.py", "test_server.py", "test_compose.py", "test_diagnosis.py", "test_realms.py")
_TIMEOUT = 1200  # seconds: the first test waits until servers are downloaded, built and started


class Servers(Protocol):
    """Gives a running server by its name, the same one all session long."""

    def __call__(self, name: str) -> Keycloak: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:  # the hook sees the whole session's tests
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.keycloak)
            item.add_marker(pytest.mark.timeout(_TIMEOUT))
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _FIRST.index(item.path.name) if _real_and_long(item) else len(_FIRST))


def _real_and_long(item: pytest.Item) -> bool:
    return item.path.parent == _HERE and item.path.name in _FIRST


@pytest.fixture(scope="session")
def otlp() -> Iterator[Collector]:
    """Give the receiver to which the servers send the spans of calls that are traced."""
    with Collector().listening() as listening:
        yield listening


@pytest.fixture(scope="session")
def keycloaks(otlp: Collector) -> Iterator[Servers]:
    """Give the servers by name: a version, or `UNDER_AUTH`. Each starts once, whichever fixture asks for it."""
    reason = obstacle()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI these tests must run", pytrace=False)
        pytest.skip(reason)
    running: dict[str, Keycloak] = {}
    traces = {
        "KC_TRACING_PROTOCOL": "http/protobuf",
        "KC_TRACING_ENDPOINT": otlp.url,
        "QUARKUS_OTEL_BSP_SCHEDULE_DELAY": "200ms",  # instead of 5 s; Keycloak has no option of its own for it
    }
    with ExitStack() as stack:

        def server(name: str) -> Keycloak:
            if name not in running:
                running[name] = stack.enter_context(
                    Keycloak(
                        NEWEST,
                        auth_path="/auth",
                        public_url="http://auth.techstore.example:{port}",
                        environment=traces,
                    )
                    if name == UNDER_AUTH
                    else Keycloak(name, environment=traces)
                )
            return running[name]

        yield server


@pytest.fixture(scope="session", params=VERSIONS)
def keycloak(keycloaks: Servers, request: pytest.FixtureRequest) -> Keycloak:
    """Give a server at ``/`` whose issuer is the address it is reached on; once per version."""
    return keycloaks(request.param)


@pytest.fixture(scope="session")
def keycloak_auth_path(keycloaks: Servers) -> Keycloak:
    """Give a server under ``/auth`` whose issuer is a public address that nothing inside the network can reach."""
    return keycloaks(UNDER_AUTH)


@pytest.fixture(scope="session", params=(*VERSIONS, UNDER_AUTH))
def every_keycloak(keycloaks: Servers, request: pytest.FixtureRequest) -> Keycloak:
    """Give each version at ``/``, then the newest under ``/auth`` with a public address of its own."""
    return keycloaks(request.param)

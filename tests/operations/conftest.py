"""A service beside an issuer on a socket: what is done at the console counts for the next command."""

import os
from collections.abc import Iterator

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.console import Paper
from tests.operations.place import OTHER_REALM, Place


@pytest.fixture(scope="session")
def served() -> Iterator[EmbeddedIssuer]:
    """Give one issuer for the session: its keys are made once."""
    issuer = EmbeddedIssuer(Paper().realm, OTHER_REALM)
    with issuer.serving():
        yield issuer


@pytest.fixture(scope="session")
def served_under_auth() -> Iterator[EmbeddedIssuer]:
    """Give one under a path, as older servers and many proxies have it."""
    issuer = EmbeddedIssuer(Paper().realm, OTHER_REALM, auth_path="/auth")
    with issuer.serving():
        yield issuer


@pytest.fixture
def under_auth(served_under_auth: EmbeddedIssuer, place: Place) -> Place:
    return Place(served_under_auth)


@pytest.fixture
def place(served: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Give a realm in which everything is right, and the command line in the environment of its caller."""
    for name in list(os.environ):
        if name.startswith("KEYCLOAK_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    served.faults.clear()
    place = Place(served)
    yield place
    served.faults.clear()

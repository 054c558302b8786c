"""Issuers for the tests: one that nobody changes, and one of a test's own."""

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.testing.asking import document


@pytest.fixture(scope="session")
def issuer() -> EmbeddedIssuer:
    """Give an issuer that tests only ask: its keys are made once."""
    return EmbeddedIssuer(document())


@pytest.fixture(scope="session")
def old_issuer() -> EmbeddedIssuer:
    """Give one that imitates the oldest Keycloak this package promises to work with."""
    return EmbeddedIssuer(document(), version="26.0.8")


@pytest.fixture
def own() -> EmbeddedIssuer:
    """Give an issuer to rotate, to break and to count on."""
    return EmbeddedIssuer(document())

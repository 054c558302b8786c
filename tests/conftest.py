"""What holds for each test of the suite."""

import os
from collections.abc import Iterator

import pytest

from s2s_fastapi.verifier.keys import SharedSources, sharing
from tests.kit.reported import reported

# `make test` hands its options and variables on. A make that a test runs is not below it.
for _name in ("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def keys_stay_within_their_test() -> Iterator[None]:
    """Apps share a realm's keys as long as one of them lives, and when the last one is collected is nobody's choice."""
    with sharing(SharedSources()):
        yield


@pytest.fixture(autouse=True)
def reports_stay_within_their_test() -> Iterator[None]:
    """A load reports after its outcome is published, so its log record could come while the next test listens."""
    yield
    reported()

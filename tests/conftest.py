"""What holds for each test of the suite."""

from collections.abc import Iterator

import pytest

from tests.reported import reported


@pytest.fixture(autouse=True)
def reports_stay_within_their_test() -> Iterator[None]:
    """A load reports after its outcome is published, so its log record could come while the next test listens."""
    yield
    reported()

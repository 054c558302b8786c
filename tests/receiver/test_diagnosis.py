"""What the operator reads when a realm is not set up right: offline, with tokens of the embedded issuer."""

import pytest

from tests.console import Paper
from tests.mistakes import MISTAKES, Mistake, prove


@pytest.mark.parametrize("mistake", [mistake for mistake in MISTAKES if mistake.on_paper], ids=str)
def test_a_mistake_is_named_with_its_cure_and_the_cure_helps(mistake: Mistake) -> None:
    prove(mistake, Paper())

"""Through every fault the table names: no valid request fails within the limits, no forged one is let in, one fetch in 5 s."""

from pathlib import Path

import pytest

from tests.receiver.fire.rows import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.play.__name__)
def test_a_fault_costs_no_valid_request_within_the_limits_and_lets_nobody_in(row: Row, tmp_path: Path) -> None:
    row.check(row.play(tmp_path))

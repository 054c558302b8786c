"""What the documentation says of the faults is what is played, and its figures keep the promises."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.receiver.fire.real import REAL_ROWS
from tests.receiver.fire.row import Expectation
from tests.receiver.fire.rows import ROWS
from tests.receiver.fire.service import SPACING, Tally
from tests.receiver.fire.table import EMBEDDED, PAGE, REAL, put, rows_of, taken


@pytest.mark.skipif(not PAGE.exists(), reason="away from the source there is no documentation")
@pytest.mark.parametrize(("name", "rows"), [(EMBEDDED, ROWS), (REAL, REAL_ROWS)])
def test_the_table_has_every_row_with_its_promise_and_keeps_it(name: str, rows: Sequence[Expectation]) -> None:
    shown = taken(name)
    assert [(one["what happens"], one["what is promised"]) for one in shown] == [
        (row.fault, row.promise) for row in rows
    ]
    for row, one in zip(rows, shown, strict=True):
        assert number(one["valid requests"]) > 0
        assert number(one["401"]) <= row.refused
        assert (number(one["503"]) > 0) is row.unavailable
        assert number(one["forged"]) > 0
        assert number(one["of these accepted"]) == 0
        assert (
            number(one["fetches"]) == 1 or float(one["least distance"].removesuffix(" s").replace(",", "")) >= SPACING
        )


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_a_table_is_written_between_its_marks_and_can_be_read_back(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n<!-- {REAL}: begin -->\nold\n<!-- {REAL}: end -->\nafter\n")
    tally = Tally(valid=1234, unavailable=5, forged=6, fetches=[10.0, 16.04])
    put(REAL, rows_of([(ROWS[0], tally)]), page)
    put(REAL, rows_of([(ROWS[0], tally)]), page)
    assert [list(one.values())[2:] for one in taken(REAL, page)] == [["1,234", "0", "5", "6", "0", "2", "6.0 s"]]
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("\nafter\n")
    with pytest.raises(ValueError, match="no marks"):
        put(EMBEDDED, "", page)


@pytest.mark.parametrize(
    "tally",
    [
        Tally(valid=1, refused=1, forged=1, fetches=[0.0]),
        Tally(valid=1, unavailable=1, forged=1, fetches=[0.0]),
        Tally(valid=1, others=[500], forged=1, fetches=[0.0]),
        Tally(valid=1, forged=1, let_in=1, fetches=[0.0]),
        Tally(valid=1, forged=1, fetches=[0.0, 3.9]),
        Tally(valid=0, forged=1, fetches=[0.0]),
        Tally(valid=1, forged=0, fetches=[0.0]),
    ],
)
def test_a_run_that_breaks_a_promise_is_noticed(tally: Tally) -> None:
    Expectation("", "", 0, False).check(Tally(valid=1, forged=1, fetches=[0.0, 5.0]))
    with pytest.raises(AssertionError):
        Expectation("", "", 0, False).check(tally)

"""The page of attacks on the caller names every line of the list, and tests that exist."""

from pathlib import Path

from tests.test_attacks_page import TESTS, named, names_in
from tests.test_docs import DOCS, tables

PAGE = DOCS / "attacks-caller.md"
LINES = range(1, 76)


def rows() -> list[list[str]]:
    return [row for table in tables(PAGE) for row in table]


def all_named() -> set[tuple[Path, str]]:
    return {(path, test) for row in rows() for path, test, _ in named(row[-1])}


def test_every_line_of_the_list_has_its_row_in_order() -> None:
    assert [row[0] for row in rows()] == [str(line) for line in LINES]


def test_every_row_is_held_by_a_test_or_says_why_it_does_not_apply() -> None:
    for row in rows():
        assert named(row[-1]) or "not applicable, because" in " ".join(row), row[:2]


def test_every_test_that_is_named_exists() -> None:
    assert [(path.name, test) for path, test in all_named() if not path.is_file() or test not in names_in(path)] == []


def test_every_test_that_attacks_is_named() -> None:
    files = [file for file in (TESTS / "attacks/caller").glob("test_*.py") if file != Path(__file__)]
    written = {(path, name) for path in files for name in names_in(path) if name.startswith("test_")}

    assert files
    assert sorted((path.name, name) for path, name in written - all_named()) == []

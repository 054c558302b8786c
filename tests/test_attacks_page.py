"""The page of attacks names every line of the list, and tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

from tests.test_docs import DOCS, ROOT, tables

PAGE = DOCS / "attacks.md"
TESTS = ROOT / "tests"
LINES = range(1, 43)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the tests of a file, those of a class behind its name."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (item for item in node.body if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef))
            found |= {f"{node.name}::{method.name}" for method in methods}
    return frozenset(found)


@cache
def plays() -> frozenset[str]:
    """Return the rows of the table of faults, which are the parameters of one test."""
    return frozenset().union(*(names_in(path) for path in (TESTS / "receiver/fire").glob("*.py")))


def named(cell: str) -> list[tuple[Path, str, str]]:
    """Return the file, the test and the parameter of each name in a cell; a file or a test that is left out is the last one."""
    found: list[tuple[Path, str, str]] = []
    file, test = "", ""
    for span in re.findall(r"`([^`]+)`", cell):
        name, _, parameter = span.partition("[")
        if name:
            path, _, test = name.partition("::")
            file = path or file
        found.append((TESTS / file, test, parameter.rstrip("]")))
    return found


def all_named() -> list[tuple[Path, str, str]]:
    return [one for table in tables(PAGE) for row in table for one in named(row[-1])]


def test_every_line_of_the_list_has_its_row_in_order() -> None:
    numbers = [row[0] for table in tables(PAGE) for row in table if len(row) == 4]

    assert numbers == [str(line) for line in LINES]


def test_every_row_is_held_by_a_test_or_says_why_it_does_not_apply() -> None:
    for table in tables(PAGE):
        for row in table:
            assert named(row[-1]) or "not applicable, because" in " ".join(row), row[:2]


def test_every_test_that_is_named_exists() -> None:
    found = all_named()

    assert found
    assert [(path.name, test) for path, test, _ in found if not path.is_file() or test not in names_in(path)] == []
    assert [parameter for _, _, parameter in found if parameter and parameter not in plays()] == []


def test_every_test_that_attacks_is_named() -> None:
    files = list((TESTS / "attacks/receiver").glob("test_*.py"))
    assert files
    written = {(path, name) for path in files for name in names_in(path) if name.startswith("test_")}

    assert sorted((path.name, name) for path, name in written - {(path, test) for path, test, _ in all_named()}) == []

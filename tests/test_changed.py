"""`make check` runs the tests of what changed."""

from pathlib import Path

import pytest

from tests.kit.changed import ALWAYS, PAGES, affected

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("changed", "test"),
    [
        ("s2s_fastapi/names.py", "tests/test_names.py"),
        ("s2s_fastapi/verifier/jws.py", "tests/verifier/test_jws.py"),
        ("s2s_fastapi/verifier/checks.py", "tests/verifier"),
        ("tests/engine/test_workers.py", "tests/engine/test_workers.py"),
        ("tests/attacks/receiver/test_claims.py", "tests/attacks/receiver/test_claims.py"),
        ("README.md", "tests/test_docs.py"),
        ("docs/errors.md", "tests/test_docs.py"),
    ],
)
def test_a_changed_file_has_its_tests(changed: str, test: str) -> None:
    assert set(affected([changed], ROOT)) == {test, *ALWAYS}


def test_a_changed_page_has_the_tests_of_all_pages_and_its_own() -> None:
    tests = {"tests/test_docs.py", "tests/test_observability_page.py"}
    assert set(affected(["docs/observability.md"], ROOT)) == tests | set(ALWAYS)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_with_tests_of_its_own_is_there(page: str) -> None:
    assert (ROOT / page).is_file()
    assert (ROOT / PAGES[page]).is_file()


@pytest.mark.parametrize(
    "changed",
    [
        "s2s_fastapi/version.py",
        "s2s_fastapi/downstream.py",
        "tests/real/test_caller.py",
        "tests/engine/test_that_was_deleted.py",
        "tests/kit/realm.py",
        "Makefile",
    ],
)
def test_a_changed_file_without_affected_its_own_has_only_those_of_every_change(changed: str) -> None:
    assert set(affected([changed], ROOT)) == set(ALWAYS)

"""`make check` runs the tests of what changed."""

from pathlib import Path

import pytest

from tests.kit.changed import ALWAYS, affected

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

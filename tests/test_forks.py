"""The helper with which tests fork, and that no test does it otherwise."""

import ast
import os
import threading
from pathlib import Path

import pytest

from tests.kit.forks import in_child, needs_fork

TESTS = Path(__file__).parent


@needs_fork
def test_a_child_ends_where_its_function_ends_whatever_happens_in_it(capfd: pytest.CaptureFixture[str]) -> None:
    parent = os.getpid()

    def fails() -> None:
        pytest.fail(f"in the child: {os.getpid() != parent}")

    assert in_child(lambda: None) == 0
    assert in_child(fails) == 1
    assert in_child(threading.Event().wait, seconds=0.05) == -9
    assert os.getpid() == parent
    assert "in the child: True" in capfd.readouterr().err


def test_no_test_forks_its_process_in_another_way() -> None:
    forking = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        if "fork()" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))  # a script in a string has an interpreter of its own
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "os.fork"
    }
    assert forking == {"kit/forks.py"}

"""Each public name has a program that type checkers must accept, and one in which they must find the fault."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from tests.kit.public import PUBLIC

FOLDER = Path(__file__).resolve().parents[1] / "typing"
NAMES = sorted({name for module in PUBLIC for name in import_module(module).__all__})


def programs(file: str, prefix: str) -> dict[str, str]:
    """Return the code of each program, by what it is called after."""
    text = (FOLDER / file).read_text(encoding="utf-8")
    functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = text.splitlines()
    assert all(function.name.startswith(prefix) for function in functions)
    return {
        function.name.removeprefix(prefix).replace("_", ""): "\n".join(lines[function.lineno - 1 : function.end_lineno])
        for function in functions
    }


def of(name: str, found: dict[str, str]) -> list[str]:
    wanted = name.replace("_", "").lower()
    return [code for called, code in found.items() if called.startswith(wanted) and re.search(rf"\b{name}\b", code)]


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_a_right_and_a_wrong_program(name: str) -> None:
    right, wrong = of(name, programs("each_right.py", "use_")), of(name, programs("each_wrong.py", "misuse_"))
    assert right, f"write use_... of {name} into tests/typing/each_right.py"
    assert wrong, f"write misuse_... of {name} into tests/typing/each_wrong.py"
    assert not any("type: ignore" in code for code in right)
    assert all(re.search(r"# type: ignore\[[a-z, -]+\]", code) for code in wrong)

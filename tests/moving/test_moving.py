"""Each program after a move answers every caller as its guide says."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi.testing import EmbeddedIssuer
from tests.moving.moves import MOVES, headers_of

GUIDE = Path(__file__).parents[2] / "docs/moving-to-us.md"


@pytest.mark.parametrize("name", MOVES)
def test_the_program_after_the_move_answers_each_caller_as_the_guide_says(
    name: str, client_of: Callable[..., Any], keycloak_issuer: EmbeddedIssuer
) -> None:
    move = MOVES[name]
    client = client_of(import_module(f"tests.moving.{name}.after").app, client_id=move.client_id)

    answered = {
        str(ask): client.request(*ask.request.split(), headers=headers_of(move, ask, keycloak_issuer)).status_code
        for ask in move.asks
    }

    assert answered == {str(ask): ask.after for ask in move.asks}


@pytest.mark.parametrize("name", MOVES)
def test_the_guide_lists_each_answer_that_changes_and_no_other(name: str) -> None:
    changing = [ask for ask in MOVES[name].asks if ask.before is not None]
    rows = [f"| {ask.caller}: `{ask.request}` | {ask.before} | {ask.after} |" for ask in changing]
    page = GUIDE.read_text(encoding="utf-8").partition(f"moving/{name}/after.py")[2].partition("\n## ")[0]
    listed = page.partition("These answers change:")[2]

    assert [row for row in rows if row not in listed] == []
    assert listed.count("\n| ") == len(rows) + 1  # and the heading


def code_of(path: Path) -> list[str]:
    """Return the lines of code of a file: no blank lines, comments and docstrings of one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith(("#", '"""'))]


@pytest.mark.parametrize("name", ["stac_proxy", "agent_platform", "mcp_server"])
def test_the_guide_counts_the_lines_of_a_moved_service_right(name: str) -> None:
    code = code_of(Path(__file__).parent / name / "auth.py")

    assert f"(../tests/moving/{name}/auth.py) | {len(code)} |" in GUIDE.read_text(encoding="utf-8")

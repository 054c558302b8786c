"""How commands print: in a narrow terminal, too, no name loses its end."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console, Group
from rich.table import Table

from s2s_fastapi.cli.graph import fitting, lines_of, table_of
from s2s_fastapi.cli.printing import as_text, columns
from s2s_fastapi.operations.relations import Relation, Status

LONG = "a-service-with-a-name-that-is-longer-than-half-of-the-screen"


def shown(table: object) -> str:
    out = Console(file=io.StringIO(), width=80)
    with out.capture() as captured:
        out.print(table)
    return captured.get()


def test_in_a_narrow_terminal_no_text_of_a_table_is_cut() -> None:
    table = columns(3)
    table.add_row(as_text("refused"), as_text(LONG), as_text(f"of {LONG}"))
    text = shown(table)

    assert "…" not in text
    assert sorted("".join(text.split())) == sorted(f"refused{LONG}of{LONG}")


def test_in_a_narrow_terminal_no_name_of_the_table_of_relations_is_cut() -> None:
    text = shown(table_of((Relation(LONG, f"{LONG}-2", Status.WORKS, ("https://other.example",), (LONG,)),)))

    assert "…" not in text
    assert text.count("-") == 3 * LONG.count("-") + 1


def test_in_a_narrow_terminal_a_relation_is_two_lines_in_which_no_name_is_broken() -> None:
    made = Relation("chat-app-service", "crm-api-gateway", Status.WORKS, ("crm-api-gateway",), ("crm-audience",))

    assert [line.rstrip() for line in shown(lines_of((made,))).splitlines()] == [
        "chat-app-service > crm-api-gateway: declared, and Keycloak grants it",
        "    audience crm-api-gateway; scope crm-audience",
    ]


@pytest.mark.parametrize(("width", "kind"), [(109, Group), (110, Table)])
def test_relations_are_a_table_if_the_terminal_has_110_columns(width: int, kind: type) -> None:
    assert isinstance(fitting((), width), kind)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo-terminals of this kind.")
def test_what_is_not_to_be_wrapped_is_one_line_in_a_narrow_terminal() -> None:
    code = f"from s2s_fastapi.cli.printing import as_text, show; show(as_text({LONG * 3!r}), wrap=False); show(as_text({LONG * 3!r}))"
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=theirs, env={**os.environ, "COLUMNS": "80"}, check=True
        )
        assert done.returncode == 0
        first, *others = os.read(ours, 4096).decode().splitlines()
    finally:
        os.close(ours)
        os.close(theirs)
    assert LONG * 3 in first
    assert len(others) > 1

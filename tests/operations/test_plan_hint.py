"""The line that makes a plan: a shell reads each file as one word, and never as an option."""

import shlex

import pytest

from s2s_fastapi.operations.plan_hint import plan_command
from tests.operations.place import HOSTILE


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.isprintable()])
def test_a_shell_reads_every_file_as_one_word(name: str) -> None:
    assert shlex.split(plan_command(f"{name}.json", "crm.json")) == ["s2s-fastapi", "plan", f"{name}.json", "crm.json"]


def test_a_file_is_never_read_as_an_option() -> None:
    assert plan_command("--grant=a:b") == "s2s-fastapi plan ./--grant=a:b"


@pytest.mark.parametrize("files", [(), ("",), ("x\u200fy",), ("a\nb",)], ids=["none", "empty", "right to left", "line"])
def test_a_name_that_cannot_be_shown_is_left_to_the_reader(files: tuple[str, ...]) -> None:
    assert plan_command(*files) == "s2s-fastapi plan ACCESS.json"


def test_for_a_realm_file_no_server_is_asked() -> None:
    command = plan_command("crm.json", realm_file="-my realm.json")
    assert shlex.split(command) == [
        *("s2s-fastapi", "plan", "crm.json", "--realm-file", "./-my realm.json", "--realm-json", "NEW.json")
    ]
    assert "--realm-file REALM.json" in plan_command("crm.json", realm_file="a\nb")

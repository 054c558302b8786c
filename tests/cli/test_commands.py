"""The command line as a whole: what it says of itself, and without its extra."""

import re
import shlex
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from s2s_fastapi.cli.commands import EXAMPLES, command_line
from s2s_fastapi.version import __version__
from tests.cli.command import environment, run

_WITHOUT = """
import sys
sys.modules["typer"] = None
from s2s_fastapi.cli import main
sys.argv = ["s2s-fastapi", "dev", "realm.json"]
main()
"""


def test_without_the_extra_one_sentence_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=60, check=False, env=environment()
    )
    assert done.returncode == 1
    assert done.stderr == 'The command line needs the extra "cli": pip install "s2s-fastapi[cli]"\n'


def test_help_names_the_command_and_its_options() -> None:
    assert "dev" in run("--help").stdout
    text = run("dev", "--help", COLUMNS="200", TERM="dumb").stdout
    for word in ("REALM.json", "--port", "--auth-path", "--env-file", "this machine only"):
        assert word in text


def test_the_version_is_printed_without_a_command() -> None:
    done = CliRunner().invoke(command_line(), ["--version"])

    assert (done.exit_code, done.stdout) == (0, f"s2s-fastapi {__version__}\n")


COMMANDS: dict[str, Any] = getattr(get_command(command_line()), "commands")  # noqa: B009 - only a group has them


def test_every_command_has_an_example() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_in_the_help_of_its_command_and_is_a_command_line_that_it_takes(line: str) -> None:
    program, name, *words = shlex.split(re.split(r" [|<>] ", line)[0])

    assert program == "s2s-fastapi"
    assert COMMANDS[name].make_context(name, words).params
    assert line in " ".join(CliRunner().invoke(command_line(), [name, "--help"], env={"COLUMNS": "80"}).stdout.split())


@pytest.mark.parametrize("name", ["", *EXAMPLES])
@pytest.mark.parametrize("width", ["80", "200"])
def test_no_help_is_cut_and_none_has_a_line_break_in_a_sentence(name: str, width: str) -> None:
    done = CliRunner().invoke(command_line(), [*name.split(), "--help"], env={"COLUMNS": width, "TERM": "dumb"})

    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(width)
    paragraph = done.stdout.partition("Usage:")[2].partition("╭")[0].rstrip().splitlines()[1:]
    for row, after in pairwise(paragraph):
        first = (after.split() or [""])[0]
        ended = not row.strip() or not first or row.rstrip().endswith(".")
        assert ended or len(row.rstrip()) + len(" ") + len(first) > int(width) - 2, row


def test_no_color_is_heeded() -> None:
    coloured = re.compile(r"\x1b\[[\d;]*3[0-7]")

    assert coloured.search(run("--help", FORCE_COLOR="1").stdout)
    assert not coloured.search(run("--help", FORCE_COLOR="1", NO_COLOR="1").stdout)


def test_a_shell_completes_commands_and_the_names_of_examples() -> None:
    def completed(words: str, position: str) -> list[str]:
        asked = {"_S2S_FASTAPI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
        return run(**asked).stdout.split()

    assert completed("s2s-fastapi d", "1") == ["dev", "doctor"]
    assert completed("s2s-fastapi dev --example c", "3") == ["corp"]

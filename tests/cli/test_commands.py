"""The command line as a whole: what it says of itself, and without its extra."""

import errno
import os
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from s2s_fastapi.cli.commands import EXAMPLES, command_line
from s2s_fastapi.cli.mistake import in_one_sentence
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import listed
from s2s_fastapi.version import __version__
from tests.cli.command import environment, run
from tests.test_docs import DOCS, plain, tables

_WITHOUT = """
import sys
sys.modules["typer"] = None
from s2s_fastapi.cli import main
sys.argv = ["s2s-fastapi", "dev", "realm.json"]
main()
"""


COMMANDS: dict[str, Any] = getattr(get_command(command_line()), "commands")  # noqa: B009 - only a group has them


def test_without_the_extra_one_sentence_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, timeout=60, check=False, env=environment()
    )
    assert done.returncode == 2
    assert done.stderr == 'The command line needs the extra "cli": pip install "s2s-fastapi[cli]"\n'


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize(
    ("command", "stderr", "unbuffered"),
    [
        ("--version", "pipe", ""),
        ("keygen --client-id chat --out key.pem", "pipe", ""),
        (
            "federate --client-id chat --subject system:serviceaccount:prod:chat --issuer https://k8s.example",
            "full",
            "",
        ),
        ("doctor", "pipe", "1"),
    ],
)
def test_a_full_disk_ends_a_command_with_2_and_a_sentence(
    tmp_path: Path, command: str, stderr: str, unbuffered: str
) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(
            [sys.executable, "-m", "s2s_fastapi.cli", *command.split()],
            cwd=tmp_path,
            env=environment(PYTHONUNBUFFERED=unbuffered),
            stdout=full,
            stderr=full if stderr == "full" else subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    if stderr == "pipe":
        assert done.stderr.splitlines()[-1] == (
            "The output cannot be written: no space left on device. What was done before it stays done."
        )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_mistake_of_ours_ends_every_command_with_2(name: str) -> None:
    with pytest.raises(SystemExit) as ended:
        COMMANDS[name].callback.__wrapped__(no_such_parameter="")
    assert ended.value.code == 2


def ended(command: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the sentence with which a command ends."""
    with pytest.raises(SystemExit) as ended:
        in_one_sentence(command)()
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_name_in_a_sentence_does_not_change_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ConfigurationError("no \x1b[31mfile\nsecond line")

    sentence = ended(command, capsys)
    assert "\x1b" not in sentence
    assert sentence.splitlines()[1:] == ["second line"]


def test_a_disk_that_is_full_elsewhere_is_not_the_output(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "elsewhere.json")

    assert "The output cannot be written" not in ended(command, capsys)


def test_a_mistake_of_ours_is_named_by_the_last_line_of_this_package(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        listed(map(os.environ.__getitem__, ["NO_SUCH_VARIABLE"]))

    assert ended(command, capsys).startswith("This is a mistake in s2s-fastapi: KeyError at s2s_fastapi.text, line ")


@pytest.mark.parametrize(
    ("command", "closed", "code"), [("--version", ">&-", 0), ("graph no-such-file.json", ">&- 2>&-", 2)]
)
def test_a_closed_stream_changes_no_exit_code(command: str, closed: str, code: int) -> None:
    line = f"{shlex.quote(sys.executable)} -m s2s_fastapi.cli {command} {closed}"
    done = subprocess.run(
        ["sh", "-c", line], env=environment(), stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert "mistake" not in done.stderr


@pytest.mark.parametrize(
    ("code", "command"),
    [
        ("0", "federate --client-id chat --subject system:serviceaccount:prod:chat --issuer https://k8s.example"),
        ("1", "token --for crm-api-gateway"),
        ("1", "doctor"),
        ("2", "token --no-such-option"),
        ("2", "graph no-such-file.json"),
    ],
)
def test_a_command_ends_with_the_code_that_the_policy_names(code: str, command: str) -> None:
    (table,) = (each for each in tables(DOCS / "policy.md") if [plain(row[0]) for row in each] == ["0", "1", "2"])
    meanings = {plain(row[0]): row[1] for row in table}
    nowhere = {
        "KEYCLOAK_URL": "http://127.0.0.1:9",
        "KEYCLOAK_REALM": "corp",
        "KEYCLOAK_CLIENT_ID": "chat",
        "KEYCLOAK_CLIENT_SECRET": secrets.token_urlsafe(),
    }
    done = CliRunner().invoke(command_line(), command.split(), env=nowhere)
    assert str(done.exit_code) == code
    assert {"0": "nothing is wrong", "1": "found something", "2": "called wrongly"}[code] in meanings[code]


def test_help_names_the_command_and_its_options() -> None:
    assert "dev" in run("--help").stdout
    text = run("dev", "--help", COLUMNS="200", TERM="dumb").stdout
    for word in ("REALM.json", "--port", "--auth-path", "--env-file", "this machine only"):
        assert word in text


def test_the_version_is_printed_without_a_command() -> None:
    done = CliRunner().invoke(command_line(), ["--version"])

    assert (done.exit_code, done.stdout) == (0, f"s2s-fastapi {__version__}\n")


def test_every_command_has_an_example() -> None:
    assert EXAMPLES.keys() == COMMANDS.keys()
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_an_example_is_in_the_help_of_its_command_and_is_a_command_line_that_it_takes(line: str) -> None:
    program, name, *words = shlex.split(re.split(r" [|<>] ", line)[0])

    assert program == "s2s-fastapi"
    assert COMMANDS[name].make_context(name, words).params
    rows = CliRunner().invoke(command_line(), [name, "--help"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert line in map(str.strip, rows)


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

"""The command line as a whole: what it says of itself, and without its extra."""

import subprocess
import sys

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

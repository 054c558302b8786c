"""The file that keeps generated secrets belongs to its owner alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from s2s_fastapi.cli.env_file import write_new
from s2s_fastapi.errors import ConfigurationError


def test_an_env_file_that_was_there_becomes_its_owners_and_a_link_is_not_followed(tmp_path: Path) -> None:
    there, elsewhere, link = tmp_path / "there.env", tmp_path / "elsewhere", tmp_path / "link.env"
    there.write_text("X=1\n")
    there.chmod(0o644)
    link.symlink_to(elsewhere)
    script = "import sys; from pathlib import Path; from s2s_fastapi.cli.env_file import add_values; add_values(Path(sys.argv[1]), {'A': 'b'})"

    subprocess.run([sys.executable, "-c", script, str(there)], check=True)
    refused = subprocess.run([sys.executable, "-c", script, str(link)], check=False, capture_output=True)

    assert there.stat().st_mode & 0o077 == 0
    assert there.read_text() == "X=1\nA=b\n"
    assert refused.returncode != 0
    assert not elsewhere.exists()


@pytest.mark.skipif(os.chmod not in os.supports_fd, reason="a mode is set by name only")
def test_the_mode_is_set_on_the_env_file_that_was_opened_whatever_has_its_name_by_then(tmp_path: Path) -> None:
    file, another = tmp_path / "own.env", tmp_path / "another"
    another.write_text("another's")
    another.chmod(0o644)
    script = """
import os, sys
from pathlib import Path
from s2s_fastapi.cli.env_file import add_values

file, another = map(Path, sys.argv[1:])

def swap(event, arguments):
    if event == "os.chmod" and not file.is_symlink():
        file.rename(file.with_suffix(".opened"))
        file.symlink_to(another)

sys.addaudithook(swap)
add_values(file, {"A": "b"})
"""
    subprocess.run([sys.executable, "-c", script, str(file), str(another)], check=True)

    assert file.is_symlink()
    assert another.stat().st_mode & 0o777 == 0o644
    assert another.read_text() == "another's"
    assert (tmp_path / "own.opened").stat().st_mode & 0o777 == 0o600


def test_the_settings_of_a_service_replace_those_that_the_command_wrote_before_and_nothing_else(tmp_path: Path) -> None:
    file, other, link = tmp_path / "chat.env", tmp_path / "other.env", tmp_path / "link.env"
    other.write_text("SECRET=of somebody else\n")
    link.symlink_to(tmp_path / "elsewhere")

    write_new(file, {"A": "a long value", "B": "2"})
    file.chmod(0o644)
    write_new(file, {"A": "short"})

    assert dotenv_values(file) == {"A": "short"}
    assert file.stat().st_mode & 0o077 == 0
    for refused in (other, link, tmp_path / "no" / "folder.env"):
        with pytest.raises(ConfigurationError, match=refused.name):
            write_new(refused, {"A": "short"})
    assert other.read_text() == "SECRET=of somebody else\n"
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("value", ["", "plain", "it's", "two words", "a#b", "#a", "back\\slash\\'", '"quoted"', "é\n2"])
def test_the_settings_of_a_service_are_read_as_they_were_written(tmp_path: Path, value: str) -> None:
    write_new(tmp_path / "chat.env", {"A": value, "B": "after"})

    assert dotenv_values(tmp_path / "chat.env") == {"A": value, "B": "after"}

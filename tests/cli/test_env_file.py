"""The file that keeps generated secrets belongs to its owner alone."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from dotenv import dotenv_values

from s2s_fastapi.cli.env_file import add_values, make_folder, write_new
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


@pytest.mark.parametrize(
    "value",
    [
        *("", "plain", "two words", "a#b", "#a", '"quoted"', "é\n2", "!!", "it's", "it's #1", "a'\nb=\"c"),
        *("a\\n", "a\\\\b", "back\\slash\\'", "a\\'\"", "it's\\\nb", "$HOME", "`id`", "a\\b$(id)"),
        *(
            "';touch run;#'\"",
            '";touch run;"',
            "$(touch run)",
            "`touch run`",
            "\ntouch run\n",
            "\"\ntouch run\n'",
            "\\\";touch run;\\'",
        ),
    ],
)
def test_a_shell_and_uvicorn_read_the_settings_of_a_service_as_they_were_written(tmp_path: Path, value: str) -> None:
    written = {"A": value, "B": 'a "quote" and it\'s after'}
    write_new(tmp_path / "chat.env", written)
    command = ["/bin/sh", "-c", "set -a; . ./chat.env; set +a; exec env -0"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)

    assert {name: variables.get(name) for name in written} == written
    assert dotenv_values(tmp_path / "chat.env") == written
    assert [path.name for path in tmp_path.iterdir()] == ["chat.env"]


@pytest.mark.parametrize("value", ["a${HOME}b", "${", "a\rb", "a\0b", "a\\", "it's $HOME", "it's `id`", "a\\\\$b"])
def test_a_value_that_uvicorn_or_a_shell_would_read_as_another_one_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"chat\.env is not written: no quotes keep the value of A as it is"):
        write_new(tmp_path / "chat.env", {"A": value})

    assert not (tmp_path / "chat.env").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("write", [write_new, add_values])
def test_no_secret_is_written_to_a_file_that_somebody_else_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, Mapping[str, str]], None]
) -> None:
    linked, pipe, own = (tmp_path / name for name in ("linked.env", "pipe.env", "own.env"))
    for file in (tmp_path / "another", own):
        file.touch()
    linked.hardlink_to(tmp_path / "another")
    os.mkfifo(pipe)
    for file, problem in ((linked, "it has another name, too"), (pipe, "it is not a regular file")):
        with pytest.raises(ConfigurationError, match=f"{file.name} cannot be written: {problem}"):
            write(file, {"A": "secret"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: own.stat().st_uid + 1)
        with pytest.raises(ConfigurationError, match=r"own\.env cannot be written: it belongs to another user\."):
            write(own, {"A": "secret"})

    assert (own.read_bytes(), (tmp_path / "another").read_bytes()) == (b"", b"")
    write(own, {"A": "secret"})


def test_a_new_folder_is_its_owners_and_ignored_by_git_and_one_that_was_there_stays_as_it_is(tmp_path: Path) -> None:
    new, there = tmp_path / "new", tmp_path / "there"
    there.mkdir(mode=0o755)
    for folder in (new, there, new):
        make_folder(folder)

    assert new.stat().st_mode & 0o077 == 0
    assert (new / ".gitignore").read_text() == "*\n"
    assert there.stat().st_mode & 0o777 == 0o755
    assert not list(there.iterdir())
    with pytest.raises(ConfigurationError, match="no/folder cannot be made: no such file or directory"):
        make_folder(tmp_path / "no" / "folder")

"""Files of ``NAME=value`` lines: one that keeps generated secrets from one start to the next, and the settings of a service."""

import os
import re
import stat
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import BinaryIO, Final

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.errors import ConfigurationError

__all__ = ["add_values", "make_folder", "read_values", "write_new"]

_MARK: Final = b"# Written by s2s-fastapi, which writes it anew at each start.\n"
_PLAIN: Final = re.compile(r"[\w.,:/@%+=-]*", re.ASCII)
_READ_AS_ANOTHER: Final = re.compile(r"\$\{|[\r\0]|\\\Z")
"""python-dotenv replaces ``${NAME}`` in every kind of quotes, makes a carriage return a line feed, and in older versions may take the quote
after a backslash for a part of the value. No file can hold a NUL."""
_IN_SINGLE_QUOTES: Final = re.compile(r"(?:[^'\\]|\\(?![\\']))*")
"""What stands between single quotes as it is."""
_IN_DOUBLE_QUOTES: Final = re.compile(r"[^$`]*")
"""What stands between double quotes, with a backslash before each backslash and each double quote."""


def read_values(file: Path) -> dict[str, str | None]:
    """Return the values of the file, or nothing if there is no such file.

    Raises:
        ConfigurationError: The file cannot be read.
    """
    if not file.exists():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415

    try:
        # Not by its path: python-dotenv treats a file that it cannot open as empty.
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = problem_of(error)
    else:
        return dict(dotenv_values(stream=StringIO(text), interpolate=False))
    raise ConfigurationError(f"{file} cannot be read: {problem}.")


def add_values(file: Path, values: Mapping[str, str]) -> None:
    """Append the values. From then on only the owner can read the file.

    Raises:
        ConfigurationError: The file cannot be written, is a link, or belongs to another user.
    """
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    try:
        with _opened(file, os.O_APPEND) as opened:
            _for_its_owner_only(file, opened)
            before = opened.read()
            opened.write(b"\n" * (bool(before) and not before.endswith(b"\n")) + lines.encode())
    except (OSError, UnicodeEncodeError) as error:
        problem = problem_of(error)
    else:
        return
    raise ConfigurationError(f"{file} cannot be written: {problem}.")


def make_folder(folder: Path) -> None:
    """Make the folder if it is not there. Only the owner can read a new one, and git ignores it.

    Raises:
        ConfigurationError: It cannot be made.
    """
    try:
        folder.mkdir(mode=0o700)
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
    except FileExistsError:
        return
    except OSError as error:
        problem = problem_of(error)
    else:
        return
    raise ConfigurationError(f"The folder {folder} cannot be made: {problem}.")


def write_new(file: Path, values: Mapping[str, str], *, comment: str = "") -> None:
    """Write the values, and a comment below them, in the place of what this function wrote before. Only the owner can read the file.

    Raises:
        ConfigurationError: The file cannot be written, is a link, belongs to another user, or is not of this function; or a value would
            be read as another one.
    """
    lines = ""
    for name, value in values.items():
        if (quoted := _quoted(value)) is None:
            raise ConfigurationError(
                f"{file} is not written: no quotes keep the value of {name} as it is for both `uvicorn --env-file` and a shell."
                " Change it: letters and digits always work."
            )
        lines += f"{name}={quoted}\n"
    try:
        content = _MARK + lines.encode() + (f"# {comment}\n".encode() if comment else b"")
        with _opened(file) as opened:
            if ours := opened.read(len(_MARK)) in (b"", _MARK):
                _for_its_owner_only(file, opened)
                opened.seek(0)
                opened.truncate()
                opened.write(content)
    except (OSError, UnicodeEncodeError) as error:
        problem = f"cannot be written: {problem_of(error)}"
    else:
        if ours:
            return
        problem = "is not overwritten, because another program wrote it. Move it, or name another folder"
    raise ConfigurationError(f"{file} {problem}.")


def _opened(file: Path, flags: int = 0) -> BinaryIO:
    """Open a file for secrets, which is made if it is not there.

    Raises:
        OSError: It cannot be opened, or is a link.
        ConfigurationError: Somebody else could read what is written to it.
    """
    # Not through a link to another place.
    flags |= os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    opened = os.open(file, flags, 0o600)
    problem = _unfit(os.fstat(opened))
    if not problem:
        return os.fdopen(opened, "r+b")
    os.close(opened)
    raise ConfigurationError(f"{file} cannot be written: {problem}.")


def _unfit(status: os.stat_result) -> str:
    """Return why an open file is no place for a secret."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink > 1:
        return "it has another name, too (a hard link)"
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return "it belongs to another user"
    return ""


def _for_its_owner_only(file: Path, opened: BinaryIO) -> None:
    # By its descriptor: by now the name may belong to another file.
    os.chmod(opened.fileno() if os.chmod in os.supports_fd else file, 0o600)  # noqa: PTH101


def _quoted(value: str) -> str | None:
    """Return a value as python-dotenv (``uvicorn --env-file``) and a shell read it, or None if they would read two values.

    A shell must run nothing of it: the value may come from a realm file of somebody else.
    """
    if _PLAIN.fullmatch(value):
        return value
    if _READ_AS_ANOTHER.search(value):
        return None
    if _IN_SINGLE_QUOTES.fullmatch(value):
        return f"'{value}'"
    if _IN_DOUBLE_QUOTES.fullmatch(value):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return None

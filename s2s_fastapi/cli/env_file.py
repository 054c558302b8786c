"""Files of ``NAME=value`` lines: one that keeps generated secrets from one start to the next, and the settings of a service."""

import os
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.errors import ConfigurationError

__all__ = ["add_values", "read_values", "write_new"]

_MARK: Final = b"# Written by s2s-fastapi, which writes it anew at each start.\n"
_PLAIN: Final = re.compile(r"[\w.,:/@%+=-]*", re.ASCII)


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
        ConfigurationError: The file cannot be written, or is a link.
    """
    lines = "".join(f"{name}={value}\n" for name, value in values.items())
    try:
        # For its owner only, also if the file exists: it holds secrets. And not through a link to another place.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(file, flags, 0o600), "r+b") as opened:
            # By its descriptor: by now the name may belong to another file.
            os.chmod(opened.fileno() if os.chmod in os.supports_fd else file, 0o600)  # noqa: PTH101
            before = opened.read()
            opened.write(b"\n" * (bool(before) and not before.endswith(b"\n")) + lines.encode())
    except OSError as error:
        problem = problem_of(error)
    else:
        return
    raise ConfigurationError(f"{file} cannot be written: {problem}.")


def write_new(file: Path, values: Mapping[str, str]) -> None:
    """Write the values in the place of those that this function wrote before. Only the owner can read the file.

    Raises:
        ConfigurationError: The file cannot be written, is a link, or is not of this function.
    """
    lines = "".join(f"{name}={_quoted(value)}\n" for name, value in values.items())
    try:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(file, flags, 0o600), "r+b") as opened:
            before = opened.read(len(_MARK))
            if ours := before in (b"", _MARK):
                os.chmod(opened.fileno() if os.chmod in os.supports_fd else file, 0o600)  # noqa: PTH101 - as above
                opened.seek(0)
                opened.truncate()
                opened.write(_MARK + lines.encode())
    except OSError as error:
        problem = f"cannot be written: {problem_of(error)}"
    else:
        if ours:
            return
        problem = "is not overwritten, because another program wrote it. Move it, or name another folder"
    raise ConfigurationError(f"{file} {problem}.")


def _quoted(value: str) -> str:
    """Return a value as python-dotenv reads it, and with it ``uvicorn --env-file``."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

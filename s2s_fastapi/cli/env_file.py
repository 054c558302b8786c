"""A file of ``NAME=value`` lines, which keeps generated secrets from one start to the next."""

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from s2s_fastapi.cli.mistake import problem_of
from s2s_fastapi.errors import ConfigurationError

__all__ = ["add_values", "read_values"]


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

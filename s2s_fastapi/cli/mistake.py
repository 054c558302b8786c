"""A mistake that the user of a command can correct: one sentence, and exit code 2."""

import functools
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import printable

__all__ = ["ending_with_2", "in_one_sentence", "problem_of"]

_EXIT_CODE: Final = 2
_LONGEST: Final = 8192

_Options = ParamSpec("_Options")


def in_one_sentence(command: Callable[_Options, None]) -> Callable[_Options, None]:
    """Return the command with every `ConfigurationError` written to stderr as a sentence, without a traceback."""

    @functools.wraps(command)
    def run(*args: _Options.args, **options: _Options.kwargs) -> None:
        try:
            command(*args, **options)
        except ConfigurationError as error:
            sentence = str(error)
        else:
            return
        # Outside of the except block: the error may carry a document, and with it secrets.
        # Line by line: some sentences have examples below them. A name or a path in it must not change the terminal.
        sys.stderr.writelines(f"{printable(line, _LONGEST)}\n" for line in sentence.split("\n"))
        raise SystemExit(_EXIT_CODE)

    return run


def ending_with_2(command: Callable[_Options, None]) -> Callable[_Options, None]:
    """Return the command with every other error as a sentence too: Python ends with 1, which here means that all was done."""

    @functools.wraps(command)
    def run(*args: _Options.args, **options: _Options.kwargs) -> None:
        try:
            command(*args, **options)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - the exit code of whatever it is must be 2
            place = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__} at {Path(place.filename).name}, line {place.lineno}"
        else:
            return
        # Without what the error says: it may hold an answer of the server, and with it secrets.
        raise ConfigurationError(f"This is a mistake in s2s-fastapi: {problem}. What was done before it stays done.")

    return run


def problem_of(error: Exception) -> str:
    """Return why a file cannot be read or written, as the end of a sentence."""
    return str(getattr(error, "strerror", None) or "it is not UTF-8 text").lower()

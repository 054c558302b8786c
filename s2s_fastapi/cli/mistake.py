"""A mistake that the user of a command can correct: one sentence, and exit code 2."""

import functools
import sys
from collections.abc import Callable
from typing import Final, ParamSpec

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import printable

__all__ = ["in_one_sentence", "problem_of"]

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


def problem_of(error: Exception) -> str:
    """Return why a file cannot be read or written, as the end of a sentence."""
    return str(getattr(error, "strerror", None) or "it is not UTF-8 text").lower()

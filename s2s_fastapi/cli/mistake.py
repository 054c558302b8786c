"""What ends a command before its work is done: one sentence, and exit code 2."""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Final, ParamSpec, TextIO

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import printable

__all__ = ["NOT_DONE", "in_one_sentence", "listen", "problem_of"]

NOT_DONE: Final = 2
"""The exit code of a command that could not do its work, or was called wrongly. Python's own would be 1, which means: something was found."""
_UNWRITABLE: Final = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPIPE})
_LONGEST: Final = 8192

_Options = ParamSpec("_Options")


def in_one_sentence(command: Callable[_Options, None]) -> Callable[_Options, None]:
    """Return the command with every error written to stderr as a sentence, without a traceback, and with exit code 2."""

    @functools.wraps(command)
    def run(*args: _Options.args, **options: _Options.kwargs) -> None:
        _open_streams()
        try:
            try:
                command(*args, **options)
            finally:
                sys.stdout.flush()  # a full disk is seen here, or else at the end of the process, with exit code 120
        except ConfigurationError as error:
            sentence = str(error)
        except Exception as error:  # noqa: BLE001 - the exit code of whatever it is must be 2
            sentence = _unexpected(error)
        else:
            return
        # Outside of the except block: the error may carry a document, and with it secrets.
        # Line by line: some sentences have examples below them. A name or a path in it must not change the terminal.
        try:
            sys.stderr.writelines(f"{printable(line, _LONGEST)}\n" for line in sentence.split("\n"))
        except OSError:
            _discard(sys.stderr)
        raise SystemExit(NOT_DONE)

    return run


def _unexpected(error: Exception) -> str:
    """Return a sentence without what the error says: it may hold an answer of the server, and with it secrets."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        _discard(sys.stdout)
        return f"The output cannot be written: {problem_of(error)}. What was done before it stays done."
    # The last line of this package: it may have called the code of anybody.
    frames = traceback.walk_tb(error.__traceback__)
    modules = [(str(frame.f_globals.get("__name__")), line) for frame, line in frames]
    module, line = [each for each in modules if each[0].partition(".")[0] == __name__.partition(".")[0]][-1]
    where = f"{module}, line {line}"
    return f"This is a mistake in s2s-fastapi: {type(error).__name__} at {where}. What was done before it stays done."


def _open_streams() -> None:
    """Give a stream that the shell closed (`>&-`) a place to write to: Python has None for it."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends


def _discard(stream: TextIO) -> None:
    """Let be lost what a stream still holds: Python would write it at its end, fail again, and end with 120."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def problem_of(error: Exception) -> str:
    """Return why a file cannot be read or written, as the end of a sentence."""
    return str(getattr(error, "strerror", None) or "it is not UTF-8 text").lower()


def listen(until: ExitStack, serving: AbstractContextManager[object], port: int, *, option: str) -> None:
    """Let an issuer answer on a port of this machine until the stack is closed; ``option`` is the one that takes another port.

    Raises:
        ConfigurationError: The port is taken, or cannot be used.
    """
    try:
        until.enter_context(serving)
    except OSError as error:
        raise ConfigurationError(
            f"The issuer cannot listen on 127.0.0.1:{port}: {problem_of(error)}. {option} takes another port."
        ) from None

"""Files that decide who has power in a realm: those for the secrets of new clients, and saved plans. Nobody else can change them."""

import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import printable

__all__ = ["folder_problem", "read_own", "write_secret"]

_SECRET_BYTES: Final = 32
_LONGEST_PATH: Final = 4096
_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
_ROOT: Final = 0


def folder_problem(folder: Path) -> str:
    """Return why no secret may be written into this folder, as a sentence; "" if it may. One that is not there yet will be made."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return ""
    except OSError as error:
        problem = f"cannot be looked at: {(error.strerror or type(error).__name__).lower()}"
    else:
        if stat.S_ISLNK(found.st_mode):
            problem = (
                "is a symbolic link, and whoever can change that decides where the secrets go: name the folder itself"
            )
        elif not stat.S_ISDIR(found.st_mode):
            problem = "is no folder: name another one"
        elif found.st_mode & _OTHERS:
            problem = "can be written by other users, who could replace the files: chmod go-w, or name another one"
        elif _is_of_others(found):
            problem = "belongs to another user, who could replace the files: name another one"
        else:
            return ""
    return f"The folder for new secrets {printable(str(folder), _LONGEST_PATH)} {problem} with --secrets."


def _is_of_others(found: os.stat_result) -> bool:
    return hasattr(os, "geteuid") and found.st_uid not in (_ROOT, os.geteuid())


def _unfollowed(file: str, flags: int) -> int:
    """Open a file: no link, and without waiting for the other end of a pipe."""
    return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def read_own(file: Path, longest: int) -> str:
    """Return the text of a file that only its owner can change. It is opened once, so what was looked at is what is read.

    Raises:
        ConfigurationError: It cannot be read, is too long, or others can write to it.
    """
    problem = ""
    try:
        with open(file, "rb", opener=_unfollowed) as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                problem = "is no file"
            elif found.st_mode & _OTHERS:
                problem = "can be written by other users, who could put steps of their own into it: chmod go-w, and read it before you use it"
            elif _is_of_others(found):
                problem = "belongs to another user, who could put steps of his own into it: copy it, and read it before you use it"
            elif found.st_size > longest:
                problem = f"is larger than {longest} bytes"
            else:
                return opened.read(longest).decode()
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    except OSError as error:
        problem = (
            "is a symbolic link, and whoever can change that decides what is read: name the file itself"
            if error.errno == errno.ELOOP
            else f"cannot be read: {(error.strerror or type(error).__name__).lower()}"
        )
    raise ConfigurationError(f"{printable(str(file), _LONGEST_PATH)} {problem}.")


def write_secret(file: Path) -> str:
    """Write a new secret into a new file that only its owner can read, and return it.

    Raises:
        ConfigurationError: The file exists, cannot be written, or others can write into its folder.
    """
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    if problem := folder_problem(file.parent):
        raise ConfigurationError(problem)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as opened:
            opened.write(secret)
            opened.flush()
            os.fsync(opened.fileno())
    except FileExistsError:
        problem = "exists, and a secret is never overwritten: make the plan again"
    except OSError as error:
        problem = f"cannot be written: {(error.strerror or type(error).__name__).lower()}"
    else:
        return secret
    raise ConfigurationError(f"The secret file {printable(str(file), _LONGEST_PATH)} {problem}.")

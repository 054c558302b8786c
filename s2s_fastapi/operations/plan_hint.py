"""The line that makes a plan, for the cures of other commands."""

import shlex
from typing import Final

__all__ = ["plan_command"]

_PLACEHOLDER: Final = "ACCESS.json"


def plan_command(*files: str, realm_file: str = "") -> str:
    """Return the line for a shell that makes a plan from these access files.

    Each file is one word, whatever its name, and never an option. A name that cannot be printed, and no name at all, are shown as
    ``ACCESS.json``: the reader puts his own file there. With ``realm_file``, no server is asked, and the realm with the steps carried out is
    written to ``NEW.json``.
    """
    words = ["s2s-fastapi plan", *map(_word, dict.fromkeys(files or (_PLACEHOLDER,)))]
    if realm_file:
        words += ["--realm-file", _word(realm_file, "REALM.json"), "--realm-json", "NEW.json"]
    return " ".join(words)


def _word(file: str, placeholder: str = _PLACEHOLDER) -> str:
    if not file or not file.isprintable():
        return placeholder
    return shlex.quote(f"./{file}" if file.startswith("-") else file)

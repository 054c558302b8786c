"""How commands print: names and sentences as text, whatever is in them, and JSON."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from s2s_fastapi.text import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "print_json", "print_pairs", "quiet"]

_LONGEST = 8192


def console(*, stderr: bool = False) -> "Console":
    """Return a console that takes no markup: a client may be called ``[link=x]`` or ``:key:``."""
    from rich.console import Console  # noqa: PLC0415 - slows --help down

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print JSON in ASCII, so that no character in it changes the terminal or the direction of writing."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")
    sys.stdout.flush()


def print_pairs(pairs: Iterable[tuple[str, str]], *, style: str = "") -> None:
    """Print names and texts in two columns."""
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in pairs:
        table.add_row(Text(name, style=style or "bold"), Text(printable(text, _LONGEST)))
    console().print(table)


def quiet() -> None:
    """Let log records without a handler be lost: the command prints the same sentences itself."""
    logging.getLogger("s2s_fastapi").addHandler(logging.NullHandler())

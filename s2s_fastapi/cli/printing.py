"""How commands print: names and sentences as text, whatever is in them, and JSON."""

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

__all__ = ["as_text", "columns", "console", "name_the_page", "print_json", "print_pairs", "quiet", "show", "tell"]

_LONGEST: Final = 8192
_UNBOUNDED: Final = 100_000
"""Columns of output that is no terminal: a file or a pipe has no width, so nothing is wrapped or cut."""


def console(*, stderr: bool = False) -> "Console":
    """Return a console that takes no markup: a client may be called ``[link=x]`` or ``:key:``."""
    from rich.console import Console  # noqa: PLC0415 - slows --help down

    width = None if (sys.stderr if stderr else sys.stdout).isatty() else _UNBOUNDED
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def show(shown: "RenderableType", *, wrap: bool = True) -> None:
    """Print to stdout, without blanks at the ends of lines if it is no terminal: columns are filled up to the longest sentence.

    What is not to be wrapped is one line, however narrow the terminal is: so it can be copied as a whole.
    """
    out = console()
    if out.is_terminal:
        out.print(shown, soft_wrap=not wrap)
        return
    with out.capture() as captured:
        out.print(shown, soft_wrap=not wrap)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


def as_text(text: str, style: str = "", *, longest: int = _LONGEST) -> "Text":
    """Return text in which nothing is markup, and no character changes the terminal."""
    from rich.text import Text  # noqa: PLC0415 - as above

    return Text(printable(text, longest), style=style)


def columns(number: int, *, widths: Sequence[int] = ()) -> "Table":
    """Return a table without lines. In a narrow terminal its widest column is wrapped first, and no text is ever cut.

    ``widths`` are those of the first columns, so that several tables stand below each other as one.
    """
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table.grid(padding=(0, 2))
    for width in (*widths, *[None] * (number - len(widths))):
        table.add_column(overflow="fold", width=width)
    return table


def print_json(value: Mapping[str, Any]) -> None:
    """Print JSON in ASCII, so that no character in it changes the terminal or the direction of writing."""
    sys.stdout.write(f"{json.dumps(value, indent=2)}\n")
    sys.stdout.flush()


def print_pairs(pairs: Iterable[tuple[str, str]], *, style: str = "") -> None:
    """Print names and texts in two columns."""
    table = columns(2)
    for name, text in pairs:
        table.add_row(as_text(name, style or "bold"), as_text(text))
    show(table)


def tell(sentence: str) -> None:
    """Write a sentence to stderr, in which no character changes the terminal."""
    sys.stderr.write(f"{printable(sentence, _LONGEST)}\n")


def name_the_page() -> None:
    """Name the page of the documentation for what does not work, on stderr: what is printed to stdout stays as it is."""
    with suppress(PackageNotFoundError, StopIteration):  # run from a folder that was not installed
        urls = metadata("s2s-fastapi").get_all("Project-URL") or ()
        index = next(url for kind, _, url in (each.partition(", ") for each in urls) if kind == "Documentation")
        tell(f"More help: {index.rpartition('/')[0]}/it-does-not-work.md")


def quiet() -> None:
    """Let log records without a handler be lost: the command prints the same sentences itself."""
    logging.getLogger("s2s_fastapi").addHandler(logging.NullHandler())

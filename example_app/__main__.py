"""``make demo``: play the five stories on the embedded issuer, over real sockets, and show each line as it happens.

The issuer reads the same realm files as a real Keycloak, and every service is a uvicorn of its own.
"""

import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from example_app.realm import REALMS, Realm, fresh_secrets
from example_app.stories import LINES, STORIES, Line
from s2s_fastapi.testing import EmbeddedIssuer

_STEPS = " Keycloak needs, of"
_NARROW = 110
"""Columns below which a line is two lines of text instead of a row of columns."""
_PIPE = 160
"""Columns of output that is no terminal."""

__all__ = ["Shown", "main", "token_in_pieces"]

TITLES = {
    "corp": "1  Chat to CRM: the audience says which service a token is for",
    "techstore": "2  Shop to notifications: only this service, only as itself, from wherever it runs",
    "abc": "3  Alice, Bob and Charles do not trust each other",
    "workshop": "4  An agent, its tools and its users: each tool says who may use it, and the user comes along",
    "vault": "5  A stolen token: Bob keeps what Alice sent him, and can do nothing with it",
}


def main() -> int:
    """Play every line and return 0 if all went as told."""
    console = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPE, highlight=False)
    shown = Shown(console, sum(LINES[name] for name in STORIES))
    began = time.monotonic()
    issuer = EmbeddedIssuer.read(*REALMS.values(), values=fresh_secrets())
    with issuer.serving():
        for name, story in STORIES.items():
            console.print(Text(TITLES[name], style="bold"))
            realm = Realm(name, issuer.url, issuer.public_url, issuer.auth_path, issuer.values)
            with console.status("starting the services ...") as status:
                for line in story(realm):
                    shown.add(line)
                    status.update("the next line ...")
            console.print()
    console.print(
        "The same lines run on a real Keycloak in the tests. The services and realm files are in example_app/."
        " The embedded issuer is for development only."
    )
    console.print(shown.verdict(time.monotonic() - began))
    return 0 if shown.as_told else 1


@dataclass(slots=True)
class Shown:
    """The lines that were shown so far."""

    console: Console
    expected: int
    played: int = 0
    deviating: list[str] = field(default_factory=list)
    """The lines that did not go as told, by number and name."""
    accepted: list[str] = field(default_factory=list)
    """Those of them in which an attack was accepted."""
    explained: bool = False

    @property
    def as_told(self) -> bool:
        """Whether every line was played, and went as told."""
        return not self.deviating and self.played == self.expected

    def add(self, line: Line) -> None:
        """Show a line, and below it whatever differs from the story; the four steps in Keycloak are spelled out once."""
        self.played += 1
        if line.deviations:
            self.deviating.append(f"{self.played}: {line.what}")
        if line.accepted_attack:
            self.accepted.append(f"{self.played}: {line.what}")
        number = Text(
            f"{self.played} of {self.expected}".rjust(len(f"{self.expected} of {self.expected}")), style="dim"
        )
        mark = Text("✗", style="bold red") if line.deviations else Text("✓", style="green")
        if self.console.width < _NARROW:
            self._two_lines(line, Text.assemble(number, " ", mark, " "))
        else:
            self._row(line, number, mark)

    def _two_lines(self, line: Line, start: Text) -> None:
        """The case with its answer, and the token. The scope is left out if it does not fit beside the audience."""
        width = self.console.width - start.cell_len
        case = Text.assemble(_answer(line), " ", _reason(line), f": {line.what}")
        pieces = _pieces(line.token)
        token = token_in_pieces(pieces if len(line.token) <= width else pieces[:2], width)
        for text in (case, token, *(Text(each, style="bold red") for each in line.deviations)):
            for wrapped in text.wrap(self.console, width):
                wrapped.rstrip()
                self.console.print(Text.assemble(start, wrapped), soft_wrap=True)
                start = Text(" " * start.cell_len)

    def _row(self, line: Line, number: Text, mark: Text) -> None:
        rest = self.console.width - number.cell_len - len("✓") - len("exit 1") - 2 * 5
        token = min(max(30, rest * 5 // 18), 70)
        what = min(max(22, rest * 4 // 18), 60)
        reason = _reason(line)
        if _refused(line) and line.cure:
            cure = line.cure
            if self.explained and _STEPS in cure:
                cure = cure.partition(_STEPS)[0].removesuffix(":") + " ..."
            reason.append(f"\n{cure}", style="dim")
        self.explained = self.explained or _STEPS in line.cure
        for deviation in line.deviations:
            reason.append(f"\n{deviation}", style="bold red")
        grid = _grid(number.cell_len, 1, what, token, len("exit 1"), rest - what - token, gap=2)
        grid.add_row(number, mark, Text(line.what), token_in_pieces(_pieces(line.token), token), _answer(line), reason)
        self.console.print(grid)

    def verdict(self, seconds: float) -> Text:
        """Return the last line: whether all went as told, and which attacks were accepted."""
        played = f"{self.played} of {self.expected} lines, {seconds:.0f} s"
        if self.accepted:
            return Text(f"ACCEPTED, and must be refused: {'; '.join(self.accepted)}. {played}.", style="bold red")
        if not self.as_told:
            return Text(f"Not as told: {'; '.join(self.deviating) or 'lines are missing'}. {played}.", style="bold red")
        return Text(f"All as told: {played}.", style="bold green")


def _grid(*widths: int, gap: int = 0) -> Table:
    grid = Table.grid(padding=(0, gap, 0, 0))
    for width in widths:
        grid.add_column(width=width, overflow="fold")
    return grid


def _refused(line: Line) -> bool:
    return line.seen.status not in (200, 201, 202) or line.seen.reason not in ("", "allowed")


def _answer(line: Line) -> Text:
    return Text(line.answer, style="yellow" if _refused(line) else "green")


def _reason(line: Line) -> Text:
    """The reason of the service; without one, no service was asked for a decision."""
    return Text(line.seen.reason or "nothing to decide", style="yellow" if _refused(line) else "green")


def token_in_pieces(pieces: Sequence[str], width: int) -> Text:
    """Return who, for whom and what for, broken between them. The audience is what the stories are about: it is never dim."""
    text = Text()
    used = 0
    for piece in pieces:
        if used:
            fits = used + len(", ") + len(piece) + len(",") <= width
            text.append(", " if fits else ",\n")
            used = used + len(", ") if fits else 0
        text.append(piece, style="bold" if piece.startswith("aud ") else "dim" if piece.startswith("scope ") else "")
        used += len(piece)
    return text


def _pieces(token: str) -> list[str]:
    return re.split(r", (?=(?:aud|scope) \[)", token)


if __name__ == "__main__":
    sys.exit(main())

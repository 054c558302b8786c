"""The tables in the documentation: written by a run, read back by a test."""

from collections.abc import Iterable
from pathlib import Path

from tests.receiver.fire.row import Expectation
from tests.receiver.fire.service import Tally

__all__ = ["EMBEDDED", "PAGE", "REAL", "put", "rows_of", "taken"]

PAGE = Path(__file__).resolve().parents[3] / "docs" / "when-keycloak-fails.md"
EMBEDDED, REAL = "embedded issuer", "real Keycloak"
_COLUMNS = (
    "what happens",
    "what is promised",
    "valid requests",
    "401",
    "503",
    "forged",
    "of these accepted",
    "fetches",
    "least distance",
)


def rows_of(played: Iterable[tuple[Expectation, Tally]]) -> str:
    """Return the table of a run."""
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + " --- |" * 2 + " ---: |" * (len(_COLUMNS) - 2)]
    for row, tally in played:
        distance = f"{tally.least_distance:,.1f} s" if len(tally.fetches) > 1 else ""
        figures = (tally.valid, tally.refused, tally.unavailable, tally.forged, tally.let_in, len(tally.fetches))
        lines.append(f"| {row.fault} | {row.promise} | {' | '.join(f'{one:,}' for one in figures)} | {distance} |")
    return "\n".join(lines)


def put(name: str, table: str, page: Path = PAGE) -> None:
    """Write a table between its marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(f"<!-- {name}: begin -->\n")
    _, end, after = rest.partition(f"\n<!-- {name}: end -->")
    if not begin or not end:
        raise ValueError(f"{page.name} has no marks for {name}")
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def taken(name: str, page: Path = PAGE) -> list[dict[str, str]]:
    """Return the rows of a table as they stand in the page, by column."""
    text = page.read_text(encoding="utf-8")
    between = text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"\n<!-- {name}: end -->")[0]
    lines = [line for line in between.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == _COLUMNS
    return [dict(zip(_COLUMNS, row, strict=True)) for row in cells[2:]]

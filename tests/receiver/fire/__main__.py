"""``python -m tests.receiver.fire``: play every row and write the table; with ``--keycloak`` on real servers, too."""

import logging
import sys
import tempfile
from pathlib import Path

from tests.receiver.fire.real import REAL_ROWS
from tests.receiver.fire.rows import ROWS
from tests.receiver.fire.table import EMBEDDED, REAL, put, rows_of


def main() -> None:
    """Play, check, write."""
    logging.disable(logging.CRITICAL)  # of the thousand fetches that fail
    played = []
    for row in ROWS:
        print(row.fault, flush=True)  # noqa: T201 - it speaks to the person who started it
        with tempfile.TemporaryDirectory() as folder:
            tally = row.play(Path(folder))
        row.check(tally)
        played.append((row, tally))
    put(EMBEDDED, rows_of(played))
    if "--keycloak" in sys.argv[1:]:
        from tests.real.server import NEWEST, Keycloak

        real = []
        with Keycloak(NEWEST) as keycloak:
            for real_row in REAL_ROWS:
                print(real_row.fault, flush=True)  # noqa: T201 - it speaks to the person who started it
                tally = real_row.play(keycloak)
                real_row.check(tally)
                real.append((real_row, tally))
        put(REAL, rows_of(real))


if __name__ == "__main__":
    main()

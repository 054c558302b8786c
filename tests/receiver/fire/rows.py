"""All rows of the table, in its order."""

from tests.receiver.fire import outages, rotations
from tests.receiver.fire.row import ROWS, Row

__all__ = ["ROWS", "Row", "outages", "rotations"]

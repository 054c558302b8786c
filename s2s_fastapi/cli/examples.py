"""The realm files that come with the package: the first steps need no file of their own."""

from enum import StrEnum
from pathlib import Path
from typing import Final

__all__ = ["Example", "realm_of"]

_IN_THE_WHEEL: Final = Path(__file__).with_name("realms")
# There is one copy: pyproject.toml puts the file into the wheel. A checkout has it only here.
_IN_A_CHECKOUT: Final = Path(__file__).resolve().parents[2] / "example_app" / "realms"


class Example(StrEnum):
    """An example, by the name of its realm."""

    CORP = "corp"


def realm_of(example: Example) -> Path:
    """Return the realm file of an example."""
    folder = _IN_THE_WHEEL if _IN_THE_WHEEL.is_dir() else _IN_A_CHECKOUT
    return folder / f"{example}.json"

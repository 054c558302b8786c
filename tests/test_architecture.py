"""The map of the code in docs/architecture.md is what the code is: its rooms, their order, the files on the two ways."""

import re
import tomllib
from pathlib import Path
from typing import Any

import s2s_fastapi

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(s2s_fastapi.__file__).parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
CONTRACTS: list[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def first_cells(title: str) -> list[list[str]]:
    """Return the names in the first cell of each row of a section's table."""
    return [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in section(title).splitlines() if line[:3] == "| `"]


ROOMS = first_cells("Rooms")


def test_the_rooms_of_the_map_are_the_folders_and_modules_of_the_package() -> None:
    there = {
        path.stem
        for path in PACKAGE.iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    listed = [room for row in ROOMS for room in row]
    assert sorted(listed) == sorted(there)


def test_the_rooms_stand_in_the_order_in_which_they_may_import_each_other() -> None:
    layers = next(contract["layers"] for contract in CONTRACTS if contract.get("containers") == ["s2s_fastapi"])
    floor = {room.strip(): number for number, layer in enumerate(layers) for room in layer.split("|")}
    floors = [{floor[room] for room in row} for row in ROOMS]
    assert [len(row) for row in floors] == [1] * len(ROOMS)  # rooms of one row do not import each other
    flat = [number for row in floors for number in row]
    assert flat == sorted(flat)


def test_the_two_sides_of_the_map_are_those_of_the_import_rule() -> None:
    sentence = re.search(r"The receiving side \(([^)]*)\) and the calling side \(([^)]*)\) never import", PAGE)
    assert sentence is not None
    receiving, calling = (
        {f"s2s_fastapi.{room}" for room in re.findall(r"`(\w+)`", side)} for side in sentence.groups()
    )
    rules = [contract for contract in CONTRACTS if set(contract.get("forbidden_modules", ())) == calling]
    assert [set(rule["source_modules"]) for rule in rules] == [receiving]


def test_every_file_and_folder_that_the_map_names_is_there() -> None:
    named = re.findall(r"`((?:s2s_fastapi|tests)/[\w/]+(?:\.py)?)`", PAGE)
    assert len(named) > 30
    missing = [
        name
        for name in named
        if not (PACKAGE.parent if name.startswith("s2s_fastapi/") else ROOT).joinpath(name).exists()
    ]
    assert missing == []


def test_every_folder_of_tests_is_on_the_map() -> None:
    rows = {name for row in first_cells("Where a test goes") for name in row}
    there = {f"tests/{path.name}" for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert there - rows == set()


def test_a_room_that_is_a_folder_has_a_folder_of_tests() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders - {path.name for path in (ROOT / "tests").iterdir()} == set()

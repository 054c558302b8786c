"""What is in the files of a release: exactly what the repository has at that commit, and nothing that must not leave it."""

import io
import re
import tarfile
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.release.notes import RELATIVE

__all__ = ["read_files", "read_sdist", "read_wheel", "unpack", "wrong_in_sdist", "wrong_in_wheel"]

_ADDED_TO_WHEEL: Final = frozenset({"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"})
_ADDED_TO_SDIST: Final = frozenset({"PKG-INFO"})
_MUST_SHIP: Final = frozenset(
    {
        "s2s_fastapi/__init__.py",
        "s2s_fastapi/py.typed",
        "s2s_fastapi/declared/access_file.schema.json",
        "s2s_fastapi_pytest.py",
    }
)
_PRIVATE_NAME: Final = re.compile(
    r"(^|/)(\.env[^/]*|[^/]*\.(env|pem|key|p12|pfx|jks|kdbx)|__pycache__|[^/]*\.py[co])(/|$)"
)
_PRIVATE_KEY: Final = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=\s]{100}")
"""A key, and not the code or the sentence that names its first line."""


def read_files(packed: bytes) -> dict[str, bytes]:
    """Return each plain file of an archive that git made, by its name."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in found.items() if file is not None}


def unpack(packed: bytes, place: Path) -> None:
    """Write the files of an archive that git made: a build that starts from them has the bytes of one that starts from a checkout."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(place, filter="data")  # with the executable bits


def read_wheel(path: Path) -> dict[str, bytes]:
    """Return each file of a wheel by its name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_sdist(path: Path) -> dict[str, bytes]:
    """Return each file of a source distribution by its name without the first folder.

    Raises:
        ValueError: Something in it is no plain file: a link could lead out of the folder.
    """
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is None:
                raise ValueError(f"{member.name} is no plain file")
            found[member.name.partition("/")[2]] = content.read()
    return found


def wrong_in_wheel(files: Mapping[str, bytes], tracked: Mapping[str, bytes]) -> list[str]:
    """Return a sentence for each fault of a wheel's files beside the files that git has."""
    wanted = {name: content for name, content in tracked.items() if name.startswith("s2s_fastapi/")}
    wanted |= {packed: tracked[name] for name, packed in _elsewhere(tracked).items()}
    packed = {name: content for name, content in files.items() if ".dist-info/" not in name}
    added = {name.partition(".dist-info/")[2] for name in files.keys() - packed.keys()}
    return [
        *_differences(packed, wanted),
        *(f"{name} is missing in the metadata" for name in sorted(_ADDED_TO_WHEEL - added)),
        *(f"{name} in the metadata is unknown" for name in sorted(added - _ADDED_TO_WHEEL)),
        *(f"{name} must be in the wheel" for name in sorted(_MUST_SHIP - files.keys())),
        *(
            f"the description links to {link}, and an index has no such page"
            for name, content in files.items()
            if name.endswith(".dist-info/METADATA")
            for link in RELATIVE.findall(content.decode())
        ),
        *_private(files),
    ]


def _elsewhere(tracked: Mapping[str, bytes]) -> dict[str, str]:
    """Return the files that a wheel has from outside the package: the name in git, and the one in the wheel."""
    build = tomllib.loads(tracked["pyproject.toml"].decode())["tool"]["hatch"]["build"]
    found: dict[str, str] = build["targets"]["wheel"]["force-include"]
    return found


def wrong_in_sdist(files: Mapping[str, bytes], tracked: Mapping[str, bytes]) -> list[str]:
    """Return a sentence for each fault of a source distribution's files beside the files that git has."""
    packed = {name: content for name, content in files.items() if name not in _ADDED_TO_SDIST}
    return [
        *_differences(packed, tracked),
        *(f"{name} is missing" for name in sorted(_ADDED_TO_SDIST - files.keys())),
        *_private(files),
    ]


def _differences(packed: Mapping[str, bytes], wanted: Mapping[str, bytes]) -> list[str]:
    return [
        *(f"{name} is not in git" for name in sorted(packed.keys() - wanted.keys())),
        *(f"{name} is missing" for name in sorted(wanted.keys() - packed.keys())),
        *(f"{name} differs from git" for name in sorted(packed.keys() & wanted.keys()) if packed[name] != wanted[name]),
    ]


def _private(files: Mapping[str, bytes]) -> list[str]:
    return [
        *(f"{name} must not be packed" for name in sorted(files) if _PRIVATE_NAME.search(name)),
        *(f"{name} contains a private key" for name in sorted(files) if _PRIVATE_KEY.search(files[name])),
    ]

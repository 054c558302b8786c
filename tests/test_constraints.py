"""The tests run with the versions of constraints.txt, which `make constraints` writes: a release of somebody else breaks no first run."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.lstrip().startswith("#")
]
NEEDED = [
    Requirement(text)
    for texts in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for text in texts
    if not text.startswith("s2s-fastapi")
] + [
    Requirement(line.partition("#")[0])
    for line in (ROOT / "tests" / "release" / "requirements.txt").read_text().splitlines()
    if not line.startswith("#")
]


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_all_that_the_project_needs_is_pinned_to_a_version_that_it_allows(needed: Requirement) -> None:
    versions = [
        next(iter(pinned.specifier)).version
        for pinned in PINNED
        if canonicalize_name(pinned.name) == canonicalize_name(needed.name)
    ]
    assert versions, "run `make constraints`"
    assert all(needed.specifier.contains(version, prereleases=True) for version in versions)


def test_each_line_is_one_exact_version() -> None:
    assert {specifier.operator for pinned in PINNED for specifier in pinned.specifier} == {"=="}
    assert all(len(pinned.specifier) == 1 and pinned.url is None for pinned in PINNED)

"""The files of a release hold what git has, and a release stops at the first thing that must not leave the repository."""

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from s2s_fastapi.version import __version__
from tests.release.contents import read_files, read_sdist, read_wheel, unpack, wrong_in_sdist, wrong_in_wheel
from tests.release.notes import HOME, RELATIVE

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = {
    "s2s_fastapi/__init__.py": b"",
    "s2s_fastapi/py.typed": b"",
    "s2s_fastapi/declared/access_file.schema.json": b"{}",
    "s2s_fastapi_pytest.py": b"",
}
PROJECT = b"""
[tool.hatch.build.targets.wheel.force-include]
"s2s_fastapi_pytest.py" = "s2s_fastapi_pytest.py"
"example_app/realm.json" = "s2s_fastapi/cli/realm.json"
"""
OUTSIDE = {"example_app/realm.json": b"{}", "pyproject.toml": PROJECT}
PACKED = PACKAGE | {"s2s_fastapi/cli/realm.json": b"{}"}
TRACKED = PACKAGE | OUTSIDE | {"README.md": b"# Hello", "tests/test_a.py": b""}
METADATA = {
    f"s2s_fastapi-0.1.0.dist-info/{name}": b""
    for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
}
KEY = b"-----BEGIN " + b"PRIVATE KEY-----\n" + b"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC" * 4


def test_a_wheel_of_the_package_alone_is_right() -> None:
    assert wrong_in_wheel(PACKED | METADATA, TRACKED) == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = place.glob("*.whl")
    return read_wheel(wheel)


def test_the_wheel_that_is_built_is_right(built: dict[str, bytes]) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    tracked = {name: (ROOT / name).read_bytes() for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert wrong_in_wheel(built, tracked) == []


def test_the_links_of_the_description_lead_to_the_files_of_that_version(built: dict[str, bytes]) -> None:
    (metadata,) = (content.decode() for name, content in built.items() if name.endswith(".dist-info/METADATA"))
    readme = metadata.partition("\n\n")[2]
    links = {link for link in re.findall(r"\]\(([^)]+)\)", readme) if link.startswith(HOME)}
    relative = set(RELATIVE.findall((ROOT / "README.md").read_text("utf-8")))
    assert {f"{HOME}/blob/v{__version__}/{link}" for link in relative} <= links
    assert [link for link in links if "/blob/" in link and f"/blob/v{__version__}/" not in link] == []


def test_a_file_from_outside_the_package_is_the_one_that_git_has() -> None:
    files = PACKED | METADATA | {"s2s_fastapi/cli/realm.json": b"[]"}
    assert wrong_in_wheel(files, TRACKED) == ["s2s_fastapi/cli/realm.json differs from git"]


def test_a_source_distribution_of_all_files_is_right() -> None:
    assert wrong_in_sdist(TRACKED | {"PKG-INFO": b""}, TRACKED) == []


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("s2s_fastapi/notes.txt", b"", "s2s_fastapi/notes.txt is not in git"),
        ("s2s_fastapi/__init__.py", b"import os", "s2s_fastapi/__init__.py differs from git"),
        ("tests/test_a.py", b"", "tests/test_a.py is not in git"),
        ("s2s_fastapi-0.1.0.dist-info/direct_url.json", b"", "direct_url.json in the metadata is unknown"),
    ],
)
def test_a_wheel_with_something_else_is_refused(name: str, content: bytes, sentence: str) -> None:
    assert wrong_in_wheel(PACKED | METADATA | {name: content}, TRACKED) == [sentence]


@pytest.mark.parametrize("name", sorted(PACKAGE))
def test_a_wheel_without_one_of_its_files_is_refused(name: str) -> None:
    files = {there: content for there, content in (PACKED | METADATA).items() if there != name}
    assert wrong_in_wheel(files, TRACKED) == [f"{name} is missing", f"{name} must be in the wheel"]


@pytest.mark.parametrize("name", sorted(METADATA))
def test_a_wheel_without_its_metadata_is_refused(name: str) -> None:
    files = {there: content for there, content in (PACKED | METADATA).items() if there != name}
    assert wrong_in_wheel(files, TRACKED) == [f"{name.partition('.dist-info/')[2]} is missing in the metadata"]


def test_a_description_with_a_link_that_needs_the_repository_is_refused() -> None:
    links = b"[here](#here), [there](https://x.example/a.md), [lost](docs/a.md#b)"
    files = PACKED | METADATA | {"s2s_fastapi-0.1.0.dist-info/METADATA": links}
    assert wrong_in_wheel(files, TRACKED) == ["the description links to docs/a.md#b, and an index has no such page"]


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        "docs/.env.prod",
        "dev.env",
        "tests/a.pem",
        "tests/a.key",
        "tests/__pycache__/a.txt",
        "s2s_fastapi/a.pyc",
    ],
)
def test_a_file_with_a_private_name_is_refused_also_if_git_has_it(name: str) -> None:
    tracked = TRACKED | {name: b""}
    assert wrong_in_sdist(tracked | {"PKG-INFO": b""}, tracked) == [f"{name} must not be packed"]


def test_a_private_name_and_a_private_key_are_refused_in_a_wheel_too() -> None:
    private = {"s2s_fastapi/dev.env": b"", "s2s_fastapi/a.py": KEY}
    assert wrong_in_wheel(PACKED | METADATA | private, TRACKED | private) == [
        "s2s_fastapi/dev.env must not be packed",
        "s2s_fastapi/a.py contains a private key",
    ]


def test_a_private_key_is_refused_in_whatever_file() -> None:
    tracked = TRACKED | {"docs/a.md": b"as here:\n" + KEY}
    assert wrong_in_sdist(tracked | {"PKG-INFO": b""}, tracked) == ["docs/a.md contains a private key"]


def test_a_sentence_that_names_the_first_line_of_a_key_is_no_key() -> None:
    tracked = TRACKED | {"docs/a.md": KEY[:30] + b" must stand first."}
    assert wrong_in_sdist(tracked | {"PKG-INFO": b""}, tracked) == []


def test_a_source_distribution_with_a_link_is_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("s2s_fastapi-0.1.0/a")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(link)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed.getvalue())
    with pytest.raises(ValueError, match="is no plain file"):
        read_sdist(path)


def test_what_is_built_from_has_the_executable_bits_of_git(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, mode in (("run", 0o775), ("docs/a.md", 0o664)):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, 1
            archive.addfile(member, io.BytesIO(b"a"))
    unpack(packed.getvalue(), tmp_path)
    assert {path.name: path.stat().st_mode & 0o111 for path in tmp_path.rglob("*") if path.is_file()} == {
        "run": 0o111,
        "a.md": 0,
    }
    assert read_files(packed.getvalue()) == {"run": b"a", "docs/a.md": b"a"}

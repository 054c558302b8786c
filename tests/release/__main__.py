"""Make the files of a release from the last commit: ``make release``.

- ``dist/``: the source distribution and the wheel, built twice with the same bytes. It is filled last.
- ``build/release/papers/``: ``sbom.cdx.json`` (CycloneDX) and ``licences.json`` of what the wheel installs with all its extras for users, and
  ``notes.md``, the part of the changelog about this version.

If the environment has a ``TAG``, it must be the tag of the version. Whatever is wrong ends with a sentence and exit code 1, without a ``dist/``.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.release.contents import read_files, read_sdist, read_wheel, unpack, wrong_in_sdist, wrong_in_wheel
from tests.release.notes import dated_section

_ROOT: Final = Path(__file__).resolve().parents[2]
_DIST: Final = _ROOT / "dist"
_PLACE: Final = _ROOT / "build" / "release"
_PAPERS: Final = _PLACE / "papers"
_INSTALLED: Final = _PLACE / "installed"
_EXTRAS: Final = ("cli", "mcp", "otel", "redis")
_LICENCES: Final = (
    "3-Clause BSD License",
    "Apache Software License",
    "Apache-2.0",
    "Apache-2.0 OR BSD-3-Clause",
    "BSD License",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC License (ISCL)",
    "MIT License",
    "MIT",
    "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)",  # weak: certifi's list of certificates, which nobody changes
    "PSF-2.0",
)
"""What users may install without asking a lawyer. An unknown licence, and one of the strong copyleft, is not among them."""

_SURROUNDINGS: Final[tuple[tuple[str, int, Mapping[str, str]], ...]] = (
    ("first", 0o022, {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"}),
    ("second-in-a-longer-path", 0o077, {"TZ": "Pacific/Auckland", "LC_ALL": "C", "PYTHONHASHSEED": "2"}),
)
"""Two builds differ in all that must not be in their bytes."""

_TYPES: Final = ("each_right.py", "each_wrong.py")
_MYPY: Final = "[mypy]\nstrict = true\nwarn_unreachable = true\nenable_error_code = ignore-without-code\n"
_PYRIGHT: Final = {
    "typeCheckingMode": "strict",
    "enableTypeIgnoreComments": True,
    "reportUnnecessaryTypeIgnoreComment": "error",
}


def main() -> None:
    """Make the files, and say what they are."""
    shutil.rmtree(_DIST, ignore_errors=True)
    packed = _committed()
    tracked = read_files(packed)
    version = _version(tracked["s2s_fastapi/version.py"].decode())
    refuse_other_tag(os.environ.get("TAG", ""), version)
    shutil.rmtree(_PLACE, ignore_errors=True)
    _PAPERS.mkdir(parents=True)
    notes = dated_section(tracked["CHANGELOG.md"].decode("utf-8"), version)
    (_PAPERS / "notes.md").write_text(notes, encoding="utf-8")
    built = _build(packed, tracked)
    _install(built, version)
    _sbom(version)
    _licences()
    _types(tracked)
    _import_time()
    _DIST.mkdir()
    for path in built.iterdir():
        shutil.copy(path, _DIST)
    print("The release is in dist/, its papers in build/release/papers/.")


def refuse_other_tag(tag: str, version: str) -> None:
    """End with a sentence if there is a tag, and it is not the one of this version.

    Raises:
        SystemExit: It is another tag.
    """
    if tag and tag != f"v{version}":
        sys.exit(f"The tag is {tag!r}, and the version is {version}. Change s2s_fastapi/version.py or the tag.")


def _committed() -> bytes:
    """Return the files of the last commit, as an archive."""
    if not (_ROOT / ".git").exists():
        sys.exit(f"A release is made from a commit, and {_ROOT} is no checkout of git.")
    changed = _output("git", "status", "--porcelain", where=_ROOT).splitlines()
    if changed:
        print(f"Not in the release, because not committed: {len(changed)} files.")
    return subprocess.run(["git", "archive", "HEAD"], cwd=_ROOT, check=True, capture_output=True).stdout


def _version(code: str) -> str:
    return next(line.split('"')[1] for line in code.splitlines() if line.startswith("__version__ = "))


def _build(packed: bytes, tracked: Mapping[str, bytes]) -> Path:
    """Build twice, compare, look into the files, and return their folder."""
    epoch = _output("git", "log", "-1", "--format=%ct", where=_ROOT).strip()
    first, second = (_built(*surroundings, packed, epoch) for surroundings in _SURROUNDINGS)
    if first != second:
        differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        sys.exit(f"Two builds differ: {', '.join(differ)}. Compare them in {_PLACE}.")
    built = _out(_SURROUNDINGS[0][0])
    wheel, sdist = (next(built.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    in_wheel, in_sdist = read_wheel(wheel), read_sdist(sdist)
    wrong = [
        *(f"{wheel.name}: {text}" for text in wrong_in_wheel(in_wheel, tracked)),
        *(f"{sdist.name}: {text}" for text in wrong_in_sdist(in_sdist, tracked)),
    ]
    if wrong:
        sys.exit("\n".join(wrong))
    _run("twine", "check", "--strict", str(wheel), str(sdist))
    print(f"Two builds gave the same bytes (SOURCE_DATE_EPOCH={epoch}, of the last commit):")
    for path, inside in ((wheel, in_wheel), (sdist, in_sdist)):
        unpacked = sum(map(len, inside.values()))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        print(
            f"  {path.name}: {path.stat().st_size / 1e3:,.0f} kB, {len(inside)} files, {unpacked / 1e3:,.0f} kB unpacked"
        )
        print(f"    sha256 {digest}")
    return built


def _built(name: str, umask: int, environment: Mapping[str, str], packed: bytes, epoch: str) -> dict[str, bytes]:
    """Build from nothing but the commit's files, in a folder of its own, and return the two files."""
    place, out = _PLACE / name, _out(name)
    unpack(packed, place)
    _run(
        *("python", "-m", "build", "--no-isolation", "--outdir", str(out), str(place)),
        environment={**environment, "SOURCE_DATE_EPOCH": epoch},
        umask=umask,
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _out(name: str) -> Path:
    return _PLACE / f"{name}-dist"


def _install(built: Path, version: str) -> None:
    """Install the wheel as users do, with each extra that is for them, in the versions of constraints.txt."""
    venv.create(_INSTALLED, with_pip=False, symlinks=True)
    wheel = f"{next(built.glob('*.whl'))}[{','.join(_EXTRAS)}]"
    python = str(_INSTALLED / "bin" / "python")
    pip = ["python", "-m", "pip", "--python", python, "--disable-pip-version-check"]
    uv = os.environ.get("UV")
    install = [uv, "pip", "install", "--python", python] if uv else [*pip, "install"]
    _run(*install, "--quiet", "--constraint", str(_ROOT / "constraints.txt"), "--only-binary", ":all:", wheel)
    found = _output(python, "-c", "import s2s_fastapi as ours; print(ours.__version__, ours.__file__)", where=_PLACE)
    if found.split()[0] != version or "site-packages" not in found:
        sys.exit(f"The wheel of {version} is not what is installed: {found}")


def _sbom(version: str) -> None:
    """Write the list of what is installed. The tool cannot read a version that the build backend finds, so it is added."""
    path = _PAPERS / "sbom.cdx.json"
    python = str(_INSTALLED / "bin" / "python")
    options = ["--pyproject", str(_ROOT / "pyproject.toml"), "--mc-type", "library", "--output-reproducible"]
    _run("cyclonedx-py", "environment", python, *options, "--of", "JSON", "-o", str(path))
    bom: dict[str, Any] = json.loads(path.read_bytes())
    bom["metadata"]["component"] |= {"version": version, "purl": f"pkg:pypi/s2s-fastapi@{version}"}
    text = json.dumps(bom, indent=2) + "\n"
    if str(_ROOT) in text:
        sys.exit(f"{path} names a folder of this machine.")
    path.write_text(text, encoding="utf-8")
    print(f"SBOM: CycloneDX {bom['specVersion']}, {len(bom['components'])} packages beside this one")


def _licences() -> None:
    """Write the licences, and refuse each one that is not known to be harmless."""
    python = str(_INSTALLED / "bin" / "python")
    command = ["pip-licenses", "--python", python, "--from=mixed", "--format=json", "--with-urls"]
    listed = _run(*command, f"--allow-only={';'.join(_LICENCES)}")
    (_PAPERS / "licences.json").write_text(listed, encoding="utf-8")
    names = sorted({package["License"] for package in json.loads(listed)})
    print(f"Licences: {', '.join(names)}")


def _types(tracked: Mapping[str, bytes]) -> None:
    """Check the programs of tests/typing in an empty folder: what mypy and pyright know of the wheel, and of nothing else."""
    place = _PLACE / "types"
    place.mkdir()
    for name in _TYPES:
        (place / name).write_bytes(tracked[f"tests/typing/{name}"])
    (place / "mypy.ini").write_text(_MYPY, encoding="utf-8")
    (place / "pyrightconfig.json").write_text(json.dumps(_PYRIGHT), encoding="utf-8")
    python = str(_INSTALLED / "bin" / "python")
    _run("mypy", "--python-executable", python, *_TYPES, where=place)
    _run("basedpyright", "--pythonpath", python, where=place)
    print("Types: mypy and pyright, both strict, accept each right program, and find the fault in each wrong one")


def _import_time() -> None:
    """Say what an import costs. It is no check: it depends on the machine."""
    python = str(_INSTALLED / "bin" / "python")
    code = "import time; begun = time.process_time(); {}; print(time.process_time() - begun)"

    def milliseconds(statement: str) -> float:
        return 1000 * min(float(_output(python, "-c", code.format(statement), where=_PLACE)) for _ in range(2))

    every_name = "import fastapi, httpx; from s2s_fastapi import *"
    milliseconds(every_name)  # writes the bytecode
    framework = milliseconds("import fastapi, httpx")
    print(
        f"Import, in CPU time: s2s_fastapi {milliseconds('import s2s_fastapi'):.0f} ms; every public name "
        f"{milliseconds(every_name) - framework:.0f} ms more than fastapi and httpx, "
        f"which take {framework:.0f} ms"
    )


def _run(*command: str, where: Path = _ROOT, environment: Mapping[str, str] | None = None, umask: int = -1) -> str:
    """Run a tool of this environment, and return what it wrote to stdout. If it fails, say what it said, and end."""
    words = _found(command)
    ours = {name: value for name, value in os.environ.items() if name not in ("SOURCE_DATE_EPOCH", "PYTHONPATH")}
    done = subprocess.run(
        words, cwd=where, env={**ours, **(environment or {})}, umask=umask, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(command[:3])} ended with {done.returncode}.\n{done.stdout}{done.stderr}")
    return done.stdout


def _found(command: Sequence[str]) -> list[str]:
    """Take a tool from this environment, if it is there."""
    name, *rest = command
    here = Path(sys.executable) if name == "python" else Path(sys.executable).parent / name  # an absolute path stays
    return [str(here) if here.exists() else name, *rest]


def _output(*command: str, where: Path) -> str:
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()

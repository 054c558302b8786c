"""Make the files of a release from the last commit: ``make release``.

- ``dist/``: the source distribution and the wheel, built twice with the same bytes.
- ``build/release/papers/``: ``sbom.cdx.json`` (CycloneDX) and ``licences.json`` of what the wheel installs with all its extras for users, and
  ``notes.md``, the part of the changelog about this version.

Whatever is wrong ends with a sentence and exit code 1.
"""

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.release.contents import read_sdist, read_wheel, wrong_in_sdist, wrong_in_wheel
from tests.release.notes import dated_section

_ROOT: Final = Path(__file__).resolve().parents[2]
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
    arguments = argparse.ArgumentParser(prog="make release", description=__doc__)
    arguments.add_argument("--tag", default="", help="refuse if it is not the tag of this version, such as v0.1.0")
    tag = arguments.parse_args().tag
    tracked, version = _committed()
    if tag and tag != f"v{version}":
        sys.exit(f"The tag is {tag}, and the version is {version}. Change s2s_fastapi/version.py or the tag.")
    shutil.rmtree(_PLACE, ignore_errors=True)
    _PAPERS.mkdir(parents=True)
    notes = dated_section(tracked["CHANGELOG.md"].decode("utf-8"), version)
    (_PAPERS / "notes.md").write_text(notes, encoding="utf-8")
    _build(tracked)
    _install(version)
    _sbom(version)
    _licences()
    _types(tracked)
    _import_time()
    print("The release is in dist/, its papers in build/release/papers/.")


def _committed() -> tuple[dict[str, bytes], str]:
    """Return the files of the last commit, and the version in them."""
    changed = _output("git", "status", "--porcelain", where=_ROOT).splitlines()
    if changed:
        print(f"Not in the release, because not committed: {len(changed)} files.")
    packed = subprocess.run(["git", "archive", "HEAD"], cwd=_ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        tracked = {name: file.read() for name, file in files.items() if file is not None}
    assignments = (line.split('"') for line in tracked["s2s_fastapi/version.py"].decode().splitlines())
    return tracked, next(parts[1] for parts in assignments if parts[0] == "__version__ = ")


def _build(tracked: Mapping[str, bytes]) -> None:
    """Build twice, compare, look into the files, and put them into dist/."""
    epoch = _output("git", "log", "-1", "--format=%ct", where=_ROOT).strip()
    first, second = (_built(*surroundings, tracked, epoch) for surroundings in _SURROUNDINGS)
    if first != second:
        differ = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        sys.exit(f"Two builds differ: {', '.join(differ)}. Compare them in {_PLACE}.")
    dist = _ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    for name, content in first.items():
        (dist / name).write_bytes(content)
    wheel, sdist = (next(dist.glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
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


def _built(
    name: str, umask: int, environment: Mapping[str, str], tracked: Mapping[str, bytes], epoch: str
) -> dict[str, bytes]:
    """Build from nothing but the commit's files, in a folder of its own, and return the two files."""
    place, out = _PLACE / name, _PLACE / f"{name}-dist"
    for file, content in tracked.items():
        path = place / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    _run(
        *("python", "-m", "build", "--no-isolation", "--outdir", str(out), str(place)),
        environment={**environment, "SOURCE_DATE_EPOCH": epoch},
        umask=umask,
    )
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def _install(version: str) -> None:
    """Install the wheel as users do, with each extra that is for them, in the versions of constraints.txt."""
    venv.create(_INSTALLED, with_pip=False, symlinks=True)
    wheel = f"{next((_ROOT / 'dist').glob('*.whl'))}[{','.join(_EXTRAS)}]"
    python = str(_INSTALLED / "bin" / "python")
    pip = ["python", "-m", "pip", "--python", python, "--disable-pip-version-check"]
    uv = os.environ.get("UV")
    install = [uv, "pip", "install", "--python", python] if uv else [*pip, "install"]
    _run(*install, "--quiet", "--constraint", str(_ROOT / "constraints.txt"), wheel)
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

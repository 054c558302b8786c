"""``make fastapi-suite``: FastAPI's own tests behind our middleware, compared with the same behind one that only passes through."""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

_HERE: Final = Path(__file__).parent
_BUILD: Final = _HERE.parents[1] / "build/fastapi-suite"
_PART: Final = ("*secur*", "*depend*", "*websocket*", "test_ws_*")
_SHOWN_LINES: Final = 6


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one run by test, as the plugin `in_front` wrote them."""

    tests: dict[str, dict[str, Any]]
    seconds: float

    @classmethod
    def of(cls, suite: Path, in_front: str, tests: Iterable[str]) -> "Run":
        """Run tests with a middleware in front of their apps; pytest's own output goes to a file beside the results."""
        results, log = _BUILD / f"{in_front}.json", _BUILD / f"{in_front}.log"
        results.unlink(missing_ok=True)
        options = ["-q", "-p", "no:cacheprovider", "-p", "in_front", f"--in-front={in_front}", f"--results={results}"]
        began = time.monotonic()
        with log.open("wb") as out:
            subprocess.run(
                [sys.executable, "-m", "pytest", *options, "-n", "auto", *tests],
                cwd=suite,
                env={**os.environ, "PYTHONPATH": str(_HERE)},
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if not results.exists():
            sys.exit(f"pytest ended without results:\n{log.read_text()[-4000:]}")
        return cls(json.loads(results.read_text()), time.monotonic() - began)

    def passed(self, test: str) -> bool:
        """Return whether a test passed."""
        return bool(self.tests.get(test, {}).get("outcome") == "passed")

    def __str__(self) -> str:
        outcomes = [result["outcome"] for result in self.tests.values()]
        count = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "failed", "skipped"))
        return f"{count}, in {self.seconds:.0f} s"


def main() -> None:
    """Run FastAPI's tests twice, print which differ and why, and exit with 1 if one differs that does not compare a document."""
    parser = argparse.ArgumentParser(prog="python -m tests.fastapi_suite", description=__doc__)
    parser.add_argument("--part", action="store_true", help="only the tests of security, dependencies and WebSockets")
    suite = _unpacked()
    tests = _part(suite) if parser.parse_args().part else ["tests"]
    print(f"{suite.name}: {'the part for security, dependencies and WebSockets' if len(tests) > 1 else 'all tests'}")
    plain = Run.of(suite, "nothing", tests)
    print(f"behind a middleware that passes through: {plain}", flush=True)
    ours = Run.of(suite, "middleware", tests)
    let_in = [result["requests"] for result in ours.tests.values() if result["requests"]]
    print(f"behind ServiceAuthMiddleware: {ours}; it let in {sum(let_in)} requests of {len(let_in)} tests", flush=True)

    broken = [test for test, result in plain.tests.items() if result["outcome"] == "failed"]
    differing = [test for test in plain.tests if plain.passed(test) and not ours.passed(test)]
    readers = [test for test in differing if ours.tests.get(test, {}).get("documents")]
    alone = Run.of(suite, "undocumented", readers) if readers else Run({}, 0)
    documents = [test for test in readers if alone.passed(test)]
    print(
        f"{len(differing)} differ; {len(documents)} of these pass if our middleware leaves their OpenAPI document alone"
    )
    _list(
        "These fail without our middleware, so the environment is not the one that FastAPI's tests need", broken, plain
    )
    wrong = [test for test in differing if test not in documents]
    _list("These fail behind our middleware for another reason than the OpenAPI document", wrong, ours)
    if broken or wrong or not let_in:
        sys.exit(1)


def _unpacked() -> Path:
    """Return the folder of the source distribution of the FastAPI that is installed."""
    name = f"fastapi-{version('fastapi')}"
    if not (_BUILD / name / "tests").is_dir():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--no-binary", "fastapi", "--dest", str(_BUILD), name.replace("-", "==")]
        subprocess.run([*pip, *wanted], check=True)
        with tarfile.open(_BUILD / f"{name}.tar.gz") as archive:
            archive.extractall(_BUILD, filter="data")
    return _BUILD / name


def _part(suite: Path) -> list[str]:
    """Return the files and folders of the part."""
    tests = suite / "tests"
    found = {path for folder in (tests, tests / "test_tutorial") for name in _PART for path in folder.glob(name)}
    return sorted(str(path.relative_to(suite)) for path in found if path.is_dir() or path.name.startswith("test_"))


def _list(title: str, tests: list[str], run: Run) -> None:
    if tests:
        print(f"\n{title}:")
    for test in tests:
        print(f"  {test}")
        lines = [line for line in run.tests.get(test, {}).get("error", "no result").splitlines() if line.strip()]
        wrong = [line for line in lines if line.startswith("E ")] or lines[-_SHOWN_LINES:]
        print(*(f"      {line}" for line in wrong[:_SHOWN_LINES]), sep="\n")


if __name__ == "__main__":
    main()

"""Which tests to run for what changed: ``python -m tests.kit.changed [base]`` prints their paths for pytest."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["affected"]

ROOT: Final = Path(__file__).resolve().parents[2]
ALWAYS: Final = ("tests/test_architecture.py", "tests/test_public_surface.py")
"""Tests that a change anywhere may break, and that take no time."""
PAGES: Final = {
    "docs/attacks.md": "tests/test_attacks_page.py",
    "docs/attacks-caller.md": "tests/attacks/caller/test_page.py",
    "docs/observability.md": "tests/test_observability_page.py",
    "docs/speed.md": "tests/test_speed.py",
}
"""Pages that have tests of their own, beside those of all pages."""


def affected(changed: Iterable[str], root: Path) -> list[str]:
    """Return the tests of the changed files, which are paths below `root`.

    - A file of tests: itself, if it is still there.
    - A module: the file of tests with its name in the folder of its room; the whole folder, if there is no such file.
    - A page of the documentation: the tests of all pages, and its own.
    - Everything else, and tests/real: none, so run ``make test`` before you send it.
    """
    found = set(ALWAYS)
    for name in changed:
        path = PurePosixPath(name)
        if path.parts[:2] == ("tests", "real"):
            continue
        if path.parts[0] == "tests" and path.name.startswith("test_"):
            found.add(name)
        elif path.parts[0] == "s2s_fastapi" and path.suffix == ".py":
            room = PurePosixPath("tests", *path.parts[1:-1])
            beside = str(room / f"test_{path.name}")
            found.add(beside if (root / beside).is_file() or len(path.parts) <= 2 else str(room))
        elif path.suffix == ".md":
            found.update(("tests/test_docs.py", PAGES.get(name, "tests/test_docs.py")))
    return sorted(test for test in found if (root / test).exists())


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


if __name__ == "__main__":
    base = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    changed = _git("diff", "--name-only", base) + _git("ls-files", "--others", "--exclude-standard")
    sys.stdout.write(" ".join(affected(changed, ROOT)))

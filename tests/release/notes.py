"""The part of the changelog about one version, as the text of a release."""

import re
import tomllib
from pathlib import Path
from typing import Any, Final

__all__ = ["HOME", "RELATIVE", "dated_section"]

_PROJECT: Final[dict[str, Any]] = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8"))
HOME: Final[str] = _PROJECT["project"]["urls"]["Homepage"]
(_LINKS,) = _PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
RELATIVE: Final = re.compile(_LINKS["pattern"])
"""A link that needs the repository: one rule for the README in an index and for the notes of a release."""

_WRAPPED: Final = re.compile(r"(?<=\S)\n(?: {2})?(?=[^\s#|>-])")
"""The end of a line inside a paragraph or a list item: the page of a release would break the line there."""


def dated_section(changelog: str, version: str) -> str:
    """Return the section of a version without its heading: each paragraph in one line, its links to the files of that version.

    Raises:
        SystemExit: There is no section with a date for it, or the section is empty.
    """
    found = re.search(
        rf"^## {re.escape(version)} - \d{{4}}-\d{{2}}-\d{{2}}\n(.*?)(?=^## |\Z)", changelog, re.DOTALL | re.MULTILINE
    )
    if found is None or not found[1].strip():
        raise SystemExit(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD`. Write it before the release.")
    return RELATIVE.sub(rf"]({HOME}/blob/v{version}/\1)", _WRAPPED.sub(" ", found[1].strip())) + "\n"

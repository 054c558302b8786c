"""The part of the changelog about one version, as the text of a release."""

import re
from typing import Final

__all__ = ["HOME", "dated_section"]

HOME: Final = "https://github.com/s2s-fastapi/s2s_fastapi"
_WRAPPED: Final = re.compile(r"(?<=\S)\n(?: {2})?(?=[^\s#|>-])")
"""The end of a line inside a paragraph or a list item: the page of a release would break the line there."""

_RELATIVE: Final = re.compile(r"\]\((?!https?://|#)([^)\s]+)\)")


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
    return _RELATIVE.sub(rf"]({HOME}/blob/v{version}/\1)", _WRAPPED.sub(" ", found[1].strip())) + "\n"

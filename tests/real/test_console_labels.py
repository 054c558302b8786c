"""What cures and pages call a menu, a page or a switch of the admin console is called so there."""

import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.real.distribution import libraries, obstacle
from tests.real.server import NEWEST, VERSIONS

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SOURCES: Final = sorted((ROOT / "s2s_fastapi").rglob("*.py"))
START: Final = "(?:Clients|Client scopes|Realm settings|Sessions)"
CODE_PATH: Final = re.compile(
    rf"{START}(?:, (?:[A-Z][a-z]+(?: [A-Za-z][a-z]+)*|\{{[^}}]*\}}[-a-z]*|the [a-z]+|dedicated [a-z]+))+"
)
QUOTED: Final = re.compile("“([A-Z][^”]*)”")
ITALIC: Final = re.compile(r"(?<![*\w])\*([A-Z][^*`\n]+)\*(?![*\w])")
OTHER: Final = frozenset({"Asked", "Audience", "Audience mapper", "Granted", "Hardcoded claim", "Not asked"})
"""What stands like a label, and is none. (The names of kinds of mappers come from the server, not from the console.)"""
FORMER: Final = {
    "Providers": "Add providers",
    "Service account roles": "Service accounts roles",
    "Require DPoP bound tokens": "OAuth 2.0 DPoP Bound Access Tokens Enabled",
}
"""What the oldest Keycloak calls it."""
ONLY_LATER: Final = frozenset(
    {
        "Allows client assertions to be re-used",
        "Certificate Authority subject DN",
        "Standard Token Exchange",
        "Supports client assertions",
    }
)
"""What the oldest Keycloak does not have."""
LATER: Final = {former: label for label, former in FORMER.items()}


def labels(text: str, *patterns: re.Pattern[str]) -> Iterator[str]:
    for pattern in patterns:
        for found in pattern.finditer(text):
            yield from (part for part in found[pattern.groups].split(", ") if part[:1].isupper() and part not in OTHER)


def written() -> dict[str, str]:
    """Return each label with a file in which it stands."""
    found: dict[str, str] = {}
    for path in SOURCES:
        found |= dict.fromkeys(labels(path.read_text(encoding="utf-8"), CODE_PATH, QUOTED), str(path.relative_to(ROOT)))
    for path in PAGES:
        found |= dict.fromkeys(labels(path.read_text(encoding="utf-8"), ITALIC, QUOTED), str(path.relative_to(ROOT)))
    return found


def texts_of_console(version: str) -> set[str]:
    """Return the English texts that are in the console of a Keycloak, whose distribution is fetched if need be."""
    jar = libraries(version) / "lib" / "main" / f"org.keycloak.keycloak-admin-ui-{version}.jar"
    with zipfile.ZipFile(jar) as packed:
        lines = packed.read("theme/keycloak.v2/admin/messages/messages_en.properties").decode().splitlines()
    return {line.partition("=")[2].strip() for line in lines}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_label_of_the_console_that_a_cure_or_a_page_names_is_there(version: str) -> None:
    if reason := obstacle():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{reason}; in CI these tests must run", pytrace=False)
        pytest.skip(reason)
    named, texts = written(), texts_of_console(version)
    assert {
        "Full scope allowed",
        "Client scopes",
        "Regenerate",
        "Revocation",
        "Included Client Audience",
    } <= named.keys()

    names, absent = (LATER, frozenset[str]()) if version == NEWEST else (FORMER, ONLY_LATER)
    assert {label: place for label, place in named.items() if names.get(label, label) not in texts | absent} == {}

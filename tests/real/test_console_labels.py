"""What cures and pages call a menu, a page or a switch of the admin console is called so there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from tests.real.server import NEWEST, Keycloak

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
SOURCES: Final = sorted((ROOT / "s2s_fastapi").rglob("*.py"))
START: Final = "(?:Clients|Client scopes|Realm settings|Sessions)"
CODE_PATH: Final = re.compile(
    rf"{START}(?:, (?:[A-Z][a-z]+(?: [a-z]+)*|\{{[^}}]*\}}[-a-z]*|the [a-z]+|dedicated [a-z]+))+"
)
QUOTED: Final = re.compile("“([A-Z][^”]*)”")
ITALIC: Final = re.compile(r"(?<![*\w])\*([A-Z][^*`\n]+)\*(?![*\w])")
OTHER: Final = frozenset({"Asked", "Audience", "Audience mapper", "Granted", "Not asked"})
"""What stands like a label, and is none. (The names of kinds of mappers come from the server, not from the console.)"""
FORMER: Final = {
    "Service account roles": "Service accounts roles",
    "Require DPoP bound tokens": "OAuth 2.0 DPoP Bound Access Tokens Enabled",
}
"""What the oldest Keycloak calls it."""
LATER: Final = {former: label for label, former in FORMER.items()}


def labels(text: str, *patterns: re.Pattern[str]) -> Iterator[str]:
    for pattern in patterns:
        for found in pattern.finditer(text):
            yield from (part for part in found[pattern.groups].split(", ") if part[:1].isupper() and part not in OTHER)


def written() -> dict[str, str]:
    """Return each label with a file in which it stands."""
    found = {}
    for path in SOURCES:
        found |= dict.fromkeys(labels(path.read_text(encoding="utf-8"), CODE_PATH, QUOTED), str(path.relative_to(ROOT)))
    for path in PAGES:
        found |= dict.fromkeys(labels(path.read_text(encoding="utf-8"), ITALIC, QUOTED), str(path.relative_to(ROOT)))
    return found


def test_every_label_of_the_console_that_a_cure_or_a_page_names_is_there(keycloak: Keycloak) -> None:
    named = written()
    assert {
        "Full scope allowed",
        "Client scopes",
        "Regenerate",
        "Revocation",
        "Included Client Audience",
    } <= named.keys()
    answer = httpx.get(f"{keycloak.url}{keycloak.auth_path}/resources/master/admin/en", trust_env=False, timeout=30)
    texts = {one["value"] for one in answer.raise_for_status().json()}

    names = LATER if keycloak.version == NEWEST else FORMER
    assert {label: place for label, place in named.items() if names.get(label, label) not in texts} == {}

"""The page "It does not work" has a section for whatever the package can answer or raise, and the tables of errors lead there."""

import re
from pathlib import Path

from s2s_fastapi import errors
from s2s_fastapi.decision import Reason

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "it-does-not-work.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
NAMES = [*(str(reason) for reason in Reason), *errors.__all__]


def test_each_reason_and_each_exception_has_a_section_that_says_something() -> None:
    assert sorted(SECTIONS) == sorted(NAMES)
    alone = re.compile(r"See \[`\w+`\]\(#\w+\)\.")
    assert [
        name for name, text in SECTIONS.items() if len(text.split()) < 9 and not alone.fullmatch(text.strip())
    ] == []


def test_the_tables_of_errors_lead_from_each_name_to_its_section() -> None:
    led = re.findall(
        r"^\| \[`(\w+)`\]\(it-does-not-work\.md#(\w+)\) \|", (DOCS / "errors.md").read_text(), re.MULTILINE
    )

    assert sorted(led) == sorted((name, name.lower()) for name in NAMES)


def test_a_section_names_no_reason_that_does_not_exist() -> None:
    assert set(re.findall(r"\]\(#([a-z_0-9]+)\)", PAGE)) <= {name.lower() for name in NAMES} | {"reasons", "exceptions"}

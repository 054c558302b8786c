"""The realm files that are compared with real servers, and the page about it. No server is started here."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from s2s_fastapi import ConfigurationError
from s2s_fastapi.testing import EmbeddedIssuer
from tests.real.many_realms import Compared, Figure
from tests.real.parity import page
from tests.realm import many
from tests.realm.many import FILES

PAGE = Path(__file__).parents[2] / "docs" / "realm-parity.md"


def test_the_files_are_the_same_each_time() -> None:
    again = {file.name: file for file in many._all()}
    assert json.dumps([file.document for file in again.values()]) == json.dumps(
        [file.document for file in FILES.values()]
    )
    assert len({file.document["realm"] for file in FILES.values()}) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_the_issuer_says_of_each_file_what_it_must(name: str) -> None:
    file = FILES[name]
    try:
        notices = EmbeddedIssuer(file.document).notices
    except ConfigurationError:
        assert file.refused or name.startswith("made-")
        return
    assert any(notice.refused for notice in notices) is file.refused
    assert all(any(part in str(notice) for notice in notices) for part in file.said)


def test_the_page_has_every_file_and_no_silent_difference() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE) == list(FILES)
    assert "**silent**" not in text
    assert "**no**" not in text


def test_a_page_counts_and_names_the_differences() -> None:
    file = FILES["levels"]
    right = Figure(asked=3, equal=3)
    announced = Figure(
        asked=4, equal=2, announced=[("c None: acr | is 2", "a notice"), ("c 'x': acr is 2", "a notice")]
    )
    silent = Figure(asked=2, equal=1, silent=["c None: aud is 'a'"])
    first = [Compared(file, imported=True, of_file=announced, of_export=right)]
    second = [Compared(file, imported=True, of_file=right, of_export=silent)]
    only_first = Compared(FILES["keys"], imported=True, of_file=right, of_export=right)
    refused = Compared(FILES["refused-js"], imported=False)
    wrong = Compared(FILES["one-client"], imported=False, wrong="the server refuses it")
    kept = {
        "1.0": (datetime(2026, 1, 2, tzinfo=UTC), [*first, refused, wrong, only_first]),
        "2.0": (datetime(2026, 3, 4, tzinfo=UTC), [*second, refused, refused]),
    }
    text = page(kept, [file, FILES["refused-js"], FILES["one-client"], FILES["keys"]])
    assert "Keycloak 1.0 on 2026-01-02 and Keycloak 2.0 on 2026-03-04" in text
    assert "| Files that both import | 2 | 1 |" in text
    assert "| Files that both refuse | 1 | 2 |" in text
    assert "| Files on which they do not agree | 1 | 0 |" in text
    assert "| Questions about the file, and equal answers | 7, 5 | 3, 3 |" in text
    assert "| Other answers about the export: announced, silent | 0, 0 | 0, 1 |" in text
    assert "- `levels`, 1.0, file, 2 answers, announced: a notice. First: c None: acr \\| is 2" in text
    assert "- `levels`, 2.0, export, 1 answers, **silent**. First: c None: aud is 'a'" in text
    assert "- **`one-client`**, 1.0: the server refuses it" in text
    assert f"| `levels` | {file.what} | 2 of 4 | 3 of 3 | 3 of 3 | 1 of 2 |" in text
    assert f"| `keys` | {FILES['keys'].what} | 3 of 3 | 3 of 3 | not asked | not asked |" in text
    assert [one.right for one in (first[0], second[0], refused, wrong)] == [True, False, True, False]

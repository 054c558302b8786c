"""The report: its verdict, its JSON in the published schema, and its JUnit."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from jsonschema import Draft202012Validator

from s2s_fastapi.testing.attack import Report, Result, RouteReport, all_cases
from s2s_fastapi.testing.attack.report import OUTCOMES, Outcome

SCHEMA = Path(__file__).resolve().parents[3] / "docs" / "conformance" / "attack-report.schema.json"
CASE = all_cases()[0]


def report(*outcomes: Outcome, problem: str = "", strict: bool = True) -> Report:
    results = tuple(Result("GET /x", CASE, outcome, "401 \x1b[31m<&>") for outcome in outcomes)
    health = RouteReport("GET /health", public=True)
    return Report((health, RouteReport("GET /x", results, problem=problem, full=True)), strict=strict)


@pytest.mark.parametrize(
    ("outcomes", "strict", "code"),
    [
        (("held", "not_applicable", "not_tried", "lenient"), True, 0),
        (("held", "accepted"), True, 1),
        (("held", "accepted"), False, 1),
        (("held", "otherwise"), True, 1),
        (("held", "otherwise"), False, 0),
    ],
)
def test_the_exit_code_says_whether_something_was_found(outcomes: tuple[Outcome, ...], strict: bool, code: int) -> None:
    assert report(*outcomes, strict=strict).exit_code == code


def test_if_no_good_token_was_accepted_nothing_was_tried() -> None:
    nobody = report("not_tried", problem="a good token was not accepted: 401")

    assert nobody.nobody_gets_in
    assert nobody.exit_code == 2
    assert not report("held").nobody_gets_in


def test_the_json_fits_the_published_schema() -> None:
    document = json.loads(report(*OUTCOMES).as_json())

    Draft202012Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(document)
    assert document["counts"] == dict.fromkeys(OUTCOMES, 1)
    assert document["routes"][1]["results"][1]["outcome"] == "accepted"


def test_junit_counts_findings_as_failures_and_the_rest_as_skipped() -> None:
    root = ET.fromstring(report(*OUTCOMES).as_junit())  # noqa: S314 - our own

    suite = root.findall("testsuite")[1]
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "2", "3")
    messages = [failure.get("message") or "" for failure in suite.iter("failure")]
    assert len(messages) == 2
    assert all(CASE.title in message and "\x1b" not in message for message in messages)

"""docs/observability.md names every span, attribute and metric there is, and the alerts and the dashboard ask for nothing else."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

import s2s_fastapi
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.telemetry import attributes
from s2s_fastapi.telemetry.decision_log import DecisionLog
from s2s_fastapi.telemetry.metrics import CATALOGUE
from tests.test_docs import DOCS, blocks, plain, tables

PAGE = DOCS / "observability.md"
SPANS, METRICS, ALERTS, _ = tables(PAGE)
OURS = {getattr(attributes, name) for name in attributes.__all__ if name.isupper()}
MAKE_SPANS = {"span", "Recording"}
# https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span
EXCHANGE = {"http.request.method", "http.response.status_code", "url.full", "server.address", "server.port"}
KINDS = {"counter": ("_total",), "histogram": ("_count", "_bucket"), "gauge": ("",)}
UNITS = {"s": "_seconds"}
RULES = yaml.safe_load((DOCS / "operate" / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
PANELS = json.loads((DOCS / "operate" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
PROMQL = [rule["expr"] for rule in RULES] + [block.text for block in blocks(PAGE, "promql")]
PROMQL += [one["expr"] for panel in PANELS for one in panel.get("targets", ()) if "s2s_fastapi" in one["expr"]]


def listed(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_span_that_the_package_makes_is_in_the_table() -> None:
    made = {"GET", "POST"}  # an exchange is called by its method
    for path in Path(s2s_fastapi.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MAKE_SPANS:
                made |= {str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant)}

    assert made == {name for row in SPANS for name in listed(row[0])}


def test_the_table_of_spans_names_each_attribute_and_no_other() -> None:
    named = [name for row in SPANS for name in listed(row[3])]

    assert set(named) - EXCHANGE == OURS - {attributes.RESULT}
    assert set(named) >= EXCHANGE


def test_every_metric_is_in_the_table_as_it_is() -> None:
    rows = [(plain(name), kind, plain(unit), tuple(listed(told))) for name, kind, unit, _, told in METRICS]

    assert rows == [(metric.name, metric.kind, metric.unit, metric.attributes) for metric in CATALOGUE]


def test_the_table_of_alerts_is_that_of_the_rules() -> None:
    assert [(plain(row[0]), row[1]) for row in ALERTS] == [
        (rule["alert"], rule["labels"]["severity"]) for rule in RULES
    ]


def test_the_rule_that_is_shown_is_one_of_the_file() -> None:
    (shown,) = (block.text for block in blocks(PAGE, "promql"))

    assert shown in {rule["expr"] for rule in RULES}


@pytest.mark.parametrize("alert", PROMQL, ids=range(len(PROMQL)))
def test_an_alert_asks_for_metrics_and_labels_that_prometheus_gets_from_us(alert: str) -> None:
    known = {
        f"{metric.name.replace('.', '_')}{UNITS.get(metric.unit, '')}{suffix}": {
            name.replace(".", "_") for name in metric.attributes
        }
        for metric in CATALOGUE
        for suffix in KINDS[metric.kind]
    }
    asked = set(re.findall(r"\b(s2s_fastapi_\w+?(?:_total|_count|_bucket|_seconds))\b", alert))

    assert asked
    assert asked <= set(known)
    labels = {label for name in asked for label in known[name]} | {"job", "instance"}
    rest = re.sub("|".join(sorted(asked, key=len, reverse=True)), "", alert)
    assert set(re.findall(r"\b(?:s2s_fastapi|error)_\w+", rest)) <= labels


def test_an_alert_asks_for_values_that_there_are() -> None:
    outcomes: set[str] = {Decision(reason=reason, observed=told).outcome for reason in Reason for told in (False, True)}
    outcomes |= {"granted", "loaded", "failed"}

    for alert in PROMQL:
        for asked in re.findall(r'outcome=~?"([^"]+)"', alert):
            assert {*asked.split("|")} <= outcomes


def test_the_record_of_an_accepted_call_is_the_one_that_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    (shown,) = (block.text.strip() for block in blocks(PAGE, "text") if block.text.startswith("allowed"))
    fields = dict(re.findall(r"(\w+)='([^']*)'", shown))

    with caplog.at_level("INFO", "s2s_fastapi.decisions"):
        DecisionLog(audit=True).decided(Decision(reason=Reason.ALLOWED, **fields))

    assert caplog.messages == [shown]

"""docs/operate: each alert fires when it should and not otherwise, and each panel shows something, on the series that the package emits.

`promtool` is Prometheus' own tool. It parses the expressions, and computes them over series whose names and labels come from a run of the
package (`tests.telemetry.emitted`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from s2s_fastapi.telemetry.metrics import CATALOGUE
from s2s_fastapi.verifier.keys import _LAST_GOOD
from tests.test_docs import plain, tables

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE: Final = ROOT / "docs" / "observability.md"
FOLDER: Final = ROOT / "docs" / "operate"
ALERTS: Final = FOLDER / "alerts.yml"
RULES: Final[list[dict[str, Any]]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
PANELS: Final[list[dict[str, Any]]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
INSTANCE: Final = {"job": "crm-gateway", "instance": "a"}
_PROGRAM: Final = shutil.which("promtool")

pytestmark = pytest.mark.skipif(
    _PROGRAM is None and "CI" not in os.environ, reason="needs promtool (Debian: apt-get install prometheus)"
)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series as Prometheus has it."""

    name: str
    labels: dict[str, str]

    def __str__(self) -> str:
        inner = ",".join(f"{name}={json.dumps(value)}" for name, value in sorted(self.labels.items()))
        return f"{self.name}{{{inner}}}"


class Emitted:
    """The series of the package."""

    def __init__(self, text: str) -> None:
        self.all = [
            # Prometheus has no label with an empty value.
            Series(sample.name, INSTANCE | {name: value for name, value in sample.labels.items() if value})
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("s2s_fastapi_")
        ]

    def __call__(self, name: str, **labels: str) -> Series:
        """Return the one series with this name and these labels, which may be written without s2s_fastapi_."""
        wanted = {known if known == "error_type" else f"s2s_fastapi_{known}": value for known, value in labels.items()}
        (found,) = (s for s in self.all if s.name == f"s2s_fastapi_{name}" and wanted.items() <= s.labels.items())
        return found


@pytest.fixture(scope="module")
def emitted() -> Emitted:
    command = [sys.executable, "-m", "tests.telemetry.emitted"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return Emitted(done.stdout)


@dataclass(frozen=True, slots=True)
class Asked:
    """An expression, the minute at which it is computed, and the labels of each result, whose value is 1."""

    expression: str
    minute: int
    results: tuple[str, ...]


def promtool(folder: Path, *groups: tuple[dict[Series, str], list[Asked]]) -> str:
    """Compute expressions over series and the alerts of the file, and return what `promtool` says of differences."""
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": str(one), "values": values} for one, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": one.expression,
                    "eval_time": f"{one.minute}m",
                    "exp_samples": [{"labels": labels, "value": 1} for labels in one.results],
                }
                for one in asked
            ],
        }
        for series, asked in groups
    ]
    file = folder / "tests.yml"
    content = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [str(_PROGRAM), "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def fires(alert: str, minute: int) -> Asked:
    return Asked(_firing(alert), minute, ('{job="crm-gateway"}',))


def silent(alert: str, *minutes: int) -> list[Asked]:
    return [Asked(_firing(alert), minute, ()) for minute in minutes]


def _firing(alert: str) -> str:
    return f'count by (job) (ALERTS{{alertname="{alert}",alertstate="firing"}}) > bool 0'


_REFUSED: Final = {"outcome": "refused", "caller": "billing"}
COUNTERS: Final[dict[str, tuple[str, dict[str, str], dict[str, str], int, int]]] = {
    "ServiceAuthKeysUnavailable": ("decisions_total", {"outcome": "failed"}, _REFUSED, 1, 5),
    "ServiceAuthKeysNotRenewed": (
        "keys_fetch_duration_seconds_count",
        {"outcome": "failed"},
        {"outcome": "loaded"},
        1,
        15,
    ),
    "ServiceAuthNoToken": (
        "token_request_duration_seconds_count",
        {"outcome": "failed"},
        {"outcome": "granted", "cause": "needed"},
        1,
        10,
    ),
    "ServiceAuthKnownCallerRefused": ("decisions_total", _REFUSED, {"reason": "no_credentials"}, 1, 5),
    "ServiceAuthManyUnsignedRequests": ("decisions_total", {"reason": "no_credentials"}, _REFUSED, 400, 5),
    "ServiceAuthTokensRefusedByOthers": ("resends_total", {}, {}, 40, 5),
    "ServiceAuthRefusedSoon": ("decisions_total", {"outcome": "observed"}, _REFUSED, 1, 5),
}
"""For each alert: its counter; the labels of a series for which it fires, and of one for which it does not; the increase that is enough; and
for how many minutes it then fires."""


def beside(alert: str, emitted: Emitted) -> dict[Series, str]:
    """Return what else is there: old keys; a service that got the token before."""
    if alert == "ServiceAuthKeysNotRenewed":
        return {emitted("keys_age_seconds"): "1200x80"}
    if alert == "ServiceAuthNoToken":
        failed = emitted("token_request_duration_seconds_count", outcome="failed")
        labels = failed.labels | {"s2s_fastapi_outcome": "granted"}
        del labels["error_type"]
        return {Series(failed.name, labels): "1x80"}
    return {}


def test_every_alert_is_tried_below() -> None:
    assert [rule["alert"] for rule in RULES] == list(COUNTERS)


@pytest.mark.parametrize("alert", COUNTERS)
def test_an_alert_fires_if_its_counter_grows_or_appears_and_in_no_other_case(
    alert: str, emitted: Emitted, tmp_path: Path
) -> None:
    name, labels, harmless, much, minutes = COUNTERS[alert]
    counter, there = emitted(name, **labels), beside(alert, emitted)
    another, enough = emitted(name, **harmless), 1000 if harmless else 25
    last, over = 20 + minutes - 1, 20 + minutes + 2
    appears = [fires(alert, 20), fires(alert, last), *silent(alert, 19, over)]
    grows = [fires(alert, 21), *silent(alert, 19, over)]

    said = promtool(
        tmp_path,
        ({counter: f"_x20 {much}x60", **there}, appears),
        ({counter: f"500x19 {500 + 2 * much}x60", **there}, grows),
        ({counter: "500x80", **there}, silent(alert, 10 + minutes, 40, 70)),
        ({another: f"_x20 {enough}x60", **there}, silent(alert, 20, 22)),
        # A gap in the data: what happened before it is not new.
        ({counter: "500x29 _x19 500x60", **there}, silent(alert, 50, 51, 60)),
    )

    assert said == ""


# The keys of a new process are new.
@pytest.mark.parametrize("alert", [alert for alert in COUNTERS if alert != "ServiceAuthKeysNotRenewed"])
def test_an_alert_fires_for_as_long_as_each_new_process_with_the_same_instance_fails_again(
    alert: str, emitted: Emitted, tmp_path: Path
) -> None:
    name, labels, _, much, minutes = COUNTERS[alert]
    counter, started = emitted(name, **labels), Series("process_start_time_seconds", INSTANCE)
    # It is started in every third minute, fails, and ends: two values, and a minute without any.
    rounds = range(0, 90, 3)
    crashing = {
        counter: " ".join(f"{much} {much} _" for _ in rounds),
        started: " ".join(f"{at * 60} {at * 60} _" for at in rounds),
    }
    # It fails at its start, and once more after a restart two windows later.
    first, second = 0, 2 * minutes + 2
    again = {
        counter: f"{much}x{second - 1} {much}x{60}",
        started: f"{first}x{second - 1} {second * 60}x{60}",
    }
    late = [fires(alert, second), *silent(alert, second - 1, second + minutes)]
    # Another process of the service, and another service with the same instance, are new. This one is not.
    others = [Series(started.name, INSTANCE | other) for other in ({"instance": "b"}, {"job": "another"})]
    old = {counter: f"{much}x80", started: "0x80", **dict.fromkeys(others, "_x30 1800x50")}

    said = promtool(
        tmp_path,
        (crashing | beside(alert, emitted), [fires(alert, minute) for minute in (0, 1, 30, 31, 60, 81)]),
        (again | beside(alert, emitted), late),
        (old | beside(alert, emitted), silent(alert, 30, 31)),
    )

    assert said == ""


def test_a_scan_counts_as_one_whatever_it_is_refused_for(emitted: Emitted, tmp_path: Path) -> None:
    alert = "ServiceAuthManyUnsignedRequests"
    one = emitted("decisions_total", reason="no_credentials")
    reasons = ("no_credentials", "malformed_token", "unknown_key", "invalid_signature")
    scan = [Series(one.name, one.labels | {"s2s_fastapi_reason": reason}) for reason in reasons]

    said = promtool(
        tmp_path,
        (dict.fromkeys(scan, "0+18x40"), [fires(alert, 20)]),  # 90 in 5 minutes for each reason
        (dict.fromkeys(scan[1:], "0+18x40"), silent(alert, 20)),
    )

    assert said == ""


@pytest.mark.parametrize("alert", ["ServiceAuthManyUnsignedRequests", "ServiceAuthTokensRefusedByOthers"])
def test_an_alert_with_a_limit_fires_while_the_service_is_started_again_under_the_same_instance(
    alert: str, emitted: Emitted, tmp_path: Path
) -> None:
    name, labels, _, much, _ = COUNTERS[alert]
    counter, started = emitted(name, **labels), Series("process_start_time_seconds", INSTANCE)
    a_minute = much // 4

    def restarted(*at: int, share: int = 1, instance: str = "a") -> dict[Series, str]:
        """Return the counter of one of ``share`` processes, and when the process was started, from minute 0 to 59."""
        starts = [max(start for start in (0, *at) if start <= minute) for minute in range(60)]
        counts = (a_minute // share * (minute - start + 1) for minute, start in enumerate(starts))
        return {
            Series(counter.name, counter.labels | {"instance": instance}): " ".join(map(str, counts)),
            Series(started.name, started.labels | {"instance": instance}): " ".join(str(at * 60) for at in starts),
        }

    rolled = [restarted(30 + place, share=2, instance=instance) for place, instance in enumerate("ab")]
    said = promtool(
        tmp_path,
        (restarted(*range(0, 60, 2)), [fires(alert, minute) for minute in (10, 11, 20, 21, 40)]),
        (restarted(30), [fires(alert, minute) for minute in range(29, 37)]),
        (rolled[0] | rolled[1], [fires(alert, minute) for minute in range(29, 39)]),
    )

    assert said == ""


def test_prometheus_takes_the_configuration_of_the_container(tmp_path: Path) -> None:
    configuration = yaml.safe_load((FOLDER / "prometheus.yaml").read_text(encoding="utf-8"))
    del configuration["otlp"]  # Debian's Prometheus is too old for it
    configuration["rule_files"] = [str(FOLDER / Path(name).name) for name in configuration["rule_files"]]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")

    command = [str(_PROGRAM), "check", "config", str(tmp_path / "prometheus.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in done.stdout


def test_old_keys_fire_for_the_issuer_and_the_process_that_cannot_load_them_and_for_no_other(
    emitted: Emitted, tmp_path: Path
) -> None:
    age, failed = emitted("keys_age_seconds"), emitted("keys_fetch_duration_seconds_count", outcome="failed")
    other = Series(age.name, age.labels | {"s2s_fastapi_issuer": "https://sso.example.com/realms/partners"})
    elsewhere = Series(age.name, age.labels | {"instance": "b"})
    alert = "ServiceAuthKeysNotRenewed"
    named = f'count by (s2s_fastapi_issuer, instance) (ALERTS{{alertname="{alert}"}})'
    result = f'{{s2s_fastapi_issuer="{age.labels["s2s_fastapi_issuer"]}", instance="a"}}'

    said = promtool(
        tmp_path,
        ({age: "901x80", other: "901x80", elsewhere: "901x80", failed: "_x20 1x60"}, [Asked(named, 25, (result,))]),
        ({age: "900x80", failed: "_x20 1x60"}, silent(alert, 25)),
        ({age: "1200x80", other: "1200x80"}, silent(alert, 25)),  # a service without requests
    )

    assert said == ""


def test_a_service_that_never_got_its_token_fires_until_it_has_it(emitted: Emitted, tmp_path: Path) -> None:
    alert = "ServiceAuthNoToken"
    (granted,) = beside(alert, emitted)
    failed = emitted("token_request_duration_seconds_count", outcome="failed")

    others = emitted("token_request_duration_seconds_count", outcome="granted", cause="needed")
    series = {failed: "1x80", granted: "_x60 1x20", others: "1x80"}

    said = promtool(tmp_path, (series, [fires(alert, 5), fires(alert, 50), *silent(alert, 61)]))

    assert said == ""


def test_the_page_says_when_an_alert_fires() -> None:
    table = next(each for each in tables(PAGE) if plain(each[0][0]) == RULES[0]["alert"])
    said = {plain(row[0]): " ".join(row[2:]) for row in table}
    keys = next(rule for rule in RULES if rule["alert"] == "ServiceAuthKeysNotRenewed")
    limits = {
        rule["alert"]: set(re.findall(r"\) > (\d+)$", rule["expr"], re.MULTILINE)) for rule in RULES if rule is not keys
    }

    assert {alert: limit for alert, limit in limits.items() if limit != {"0"}} == {
        alert: {number[1]}
        for alert, text in said.items()
        if (number := re.search(r"more than (\d+) (?:requests|times) in 5 minutes", text))
    }
    assert float(re.findall(r"s2s_fastapi_keys_age_seconds\) > (\d+)", keys["expr"])[0]) == 15 * 60
    assert "older than 15 minutes" in said["ServiceAuthKeysNotRenewed"]
    assert _LAST_GOOD == 3600
    for text in (said["ServiceAuthKeysNotRenewed"], keys["annotations"]["description"]):
        assert "one hour" in text


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_the_text_of_an_alert_names_only_labels_that_it_has(rule: dict[str, Any]) -> None:
    by = re.match(r"(?:sum|max) by \(([^)]*)\)", rule["expr"])
    assert by is not None
    has = set(by[1].split(", "))

    named = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))

    assert "job" in named
    assert named <= has
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}


def test_every_panel_of_the_dashboard_shows_something_when_everything_happens(emitted: Emitted, tmp_path: Path) -> None:
    growing = {one: "1200x80" if one.name.endswith("keys_age_seconds") else "0+60x80" for one in emitted.all}
    variables = {"$__rate_interval": "5m", "$job": ".*"}
    asked = []
    for panel in PANELS:
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in variables.items():
                expression = expression.replace(name, value)
            assert "$" not in expression, panel["title"]
            # NaN is no value: a quantile of nothing.
            asked.append(Asked(f"count(({expression}) >= 0) > bool 0", 60, ("{}",)))

    assert promtool(tmp_path, (growing, asked)) == ""


def test_the_dashboard_asks_the_chosen_prometheus_and_every_query_is_of_the_chosen_services() -> None:
    source, job = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], job["name"], job["allValue"]) == ("datasource", "datasource", "job", ".*")
    for panel in PANELS:
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            # One selector for each metric in the query.
            assert len(re.findall(r"\b(?:s2s_fastapi_\w+|ALERTS)\{", target["expr"])) == target["expr"].count(
                'job=~"$job"'
            )


def test_a_panel_has_the_unit_of_what_it_asks_for() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            asked = target["expr"]
            per_second = asked.startswith("sum") and "rate(" in asked
            expected = (
                "percentunit"
                if per_second and asked.count("rate(") > 1
                else "reqps"
                if per_second
                else "s"
                if "_seconds_bucket" in asked or "_age_seconds" in asked
                else "short"
                if "increase(" in asked
                else None
            )
            assert panel["fieldConfig"]["defaults"].get("unit") == expected, panel["title"]


def test_the_panels_have_ids_of_their_own_and_do_not_lie_on_each_other() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_dashboard_shows_every_metric_that_there_is(emitted: Emitted) -> None:
    queries = " ".join(target["expr"] for panel in PANELS for target in panel["targets"])

    families = {
        re.sub(r"_(count|sum|bucket)$", "", one.name) for one in emitted.all if not one.name.endswith("_created")
    }
    assert {name for name in families if name not in queries} == set()


def test_a_run_of_the_package_emits_every_metric_of_the_catalogue(emitted: Emitted) -> None:
    names = {one.name for one in emitted.all}

    assert {
        metric.name for metric in CATALOGUE if not any(name.startswith(metric.name.replace(".", "_")) for name in names)
    } == set()

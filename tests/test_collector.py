"""The suite's own search of telemetry finds what it is there for, wherever it stands, and says where without saying what."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, Tracer

from tests.kit.collector import Collector
from tests.kit.realm import Realm

TOKEN = Realm().token()
SIGNATURE = TOKEN.rpartition(".")[2]
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def tracer(collector: Collector) -> Tracer:
    provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
    provider.add_span_processor(collector)
    return provider.get_tracer("tests")


def found_once(collector: Collector, place: str) -> None:
    """Check that a token was seen at one place, and is not shown again by saying so."""
    lines = collector.taken()
    assert {line.rpartition(": ")[0] for line in lines} == {place}
    assert not any(part in line for line in lines for part in TOKEN.split("."))
    assert collector.taken() == []


def in_an_attribute(tracer: Tracer) -> None:
    tracer.start_span("verify token", attributes={"kid": "k", "token": TOKEN}).end()


def in_a_list(tracer: Tracer) -> None:
    tracer.start_span("verify token", attributes={"token": ["a", f"b {TOKEN}"]}).end()


def in_the_name_of_an_attribute(tracer: Tracer) -> None:
    tracer.start_span("verify token", attributes={TOKEN: 1}).end()


def in_the_status(tracer: Tracer) -> None:
    span = tracer.start_span("verify token")
    span.set_status(Status(StatusCode.ERROR, f"no such token: {TOKEN}"))
    span.end()


def in_an_event(tracer: Tracer) -> None:
    span = tracer.start_span("verify token")
    span.add_event("refused", {"because": TOKEN})
    span.end()


def in_the_name_of_an_event(tracer: Tracer) -> None:
    span = tracer.start_span("verify token")
    span.add_event(TOKEN)
    span.end()


def in_a_link(tracer: Tracer) -> None:
    link = Link(SpanContext(1, 1, is_remote=False), {"cause": TOKEN})
    tracer.start_span("verify token", links=[link]).end()


@pytest.mark.parametrize(
    ("tell", "place"),
    [
        (in_an_attribute, "attribute token"),
        (in_a_list, "attribute token"),
        (in_the_name_of_an_attribute, "name of an attribute"),
        (in_the_status, "status"),
        (in_an_event, "event refused, attribute because"),
        (in_the_name_of_an_event, "event"),
        (in_a_link, "link, attribute cause"),
    ],
)
def test_a_token_in_a_span_is_found(
    collector: Collector, tracer: Tracer, tell: Callable[[Tracer], None], place: str
) -> None:
    tell(tracer)
    found_once(collector, f"span verify token, {place}")


def test_a_token_in_the_name_of_a_span_is_found_and_not_said_again(collector: Collector, tracer: Tracer) -> None:
    tracer.start_span(f"GET /{TOKEN}").end()
    found_once(collector, "span GET /***")


def test_the_text_of_an_exception_in_a_span_is_found(collector: Collector, tracer: Tracer) -> None:
    with pytest.raises(LookupError), tracer.start_as_current_span("verify token"):
        raise LookupError(TOKEN)

    lines = collector.taken()
    for place in ("status", "event exception, attribute exception.message", "attribute exception.stacktrace"):
        assert any(place in line for line in lines)


def test_a_token_among_the_labels_of_a_metric_is_found_once(collector: Collector) -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("tests")
    meter.create_counter("s2s_fastapi.decisions").add(1, {"caller": TOKEN})

    collector.points(reader)

    found_once(collector, "metric s2s_fastapi.decisions, attribute caller")


def test_a_token_that_a_view_took_off_a_metric_is_found_in_its_example(collector: Collector, tracer: Tracer) -> None:
    from opentelemetry.sdk.metrics.view import View

    reader = InMemoryMetricReader()
    meter = MeterProvider(
        metric_readers=[reader], shutdown_on_exit=False, views=[View(instrument_name="*", attribute_keys=set())]
    ).get_meter("tests")
    with tracer.start_as_current_span("request"):
        meter.create_histogram("duration").record(1, {"caller": TOKEN})

    collector.points(reader)

    found_once(collector, "metric duration, exemplar, attribute caller")


def failed(text: str) -> Any:
    with pytest.raises(ValueError) as failure:  # noqa: PT011 - it holds the text, which is the point
        int(text)
    return failure.type, failure.value, failure.tb


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"msg": f"token {TOKEN}"}, "message"),
        ({"msg": "headers %s", "args": ({"headers": [(b"authorization", TOKEN.encode())]},)}, "message"),
        ({"msg": "refused", "cure": f"send {TOKEN}"}, "cure"),
        ({"msg": "refused", "request": {"token": (TOKEN,)}}, "request"),
        ({"msg": "refused", "error": LookupError(TOKEN)}, "error"),
        ({"msg": "failed", "exc_info": failed(TOKEN)}, "traceback"),
        ({"msg": "failed", "exc_text": f"LookupError: {TOKEN}"}, "traceback"),
        ({"msg": "failed", "stack_info": f"in {TOKEN}"}, "traceback"),
    ],
)
def test_a_token_in_a_log_record_is_found(collector: Collector, fields: dict[str, Any], place: str) -> None:
    collector.record(logging.makeLogRecord({"name": "s2s_fastapi.decisions", **fields}))

    assert f"log s2s_fastapi.decisions, {place}" in {line.rpartition(": ")[0] for line in collector.taken()}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"body": {"token": TOKEN}}, "body"),
        ({"attributes": {"token": TOKEN}}, "attribute token"),
        ({"exception": LookupError(TOKEN)}, "attribute exception.message"),
    ],
)
def test_a_token_in_an_event_of_opentelemetry_is_found(
    collector: Collector, fields: dict[str, Any], place: str
) -> None:
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(collector)

    provider.get_logger("tests").emit(LogRecord(event_name="failed", **fields))

    assert f"event failed, {place}" in {line.rpartition(": ")[0] for line in collector.taken()}


RUN = """
import logging, os, threading
import pytest
from opentelemetry import metrics, trace
from pydantic import SecretStr

TOKEN = {token!r}
tracer = trace.get_tracer("tests")

def test_clean():
    with tracer.start_as_current_span("clean", attributes={{"token_id": "1"}}):
        logging.getLogger("a").warning("nothing to see")

def test_span():
    tracer.start_span("one", attributes={{"token": TOKEN}}).end()

def test_metric():
    metrics.get_meter("tests").create_counter("decisions").add(1, {{"caller": TOKEN}})

def test_after_the_metric():
    pass

def test_log_that_no_handler_takes():
    logger = logging.getLogger("b")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    logger.warning("x", extra={{"cure": SecretStr("a client secret").get_secret_value()}})

def test_third_party_at_debug(caplog):
    logging.getLogger("httpcore.connection").debug("headers %s", [(b"Authorization", b"Bearer " + TOKEN.encode())])
    assert not caplog.records

def test_thread():
    thread = threading.Thread(target=tracer.start_span("one", attributes={{"token": TOKEN}}).end)
    thread.start()
    thread.join()

def test_child():
    child = os.fork()
    if not child:
        logging.getLogger("c").warning(TOKEN)
        os._exit(0)
    os.waitpid(child, 0)

@pytest.mark.tells_secrets("on purpose", "log d, ")
def test_on_purpose():
    logging.getLogger("d").warning(TOKEN)

@pytest.mark.tells_secrets("on purpose", "log d, ")
def test_on_purpose_but_elsewhere_too():
    logging.getLogger("d").warning(TOKEN)
    logging.getLogger("e").warning(TOKEN)

def test_failing():
    logging.getLogger("f").warning(TOKEN)
    raise LookupError
"""

CONFTEST = """
import logging, pytest

@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session):
    if {late} and session.config.getoption("dist", "no") == "no":  # where tests run: not beside parallel workers
        logging.getLogger("late").warning({token!r})
"""


def run(there: Path, *options: str, tests: str = "def test_it(): pass", late: bool = False) -> tuple[int, str]:
    """Run pytest on its own with the collector, and return its exit code and what it writes."""
    (there / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\nmarkers = tells_secrets: on purpose\n")
    (there / "conftest.py").write_text(CONFTEST.format(token=TOKEN, late=late))
    (there / "test_run.py").write_text(tests)
    # PYTHONPATH: where this suite stands, which is not where the package stands when a wheel is tried.
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rA",
        "--import-mode=importlib",
        "--show-capture=no",
        "--tb=short",
    ]
    # Python from 3.12 warns of forks beside threads, which plugins may have left.
    command += ["-W", "ignore::DeprecationWarning", "-p", "tests.kit.collector", *options]
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(command, cwd=there, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_a_run_fails_the_tests_that_told_a_secret_and_no_others(tmp_path: Path) -> None:
    code, said = run(tmp_path, tests=RUN.format(token=TOKEN))

    outcomes = {
        (line.split()[0], line.split("::")[1].split()[0])
        for line in said.splitlines()
        if line.startswith(("PASSED ", "FAILED ", "ERROR "))
    }
    assert outcomes == {
        ("PASSED", "test_clean"),
        ("FAILED", "test_span"),
        ("PASSED", "test_metric"),
        ("ERROR", "test_metric"),  # measured values are read when the test is over
        ("PASSED", "test_after_the_metric"),
        ("FAILED", "test_log_that_no_handler_takes"),
        ("FAILED", "test_third_party_at_debug"),
        ("FAILED", "test_thread"),
        ("FAILED", "test_child"),
        ("PASSED", "test_on_purpose"),
        ("FAILED", "test_on_purpose_but_elsewhere_too"),
        ("FAILED", "test_failing"),
        ("ERROR", "test_failing"),
    }
    assert code == pytest.ExitCode.TESTS_FAILED
    for place in ("span one, attribute token", "metric decisions, attribute caller", "log b, cure: a SecretStr"):
        assert place in said
    assert SIGNATURE not in said.replace("\n", "")


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_what_comes_after_the_last_test_fails_the_run(tmp_path: Path, workers: tuple[str, ...]) -> None:
    code, said = run(tmp_path, *workers, late=True)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "A secret shows itself after the last test: log late, message: a part of a JWT" in said
    assert SIGNATURE not in said


def test_without_the_plugin_telemetry_is_off(tmp_path: Path) -> None:
    tests = """
from opentelemetry import _logs, metrics, trace

def test_off():
    kinds = [trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()]
    assert not [kind for kind in kinds if ".sdk." in type(kind).__module__]
"""
    code, said = run(tmp_path, "-p", "no:tests.kit.collector", tests=tests)
    assert (code, "1 passed" in said) == (0, True)

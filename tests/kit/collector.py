"""A pytest plugin that switches telemetry on for the whole run and fails the test in which a secret shows itself in it.

Real providers of OpenTelemetry's SDK are the global ones, every log record is seen whatever handlers there are, and the loggers of
this package and of those below it speak at DEBUG, to the search alone. What is looked for is in `tests.kit.search`; which secrets there
are is learned where the package and the tests make them.
A test that tells a secret on purpose says why and where: ``@pytest.mark.tells_secrets("why", "log httpx")``.
``-p no:tests.kit.collector`` runs the suite without it; then there are providers from the first test on that listens (`tests.kit.tracing`).
"""

import contextlib
import functools
import logging
import os
import re
import tempfile
import threading
import traceback
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from typing import Any, Final

import pytest
from joserfc.jws import JWSRegistry
from opentelemetry import _logs, metrics, trace
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from pydantic import SecretStr

from tests.kit.search import Search, texts

__all__ = ["Collector", "learn"]

_SPEAKING: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "joserfc", "authlib", "asyncio", "s2s_fastapi")
_FOR_US: Final = (
    logging.DEBUG - 1
)  # of a logger: all that it says comes to us, and goes on as if the level were not set
_LEFT: Final = "s2s_fastapi_secrets_after_the_last_test"
_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) - {"args", "threadName", "taskName"}
_KEY_TEXT: Final = re.compile(
    r"[A-Za-z0-9+/_=-]{40,}"
)  # lines of a PEM file, and the members of a JWK that are no names

_KEY_BLOCK: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----(.*?)-----END", re.DOTALL)


class Collector(SpanProcessor, LogRecordProcessor):
    """Looks at telemetry as it comes, keeps none of it, and writes down where it saw a secret."""

    def __init__(self) -> None:
        self.search = Search()
        # A file, so that what forked children find is found; appended in one write, so that no lock is needed.
        self._found = tempfile.TemporaryFile("a+b", buffering=0)  # noqa: SIM115 - open for the whole run
        self._taken = 0
        self._looking = threading.local()

    def look(self, place: str, value: Any) -> None:
        """Search one value; `place` says where it stood."""
        for text in texts(value):
            for what in {what for what, _, _ in self.search.find(text)}:
                line = self.search.hidden(place).replace("\n", " ")
                os.write(self._found.fileno(), f"{line}: {what}\n".encode(errors="backslashreplace"))

    def attributes(self, place: str, attributes: Mapping[str, Any] | None) -> None:
        """Search names and values of attributes."""
        for name, value in (attributes or {}).items():
            self.look(f"{place}, name of an attribute", name)
            self.look(f"{place}, attribute {name}", value)

    def taken(self) -> list[str]:
        """Return where something was found since the last time, each place once, the secrets themselves left out."""
        size = os.fstat(self._found.fileno()).st_size
        lines = os.pread(self._found.fileno(), size - self._taken, self._taken).decode()
        self._taken = size
        return list(dict.fromkeys(lines.splitlines()))

    def close(self) -> None:
        """Forget everything."""
        self._found.close()

    # Traces

    def on_end(self, span: ReadableSpan) -> None:
        """Search a span that has ended."""
        place = f"span {span.name}"
        self.look(place, span.name)
        self.attributes(place, span.attributes)
        self.look(f"{place}, status", span.status.description)
        for event in span.events:
            self.look(f"{place}, event", event.name)
            self.attributes(f"{place}, event {event.name}", event.attributes)
        for context, attributes in [(span.context, None), *((link.context, link.attributes) for link in span.links)]:
            self.look(f"{place}, trace state", dict(context.trace_state) if context else None)
            self.attributes(f"{place}, link", attributes)
        self.look(f"{place}, scope", span.instrumentation_scope and span.instrumentation_scope.name)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: what is told at the start is still there at the end."""

    # Metrics

    def points(self, reader: InMemoryMetricReader) -> None:
        """Search what was measured since the last time."""
        read = reader.get_metrics_data()
        for metric in (
            metric
            for of_resource in (read.resource_metrics if read else ())
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        ):
            place = f"metric {metric.name}"
            self.look(place, (metric.name, metric.description, metric.unit))
            for point in metric.data.data_points:
                self.attributes(place, point.attributes)
                for exemplar in getattr(point, "exemplars", ()):
                    self.attributes(f"{place}, exemplar", exemplar.filtered_attributes)

    # Logs

    def on_emit(self, log_record: Any) -> None:
        """Search a log record of OpenTelemetry's own: FastAPI tells of exceptions so."""
        record = log_record.log_record
        place = f"event {record.event_name}"
        self.look(place, (record.event_name, record.severity_text))
        self.look(f"{place}, body", record.body)
        self.attributes(place, record.attributes)

    def record(self, record: logging.LogRecord) -> None:
        """Search a record of the standard library's logging: message, arguments, extra fields and traceback."""
        if getattr(self._looking, "at", False):  # the repr of an argument may write a log itself
            return
        self._looking.at = True
        try:
            place = f"log {record.name}"
            self.look(f"{place}, message", _message(record))
            for name, value in list(vars(record).items()):
                if name not in _OF_EVERY_RECORD:
                    self.look(f"{place}, {name}", value)
            if record.exc_info and record.exc_info[0]:
                self.look(f"{place}, traceback", "".join(traceback.format_exception(*record.exc_info)))
            self.look(f"{place}, traceback", (record.exc_text, record.stack_info))
        finally:
            self._looking.at = False

    # What both processors must have

    def shutdown(self) -> None:
        """Do nothing: nothing is kept."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Return that nothing is left."""
        return True


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: logging says so itself
        return str(record.msg)


def _overheard(
    handle: Callable[[logging.Logger, logging.LogRecord], None], hear: Callable[[logging.LogRecord], None]
) -> Callable[[logging.Logger, logging.LogRecord], None]:
    """Tell of each record, and let go on those that there would be without us."""

    def heard(self: logging.Logger, record: logging.LogRecord) -> None:
        hear(record)
        logger: logging.Logger | None = self
        while logger is not None and logger.level in {logging.NOTSET, _FOR_US}:
            logger = logger.parent
        if logger is None or record.levelno >= logger.level:
            handle(self, record)

    return heard


def _after(stack: ExitStack, owner: type, name: str, told: Callable[[Any, Any], None]) -> None:
    """Tell of each call of a method when it is over: on what, and what came of it."""
    inner = getattr(owner, name)

    @functools.wraps(inner)
    def outer(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = inner(self, *args, **kwargs)
        told(self, result)
        return result

    stack.callback(setattr, owner, name, inner)
    setattr(owner, name, outer)


def learn(stack: ExitStack, search: Search) -> None:
    """Learn every secret where it is made: a harness may stand in between, a test may not."""
    from s2s_fastapi.backchannel.client_certificate import ClientCertificate
    from s2s_fastapi.caller.credentials import Proof
    from s2s_fastapi.caller.granted import GrantedToken
    from s2s_fastapi.proof.key import ProofKey

    def private(made: ProofKey, _: object) -> None:
        search.learn(made._private.as_dict(private=True)["d"], "the private key of proofs")

    def bound(_: ProofKey, made: str) -> None:
        search.learn_exactly(made, "a proof")

    def proof(made: Proof, _: object) -> None:
        if made.assertion is not None:  # the token of another issuer: all of it logs in
            for part in (made.material, *made.material.split(".")[1:]):
                search.learn_exactly(part, "an assertion of another issuer")
            return
        for text in _KEY_TEXT.findall(made.material) if made.kid else [made.material]:
            if text == made.kid:  # a thumbprint is as long as a key, stands in a JWK, and is public
                continue
            search.learn(text, "a client's key" if made.kid else "a client secret")
        for value in made.headers.values():
            search.learn_exactly(value.rpartition(" ")[2], "the value of a Basic header")
        search.learn_exactly(made.form.get("client_assertion", "").rpartition(".")[2], "the signature of an assertion")

    def certificate(files: ClientCertificate, _: object) -> None:
        file = files.key_file or files.cert_file
        with contextlib.suppress(OSError):
            if file.is_file():
                for block in _KEY_BLOCK.findall(file.read_text("ascii", "replace")):
                    for text in _KEY_TEXT.findall(block):
                        search.learn_exactly(text, "the key of a client certificate")

    def token(made: GrantedToken, _: object) -> None:
        search.learn_exactly(made.value, "an access token")
        search.learn_exactly(made.value.rpartition(".")[2], "the signature of an access token")

    def signature(_: object, signed: bytes) -> None:
        search.learn_exactly(urlsafe_b64encode(signed).decode(), "a signature")

    _after(stack, SecretStr, "__init__", lambda made, _: search.learn(made.get_secret_value(), "a SecretStr"))
    _after(stack, Proof, "__init__", proof)
    _after(stack, GrantedToken, "__init__", token)
    _after(stack, ProofKey, "__init__", private)
    _after(stack, ClientCertificate, "load", certificate)
    _after(stack, ProofKey, "proof", bound)
    for algorithm in {type(model) for model in JWSRegistry.algorithms.values()}:
        _after(stack, algorithm, "sign", signature)


class Telemetry:
    """The hooks of a run with telemetry on."""

    def __init__(self) -> None:
        self.collector = Collector()
        self._reader = InMemoryMetricReader(
            # What was measured since the last look, so that each test answers for its own.
            preferred_temporality=dict.fromkeys((Counter, Histogram, ObservableCounter), AggregationTemporality.DELTA)
        )
        self._undo = ExitStack()
        self._left: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Switch everything on: providers can be set once in a process."""
        resource = Resource.create({"service.name": "tests"})
        tracers = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(self.collector)
        trace.set_tracer_provider(tracers)
        metrics.set_meter_provider(
            MeterProvider(metric_readers=[self._reader], resource=resource, shutdown_on_exit=False)
        )
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(self.collector)
        _logs.set_logger_provider(loggers)
        learn(self._undo, self.collector.search)
        # Not a handler: tests put away handlers, and servers have loggers that do not propagate.
        self._undo.callback(setattr, logging.Logger, "handle", logging.Logger.handle)
        logging.Logger.handle = _overheard(logging.Logger.handle, self.collector.record)  # type: ignore[method-assign, assignment]
        for name in _SPEAKING:
            logger = logging.getLogger(name)
            self._undo.callback(logger.setLevel, logger.level)
            logger.setLevel(_FOR_US)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Fail a test that told a secret."""
        result = yield
        self._judge(item)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Fail a test whose end told a secret, or that measured one."""
        result = yield
        self.collector.points(self._reader)
        self._judge(item)
        return result

    def _judge(self, item: pytest.Item) -> None:
        allowed = tuple(place for mark in item.iter_markers("tells_secrets") for place in mark.args[1:])
        found = [line for line in self.collector.taken() if not line.startswith(allowed)]
        if found:
            pytest.fail("A secret shows itself:\n" + "\n".join(found), pytrace=False)

    def pytest_warning_recorded(self, warning_message: Any, when: str) -> None:
        """Search a warning that was not made an error."""
        self.collector.look("warning", str(warning_message.message))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run for what came after its last test."""
        self.collector.points(self._reader)
        self._left += self.collector.taken()
        if hasattr(session.config, "workeroutput"):  # a parallel worker: pytest-xdist does not look at its exit status
            session.config.workeroutput[_LEFT] = self._left
        if self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self._undo.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a parallel worker found after its last test; a worker that crashed has nothing to say."""
        self._left += getattr(node, "workeroutput", {}).get(_LEFT, [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what that was."""
        for line in self._left:
            terminalreporter.line(f"A secret shows itself after the last test: {line}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Switch telemetry on where tests run."""
    config.pluginmanager.register(Telemetry(), "telemetry")

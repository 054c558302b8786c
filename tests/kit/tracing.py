"""What a test caused in traces and metrics, whoever has set the providers: the suite's collector, or nobody yet."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanContext, SpanKind

from tests.kit.reported import reported

Tree: TypeAlias = tuple[str, list["Tree"]]

PATIENCE = 10.0


def until(happened: Callable[[], Any]) -> Any:
    """Wait for what another thread does, and return it."""
    end = time.monotonic() + PATIENCE
    while not (result := happened()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)
    return result


def context_of(span: Any) -> SpanContext:
    """Return the context of a span that is known to have one."""
    context = span.get_span_context()
    assert context is not None
    return context  # type: ignore[no-any-return]  # the SDK's own is Optional


@dataclass
class Traces:
    """The spans that began and ended while this was listening."""

    ended: list[ReadableSpan] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans in the order in which they ended, after all loads have reported theirs."""
        reported()
        self.ended.sort(key=lambda span: span.end_time or 0)
        return self.ended

    @property
    def names(self) -> list[str]:
        """The names of this package's spans."""
        return [span.name for span in self.ours]

    @property
    def ours(self) -> list[ReadableSpan]:
        """The spans of this package."""
        return [span for span in self.spans if (scope := span.instrumentation_scope) and scope.name == "s2s_fastapi"]

    def named(self, name: str) -> list[ReadableSpan]:
        """Return all spans of a name, whoever made them."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """Return the only span of a name."""
        (found,) = self.named(name)
        return found

    def of_kind(self, kind: SpanKind) -> list[ReadableSpan]:
        """Return all spans of a kind."""
        return [span for span in self.spans if span.kind is kind]

    def below(self, parent: Any) -> list[Tree]:
        """Return what is below a span, as names, in the order in which it began."""
        there = context_of(parent).span_id
        children = [span for span in self.spans if span.parent is not None and span.parent.span_id == there]
        return [(child.name, self.below(child)) for child in sorted(children, key=lambda span: span.start_time or 0)]


class _BrokenPluginError(Exception):
    """What a processor of somebody's raises."""


class _Recorder(SpanProcessor):
    """Stays with the provider for good, since a processor cannot be taken off, and tells who is listening at the moment."""

    def __init__(self) -> None:
        self.listening: list[Traces] = []
        self.failing: set[str] = set()
        self._lock = threading.Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if "start" in self.failing:
            raise _BrokenPluginError("of somebody's own words")
        with self._lock:
            for traces in self.listening:
                traces.begun.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        if "end" in self.failing:
            raise _BrokenPluginError("of somebody's own words")
        with self._lock:
            for traces in self.listening:
                traces.ended.append(span)


@cache
def _recorder() -> _Recorder:
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    recorder = _Recorder()
    provider.add_span_processor(recorder)
    return recorder


@contextmanager
def listening() -> Iterator[Traces]:
    """Collect the spans that end inside."""
    traces, recorder = Traces(), _recorder()
    recorder.listening.append(traces)
    try:
        yield traces
    finally:
        recorder.listening.remove(traces)


class AnotherFormat(TextMapPropagator):
    """A propagator of another format, which writes one header."""

    @property
    def fields(self) -> set[str]:
        return {"x-b3-traceid"}

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        carrier["x-b3-traceid"] = "1"

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        return context


@contextmanager
def propagating(propagator: TextMapPropagator) -> Iterator[None]:
    """Let traces be told to others by this propagator inside."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(propagator)
    try:
        yield
    finally:
        propagate.set_global_textmap(before)


@contextmanager
def broken_at(*moments: str) -> Iterator[None]:
    """Let the provider have a processor that raises at the ``start`` or the ``end`` of each span."""
    recorder = _recorder()
    recorder.failing.update(moments)
    try:
        yield
    finally:
        recorder.failing.clear()


@contextmanager
def request(name: str = "request") -> Iterator[trace.Span]:
    """Let what runs inside be a request that somebody traces."""
    with trace.get_tracer("tests").start_as_current_span(name) as span:
        yield span


@dataclass(frozen=True)
class Point:
    """One value of one metric, of the attributes beside it. Of a histogram: how many were measured, and their sum."""

    name: str
    unit: str
    attributes: dict[str, Any]
    value: float
    sum: float = 0.0


class Measured:
    """What was measured since this began to listen."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def __call__(self, name: str = "") -> list[Point]:
        """Return the points of one metric of this package, or of all."""
        reported()
        data = self._reader.get_metrics_data()
        return [
            Point(
                metric.name,
                metric.unit or "",
                dict(point.attributes or {}),
                point.count if hasattr(point, "count") else point.value,
                getattr(point, "sum", 0.0),
            )
            for of_resource in (data.resource_metrics if data else ())
            for of_scope in of_resource.scope_metrics
            if of_scope.scope.name == "s2s_fastapi"
            for metric in of_scope.metrics
            if name in ("", metric.name)
            for point in metric.data.data_points
        ]

    def told(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric by the values of its attributes, in the order of their names.

        Decisions are counted for all realms together.
        """
        told: dict[tuple[str, ...], float] = {}
        for point in self(name):
            names = sorted(
                point.attributes.keys() - ({"s2s_fastapi.issuer"} if name == "s2s_fastapi.decisions" else set())
            )
            key = tuple(str(point.attributes[each]) for each in names)
            told[key] = told.get(key, 0) + point.value
        return told


@cache
def _meters() -> MeterProvider:
    provider = metrics.get_meter_provider()
    if not isinstance(provider, MeterProvider):
        provider = MeterProvider(shutdown_on_exit=False)
        metrics.set_meter_provider(provider)
    return provider


@contextmanager
def measuring() -> Iterator[Measured]:
    """Collect what is measured inside."""
    provider, reader = _meters(), InMemoryMetricReader()
    provider.add_metric_reader(reader)
    try:
        yield Measured(reader)
    finally:
        provider.remove_metric_reader(reader)

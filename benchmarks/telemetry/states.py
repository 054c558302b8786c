"""The states telemetry can be in. The global providers are set once in a process, so each state has processes of its own."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBasedTraceIdRatio

from benchmarks.telemetry.rows import AUDIT, BOTH, METRICS, TRACES, TRACING, UNSAMPLED


@dataclass(frozen=True)
class State:
    """One state of telemetry, switched on for the rest of this process."""

    within: Callable[[], AbstractContextManager[object]] = nullcontext
    """What an outgoing call is made in: a request's span, where requests are traced."""
    export: Callable[[], object] = bool
    """What an exporter does now and then, outside of the clock."""


def switched_on(name: str) -> State:
    """Set the providers, as a service does it: after it has imported the package."""
    export: Callable[[], object] = bool
    if name in (METRICS, BOTH):
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        export = reader.get_metrics_data
    if name in (TRACES, BOTH):
        _trace(TracerProvider(ALWAYS_ON))
    if name == UNSAMPLED:
        _trace(TracerProvider(ParentBasedTraceIdRatio(0)))
    if name == AUDIT:
        log = logging.getLogger("s2s_fastapi.decisions")
        log.setLevel(logging.INFO)
        log.addHandler(logging.NullHandler())
        log.propagate = False
    tracer = trace.get_tracer("benchmarks")
    return State(lambda: tracer.start_as_current_span("request") if name in TRACING else nullcontext(), export)


def _trace(provider: TracerProvider) -> None:
    provider.add_span_processor(SpanProcessor())  # sees each span, drops it
    trace.set_tracer_provider(provider)

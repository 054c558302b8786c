"""An OTLP receiver on a port of this machine: what services and Keycloak export, as values that a test can compare.

It takes traces, metrics and logs as protobuf over HTTP (https://opentelemetry.io/docs/specs/otlp/#otlphttp).
"""

import gzip
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from s2s_fastapi.testing.server import LoopbackServer
from s2s_fastapi.testing.wire import Request, Response

__all__ = ["Collector", "Measurement", "Record", "Span", "kept", "rendered"]

_PROTOBUF: Final = (("Content-Type", "application/x-protobuf"),)


@dataclass(frozen=True, slots=True)
class Span:
    """One span, with the service that made it and the name of the library that did."""

    service: str
    library: str
    name: str
    kind: str
    """``SERVER``, ``CLIENT``, ``INTERNAL``, ``PRODUCER`` or ``CONSUMER``."""
    trace_id: str
    span_id: str
    parent_id: str
    """Empty for a root."""
    began: int
    """Nanoseconds since the epoch, as `ended`."""
    ended: int
    attributes: Mapping[str, Any] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    """The ids of the spans that are linked."""
    failed: bool = False

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.ended - self.began) / 1e6


@dataclass(frozen=True, slots=True)
class Measurement:
    """One point of a metric; `value` is the sum of a histogram."""

    service: str
    name: str
    unit: str
    value: float
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """One log record."""

    service: str
    logger: str
    body: Any
    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Collector:
    """Keeps what was exported to `url` (the base: exporters add ``/v1/traces`` and the like themselves)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Span] = []
        self._measurements: list[Measurement] = []
        self._records: list[Record] = []
        self._received = bytearray()
        self.url = ""

    @contextmanager
    def listening(self) -> Iterator["Collector"]:
        """Take exports for as long as this lasts."""
        with LoopbackServer(self._take) as server:
            self.url = server.url
            yield self

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every span that came so far."""
        with self._lock:
            return tuple(self._spans)

    @property
    def measurements(self) -> tuple[Measurement, ...]:
        """Every point of every metric that came so far."""
        with self._lock:
            return tuple(self._measurements)

    @property
    def records(self) -> tuple[Record, ...]:
        """Every log record that came so far."""
        with self._lock:
            return tuple(self._records)

    @property
    def received(self) -> bytes:
        """Every byte that came so far, decompressed: protobuf leaves text as it is, wherever in an export it stands."""
        with self._lock:
            return bytes(self._received)

    def trace(self, trace_id: str) -> tuple[Span, ...]:
        """Return the spans of one trace, in the order in which they began."""
        return tuple(sorted((span for span in self.spans if span.trace_id == trace_id), key=lambda span: span.began))

    def wait_for(self, condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
        """Return as soon as the condition holds; exporters send what they have some seconds late.

        Raises:
            TimeoutError: It never did; the text draws the spans that came.
        """
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"of the spans there came only\n{rendered(self.spans)}")
            time.sleep(0.05)

    def _take(self, request: Request) -> Response:
        body = gzip.decompress(request.body) if request.header("content-encoding") == "gzip" else request.body
        read = {"/v1/traces": self._traces, "/v1/metrics": self._metrics, "/v1/logs": self._logs}.get(request.path)
        if request.method != "POST" or read is None:
            return Response(404)
        if request.header("content-type") != "application/x-protobuf":
            return Response(415)
        with self._lock:
            self._received += body
            read(body)
        return Response(200, _PROTOBUF)  # an empty message: everything was taken

    def _traces(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _service(resource.resource.attributes)
            for scope in resource.scope_spans:
                self._spans += [_span(service, scope.scope.name, span) for span in scope.spans]

    def _metrics(self, body: bytes) -> None:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            service = _service(resource.resource.attributes)
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                data = getattr(metric, metric.WhichOneof("data") or "gauge")
                for point in data.data_points:
                    kind = point.WhichOneof("value") if hasattr(point, "as_int") else "sum"
                    value = float(getattr(point, kind)) if kind else 0.0
                    self._measurements.append(
                        Measurement(service, metric.name, metric.unit, value, _attributes(point.attributes))
                    )

    def _logs(self, body: bytes) -> None:
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            service = _service(resource.resource.attributes)
            for scope in resource.scope_logs:
                self._records += [
                    Record(
                        service,
                        scope.scope.name,
                        _value(record.body),
                        record.trace_id.hex(),
                        record.span_id.hex(),
                        _attributes(record.attributes),
                    )
                    for record in scope.log_records
                ]


def kept(spans: Iterable[Span], condition: Callable[[Span], bool]) -> tuple[Span, ...]:
    """Return the spans that meet a condition, each below the nearest span above it that does."""
    spans = tuple(spans)
    by_id = {span.span_id: span for span in spans}

    def parent_of(span: Span) -> str:
        parent_id = span.parent_id
        while (parent := by_id.get(parent_id)) is not None and not condition(parent):
            parent_id = parent.parent_id
        return parent_id

    return tuple(replace(span, parent_id=parent_of(span)) for span in spans if condition(span))


def rendered(spans: Iterable[Span], *attributes: str, timed: bool = True) -> str:
    """Draw the trees the spans make, one line a span: service, kind, name, milliseconds, and these attributes if it has them."""
    spans = sorted(spans, key=lambda span: span.began)
    known = {span.span_id for span in spans}
    below: defaultdict[str, list[Span]] = defaultdict(list)
    for span in spans:
        below[span.parent_id if span.parent_id in known else ""].append(span)
    lines: list[str] = []

    def draw(span: Span, depth: int) -> None:
        parts = [f"{'  ' * depth}{span.service}: {span.kind} {span.name}"]
        parts += [f"{span.milliseconds:.1f} ms"] if timed else []
        parts += [f"{name}={span.attributes[name]}" for name in attributes if name in span.attributes]
        parts += ["FAILED"] if span.failed else []
        parts += ["(its parent did not come)"] if span.parent_id and span.parent_id not in known else []
        lines.append(" ".join(parts))
        for child in below[span.span_id]:
            draw(child, depth + 1)

    for root in below[""]:
        draw(root, 0)
    return "\n".join(lines)


def _span(service: str, library: str, span: WireSpan) -> Span:
    return Span(
        service=service,
        library=library,
        name=span.name,
        kind=WireSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        failed=span.status.code == Status.STATUS_CODE_ERROR,
    )


def _service(attributes: Iterable[KeyValue]) -> str:
    return str(_attributes(attributes).get("service.name", ""))


def _attributes(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {attribute.key: _value(attribute.value) for attribute in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return getattr(value, kind) if kind else None

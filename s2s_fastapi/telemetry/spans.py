"""What a trace shows of this package, through the OpenTelemetry API. Without a tracer provider nothing is made.

    verify token      a token that was not seen before, and the wait for the keys it needs
    fetch keys        one load of the realm's keys
    wait for token    what a request waits for a token
    request token     one load of a token
    exchange token    one exchange of a user's token
    GET, POST         one exchange with Keycloak (HTTP semantic conventions, client span)

The server's span is not ours. The instrumentation of FastAPI, or of the server, makes it; we add what was decided.
"""

import contextvars
import logging
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Final
from urllib.parse import urlsplit

from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, Tracer
from opentelemetry.util.types import AttributeValue

from s2s_fastapi.decision import Decision
from s2s_fastapi.engine.loaded import Cause
from s2s_fastapi.engine.reports import report
from s2s_fastapi.errors import S2SError
from s2s_fastapi.telemetry.attributes import ERROR_TYPE, of_decision
from s2s_fastapi.version import __version__

__all__ = [
    "INVALID_SPAN",
    "SCHEMA_URL",
    "Cause",
    "Span",
    "answered",
    "background",
    "cause",
    "current_span",
    "describe",
    "failed",
    "foreground",
    "hide_query",
    "propagated",
    "span",
    "span_of_request",
    "trace_id",
    "warming_up",
]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

_log = logging.getLogger("s2s_fastapi.telemetry")

# What instrumentations of HTTP clients look at. Without it there would be a second span for an exchange, and nothing worse.
_SUPPRESS: Final[str] = getattr(otel, "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "suppress_http_instrumentation")
_INCOMPLETE: Final[set[str]] = set()

_cause: "contextvars.ContextVar[Cause]" = contextvars.ContextVar("s2s_fastapi.cause", default="needed")
_links: "contextvars.ContextVar[tuple[Link, ...]]" = contextvars.ContextVar("s2s_fastapi.links", default=())


def current_span() -> Span:
    """Return the span that this code runs in, `INVALID_SPAN` if there is none."""
    # Without tracing the context is empty. To see that takes half the time of asking it for a span.
    return trace.get_current_span() if otel.get_current() else INVALID_SPAN


@cache
def _tracer() -> Tracer:
    return trace.get_tracer("s2s_fastapi", __version__, schema_url=SCHEMA_URL)


def span(
    name: str, attributes: Mapping[str, AttributeValue] | None = None, *, kind: SpanKind = SpanKind.INTERNAL
) -> AbstractContextManager[Span]:
    """Make what runs inside one span: a root with a link inside of `background` or `warming_up`.

    Of an exception that leaves it only the type is recorded: its text and its frames may hold the secret.
    """
    parent = current_span()
    links = _links.get() if parent is INVALID_SPAN else None
    try:
        started = _tracer().start_span(name, kind=kind, attributes=attributes, links=links)
    except Exception as error:  # noqa: BLE001 (of a sampler or a processor: no request may depend on it)
        _incomplete(error)
        return nullcontext(INVALID_SPAN)
    # Without an SDK no span is made: there is nothing to be current instead.
    return nullcontext(started) if started is parent else _running(started)


@contextmanager
def _running(started: Span) -> Iterator[Span]:
    with trace.use_span(started, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            yield started
        except Exception as error:
            failed(started, error.code if isinstance(error, S2SError) else type(error).__name__)
            raise
        finally:
            report(partial(_end, started, time.time_ns()))


def _end(started: Span, at: int) -> None:
    try:
        started.end(at)
    except Exception as error:  # noqa: BLE001 (as at its start)
        _incomplete(error)


def _incomplete(error: Exception) -> None:
    """Log, once for each type of error, that a plugin of OpenTelemetry failed. The error's text is left out: it may hold a secret."""
    kind = type(error).__name__
    if kind not in _INCOMPLETE:
        _INCOMPLETE.add(kind)
        report(partial(_log.warning, "Traces are incomplete: a plugin of OpenTelemetry failed with %s.", kind))


def failed(current: Span, error_type: str, sentence: str = "") -> None:
    """Mark a span as ended in an error. The sentence must be fit for a log."""
    current.set_attribute(ERROR_TYPE, error_type)
    current.set_status(StatusCode.ERROR, sentence or None)


def describe(current: Span, decision: Decision) -> None:
    """Add what was decided to a span. Its status stays: a refusal is not an error of the service."""
    if current.is_recording():
        current.set_attributes(of_decision(decision))


def hide_query(current: Span) -> None:
    """Take the query out of a server's span, which the instrumentation has already filled."""
    if not current.is_recording():
        return
    current.set_attribute("url.query", "REDACTED")
    # Instrumentations with older conventions have it in the URL. Only spans of the SDK can be read.
    attributes: Mapping[str, AttributeValue] = getattr(current, "attributes", None) or {}
    for name in ("http.url", "http.target", "url.full"):
        url, mark, _ = str(attributes.get(name, "")).partition("?")
        if mark:
            current.set_attribute(name, f"{url}?REDACTED")


def trace_id(current: Span) -> str:
    """Return the id of the trace that a span belongs to; empty if there is none."""
    context = current.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


@contextmanager
def span_of_request(method: str, url: str) -> Iterator[Span]:
    """Make what runs inside one span of an HTTP request to Keycloak.

    An instrumentation of httpx makes no second span of it, and does not see the headers, which hold the client's secret.
    """
    with span(method, kind=SpanKind.CLIENT) as started:
        if started.is_recording():
            there = urlsplit(url)
            port = there.port or (443 if there.scheme == "https" else 80)
            attributes = {"http.request.method": method, "url.full": url, "server.address": there.hostname or ""}
            started.set_attributes({**attributes, "server.port": port})
        token = otel.attach(otel.set_value(_SUPPRESS, True))
        try:
            yield started
        finally:
            otel.detach(token)


def answered(current: Span, status: int) -> None:
    """Record the status of an answer. For a client, errors begin at 400."""
    current.set_attribute("http.response.status_code", status)
    if status >= 400:  # noqa: PLR2004 - HTTP's own border
        failed(current, str(status))


def propagated(headers: MutableMapping[str, str]) -> tuple[str, ...]:
    """Write the current trace into a request's headers (W3C Trace Context); return the names of the written headers.

    Nothing is written if there is no trace, or if the request already carries one. Baggage is not a trace, and stays.
    """
    if current_span() is INVALID_SPAN:
        return ()
    if any(name in headers for name in propagate.get_global_textmap().fields if name != "baggage"):
        return ()
    headers_of_trace: dict[str, str] = {}
    try:
        propagate.inject(headers_of_trace)
    except Exception as error:  # noqa: BLE001 (of a propagator: the request is sent without a trace)
        _incomplete(error)
    written = tuple(name for name in headers_of_trace if name not in headers)
    headers.update({name: headers_of_trace[name] for name in written})
    return written


def cause() -> Cause:
    """Return why the load that this code runs in has begun."""
    return _cause.get()


def foreground(why: Cause) -> contextvars.Context:
    """Return the context for a load that a request waits for: the current span, and nothing else of the request.

    - No baggage, no user, no inbound token: the load talks to Keycloak.
    - No ``tracestate``: a caller can send so much of it (8 KB) that a proxy in front of Keycloak refuses the load, and then nobody has keys.
    """
    context, parent = _context(why), current_span()
    if parent is not INVALID_SPAN:
        ids = parent.get_span_context()
        bare = NonRecordingSpan(SpanContext(ids.trace_id, ids.span_id, ids.is_remote, ids.trace_flags))
        context.run(otel.attach, trace.set_span_in_context(bare, otel.Context()))
    context.run(_links.set, _links.get())
    return context


def background(why: Cause) -> contextvars.Context:
    """Return the context for a load that no request waits for: a trace of its own, with a link to where it began."""
    context = _context(why)
    context.run(_links.set, _links_to(current_span()))
    return context


@contextmanager
def warming_up() -> Iterator[None]:
    """Make what runs inside work before the first request: a trace of its own, with a link to where it began."""
    linked, caused = _links.set(_links_to(current_span())), _cause.set("warm_up")
    attached = otel.attach(otel.Context())
    try:
        yield
    finally:
        otel.detach(attached)
        _cause.reset(caused)
        _links.reset(linked)


def _context(why: Cause) -> contextvars.Context:
    context = contextvars.Context()
    context.run(_cause.set, "warm_up" if _cause.get() == "warm_up" else why)
    return context


def _links_to(current: Span) -> tuple[Link, ...]:
    context = current.get_span_context()
    return (Link(context),) if context.is_valid else _links.get()

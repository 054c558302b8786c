"""What a trace shows of us, through the OpenTelemetry API; nothing is made where nobody has set a tracer provider.

    verify token      a token that was not seen before, and the wait for the keys it needs
    fetch keys        one load of the realm's keys
    wait for token    what a request waits for a token
    request token     one load of a token
    GET, POST         one exchange with Keycloak (HTTP semantic conventions, client span)

The server's span is not ours: whoever traces requests makes it, FastAPI by itself, and we tell it what was decided.
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
    "span_of_exchange",
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
    """Return the span this code runs in, `INVALID_SPAN` where there is none."""
    # Where nobody traces the context is empty, and asking it for a span takes twice as long as seeing that.
    return trace.get_current_span() if otel.get_current() else INVALID_SPAN


@cache
def _tracer() -> Tracer:
    return trace.get_tracer("s2s_fastapi", __version__, schema_url=SCHEMA_URL)


def span(
    name: str, attributes: Mapping[str, AttributeValue] | None = None, *, kind: SpanKind = SpanKind.INTERNAL
) -> AbstractContextManager[Span]:
    """Let what runs inside be one span, a root with a link where `background` or `warming_up` says so.

    An exception that leaves it is told by its type alone: its text and its frames may hold the secret.
    """
    parent = current_span()
    links = _links.get() if parent is INVALID_SPAN else None
    try:
        started = _tracer().start_span(name, kind=kind, attributes=attributes, links=links)
    except Exception as error:  # noqa: BLE001 (of a sampler or a processor that somebody has plugged in: nobody's request depends on it)
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
    """Say, once for each kind of error, that telemetry lacks something because a plugin of OpenTelemetry failed; its text may say anything."""
    kind = type(error).__name__
    if kind not in _INCOMPLETE:
        _INCOMPLETE.add(kind)
        report(partial(_log.warning, "Traces are incomplete: what is plugged into OpenTelemetry failed with %s.", kind))


def failed(current: Span, error_type: str, sentence: str = "") -> None:
    """Say that a span ended in an error; the sentence must be one for the log."""
    current.set_attribute(ERROR_TYPE, error_type)
    current.set_status(StatusCode.ERROR, sentence or None)


def describe(current: Span, decision: Decision) -> None:
    """Tell a span what was decided. No status is set: a refusal is no error of the service."""
    if current.is_recording():
        current.set_attributes(of_decision(decision))


def hide_query(current: Span) -> None:
    """Take the query out of a server's span, which whoever made it has filled already."""
    if not current.is_recording():
        return
    current.set_attribute("url.query", "REDACTED")
    # Instrumentations that keep to older conventions have it in the URL; what a span tells can be read on the SDK's alone.
    told: Mapping[str, AttributeValue] = getattr(current, "attributes", None) or {}
    for name in ("http.url", "http.target", "url.full"):
        url, mark, _ = str(told.get(name, "")).partition("?")
        if mark:
            current.set_attribute(name, f"{url}?REDACTED")


def trace_id(current: Span) -> str:
    """Return the id of the trace a span belongs to; empty where there is none."""
    context = current.get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


@contextmanager
def span_of_exchange(method: str, url: str) -> Iterator[Span]:
    """Let what runs inside be one exchange of HTTP with Keycloak.

    An instrumentation of httpx makes no second span of it, and does not get to see headers in which the client's secret stands.
    """
    with span(method, kind=SpanKind.CLIENT) as started:
        if started.is_recording():
            there = urlsplit(url)
            port = there.port or (443 if there.scheme == "https" else 80)
            told = {"http.request.method": method, "url.full": url, "server.address": there.hostname or ""}
            started.set_attributes({**told, "server.port": port})
        token = otel.attach(otel.set_value(_SUPPRESS, True))
        try:
            yield started
        finally:
            otel.detach(token)


def answered(current: Span, status: int) -> None:
    """Say with which status an exchange was answered; for a client an error begins at 400."""
    current.set_attribute("http.response.status_code", status)
    if status >= 400:  # noqa: PLR2004 - HTTP's own border
        failed(current, str(status))


def propagated(headers: MutableMapping[str, str]) -> tuple[str, ...]:
    """Write the trace this code runs in into a request's headers (W3C Trace Context); return the names of those that were written.

    Nothing is written where there is no trace, or where the request carries one already. Baggage that it has is no trace, and stays.
    """
    if current_span() is INVALID_SPAN:
        return ()
    if any(name in headers for name in propagate.get_global_textmap().fields if name != "baggage"):
        return ()
    told: dict[str, str] = {}
    try:
        propagate.inject(told)
    except Exception as error:  # noqa: BLE001 (of a propagator: the request goes without)
        _incomplete(error)
    written = tuple(name for name in told if name not in headers)
    headers.update({name: told[name] for name in written})
    return written


def cause() -> Cause:
    """Return why the load that this code runs in was begun."""
    return _cause.get()


def foreground(why: Cause) -> contextvars.Context:
    """Return the context for a load that somebody waits for: the current span, and nothing else of the request.

    No baggage, no user, no inbound token: the load talks to Keycloak. Nor ``tracestate``, of which whoever sends a request can write so
    much (8 KB) that what stands in front of Keycloak refuses the load, and with it the keys of everybody.
    """
    context, parent = _context(why), current_span()
    if parent is not INVALID_SPAN:
        ids = parent.get_span_context()
        bare = NonRecordingSpan(SpanContext(ids.trace_id, ids.span_id, ids.is_remote, ids.trace_flags))
        context.run(otel.attach, trace.set_span_in_context(bare, otel.Context()))
    context.run(_links.set, _links.get())
    return context


def background(why: Cause) -> contextvars.Context:
    """Return the context for a load that nobody waits for: a trace of its own, with a link to where it was begun."""
    context = _context(why)
    context.run(_links.set, _links_to(current_span()))
    return context


@contextmanager
def warming_up() -> Iterator[None]:
    """Let what runs inside be work before the first request: a trace of its own, with a link to where it was begun."""
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

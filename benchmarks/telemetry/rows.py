"""What telemetry is measured on, by name, and what was aimed at: its tables in docs/speed.md have these rows and no others."""

from dataclasses import dataclass
from typing import Final

from benchmarks.caller.rows import ASYNC_HTTPX, HTTPX
from benchmarks.rows import Goal

OFF: Final = "off: the API without an SDK"
METRICS: Final = "metrics"
TRACES: Final = "traces, every one sampled"
BOTH: Final = "metrics and traces"
UNSAMPLED: Final = "traces, none sampled"
AUDIT: Final = "`audit=True`"
STATES: Final = (OFF, METRICS, TRACES, BOTH, UNSAMPLED, AUDIT)
TRACING: Final = (TRACES, BOTH, UNSAMPLED)

REPEATED: Final = "guarded route, repeated token"
NEW: Final = "guarded route, new tokens"
ATTACH: Final = f"attached token, `{HTTPX}`"
ASYNC_ATTACH: Final = f"attached token, `{ASYNC_HTTPX}`"
ROUTES: Final = (REPEATED, NEW)
ATTACHES: Final = {ATTACH: HTTPX, ASYNC_ATTACH: ASYNC_HTTPX}


@dataclass(frozen=True)
class Told:
    """One kind of work of ours in one state of telemetry."""

    work: str
    state: str


TOLD: Final = tuple(
    Told(work, state)
    for work in (*ROUTES, *ATTACHES)
    for state in STATES
    if state != AUDIT or work in ROUTES  # it is the receiver's
)

GOALS: Final = {
    Told(REPEATED, OFF): Goal("telemetry that nobody listens to, one request", 0.5, "µs"),
    Told(ATTACH, OFF): Goal(f"telemetry that nobody listens to, {ATTACH}", 0.4, "µs"),
    Told(ASYNC_ATTACH, OFF): Goal(f"telemetry that nobody listens to, {ASYNC_ATTACH}", 0.4, "µs"),
}

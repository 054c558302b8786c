"""Story 2 with everybody tracing: two checkouts, and what shop-api, Keycloak and notification-service tell of them."""

from dataclasses import dataclass, field
from typing import Any

from example_app.realm import Realm
from example_app.stage import Stage, free_port
from tests.kit.otlp import Collector, Span
from tests.real.server import Keycloak

__all__ = ["NOTIFICATIONS", "SHOP", "Told", "told"]

SHOP = "shop-api"
NOTIFICATIONS = "notification-service"


@dataclass(frozen=True)
class Told:
    """What two checkouts left behind, one after the other."""

    realm: Realm
    version: str
    instrumented: bool
    first: tuple[Span, ...]
    """The trace of the first checkout, which needs a token and keys."""
    second: tuple[Span, ...]
    """The trace of the second, which has both."""
    decision: str
    """What notification-service wrote about the first."""
    events: tuple[dict[str, Any], ...]
    """What Keycloak's event log holds of shop-api's logins."""
    exported: bytes = field(repr=False)
    """Everything that was exported meanwhile: spans, metrics and log records of all three."""


def told(keycloak: Keycloak, otlp: Collector, *, instrumented: bool) -> Told:
    """Let shop-api sell twice in a realm of its own whose events are stored; ``instrumented`` as in `traced_shop`."""
    telemetry = {
        "FASTAPI_OTEL_AUTO_CONFIGURE": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds; a test does not want to wait for five seconds
        "INSTRUMENTED": str(instrumented).lower(),
    }
    before = len(otlp.received)
    with keycloak.copy_of("techstore") as realm:
        keycloak.admin.request(
            "PUT", f"/{realm.name}", {"realm": realm.name, "eventsEnabled": True, "enabledEventTypes": ["CLIENT_LOGIN"]}
        )
        with Stage() as stage:
            port = free_port()
            for name, app, more in (
                (NOTIFICATIONS, "traced_notifications", {}),
                (SHOP, "traced_shop", {"NOTIFICATIONS_URL": f"http://127.0.0.1:{port}"}),
            ):
                environment = {**realm.environment(name), **telemetry, "OTEL_SERVICE_NAME": name, **more}
                stage.add(name, environment, app=f"tests.real.{app}:app", port=port if name == NOTIFICATIONS else None)
            stage.wait()
            first, decision = _checkout(stage, otlp, keycloak.url)
            second, _ = _checkout(stage, otlp, keycloak.url)
        # The services have ended, and have sent the rest: whatever they still had of these traces, and metrics.
        return Told(
            realm,
            keycloak.version,
            instrumented,
            otlp.trace(first),
            otlp.trace(second),
            decision,
            tuple(keycloak.admin.get(f"/{realm.name}/events?type=CLIENT_LOGIN&client={SHOP}")),
            otlp.received[before:],
        )


def _checkout(stage: Stage, otlp: Collector, keycloak: str) -> tuple[str, str]:
    """Sell once; return the id of the trace, when it is complete, and what notification-service wrote."""
    before = {span.trace_id for span in otlp.spans}
    answer = stage.ask(SHOP, "POST", "/checkout", log_of=NOTIFICATIONS)
    if answer.status != 200:
        raise RuntimeError(f"the checkout was answered {answer.status}: {answer.body}\n{answer.log}")

    def trace_id() -> str:
        sold = (span for span in otlp.spans if (span.kind, span.name) == ("SERVER", "POST /checkout"))
        return next((span.trace_id for span in sold if span.trace_id not in before), "")

    def complete() -> bool:
        # A service sends its spans in the order in which they ended, so the server's at last. Keycloak answers each question
        # that is part of a trace with a span.
        spans = otlp.trace(trace_id())
        served = [span for span in spans if span.kind == "SERVER"]
        asked = {span.span_id for span in spans if str(span.attributes.get("url.full", "")).startswith(keycloak)}
        return {SHOP, NOTIFICATIONS} <= {span.service for span in served} and asked <= {
            span.parent_id for span in served
        }

    otlp.wait_for(complete)
    return trace_id(), answer.log

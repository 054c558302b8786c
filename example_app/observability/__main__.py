"""``make trace``: start docker-compose.yml with Keycloak, the services and Grafana tracing, and show where one checkout's trace is."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from urllib.parse import urlencode

import httpx

CHAT_URL = os.environ.get("CHAT_URL", "http://localhost:8002")
SHOP_URL = os.environ.get("SHOP_URL", "http://localhost:8003")
GRAFANA_URL = os.environ.get("GRAFANA_URL", "http://localhost:3000")

_SWITCHES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://grafana:4318",
    "KC_TRACING_ENABLED": "true",
    "KC_TRACING_ENDPOINT": "http://grafana:4318",
    "KC_TRACING_PROTOCOL": "http/protobuf",
    "KC_TRACING_JDBC_ENABLED": "false",  # a thousand spans of its start, and some in each request
    "STORY_2": __package__ or "",  # without a warm-up
}
_UP = ("compose", "--profile", "observability", "up", "--build", "--wait")
# Anew each time: only a service that has no token and no keys yet asks Keycloak for them.
_ANEW = ("compose", "up", "--wait", "--no-deps", "--force-recreate", "shop-api", "notification-service")


def main() -> int:
    """Start everything, play story 2 and story 1 once each, and return 0 if both went well."""
    if missing := _missing():
        print(f"make trace needs docker compose: {missing}", file=sys.stderr)
        return 1
    for command in (_UP, _ANEW):
        if _docker(*command):
            return 1
    failed = max(_show(f"{SHOP_URL}/checkout"), _show(f"{CHAT_URL}/escalate"))
    print(f"Dashboard: {GRAFANA_URL}/d/s2s-fastapi\n`make down` ends everything.")
    return failed


def _missing() -> str:
    if shutil.which("docker") is None:
        return "there is no docker here"
    if _docker("compose", "version", quiet=True):
        return "this docker has no compose"
    return "the docker engine does not answer" if _docker("info", quiet=True) else ""


def _docker(*command: str, quiet: bool = False) -> int:
    to = subprocess.DEVNULL if quiet else None
    done = subprocess.run(["docker", *command], env={**os.environ, **_SWITCHES}, stdout=to, stderr=to, check=False)  # noqa: S603, S607 - the developer's own docker
    return done.returncode


def _show(url: str) -> int:
    """Send one request in a trace of its own and print where to look at it."""
    trace_id = secrets.token_hex(16)
    # As a caller that is traced itself would send it (W3C Trace Context).
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    response = httpx.post(url, headers=headers, timeout=30, trust_env=False)
    print(f"POST {url}: {response.status_code} {response.text}\n  {_page(trace_id)}")
    print("  Keycloak's spans are there some seconds after the others.")
    return int(not response.is_success)


def _page(trace_id: str) -> str:
    """Return the address of the trace in Grafana's Explore."""
    query = {"refId": "A", "datasource": {"type": "tempo", "uid": "tempo"}, "queryType": "traceql", "query": trace_id}
    pane = {"datasource": "tempo", "queries": [query], "range": {"from": "now-1h", "to": "now"}}
    panes = json.dumps({"trace": pane}, separators=(",", ":"))
    return f"{GRAFANA_URL}/explore?{urlencode({'schemaVersion': 1, 'orgId': 1, 'panes': panes})}"


if __name__ == "__main__":
    sys.exit(main())

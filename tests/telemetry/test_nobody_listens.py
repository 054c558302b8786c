"""Where nobody has set a provider: nothing is made, nothing of the SDK comes in, nothing is written into a request."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys

import httpx
from opentelemetry import trace

from example_app.realm import REALMS
from s2s_fastapi import KeycloakSettings, ServiceTokenAuth, TokenVerifier
from s2s_fastapi.testing import EmbeddedIssuer

issuer = EmbeddedIssuer.read(REALMS["corp"])
asked = []
with issuer.serving():
    def settings(client_id, secret=None):
        return KeycloakSettings(url=issuer.url, realm="corp", client_id=client_id, client_secret=secret)

    auth = ServiceTokenAuth("http://crm", audience="crm-api-gateway", settings=settings("chat-app-service", issuer.values["CHAT_APP_SERVICE_SECRET"]))
    verifier = TokenVerifier(settings("crm-api-gateway"))

    def crm(request):
        asked.append(dict(request.headers))
        token = request.headers["Authorization"].partition(" ")[2]
        return httpx.Response(200, text=verifier.verify(token).client_id)

    with httpx.Client(auth=auth, transport=httpx.MockTransport(crm)) as client:
        assert [client.get("http://crm/").text for _ in range(2)] == ["chat-app-service"] * 2

headers = [*asked, *(dict(seen.request.headers) for seen in issuer.requests())]
assert len(headers) >= 5, headers
assert not any(name.lower() in ("traceparent", "tracestate", "baggage") for seen in headers for name in seen)
assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
assert not [name for name in sys.modules if name.startswith("opentelemetry.sdk")]
"""


def test_a_call_that_nobody_traces_makes_nothing_and_carries_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ran.returncode == 0, ran.stderr

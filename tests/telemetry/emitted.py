"""The series that the package emits, as Prometheus scrapes them: ``python -m tests.telemetry.emitted``.

It plays requests of every outcome in an interpreter of its own, because a meter provider is set once for each process.
"""

import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from fastapi import Depends, FastAPI
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import generate_latest
from starlette.testclient import TestClient

from example_app.realm import REALMS
from s2s_fastapi import KeycloakSettings, ServiceAuthMiddleware, require_caller
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.exchange.exchanged_tokens import ExchangedTokens
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.engine.steps import run
from s2s_fastapi.errors import S2SError
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import answering
from tests.caller.exchange.fakes import NOW, ExchangingKeycloak, user
from tests.caller.fakes import Clock, receiver
from tests.caller.fakes import settings as caller_settings
from tests.kit.realm import Realm, settings
from tests.kit.reported import reported


def receiving(realm: Realm, *tokens: str, **options: Any) -> None:
    """Send requests with these tokens, and one without any, to a route for the chat app alone."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=settings(), transport=realm.transport, warm_up=False, **options)
    app.get("/x", dependencies=[Depends(require_caller("chat-app-service"))])(lambda: "x")
    client = TestClient(app, raise_server_exceptions=False)
    kept.append(client)  # the age of the keys is told as long as somebody holds them
    client.get("/x")
    for token in tokens:
        client.get("/x", headers={"Authorization": f"Bearer {token}"})


def down(_: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("nobody is there")


def calling() -> None:
    """Get a token, have it refused when it can be renewed, and fail to get another one."""
    issuer, clock = EmbeddedIssuer.read(REALMS["techstore"]), Clock()
    source = TokenSource(channel=lambda _: BackChannel(transport=issuer.transport, timeout=5.0), clock=clock)
    given = issuer.environment("techstore", "shop-api")
    shop_api = KeycloakSettings(**{name.removeprefix("KEYCLOAK_").lower(): value for name, value in given.items()})
    with receiver() as there, using(source), httpx.Client(trust_env=False) as client:
        notifications = ServiceTokenAuth(there.url, audience="notification-service", settings=shop_api)
        client.get(there.url, auth=notifications)
        clock.now += 10
        there.refuse()
        client.get(there.url, auth=notifications)
        issuer.faults.add("token", answering(503), times=None)
        with suppress(S2SError):
            client.get(there.url, auth=ServiceTokenAuth(there.url, audience="billing", settings=shop_api))


def exchanging() -> None:
    """Exchange the token of one user, and of one who has logged out."""
    keycloak = ExchangingKeycloak()
    tokens = ExchangedTokens(channel=keycloak, wall=lambda: float(NOW))
    run(tokens.token(caller_settings(), Wanted.of("bob", "bob-aud"), user()))
    keycloak.logged_out = {"session-of-eve"}
    with suppress(S2SError):
        run(tokens.token(caller_settings(), Wanted.of("bob", "bob-aud"), user("eve")))


kept: list[Any] = []


def main() -> None:
    """Play everything, and print every series."""
    resource = Resource.create({"service.name": "crm-gateway"})
    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()], resource=resource))
    realm = Realm()
    token = realm.token()
    receiving(realm, token, token, realm.token(azp="billing", client_id="billing"), realm.token(aud="billing"), "x")
    in_a_week = datetime.now(UTC).date() + timedelta(days=7)
    receiving(realm, realm.token(aud="billing"), insecure_observe_until=in_a_week.isoformat())
    unreachable = Realm()
    unreachable.answer = down
    receiving(unreachable, unreachable.token())
    calling()
    exchanging()
    reported()
    sys.stdout.write(generate_latest().decode())


if __name__ == "__main__":
    main()

"""What somebody plugs into OpenTelemetry may fail: no request, no decision and no load depends on it."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware
from s2s_fastapi.caller.token_source import TokenSource
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.settings import KeycloakSettings
from s2s_fastapi.telemetry import spans
from tests.kit.realm import Realm, settings, token_verifier
from tests.kit.reported import reported
from tests.kit.tracing import AnotherFormat, Traces, broken_at, propagating, request

# A provider has to be there before a test begins, or the first span of the process would be the one that makes it.
pytestmark = pytest.mark.usefixtures("traces")


@pytest.fixture(autouse=True)
def unheard() -> None:
    """What was said once is said once more."""
    spans._INCOMPLETE.clear()


@pytest.fixture(params=["start", "end"])
def moment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def app(realm: Realm) -> Starlette:
    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.user.client_id)

    app = Starlette(routes=[Route("/x", endpoint)])
    app.add_middleware(ServiceAuthMiddleware, settings(), transport=realm.transport, warm_up=False)
    return app


def test_a_token_is_accepted_while_a_processor_fails(realm: Realm, moment: str) -> None:
    with broken_at(moment):
        response = TestClient(app(realm)).get("/x", headers={"Authorization": f"Bearer {realm.token()}"})

    assert (response.status_code, response.text) == (200, "chat-app-service")


@pytest.mark.parametrize("change", [{"aud": "billing"}, {"exp": 1}])
def test_a_token_is_refused_and_written_down_while_a_processor_fails(
    realm: Realm, moment: str, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with broken_at(moment):
        response = TestClient(app(realm)).get("/x", headers={"Authorization": f"Bearer {realm.token(**change)}"})

    assert response.status_code == 401
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]
    assert [record.levelname for record in caplog.records if record.name == "s2s_fastapi.decisions"] == ["WARNING"]


@pytest.mark.parametrize("how", ["sync", "asyncio", "trio"])
def test_a_token_is_got_and_kept_while_a_processor_fails(
    source: TokenSource, shop_api: KeycloakSettings, moment: str, how: str
) -> None:
    shared = source.token(shop_api, Wanted.of("notification-service", None))
    with broken_at(moment):
        if how == "sync":
            token = shared.get()
        else:
            token = asyncio.run(shared.aget()) if how == "asyncio" else trio.run(shared.aget)

    assert shared.peek() is token


def test_it_is_said_once_and_not_in_the_plugins_own_words(
    realm: Realm, moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    with broken_at(moment):
        for _ in range(3):
            token_verifier(realm).decide(realm.token())

    reported()
    (told,) = (record for record in caplog.records if record.name == "s2s_fastapi.telemetry")
    assert told.levelno == logging.WARNING
    assert told.getMessage().endswith("failed with _BrokenPluginError.")


class _Broken(AnotherFormat):
    """A propagator that fails when it is to write."""

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        raise RuntimeError("of somebody's own words")


@pytest.fixture
def broken_propagator() -> Iterator[None]:
    with propagating(_Broken()):
        yield


@pytest.mark.usefixtures("broken_propagator")
def test_keys_are_fetched_without_a_trace_where_a_propagator_fails(realm: Realm, traces: Traces) -> None:
    with request():
        assert token_verifier(realm).decide(realm.token()).accepted

    assert len(traces.named("GET")) == 2

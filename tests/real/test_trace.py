"""Story 2 is one trace over shop-api, Keycloak and notification-service, and one token id joins it with every log."""

import base64
import re

import pytest

from tests.kit.otlp import Collector, Span, kept, rendered
from tests.real.conftest import Servers
from tests.real.server import NEWEST, VERSIONS
from tests.real.traced_story import NOTIFICATIONS, SHOP, Told, told

OURS = "s2s_fastapi"

# Everybody's own account of the first checkout: FastAPI's server spans, ours, and Keycloak's.
FIRST = """\
shop-api: SERVER POST /checkout
  shop-api: INTERNAL wait for token
    shop-api: INTERNAL request token
      shop-api: CLIENT POST
        keycloak: SERVER POST /realms/{realm}/protocol/{protocol}/token
  notification-service: SERVER POST /notifications
    notification-service: INTERNAL verify token
      notification-service: INTERNAL fetch keys
        notification-service: CLIENT GET
          keycloak: SERVER GET /realms/{realm}/protocol/{protocol}/certs
        notification-service: CLIENT GET
          keycloak: SERVER GET /realms/{realm}"""

SECOND = """\
shop-api: SERVER POST /checkout
  notification-service: SERVER POST /notifications"""

# The same where the standard instrumentation of httpx shows the call itself, and that of FastAPI makes the server spans.
FIRST_INSTRUMENTED = """\
shop-api: SERVER POST /checkout
  shop-api: INTERNAL wait for token
    shop-api: INTERNAL request token
      shop-api: CLIENT POST
        keycloak: SERVER POST /realms/{realm}/protocol/{protocol}/token
  shop-api: CLIENT POST
    notification-service: SERVER POST /notifications
      notification-service: INTERNAL verify token
        notification-service: INTERNAL fetch keys
          notification-service: CLIENT GET
            keycloak: SERVER GET /realms/{realm}/protocol/{protocol}/certs
          notification-service: CLIENT GET
            keycloak: SERVER GET /realms/{realm}"""

SECOND_INSTRUMENTED = """\
shop-api: SERVER POST /checkout
  shop-api: CLIENT POST
    notification-service: SERVER POST /notifications"""


@pytest.fixture(
    scope="module",
    params=[*((version, False) for version in VERSIONS), (NEWEST, True)],
    ids=[*VERSIONS, "instrumented"],
)
def story(keycloaks: Servers, otlp: Collector, request: pytest.FixtureRequest) -> Told:
    """Give two checkouts: on each version, and on the newest with the standard instrumentations of FastAPI and httpx."""
    version, instrumented = request.param
    return told(keycloaks(version), otlp, instrumented=instrumented)


def outline(spans: tuple[Span, ...]) -> str:
    """Draw who asked whom, and our own spans: what else the frameworks do inside is theirs to tell."""
    return rendered(kept(spans, lambda span: span.kind in {"SERVER", "CLIENT"} or span.library == OURS), timed=False)


def the(spans: tuple[Span, ...], service: str, name: str) -> Span:
    """Return the one span of that name."""
    (found,) = (span for span in spans if (span.service, span.name) == (service, name))
    return found


def test_a_checkout_is_one_trace_over_shop_keycloak_and_notifications(story: Told) -> None:
    assert {span.service for span in story.first} == {SHOP, "keycloak", NOTIFICATIONS}
    assert outline(story.first) == (FIRST_INSTRUMENTED if story.instrumented else FIRST)


def test_a_checkout_that_has_token_and_keys_shows_the_call_alone(story: Told) -> None:
    assert outline(story.second) == (SECOND_INSTRUMENTED if story.instrumented else SECOND)


def test_one_token_id_joins_the_spans_the_decision_and_keycloaks_events(story: Told) -> None:
    token_id = the(story.first, SHOP, "request token").attributes["s2s_fastapi.token_id"]

    for name in ("verify token", "POST /notifications"):
        assert the(story.first, NOTIFICATIONS, name).attributes["s2s_fastapi.token_id"] == token_id
    assert the(story.second, NOTIFICATIONS, "POST /notifications").attributes["s2s_fastapi.token_id"] == token_id
    assert f"token_id={token_id!r}" in story.decision
    assert f"trace_id={story.first[0].trace_id!r}" in story.decision
    (login,) = story.events
    assert (login["clientId"], login["details"]["token_id"]) == (SHOP, token_id)


def test_the_newest_keycloak_tells_the_token_id_in_its_own_spans_and_the_oldest_tells_none(story: Told) -> None:
    token_id = the(story.first, SHOP, "request token").attributes["s2s_fastapi.token_id"]

    told_by_keycloak = {span.attributes["kc.token.id"] for span in story.first if "kc.token.id" in span.attributes}
    assert told_by_keycloak == ({token_id} if story.version == NEWEST else set())


def test_nothing_that_was_exported_holds_a_token_or_a_secret(story: Told) -> None:
    assert f"/realms/{story.realm.name}/".encode() in story.exported  # text stands in it as it is
    assert b"s2s_fastapi.token_id" in story.exported
    assert not re.findall(rb"eyJ[\w-]{8,}", story.exported)  # the beginning of every JWT
    for client_id in (SHOP, NOTIFICATIONS):
        secret = story.realm.secret(client_id)
        assert secret.encode() not in story.exported
        assert base64.b64encode(f"{client_id}:{secret}".encode()) not in story.exported

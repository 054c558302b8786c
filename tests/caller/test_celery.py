"""The documented Celery examples, tried: a worker on an in-memory broker, tokens of the embedded issuer."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging

from example_app import notifications_celery, shop_celery
from s2s_fastapi import (
    KeycloakSettings,
    ServiceTokenAuth,
    TokenVerifier,
    require_caller,
)
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer, faults
from tests.caller.fakes import Receiver, receiver

REALM = Path(__file__).resolve().parents[2] / "example_app/realms/techstore.json"
SECONDS = 60


@pytest.fixture(scope="module")
def served() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer.read(REALM)
    with issuer.serving():
        yield issuer


@pytest.fixture
def issuer(served: EmbeddedIssuer) -> EmbeddedIssuer:
    served.faults.clear()
    served.requests.clear()
    return served


@pytest.fixture
def as_shop(issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in issuer.environment("techstore", "shop-api").items():
        monkeypatch.setenv(name, value)
    with using(TokenSource()):
        yield


def leave_the_logging_alone(**_: object) -> None:
    """Answer for the logging, or a worker sets the root logger to ERROR, and no later test sees a warning."""


@contextmanager
def worker(app: Celery) -> Iterator[None]:
    app.conf.update(broker_url="memory://", result_backend="cache+memory://", task_default_queue=app.main)
    setup_logging.connect(leave_the_logging_alone)
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=SECONDS):
        yield


@pytest.fixture(scope="module")
def shop_worker() -> Iterator[Receiver]:
    """Run the shop's worker; its client asks for the URL once, so the receiver is one for the module."""
    with receiver() as there, pytest.MonkeyPatch.context() as environment:
        environment.setenv("NOTIFICATIONS_URL", there.url)
        with worker(shop_celery.app):
            yield there


@pytest.fixture
def shop(shop_worker: Receiver, as_shop: None) -> Receiver:
    shop_worker.seen.clear()
    return shop_worker


def test_tasks_call_out_with_the_token_of_one_request(shop: Receiver, issuer: EmbeddedIssuer) -> None:
    results = [shop_celery.notify.delay(str(order)) for order in range(5)]

    assert [result.get(timeout=SECONDS) for result in results] == [200] * 5
    assert len(issuer.requests("token")) == 1
    (token,) = set(shop.tokens)
    assert token is not None
    assert token.startswith("Bearer ")


def test_a_task_that_gets_no_token_is_tried_again_and_sends_nothing_meanwhile(
    shop: Receiver, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", faults.answering(503), times=1)

    assert shop_celery.notify.delay("7").get(timeout=SECONDS) == 200
    assert [exchange.status for exchange in issuer.requests("token")] == [503, 200]
    assert len(shop.seen) == 1


class Notifications:
    """The guarded task with settings of its own: this process is the shop."""

    def __init__(self, issuer: EmbeddedIssuer) -> None:
        settings = KeycloakSettings(url=issuer.url, realm="techstore", client_id="notification-service")
        base = notifications_celery.only_for(require_caller("shop-api"), TokenVerifier(settings))
        self.app = Celery("guarded", set_as_current=False)
        self.ran: list[str] = []

        @self.app.task(base=base, shared=False)
        def send(text: str) -> str:
            self.ran.append(text)
            return text

        self.send: Any = send

    def ask(self, token: str | None, text: str = "hello") -> str:
        """Return what the task returned or, as text, what it failed with: Celery makes another exception of it."""
        headers = {} if token is None else {notifications_celery.TOKEN: token}
        return str(self.send.apply_async((text,), headers=headers).get(timeout=SECONDS, propagate=False))


@pytest.fixture(scope="module")
def notifications_worker(served: EmbeddedIssuer) -> Iterator[Notifications]:
    there = Notifications(served)
    with worker(there.app):
        yield there


@pytest.fixture
def notifications(notifications_worker: Notifications) -> Notifications:
    notifications_worker.ran.clear()
    return notifications_worker


def test_a_task_is_run_for_the_caller_it_is_for(notifications: Notifications, as_shop: None) -> None:
    auth = ServiceTokenAuth(audience="notification-service")

    assert notifications.ask(auth.token(min_validity=notifications_celery.QUEUED)) == "hello"
    assert notifications.ran == ["hello"]


def test_a_task_without_a_good_token_is_not_run(notifications: Notifications, issuer: EmbeddedIssuer) -> None:
    token = issuer.service_token("techstore", "shop-api")
    foreign = issuer.service_token("techstore", "inventory-service")

    for refused, reason in (
        (None, "malformed_token"),
        (f"{token.rpartition('.')[0]}.{foreign.rpartition('.')[2]}", "invalid_signature"),
        (foreign, "caller_not_allowed"),
        (issuer.user_token("techstore", "customer", via="shop-api"), "not_a_service"),
    ):
        assert reason in notifications.ask(refused)
    assert notifications.ran == []


def test_the_documented_message_carries_the_token_and_ends_with_it(as_shop: None, issuer: EmbeddedIssuer) -> None:
    app = notifications_celery.app
    app.conf.update(broker_url="memory://", task_ignore_result=True, task_default_queue="messages")

    notifications_celery.ask_for("hello", ServiceTokenAuth(audience="notification-service"))

    with app.connection_for_read() as connection:
        message = connection.SimpleQueue("messages").get(timeout=SECONDS)
        message.ack()
    assert message.headers[notifications_celery.TOKEN].count(".") == 2
    assert message.headers["expires"]
    assert len(issuer.requests("token")) == 1

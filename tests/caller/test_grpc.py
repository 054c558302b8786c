"""The documented gRPC example, tried: a real server, both kinds of channel, tokens of the embedded issuer."""

import asyncio
import runpy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from example_app.notifications_grpc import ServiceTokens
from s2s_fastapi import AudienceNotGranted, KeycloakSettings, TokenVerifier, require_caller
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer

REALM = Path(__file__).resolve().parents[2] / "example_app/realms/techstore.json"
SHOP = REALM.parents[1] / "shop_grpc.py"
SEND = "/notifications.Notifications/Send"
WATCH = "/notifications.Notifications/Watch"
Metadata = Sequence[tuple[str, str]]


class Notifications(grpc.GenericRpcHandler):
    """Two methods on bytes: what protoc would generate is not the point."""

    def service(self, handler_call_details: Any) -> Any:
        if handler_call_details.method == SEND:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"sent " + request)
        if handler_call_details.method == WATCH:
            return grpc.unary_stream_rpc_method_handler(lambda request, context: iter([b"1", b"2"]))
        return None


@pytest.fixture(scope="module")
def issuer() -> Iterator[EmbeddedIssuer]:
    issuer = EmbeddedIssuer.read(REALM)
    with issuer.serving():
        yield issuer


@pytest.fixture(scope="module")
def target(issuer: EmbeddedIssuer) -> Iterator[str]:
    settings = KeycloakSettings(url=issuer.url, realm="techstore", client_id="notification-service")
    guard = ServiceTokens(TokenVerifier(settings), require_caller("shop-api"))
    server = grpc.server(ThreadPoolExecutor(4), interceptors=[guard])
    server.add_generic_rpc_handlers((Notifications(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@contextmanager
def running_as(client_id: str, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in issuer.environment("techstore", client_id).items():
        monkeypatch.setenv(name, value)
    with using(TokenSource()):
        yield


def call(target: str, method: str = SEND, metadata: Metadata = ()) -> Any:
    """Call without an interceptor, with what metadata it may be."""
    with grpc.insecure_channel(target) as opened:
        channel: Any = opened
        if method == WATCH:
            return list(channel.unary_stream(method)(b"hello", metadata=metadata, timeout=20))
        return channel.unary_unary(method)(b"hello", metadata=metadata, timeout=20)


def status_of(target: str, method: str = SEND, metadata: Metadata = ()) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as refused:
        call(target, method, metadata)
    error: Any = refused.value
    return error.code(), error.details()


def bearer(token: str) -> tuple[str, str]:
    return "authorization", f"Bearer {token}"


@pytest.fixture
def shop(target: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example of the caller, for this server."""
    monkeypatch.setenv("NOTIFICATIONS_TARGET", target)
    return SimpleNamespace(**runpy.run_path(str(SHOP)))


def test_every_call_carries_the_token_of_one_request(
    shop: Any, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def calls() -> list[bytes]:
        async with shop.async_channel() as channel:
            send: Any = channel.unary_unary(SEND)
            return list(await asyncio.gather(*(send(b"hello", timeout=20) for _ in range(10))))

    issuer.requests.clear()
    with running_as("shop-api", issuer, monkeypatch):
        with shop.channel() as channel:
            send: Any = channel.unary_unary(SEND)
            answers = [send(b"hello", timeout=20) for _ in range(10)]
        answers += asyncio.run(calls())

    assert answers == [b"sent hello"] * 20
    assert len(issuer.requests("token")) == 1


def test_a_token_that_is_not_granted_is_the_callers_own_error_and_nothing_is_sent(
    shop: Any, target: str, issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shop.notifications.asking(audience="shop-ui")

    with running_as("shop-api", issuer, monkeypatch), other.for_grpc().channel(target) as channel:
        send: Any = channel.unary_unary(SEND)
        with pytest.raises(AudienceNotGranted):
            send(b"hello", timeout=20)


@pytest.mark.parametrize("method", [SEND, WATCH])
def test_a_call_without_a_token_is_unauthenticated(target: str, method: str) -> None:
    assert status_of(target, method) == (grpc.StatusCode.UNAUTHENTICATED, "A token is required.")


@pytest.mark.parametrize("method", [SEND, WATCH])
def test_another_service_is_denied(target: str, method: str, issuer: EmbeddedIssuer) -> None:
    token = issuer.service_token("techstore", "inventory-service")

    assert status_of(target, method, [bearer(token)])[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_user_is_denied_even_through_the_caller(target: str, issuer: EmbeddedIssuer) -> None:
    token = issuer.user_token("techstore", "customer", via="shop-api")

    assert status_of(target, SEND, [bearer(token)])[0] is grpc.StatusCode.PERMISSION_DENIED


def test_a_changed_token_two_tokens_and_another_scheme_are_unauthenticated(target: str, issuer: EmbeddedIssuer) -> None:
    token = issuer.service_token("techstore", "shop-api")
    head, payload, _ = token.split(".")
    foreign = issuer.service_token("techstore", "inventory-service").rpartition(".")[2]

    assert call(target, SEND, [bearer(token)]) == b"sent hello"
    for metadata in (
        [bearer(f"{head}.{payload}.{foreign}")],
        [bearer(token), bearer(token)],
        [("authorization", f"Basic {token}")],
        [("authorization", token)],
    ):
        assert status_of(target, SEND, metadata)[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_is_let_in_with_the_callers_token(target: str, issuer: EmbeddedIssuer) -> None:
    assert call(target, WATCH, [bearer(issuer.service_token("techstore", "shop-api"))]) == [b"1", b"2"]


def test_without_keys_the_service_is_unavailable() -> None:
    settings = KeycloakSettings(url="http://127.0.0.1:1", realm="techstore", client_id="notification-service")
    issuer = EmbeddedIssuer.read(REALM, url="http://127.0.0.1:1")
    server = grpc.server(
        ThreadPoolExecutor(1), interceptors=[ServiceTokens(TokenVerifier(settings), require_caller("shop-api"))]
    )
    server.add_generic_rpc_handlers((Notifications(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        found = status_of(f"127.0.0.1:{port}", SEND, [bearer(issuer.service_token("techstore", "shop-api"))])
    finally:
        server.stop(0).wait()

    assert found[0] is grpc.StatusCode.UNAVAILABLE

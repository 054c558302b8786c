"""`for_grpc`: what channels for threads and for event loops send, send again and give back, seen by the receiver."""

import asyncio
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import grpc.experimental
import pytest

from s2s_fastapi import ConfigurationError, ServiceTokenAuth, TokenRequestError, TokenWithheld
from tests.caller.fakes import Clock, Keycloak, refusal
from tests.kit.other_clients import (
    COUNT,
    GATHER,
    GRPC,
    SAY,
    TALK,
    Ask,
    GrpcReceiver,
    by_call_credentials,
    by_grpc,
    by_grpc_aio,
    grpc_receiver,
    tls,
)
from tests.kit.tracing import until

pytestmark = pytest.mark.usefixtures("source")


@pytest.fixture(params=GRPC)
def ask(request: pytest.FixtureRequest) -> Ask:
    return GRPC[str(request.param)]


def challenge(error: str) -> tuple[tuple[str, str], ...]:
    return (("www-authenticate", f'Bearer error="{error}"'),)


def every_kind(auth: ServiceTokenAuth, there: GrpcReceiver) -> list[Any]:
    with auth.for_grpc().channel(there.target) as opened:
        channel: Any = opened
        return [
            channel.unary_unary(SAY)(b"x", timeout=20),
            list(channel.unary_stream(COUNT)(b"x", timeout=20)),
            channel.stream_unary(GATHER)(iter([b"x", b"y"]), timeout=20),
            list(channel.stream_stream(TALK)(iter([b"x", b"y"]), timeout=20)),
        ]


def every_kind_aio(auth: ServiceTokenAuth, there: GrpcReceiver) -> list[Any]:
    async def main() -> list[Any]:
        async with auth.for_grpc().aio_channel(there.target) as opened:
            channel: Any = opened
            return [
                await channel.unary_unary(SAY)(b"x", timeout=20),
                [each async for each in channel.unary_stream(COUNT)(b"x", timeout=20)],
                await channel.stream_unary(GATHER)(iter([b"x", b"y"]), timeout=20),
                [each async for each in channel.stream_stream(TALK)(iter([b"x", b"y"]), timeout=20)],
            ]

    return asyncio.run(main())


@pytest.mark.parametrize("talk", [every_kind, every_kind_aio])
def test_calls_of_every_kind_carry_the_token_of_one_token_request(
    talk: Any, grpc_bob: GrpcReceiver, keycloak: Keycloak
) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    assert talk(auth, grpc_bob) == [b"ok", [b"1", b"2"], b"ok", [b"1", b"2"]]
    assert grpc_bob.tokens == [f"Bearer {auth.token()}"] * 4
    assert len(keycloak.requests) == 1


@pytest.mark.parametrize("trailing", [(), challenge("invalid_token")], ids=["status", "challenge"])
def test_a_refused_unary_call_is_sent_again(trailing: Any, ask: Ask, grpc_bob: GrpcReceiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    old = f"Bearer {auth.token()}"
    clock.now += 10
    grpc_bob.refuse(trailing=trailing)
    assert ask(auth, grpc_bob.url, {"x-mine": "1"}) == 200
    assert grpc_bob.tokens == [old, f"Bearer {auth.token()}"]
    assert old != grpc_bob.tokens[1]
    assert [dict(sent)["x-mine"] for sent in grpc_bob.metadata] == ["1", "1"]


def test_a_refusal_for_another_reason_renews_nothing(
    ask: Ask, grpc_bob: GrpcReceiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    auth.token()
    clock.now += 10
    grpc_bob.refuse(trailing=challenge("insufficient_scope"))
    assert ask(auth, grpc_bob.url) == 401
    assert ask(auth, grpc_bob.url) == 200
    assert len(keycloak.requests) == 1


def test_if_there_is_no_other_token_the_refusal_comes_back(
    ask: Ask, grpc_bob: GrpcReceiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    auth.token()
    clock.now += 10
    keycloak.always = refusal(503, "down")
    grpc_bob.refuse()
    assert ask(auth, grpc_bob.url) == 401
    assert len(grpc_bob.metadata) == 1


def test_without_a_token_nothing_is_sent_and_the_error_is_ours(
    ask: Ask, grpc_bob: GrpcReceiver, keycloak: Keycloak
) -> None:
    keycloak.always = refusal(401, "unauthorized_client")
    with pytest.raises(TokenRequestError):
        ask(ServiceTokenAuth(grpc_bob.url), grpc_bob.url)
    assert grpc_bob.metadata == []


def refused_stream(auth: ServiceTokenAuth, there: GrpcReceiver) -> None:
    with auth.for_grpc().channel(there.target) as opened:
        channel: Any = opened
        with pytest.raises(grpc.RpcError):
            list(channel.unary_stream(COUNT)(b"x", timeout=20))


def refused_upload(auth: ServiceTokenAuth, there: GrpcReceiver) -> None:
    with auth.for_grpc().channel(there.target) as opened:
        channel: Any = opened
        with pytest.raises(grpc.RpcError):
            channel.stream_unary(GATHER)(iter([b"x"]), timeout=20)


def refused_stream_aio(auth: ServiceTokenAuth, there: GrpcReceiver) -> None:
    async def main() -> None:
        async with auth.for_grpc().aio_channel(there.target) as opened:
            channel: Any = opened
            with pytest.raises(grpc.RpcError):
                [each async for each in channel.unary_stream(COUNT)(b"x", timeout=20)]
            await asyncio.sleep(0)  # what is noted at the end of a call

    asyncio.run(main())


@pytest.mark.parametrize("talk", [refused_stream, refused_upload, refused_stream_aio])
def test_a_refused_stream_is_sent_once_and_the_next_call_has_another_token(
    talk: Any, grpc_bob: GrpcReceiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    old = auth.token()
    clock.now += 10
    grpc_bob.refuse()
    talk(auth, grpc_bob)
    assert grpc_bob.tokens == [f"Bearer {old}"]
    until(lambda: auth.token() != old)


def test_futures_wait_for_nothing_and_the_call_after_a_refusal_has_another_token(
    grpc_bob: GrpcReceiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(grpc_bob.url)
    old = auth.token()
    clock.now += 10
    grpc_bob.refuse()
    grpc_bob.answering.clear()
    with auth.for_grpc().channel(grpc_bob.target) as opened:
        say: Any = opened.unary_unary(SAY)
        first = say.future(b"x", timeout=20)
        assert not first.done()
        grpc_bob.answering.set()
        assert first.code() is grpc.StatusCode.UNAUTHENTICATED
        until(lambda: auth.token() != old)
        assert say.future(b"x", timeout=20).result() == b"ok"


def test_interceptors_around_ours_add_what_they_like_but_no_authorization(grpc_bob: GrpcReceiver) -> None:
    class Adding(grpc.UnaryUnaryClientInterceptor):
        def __init__(self, *metadata: tuple[str, str]) -> None:
            self.metadata = metadata

        def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return continuation(client_call_details._replace(metadata=self.metadata), request)

    class AddingAio(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            metadata = grpc.aio.Metadata(("authorization", "Bearer theirs"))
            return await continuation(client_call_details._replace(metadata=metadata), request)

    async def main() -> None:
        async with channels.aio_channel(grpc_bob.target, interceptors=[AddingAio()]) as channel:
            say: Any = channel.unary_unary(SAY)
            await say(b"x", timeout=20)

    channels = ServiceTokenAuth(grpc_bob.url).for_grpc()
    with channels.channel(grpc_bob.target) as channel:
        say: Any = grpc.intercept_channel(channel, Adding(("x-mine", "1"))).unary_unary(SAY)
        assert say(b"x", timeout=20) == b"ok"
        say = grpc.intercept_channel(channel, Adding(("Authorization", "Bearer theirs"))).unary_unary(SAY)
        with pytest.raises(TokenWithheld):
            say(b"x", timeout=20)
    with pytest.raises(TokenWithheld):
        asyncio.run(main())
    assert len(grpc_bob.metadata) == 1


@pytest.mark.parametrize("target", ["{}", "dns:{}", "dns:///{}"])
def test_a_target_is_written_in_each_way_that_names_a_host_and_a_port(target: str, grpc_bob: GrpcReceiver) -> None:
    with ServiceTokenAuth(grpc_bob.url).for_grpc().channel(target.format(grpc_bob.target)) as channel:
        say: Any = channel.unary_unary(SAY)
        assert say(b"x", timeout=20) == b"ok"


INSECURE: Any = grpc.experimental.insecure_channel_credentials
ENCRYPTED = grpc.ssl_channel_credentials()
CALL = grpc.access_token_call_credentials("x")
CREDENTIALS: dict[str, tuple[grpc.ChannelCredentials, str]] = {
    "TLS": (ENCRYPTED, "https"),
    "ALTS": (grpc.alts_channel_credentials(), "https"),
    "local": (grpc.local_channel_credentials(), "http"),
    "in clear": (INSECURE(), "http"),
    "with call credentials": (grpc.composite_channel_credentials(ENCRYPTED, CALL), "call credentials"),
    "Compute Engine": (grpc.compute_engine_channel_credentials(CALL), "call credentials"),
    "unknown": (grpc.ChannelCredentials(object()), "cannot be known"),
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_each_kind_of_credentials_is_known_or_refused(kind: str) -> None:
    credentials, expected = CREDENTIALS[kind]
    for scheme in ("http", "https"):
        channels = ServiceTokenAuth(f"{scheme}://bob:8000").for_grpc()
        if expected == scheme:
            channels.channel("bob:8000", credentials).close()
        else:
            error = TokenWithheld if expected.startswith("http") else ConfigurationError
            with pytest.raises(error, match="not sent to" if error is TokenWithheld else expected):
                channels.channel("bob:8000", credentials)


def test_credentials_of_a_grpc_that_names_them_otherwise_are_not_taken_for_none() -> None:
    class Renamed(grpc.ChannelCredentials):
        def __init__(self) -> None:
            self.core = CREDENTIALS["with call credentials"][0]

    with pytest.raises(ConfigurationError, match="cannot be known"):
        ServiceTokenAuth("http://bob:8000").for_grpc().channel("bob:8000", Renamed())


@pytest.fixture
def local_bob() -> Iterator[GrpcReceiver]:
    """A receiver in clear that knows that its callers are on the same machine."""
    server = grpc.local_server_credentials()
    with grpc_receiver("http", server) as there:
        yield there


def test_local_credentials_count_as_in_clear(local_bob: GrpcReceiver) -> None:
    auth = ServiceTokenAuth(local_bob.url)
    local = grpc.local_channel_credentials()
    with auth.for_grpc().channel(local_bob.target, local) as channel:
        say: Any = channel.unary_unary(SAY)
        assert say(b"x", timeout=20) == b"ok"
    assert by_call_credentials(auth, local_bob.url) == 200

    only_tls = auth.asking(origins=[local_bob.url.replace("http", "https")])
    with pytest.raises(TokenWithheld):
        only_tls.for_grpc().channel(local_bob.target, local)
    assert by_call_credentials(only_tls, local_bob.url) == 503
    assert local_bob.tokens == [f"Bearer {auth.token()}"] * 2


@pytest.fixture
def tls_bob() -> Iterator[GrpcReceiver]:
    with grpc_receiver("https") as there:
        yield there


@pytest.mark.parametrize("ask", [by_grpc, by_grpc_aio, by_call_credentials])
def test_a_channel_with_credentials_carries_the_token_to_an_https_origin(ask: Ask, tls_bob: GrpcReceiver) -> None:
    auth = ServiceTokenAuth(tls_bob.url)
    assert ask(auth, tls_bob.url) == 200
    assert tls_bob.tokens == [f"Bearer {auth.token()}"]


def test_call_credentials_without_a_token_end_the_call_as_unavailable(
    tls_bob: GrpcReceiver, keycloak: Keycloak
) -> None:
    keycloak.always = refusal(401, "unauthorized_client")
    assert by_call_credentials(ServiceTokenAuth(tls_bob.url), tls_bob.url) == 503
    assert tls_bob.metadata == []


def test_two_tokens_are_never_sent(tls_bob: GrpcReceiver) -> None:
    channels = ServiceTokenAuth(tls_bob.url).for_grpc()
    both = grpc.composite_channel_credentials(tls(), channels.call_credentials())
    with pytest.raises(ConfigurationError, match="call credentials"):
        channels.channel(tls_bob.target, both)
    with pytest.raises(ConfigurationError, match="call credentials"):
        channels.aio_channel(tls_bob.target, both)
    with channels.channel(tls_bob.target, tls()) as opened:
        say: Any = opened.unary_unary(SAY)
        with pytest.raises(TokenWithheld, match="call credentials"):
            say(b"x", credentials=channels.call_credentials(), timeout=20)
    assert tls_bob.metadata == []

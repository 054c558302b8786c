"""Lines 28, 30 to 35, 50 and 54 of the list for clients other than httpx: requests, aiohttp and gRPC."""

import asyncio
import ssl
import traceback
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc.experimental
import pytest
import requests

from s2s_fastapi import ConfigurationError, ServiceTokenAuth, TokenWithheld
from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.testing import EmbeddedIssuer
from tests.attacks.caller.stack import asked
from tests.attacks.caller.test_where_it_goes import looks_alike
from tests.caller.fakes import Receiver, receiver
from tests.kit.authority import make_authority, server_context
from tests.kit.other_clients import (
    COUNT,
    GATHER,
    GRPC,
    HTTP,
    SAY,
    TALK,
    Ask,
    GrpcReceiver,
    by_aiohttp,
    by_call_credentials,
    by_requests,
    grpc_receiver,
    tls,
)

pytestmark = pytest.mark.usefixtures("source")

STATUSES = [301, 302, 303, 307, 308]


@pytest.fixture(params=HTTP)
def ask(request: pytest.FixtureRequest) -> Ask:
    return HTTP[str(request.param)]


@pytest.fixture
def grpc_bob() -> Iterator[GrpcReceiver]:
    with grpc_receiver() as there:
        yield there


@pytest.fixture
def tls_bob() -> Iterator[GrpcReceiver]:
    with grpc_receiver("https") as there:
        yield there


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure_bob(authority: Path) -> Iterator[Receiver]:
    with receiver(server_context(authority)) as there:
        yield there


@pytest.fixture
def inbound(issuer: EmbeddedIssuer) -> Iterator[str]:
    token = issuer.service_token("corp", "another")
    before = INBOUND.set(digest(token))
    yield token
    INBOUND.reset(before)


def trusting(authority: Path) -> dict[Ask, dict[str, Any]]:
    """Return the options with which each client trusts the secure receiver."""
    context = ssl.create_default_context(cafile=authority)
    return {by_requests: {"verify": str(authority)}, by_aiohttp: {"ssl": context}}


@pytest.mark.parametrize("spelling", [each for each in looks_alike(Receiver(40000)) if each != "full width"])
def test_a_request_to_what_looks_alike_is_not_sent(
    spelling: str, ask: Ask, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    url = looks_alike(bob)[spelling]
    refused = (
        TokenWithheld,
        requests.exceptions.InvalidSchema,
        requests.exceptions.MissingSchema,
        aiohttp.InvalidURL,
        aiohttp.NonHttpUrlClientError,
    )
    with pytest.raises(refused):
        ask(ServiceTokenAuth(bob.url, audience="receiver"), url)
    assert (bob.seen, asked(issuer)) == ([], ())


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}\\@evil.example/", "http://evil.example\\@127.0.0.1:{port}/", "http://evil.example#@127.0.0.1:{port}/", "http://evil.example?@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@evil.example/", "http://\uff11\uff12\uff17.0.0.1:{port}/"],
)  # fmt: skip
def test_where_parsers_of_urls_differ_the_token_goes_to_the_origin_or_nowhere(
    url: str, ask: Ask, bob: Receiver
) -> None:
    try:
        ask(ServiceTokenAuth(bob.url, audience="receiver"), url.format(port=bob.url.rpartition(":")[2]))
    except (TokenWithheld, requests.exceptions.InvalidURL, aiohttp.InvalidURL):
        assert bob.seen == []
    else:
        assert len(bob.seen) == 1


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("place", ["another port", "another host", "https", "a user name"])
def test_a_redirect_elsewhere_is_not_followed(
    place: str, status: int, ask: Ask, bob: Receiver, charles: Receiver
) -> None:
    there = charles.url if place == "another port" else looks_alike(bob)[place]
    bob.answers = [(status, {"Location": there}, b"")]
    with pytest.raises(TokenWithheld):
        ask(ServiceTokenAuth(bob.url, audience="receiver"), bob.url)
    assert (len(bob.seen), charles.seen) == (1, [])


def test_a_redirect_from_https_to_http_is_not_followed(
    ask: Ask, secure_bob: Receiver, bob: Receiver, authority: Path
) -> None:
    auth = ServiceTokenAuth(secure_bob.url, audience="receiver")
    trust = trusting(authority)[ask]
    assert ask(auth, secure_bob.url, **trust) == 200
    for there in (bob.url, secure_bob.url.replace("https", "http")):
        secure_bob.answers = [(307, {"Location": there}, b"")]
        with pytest.raises(TokenWithheld):
            ask(auth, secure_bob.url, **trust)
    assert secure_bob.tokens == [f"Bearer {auth.token()}"] * 3
    assert bob.seen == []


def test_a_redirect_from_one_origin_to_another_origin_of_the_object_takes_the_token_along(
    ask: Ask, secure_bob: Receiver, bob: Receiver, authority: Path
) -> None:
    auth = ServiceTokenAuth(secure_bob.url, bob.url, audience="receiver")
    bob.answers = [(307, {"Location": f"{secure_bob.url}/there"}, b"")]
    assert ask(auth, bob.url, **trusting(authority)[ask]) == 200
    assert bob.tokens == secure_bob.tokens == [f"Bearer {auth.token()}"]


def requests_with(**options: Any) -> Callable[[ServiceTokenAuth, str], object]:
    def send(auth: ServiceTokenAuth, url: str) -> object:
        with auth.for_requests() as session:
            session.auth = options.pop("session_auth", None)
            session.headers.update(options.pop("session_headers", {}))
            return session.get(url, **options)

    return send


def basic() -> Any:
    """Return what aiohttp has for passwords; it is made late, because it warns."""
    return aiohttp.BasicAuth("of-a-user", "x")


def made(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value() if callable(value) else value for name, value in options.items()}


def aiohttp_with(session_options: dict[str, Any], **options: Any) -> Callable[[ServiceTokenAuth, str], object]:
    def send(auth: ServiceTokenAuth, url: str) -> object:
        async def main() -> None:
            session = aiohttp.ClientSession(middlewares=[auth.for_aiohttp()], **made(session_options))
            async with session, session.get(url, **made(options)):
                pass

        return asyncio.run(main())

    return send


OWN = {"Authorization": "Bearer of-a-user"}


@pytest.mark.filterwarnings("ignore:BasicAuth:DeprecationWarning", "ignore:The 'auth' parameter:DeprecationWarning")
@pytest.mark.parametrize(
    "send",
    [
        requests_with(headers=OWN),
        requests_with(headers={"authorization": b"Bearer of-a-user"}),
        requests_with(auth=("of-a-user", "x")),
        requests_with(session_auth=("of-a-user", "x")),
        requests_with(session_headers=OWN),
        aiohttp_with({}, headers=OWN),
        aiohttp_with({}, auth=basic),
        aiohttp_with({"auth": basic}),
        aiohttp_with({"headers": OWN}),
    ],
)
def test_an_authorization_of_ones_own_is_neither_sent_nor_replaced(
    send: Callable[..., object], bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    with pytest.raises(TokenWithheld, match="already has an Authorization header") as caught:
        send(ServiceTokenAuth(bob.url, audience="receiver"), bob.url)
    assert "of-a-user" not in str(caught.value)
    assert (bob.seen, asked(issuer)) == ([], ())


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "a={}; b"])
def test_the_token_of_the_current_request_goes_out_in_no_header_and_in_no_url(
    form: str, ask: Ask, inbound: str, bob: Receiver, grpc_bob: GrpcReceiver
) -> None:
    value = form.format(inbound)
    auth = ServiceTokenAuth(bob.url, grpc_bob.url, audience="receiver")
    for url, headers in ((bob.url, {"X-Forwarded": value}), (f"{bob.url}/?t={value}", {}), (f"{bob.url}/{value}", {})):
        with pytest.raises(TokenWithheld) as caught:
            ask(auth, url, headers)
        assert inbound not in str(caught.value)
    for call in GRPC.values():
        with pytest.raises(TokenWithheld):
            call(auth, grpc_bob.url, {"x-forwarded": value})
    assert (bob.seen, grpc_bob.metadata) == ([], [])


def test_no_proxy_and_no_netrc_of_the_environment_has_a_part_in_it(
    ask: Ask, bob: Receiver, charles: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login eve password x\ndefault login eve password x\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, charles.url)
    monkeypatch.setenv("no_proxy", "keycloak.example")
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    bob.answers = [(307, {"Location": "/there"}, b"")]
    assert ask(auth, bob.url) == 200
    assert (bob.tokens, charles.seen) == ([f"Bearer {auth.token()}"] * 2, [])


@pytest.mark.parametrize("call", GRPC)
def test_no_proxy_of_the_environment_has_a_part_in_a_grpc_channel(
    call: str, grpc_bob: GrpcReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("grpc_proxy", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_grpc_proxy", "keycloak.example")
    monkeypatch.setenv("no_proxy", "keycloak.example")
    assert GRPC[call](ServiceTokenAuth(grpc_bob.url, audience="receiver"), grpc_bob.url) == 200


def test_no_cookie_of_one_request_reaches_the_next(bob: Receiver) -> None:
    bob.always = (200, {"Set-Cookie": "session=of-ann; Path=/"}, b"ok")
    with ServiceTokenAuth(bob.url, audience="receiver").for_requests() as session:
        session.get(bob.url)
        session.get(bob.url)
        assert isinstance(session.cookies, CookieJar)
        assert list(session.cookies) == []
    assert [headers["Cookie"] for headers in bob.headers] == [None, None]


GRPC_TARGETS = {
    "another port": "127.0.0.1:1",
    "another host": "localhost:{port}",
    "a longer host": "127.0.0.1.evil.example:{port}",
    "a user name": "bob@127.0.0.1:{port}",
    "no port": "127.0.0.1",
    "a resolver of one's own": "dns://evil.example/127.0.0.1:{port}",
    "several addresses": "ipv4:127.0.0.1:{port},127.0.0.1:1",
    "a socket file": "unix:/tmp/bob:{port}",
    "xDS": "xds:///127.0.0.1:{port}",
    "a path": "127.0.0.1:{port}/x:{port}",
    "a port that is none": "127.0.0.1:99999",
    "nothing": "",
}


@pytest.mark.parametrize("spelling", GRPC_TARGETS)
def test_a_channel_to_what_looks_alike_is_not_made(spelling: str, grpc_bob: GrpcReceiver) -> None:
    target = GRPC_TARGETS[spelling].format(port=grpc_bob.target.rpartition(":")[2])
    channels = ServiceTokenAuth(grpc_bob.url, audience="receiver").for_grpc()
    with pytest.raises(TokenWithheld):
        channels.channel(target)
    with pytest.raises(TokenWithheld):
        channels.aio_channel(target)


@pytest.mark.parametrize(
    "target",
    ["unix:[::1]:443", "xds:[::1]:443", "evil[::1]:443", "ipv6:[::1]:443", "dns:///evil[::1]:443", "[::1]x:443"],
)
def test_a_channel_to_what_looks_like_an_ipv6_address_is_not_made(target: str) -> None:
    with pytest.raises(TokenWithheld):
        ServiceTokenAuth("http://[::1]:443", audience="receiver").for_grpc().channel(target)


@pytest.mark.parametrize("name", ["unix", "xds", "ipv4", "vsock"])
def test_a_host_with_the_name_of_a_resolver_is_reached_by_dns_only(name: str) -> None:
    channels = ServiceTokenAuth(f"http://{name}:443", audience="receiver").for_grpc()
    with pytest.raises(TokenWithheld, match="must be host:port or dns:///host:port"):
        channels.channel(f"{name}:443")
    channels.channel(f"dns:///{name}:443").close()


def test_a_channel_in_clear_is_only_where_http_was_written(grpc_bob: GrpcReceiver) -> None:
    in_clear = ServiceTokenAuth(grpc_bob.url, audience="receiver").for_grpc()
    secure = ServiceTokenAuth(grpc_bob.url.replace("http", "https"), audience="receiver").for_grpc()
    with pytest.raises(TokenWithheld):
        secure.channel(grpc_bob.target)
    with pytest.raises(TokenWithheld):
        secure.aio_channel(grpc_bob.target)
    with pytest.raises(TokenWithheld):
        in_clear.channel(grpc_bob.target, tls())
    with pytest.raises(TokenWithheld):  # without a port gRPC would take 443, in clear
        ServiceTokenAuth("http://127.0.0.1").for_grpc().channel("127.0.0.1")
    insecure: Any = grpc.experimental
    with pytest.raises(TokenWithheld):
        secure.channel(grpc_bob.target, insecure.insecure_channel_credentials())
    for perhaps in (
        grpc.xds_channel_credentials(insecure.insecure_channel_credentials()),
        grpc.xds_channel_credentials(),
    ):
        with pytest.raises(ConfigurationError, match="encrypted"):
            secure.channel(grpc_bob.target, perhaps)


def test_an_authorization_of_ones_own_is_sent_in_no_kind_of_call(grpc_bob: GrpcReceiver) -> None:
    own = [("authorization", "Bearer of-a-user")]
    channels = ServiceTokenAuth(grpc_bob.url, audience="receiver").for_grpc()

    async def main() -> None:
        async with channels.aio_channel(grpc_bob.target) as opened:
            channel: Any = opened
            for kind, method in KINDS.items():
                call = getattr(channel, kind)(method)(b"x" if kind.startswith("unary") else iter([b"x"]), metadata=own)
                with pytest.raises(TokenWithheld):
                    await call if kind.endswith("unary") else [each async for each in call]

    with channels.channel(grpc_bob.target) as opened:
        for kind, method in KINDS.items():
            send = getattr(opened, kind)(method)
            with pytest.raises(TokenWithheld) as caught:
                list(send(b"x" if kind.startswith("unary") else iter([b"x"]), metadata=own))
            assert "of-a-user" not in str(caught.value)
    asyncio.run(main())
    assert grpc_bob.metadata == []


KINDS = {"unary_unary": SAY, "unary_stream": COUNT, "stream_unary": GATHER, "stream_stream": TALK}


def test_call_credentials_give_no_token_to_another_target(tls_bob: GrpcReceiver) -> None:
    for origin in ("https://127.0.0.1:1", tls_bob.url.replace("https", "http"), "https://localhost"):
        assert by_call_credentials(ServiceTokenAuth(origin, audience="receiver"), tls_bob.url) == 503
    assert tls_bob.metadata == []


def test_an_adapter_shows_no_token_when_it_is_printed_or_when_a_request_fails(
    ask: Ask, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    token = auth.token()
    adapters = [auth.for_requests(), auth.for_aiohttp(), auth.for_grpc()]
    shown = [f"{adapter!r} {vars(adapter)!r}" for adapter in adapters]

    nobody = auth.asking(origins=["http://127.0.0.1:1"])
    with pytest.raises(OSError, match=r"127\.0\.0\.1") as caught:
        ask(nobody, "http://127.0.0.1:1")
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    ours = [frame for frame in frames if "/s2s_fastapi/" in frame.f_code.co_filename]
    shown += [repr(value) for frame in ours for value in frame.f_locals.values()]

    assert ours
    assert [text for text in shown if token in text] == []

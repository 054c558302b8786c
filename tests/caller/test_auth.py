"""The auth class on real sockets, with httpx and httpx2, sync and async, on asyncio and trio."""

import asyncio
import copy
import io
import itertools
import logging
import multiprocessing
import pickle
import ssl
import subprocess
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trio

from s2s_fastapi.accepted import INBOUND, digest
from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.caller.auth import ServiceTokenAuth
from s2s_fastapi.caller.carried import holds
from s2s_fastapi.caller.service_client import service_client
from s2s_fastapi.caller.token_source import IN_USE, TokenSource, using
from s2s_fastapi.errors import AudienceNotGranted, ConfigurationError, TokenRequestError, TokenWithheld
from tests.caller.fakes import (
    INVALID_TOKEN,
    SECRET,
    Clock,
    Keycloak,
    Receiver,
    b64,
    jwt,
    refusal,
    reply,
    settings,
    wait_until_idle,
)

pytestmark = pytest.mark.usefixtures("source")

Send = Callable[..., Any]
TLS = ssl.create_default_context()  # each client would take 30 ms to make its own


def _sync(package: Any) -> Send:
    def send(auth: Any, method: str, url: str, client: dict[str, Any] | None = None, **options: Any) -> Any:
        with package.Client(auth=auth, verify=TLS, **(client or {})) as opened:
            return opened.request(method, url, **options)

    return send


def _async(package: Any, run: Callable[..., Any]) -> Send:
    def send(auth: Any, method: str, url: str, client: dict[str, Any] | None = None, **options: Any) -> Any:
        async def main() -> Any:
            async with package.AsyncClient(auth=auth, verify=TLS, **(client or {})) as opened:
                return await opened.request(method, url, **options)

        return run(main) if run is trio.run else run(main())

    return send


WAYS = {
    "httpx": (httpx, _sync(httpx)),
    "httpx-asyncio": (httpx, _async(httpx, asyncio.run)),
    "httpx-trio": (httpx, _async(httpx, trio.run)),
    "httpx2": (httpx2, _sync(httpx2)),
    "httpx2-asyncio": (httpx2, _async(httpx2, asyncio.run)),
    "httpx2-trio": (httpx2, _async(httpx2, trio.run)),
}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def send(way: str) -> Send:
    return WAYS[way][1]


def test_a_request_carries_the_token(send: Send, bob: Receiver, keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob")
    response = send(auth, "GET", f"{bob.url}/x")

    assert response.status_code == 200
    assert bob.tokens == [f"Bearer {auth.token()}"]
    assert len(keycloak.requests) == 1


def test_one_object_serves_all_clients_with_one_token(bob: Receiver, keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth(bob.url, audience="bob")
    for _, way in WAYS.values():
        way(auth, "GET", bob.url)

    assert len(set(bob.tokens)) == 1
    assert len(keycloak.requests) == 1


def test_without_a_token_nothing_is_sent(send: Send, bob: Receiver, keycloak: Keycloak) -> None:
    keycloak.aud = "account"
    with pytest.raises(AudienceNotGranted):
        send(ServiceTokenAuth(bob.url, audience="bob"), "GET", bob.url)
    keycloak.always = BackChannelError("down")
    with pytest.raises(TokenRequestError):
        send(ServiceTokenAuth(bob.url), "GET", bob.url)

    assert bob.seen == []


def test_httpx_own_flow_carries_the_token_too() -> None:
    request = httpx.Request("GET", "http://bob:8000")
    sent = next(ServiceTokenAuth("http://bob:8000").auth_flow(request))

    assert sent.headers["Authorization"].startswith("Bearer ")


ELSEWHERE = [
    "http://bob.example.com.evil:8000",
    "http://evil.bob.example.com:8000",
    "http://bob.example.com.:8000",
    "http://bob.example.com:8001",
    "http://bob.example.com",
    "https://bob.example.com:8000",
    "http://bob@bob.example.com:8000",
    "http://bob.example.com:8000@evil",
    "http://user:pass@bob.example.com:8000",
    "http://bob.example.corn:8000",
    "http://bоb.example.com:8000",
    "http://[::1]:8000",
    "http://127.0.0.1:8000",
    "ws://bob.example.com",
    "wss://bob.example.com:8000",
    "ftp://bob.example.com:8000",
]


@pytest.mark.parametrize("url", ELSEWHERE)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_look_alike_gets_nothing_and_keycloak_is_not_even_asked(package: Any, url: str, keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth("http://bob.example.com:8000", audience="bob")
    with pytest.raises(TokenWithheld) as caught:
        next(auth.sync_auth_flow(package.Request("GET", url)))

    assert "nothing was sent" in str(caught.value)
    assert "pass" not in str(caught.value).replace("passed", "")
    assert keycloak.requests == []


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("http://bob.example.com:8000", "HTTP://BOB.example.com:8000/x?y#z"),
        ("https://bob.example.com", "https://bob.example.com:443/"),
        ("https://bob.example.com:443/", "https://bob.example.com"),
        ("http://Bob", "http://bob:80"),
        ("HTTP://bob:80", "http://bob"),
        ("Https://bob:443", "https://bob"),
        ("http://bücher.example", "http://xn--bcher-kva.example/"),
        ("http://[::1]:8000", "http://[::1]:8000/x"),
    ],
)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_spellings_of_one_origin_are_one(package: Any, origin: str, url: str) -> None:
    assert next(ServiceTokenAuth(origin).sync_auth_flow(package.Request("GET", url)))


@pytest.mark.parametrize(
    "origin",
    ["", "bob", "bob:8000", "/x", "http://", "ftp://bob", "http://u@bob", "http://u:p@bob", "http://bob/x", "http://bob?x", "http://bob#x",
     "http://bob:99999", "http://bob:0", "http://b ob", "http://bob\\@evil", "https://*.example.com", "http://bob\n", 7, None,
     "http://[::1"],
)  # fmt: skip
def test_a_malformed_origin_is_refused_where_it_is_written(origin: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServiceTokenAuth(origin)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize("origin", ["http://é..bob", "http://⒈bob"], ids=["an empty label", "no letter of a name"])
def test_a_host_that_only_httpx_finds_malformed_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigurationError, match="its host or port cannot be read"):
        ServiceTokenAuth(origin)


def test_without_an_origin_there_are_tokens_but_no_requests(keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth(audience="bob")

    assert auth.token()
    with pytest.raises(TokenWithheld, match="write ServiceTokenAuth\\('http://bob:8000', \\.\\.\\.\\)"):
        next(auth.sync_auth_flow(httpx.Request("GET", "http://bob:8000")))
    assert next(auth.asking(origins=["http://bob:8000"]).sync_auth_flow(httpx.Request("GET", "http://bob:8000")))
    assert len(keycloak.requests) == 1


def test_any_origin_is_spelled_insecure_and_logged_once(
    bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    auth = ServiceTokenAuth(insecure_any_origin=True)
    for there in (bob, charles, bob):
        assert _sync(httpx)(auth, "GET", there.url).status_code == 200

    assert [record.levelname for record in caplog.records if "insecure_any_origin" in record.getMessage()] == [
        "WARNING"
    ]
    with pytest.raises(ConfigurationError):
        ServiceTokenAuth(bob.url, insecure_any_origin=True)


def test_origins_for_one_call_limit_an_object_for_any_origin() -> None:
    anywhere = ServiceTokenAuth(audience="bob", insecure_any_origin=True)
    only_bob = anywhere.asking(origins=["http://bob:8000"])

    assert next(only_bob.sync_auth_flow(httpx.Request("GET", "http://bob:8000")))
    with pytest.raises(TokenWithheld):
        next(only_bob.sync_auth_flow(httpx.Request("GET", "http://eve:8000")))
    assert next(anywhere.asking(scope="offline").sync_auth_flow(httpx.Request("GET", "http://eve:8000")))


def test_an_object_that_was_used_attaches_a_token_of_the_source_that_is_in_use_then(source: TokenSource) -> None:
    auth = ServiceTokenAuth("http://bob:8000", audience="bob")

    def attached() -> str:
        header: str = next(auth.sync_auth_flow(httpx.Request("GET", "http://bob:8000"))).headers["Authorization"]
        return header

    first = attached()
    with using(TokenSource(channel=Keycloak(claims={"jti": "theirs"}))):
        assert attached() != first
    assert attached() == first
    assert IN_USE.source is source


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
def test_a_header_of_the_users_own_is_neither_sent_nor_replaced(send: Send, name: str, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld, match="auth=None"):
        send(ServiceTokenAuth(bob.url), "GET", bob.url, headers={name: "Bearer of-a-user"})

    assert bob.seen == []


def test_a_header_of_the_client_counts_too(send: Send, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld):
        send(ServiceTokenAuth(bob.url), "GET", bob.url, client={"headers": {"Authorization": "Basic x"}})


def test_auth_none_for_one_request_leaves_ours_out(bob: Receiver) -> None:
    with httpx.Client(auth=ServiceTokenAuth(bob.url), verify=TLS) as client:
        client.get(bob.url, auth=None, headers={"Authorization": "Bearer of-a-user"})

    assert bob.tokens == ["Bearer of-a-user"]


def test_the_same_request_can_be_sent_again_also_with_a_newer_token(bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    with httpx.Client(auth=auth) as client:
        request = client.build_request("GET", bob.url)
        client.send(request)
        clock.now += 1000
        client.send(request)

    assert len(set(bob.tokens)) == 2


HEADER = b64('{"alg":"RS256","typ":"JWT"}')


@pytest.fixture
def inbound() -> Iterator[str]:
    _, payload, signature = jwt(aud="chat", sub="alice", sid="a session", padding="x" * 40).split(".")
    token = f"{HEADER}.{payload}.{signature}"
    before = INBOUND.set(digest(token))
    yield token
    INBOUND.reset(before)


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "Bearer {}",
        "Bearer {} ",
        "Bearer {}; more",
        "Bearer {}, Basic eA==",
        "theme=dark; access_token={}; lang=en",
        "access_token%3D{}%3B",
        "token={}",
        '"{}"',
        '{{"authorization": "Bearer {}"}}',
        "v1.{}",
        "{}.v1",
        "bearer-{}",
        "{}-1",
        "{}_42",
        "keyJar_{}",
        "eyJ.{}.eyJ",
        "{0}{0}",
    ],
)
def test_the_token_of_the_current_request_goes_out_in_no_header(form: str, inbound: str, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld, match="X-Forwarded-Access-Token"):
        _sync(httpx)(
            ServiceTokenAuth(bob.url), "GET", bob.url, headers={"X-Forwarded-Access-Token": form.format(inbound)}
        )
    assert bob.seen == []


@pytest.mark.parametrize("place", ["/?access_token={}", "/a?next=%2Fb%3Ftoken%3D{}%26c", "/introspect/{}", "/x/{}-v1"])
def test_nor_does_it_go_out_in_the_url(place: str, inbound: str, bob: Receiver) -> None:
    with pytest.raises(TokenWithheld, match="The URL holds") as caught:
        _sync(httpx)(ServiceTokenAuth(bob.url), "GET", bob.url + place.format(inbound))
    assert inbound not in str(caught.value)
    assert bob.seen == []


def test_another_token_and_whatever_looks_like_one_goes_through(inbound: str, bob: Receiver) -> None:
    header, payload, signature = inbound.split(".")
    others = {
        "X-Long": "x" * 200,
        "X-Dots": "." * 200,
        "X-Other": jwt(aud="chat", sub="bob", padding="x" * 40),
        "X-Cut": f"{header}.{payload}.{signature[:-1]}",
        "X-Apart": f"{header}. {payload}.{signature}",
    }
    _sync(httpx)(ServiceTokenAuth(bob.url), "GET", f"{bob.url}/?q={'x.' * 100}", headers=others)

    assert len(bob.seen) == 1


def test_a_long_value_is_searched_in_one_pass() -> None:
    began = time.monotonic()
    inbound = digest("x" * 1200)
    for value in (b"A" * 2_000_000, b"A." * 500_000, b"eyJ" * 500_000, (b"A" * 30 + b".") * 50_000):
        assert not holds(value, inbound)
    assert not holds((b"ey" * 200 + b".") * 40, inbound)  # 16 KB, as much as a header may have, each piece of it hashed
    assert time.monotonic() - began < 10  # it would be hours


@pytest.fixture
def from_myself(bob: Receiver) -> Iterator[ServiceTokenAuth]:
    """A service that was called by itself: the token that came in is the one it calls with."""
    auth = ServiceTokenAuth(bob.url)
    before = INBOUND.set(digest(auth.token()))
    yield auth
    INBOUND.reset(before)


def test_a_service_that_calls_itself_may_call_on(way: str, from_myself: ServiceTokenAuth, bob: Receiver) -> None:
    assert WAYS[way][1](from_myself, "GET", bob.url).status_code == 200
    assert bob.tokens == [f"Bearer {from_myself.token()}"]


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"Authorization": "Bearer {}"}},
        {"headers": {"X-Access-Token": "{}"}},
        {"headers": {"Cookie": "token={}"}},
        {"url": "/?access_token={}"},
        {"url": "/introspect/{}"},
    ],
    ids=str,
)
def test_that_token_goes_out_in_no_other_way_all_the_same(
    request_: dict[str, Any], from_myself: ServiceTokenAuth, bob: Receiver, keycloak: Keycloak
) -> None:
    token = f"{HEADER}.{'x' * 64}.{'y' * 64}"
    keycloak.always = reply(200, {"access_token": token, "token_type": "Bearer", "expires_in": 300})
    own = from_myself.asking(scope="own")
    assert own.token() == token
    INBOUND.set(digest(token))
    headers = {name: value.format(token) for name, value in request_.get("headers", {}).items()}
    with pytest.raises(TokenWithheld):
        _sync(httpx)(own, "GET", bob.url + request_.get("url", "/").format(token), headers=headers)
    assert bob.seen == []


def test_with_another_audience_the_token_that_came_in_is_not_the_one_that_goes_out(
    from_myself: ServiceTokenAuth, bob: Receiver
) -> None:
    other = from_myself.asking(scope="other")
    _sync(httpx)(other, "GET", bob.url)
    assert bob.tokens == [f"Bearer {other.token()}"]
    assert other.token() != from_myself.token()


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://bob.example.com:8000", "ws://bob.example.com:8000/feed"),
        ("http://bob.example.com", "ws://bob.example.com:80/"),
        ("https://bob.example.com", "wss://bob.example.com/"),
        ("ws://bob.example.com:8000", "http://bob.example.com:8000/"),
        ("WS://Bob.example.com", "ws://bob.example.com/"),
        ("wss://bob.example.com", "https://bob.example.com:443/"),
    ],
)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_websocket_is_at_the_origin_of_the_request_that_it_begins_with(package: Any, written: str, url: str) -> None:
    auth = ServiceTokenAuth(written)
    assert next(auth.sync_auth_flow(package.Request("GET", url))).headers["Authorization"].startswith("Bearer ")
    assert auth == ServiceTokenAuth(written.lower().replace("ws", "http", 1))
    assert "ws" not in "".join(auth.downstream.origins)


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_a_redirect_that_drops_the_token_warns_once(
    way: str, bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    send, auth = WAYS[way][1], ServiceTokenAuth(bob.url)
    bob.always = (307, {"Location": f"{charles.url}/secret-path"}, b"")
    for each in (auth, auth, auth.asking(scope="other")):
        assert send(each, "GET", bob.url, client={"follow_redirects": True}).status_code == 200
    assert charles.tokens == [None] * 3
    (sentence,) = warned(caplog)
    assert sentence.startswith(
        f"a redirect led from {bob.url} to {charles.url}, and the request was sent there without the token: "
    )
    assert "secret-path" not in sentence


def test_a_redirect_out_and_back_warns_of_the_way_out(
    bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.answers = [(302, {"Location": charles.url}, b"")]
    charles.answers = [(302, {"Location": bob.url}, b"")]
    _sync(httpx)(ServiceTokenAuth(bob.url), "GET", bob.url, client={"follow_redirects": True})
    assert [text.partition(", and")[0] for text in warned(caplog)] == [
        f"a redirect led from {bob.url} to {charles.url}"
    ]


def test_a_redirect_between_two_origins_of_the_token_warns_too(
    way: str, bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.always = (307, {"Location": charles.url}, b"")
    for auth in (ServiceTokenAuth(bob.url, charles.url), ServiceTokenAuth(insecure_any_origin=True)):
        caplog.clear()
        assert WAYS[way][1](auth, "GET", bob.url, client={"follow_redirects": True}).status_code == 200
        sentence = warned(caplog)[-1]
        assert sentence.startswith(f"a redirect led from {bob.url} to {charles.url}, and the request was sent there")
        assert sentence.endswith("even one that may get the token: call that address")
    assert charles.tokens == [None, None]


def test_a_request_that_had_no_token_any_more_is_not_reported_to_have_lost_it(
    bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.answers = [(307, {"Location": charles.url}, b""), (307, {"Location": f"{charles.url}/b"}, b"")]
    charles.answers = [(307, {"Location": bob.url}, b"")]
    _sync(httpx)(ServiceTokenAuth(bob.url), "GET", bob.url, client={"follow_redirects": True})
    assert (bob.tokens[1], charles.tokens) == (None, [None, None])
    assert len(warned(caplog)) == 1


class Frames(logging.Handler):
    """Keeps what the frames of this package hold when they log."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        for frame, _ in traceback.walk_stack(sys._getframe()):
            if frame.f_globals.get("__name__", "").startswith("s2s_fastapi."):
                self.held += map(repr, frame.f_locals.values())


ALICES = ".".join(map(b64, ('{"alg":"RS256"}', "alice" * 20, "signature")))


def users(request: Any) -> None:
    request.headers["Authorization"] = f"Bearer {ALICES}"


@pytest.mark.parametrize(
    ("url", "headers", "hooks", "words"),
    [
        (
            "http://elsewhere.example/",
            {},
            [],
            "is not sent to http://elsewhere.example:80: nothing was sent. A service_client calls one origin",
        ),
        ("http://eve@bob.example/", {}, [], "contains a user name"),
        ("ftp://bob.example/", {}, [], "neither http nor https"),
        ("http://bob.example/", {"Authorization": f"Bearer {ALICES}"}, [], "already has an Authorization"),
        ("http://bob.example/", {"X-Token": ALICES}, [], "The header X-Token holds"),
        ("http://bob.example/", {}, [users], "replaced this service's token with another Authorization header"),
    ],
)
def test_a_request_that_is_withheld_is_one_line_in_the_log(
    url: str, headers: dict[str, str], hooks: list[Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    frames = Frames()
    logging.getLogger("s2s_fastapi.caller").addHandler(frames)
    inbound = INBOUND.set(digest(ALICES.encode()))
    try:
        with service_client("http://bob.example", event_hooks={"request": hooks}) as client:
            for _ in range(2):
                with pytest.raises(TokenWithheld, match=words):
                    client.get(url, headers=headers)
    finally:
        INBOUND.reset(inbound)
        logging.getLogger("s2s_fastapi.caller").removeHandler(frames)
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("ERROR", "s2s_fastapi.caller")
    assert words in record.getMessage()
    assert frames.held
    assert not [text for text in frames.held if ALICES in text]


def test_a_request_elsewhere_says_how_to_add_an_origin() -> None:
    auth = ServiceTokenAuth("http://bob.example")
    with pytest.raises(TokenWithheld) as caught:
        httpx.get("http://bob.internal:8000/", auth=auth)
    assert str(caught.value) == (
        "The token for http://bob.example:80 is not sent to http://bob.internal:8000: nothing was sent. If that is the same service,"
        " add its origin: ServiceTokenAuth(origin, another origin, ...)."
    )


def test_a_flood_of_withheld_requests_is_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    auth = ServiceTokenAuth("http://bob.example")
    for number in range(100):
        with pytest.raises(TokenWithheld):
            next(auth.sync_auth_flow(httpx.Request("GET", f"http://{number}.example/")))
    assert len(caplog.records) == 16


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_redirect_that_keeps_the_token_or_is_not_followed_warns_of_nothing(
    package: Any, bob: Receiver, charles: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    bob.answers = [(307, {"Location": f"{bob.url}/b"}, b""), (200, {}, b""), (307, {"Location": charles.url}, b"")]
    both = ServiceTokenAuth(bob.url, charles.url)
    assert _sync(package)(both, "GET", bob.url, client={"follow_redirects": True}).status_code == 200
    assert _sync(package)(ServiceTokenAuth(bob.url), "GET", bob.url).status_code == 307
    assert warned(caplog) == []


def test_a_failure_says_when_keycloak_is_asked_again(way: str, keycloak: Keycloak, clock: Clock, bob: Receiver) -> None:
    keycloak.always = refusal(503, "starting")
    send, auth = WAYS[way][1], ServiceTokenAuth(bob.url)

    def waits() -> int:
        with pytest.raises(TokenRequestError) as caught:
            send(auth, "GET", bob.url)
        assert caught.value.headers == {"Retry-After": str(caught.value.retry_after)}
        return caught.value.retry_after or 0

    assert waits() in {5, 6}
    clock.now += 3
    left = waits()
    assert left in {2, 3}
    assert len(keycloak.requests) == 1
    clock.now += left  # who keeps to it is asked for
    waits()
    assert len(keycloak.requests) == 2


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (reply(503, b"", {"Retry-After": "20"}), 20),
        (reply(429, b"", {"Retry-After": "60"}), 60),
        (BackChannelError("connection refused"), 5),
        (refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials"), None),
        (refusal(400, "invalid_scope"), None),
    ],
)
def test_only_what_can_succeed_without_a_change_says_when(answer: Any, least: int | None, keycloak: Keycloak) -> None:
    keycloak.always = answer
    auth = ServiceTokenAuth()
    asked: tuple[Callable[[], str], ...] = (auth.token, lambda: asyncio.run(auth.atoken()))
    for ask in asked:
        with pytest.raises(TokenRequestError) as caught:
            ask()
        error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
        if least is None:
            assert (error.retry_after, error.headers) == (None, None)
        else:
            assert least <= error.retry_after <= least * 1.1 + 1
            assert error.headers == {"Retry-After": str(error.retry_after)}


def test_credentials_that_worked_say_when_keycloak_is_asked_again_until_the_refusal_is_believed(
    keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth()
    auth.token()
    keycloak.always = refusal(401, "unauthorized_client", "Invalid client or Invalid client credentials")
    clock.now += 1000

    def waits() -> int | None:
        with pytest.raises(TokenRequestError) as caught:
            auth.token()
        return caught.value.retry_after

    first = waits()
    assert first in {5, 6}
    clock.now += first
    assert waits() is None
    keycloak.always = None
    clock.now += 34
    assert auth.token()


class Custom:
    def __init__(self, text: bytes) -> None:
        self.left = [text]

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            yield self.left.pop()


async def agenerator() -> AsyncIterator[bytes]:
    yield b"text"


def file(tmp_path: Path) -> Any:
    (tmp_path / "f").write_bytes(b"text")
    return (tmp_path / "f").open("rb")


REPLAYABLE: dict[str, Callable[[], dict[str, Any]]] = {
    "none": dict,
    "bytes": lambda: {"content": b"text"},
    "str": lambda: {"content": "text"},
    "empty": lambda: {"content": b""},
    "json": lambda: {"json": {"a": 1}},
    "form": lambda: {"data": {"a": "1"}},
}
ONCE: dict[str, Callable[[], dict[str, Any]]] = {
    "list": lambda: {"content": [b"te", b"xt"]},
    "generator": lambda: {"content": (part for part in (b"te", b"xt"))},
    "iter": lambda: {"content": iter([b"text"])},
    "map": lambda: {"content": map(bytes, [b"text"])},
    "custom": lambda: {"content": Custom(b"text")},
    "BytesIO": lambda: {"content": io.BytesIO(b"text")},
    "multipart": lambda: {"files": {"f": ("name", b"text")}},
    "multipart-file": lambda: {"files": {"f": ("name", io.BytesIO(b"text"))}},
}


@pytest.mark.parametrize("body", REPLAYABLE)
def test_a_refused_request_is_sent_again_whole(
    body: str, send: Send, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    old = auth.token()
    clock.now += 11
    bob.refuse()
    response = send(auth, "POST", bob.url, **REPLAYABLE[body]())

    assert response.status_code == 200
    assert [seen.authorization for seen in bob.seen] == [f"Bearer {old}", f"Bearer {auth.token()}"]
    assert bob.seen[0].body == bob.seen[1].body
    assert len(keycloak.requests) == 2
    assert [r.status_code for r in response.history] == [401]
    assert response.history[0].elapsed.total_seconds() >= 0


@pytest.mark.parametrize("length", [10, 5000])
def test_a_refusal_that_is_thrown_away_still_says_how_long_it_took(
    length: int, send: Send, bob: Receiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(body=b"x" * length)
    response = send(auth, "GET", bob.url)

    assert response.status_code == 200
    (refused,) = response.history
    assert refused.status_code == 401
    assert refused.elapsed.total_seconds() > 0


@pytest.mark.parametrize("body", ONCE)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_body_that_can_be_read_once_is_sent_once(
    body: str, package: Any, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse()
    response = _sync(package)(auth, "POST", bob.url, **ONCE[body]())

    assert response.status_code == 401
    assert b"text" in bob.seen[0].body
    assert (len(bob.seen), len(keycloak.requests)) == (1, 1)


@pytest.mark.parametrize("body", ONCE)
@pytest.mark.parametrize("package", [httpx, httpx2])
def test_after_a_refused_body_that_can_be_read_once_the_next_call_has_another_token(
    body: str, package: Any, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    bob.refused.add(f"Bearer {auth.token()}")
    clock.now += 10
    answers = [_sync(package)(auth, "POST", bob.url, **ONCE[body]()).status_code for _ in range(50)]

    assert answers == [401] + [200] * 49
    assert len(keycloak.requests) == 2


def test_an_async_upload_that_is_refused_is_remembered_too(bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"text"

    async def main() -> list[int]:
        async with httpx.AsyncClient(auth=auth) as client:
            return [(await client.post(bob.url, content=chunks())).status_code for _ in range(3)]

    auth = ServiceTokenAuth(bob.url)
    bob.refused.add(f"Bearer {auth.token()}")
    clock.now += 10
    assert asyncio.run(main()) == [401, 200, 200]
    assert len(keycloak.requests) == 2


def test_a_refusal_within_10_s_of_a_token_request_is_remembered_until_they_are_over(
    bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    bob.refused.add(f"Bearer {auth.token()}")
    answers = []
    for _ in range(16):
        answers.append(_sync(httpx)(auth, "POST", bob.url, files={"file": b"text"}).status_code)
        clock.now += 1

    assert answers == [401] * 10 + [200] * 6
    assert len(keycloak.requests) == 2


def test_a_refusal_is_remembered_for_all_who_share_the_token(bob: Receiver, charles: Receiver, clock: Clock) -> None:
    first, second = ServiceTokenAuth(bob.url), ServiceTokenAuth(charles.url)
    charles.refused.add(f"Bearer {first.token()}")
    bob.refused.add(f"Bearer {first.token()}")
    clock.now += 10

    assert _sync(httpx)(first, "POST", bob.url, files={"file": b"text"}).status_code == 401
    assert _sync(httpx)(second, "POST", charles.url, files={"file": b"text"}).status_code == 200


def test_without_another_token_the_refused_one_is_used_on(bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    old = auth.token()
    clock.now += 10
    keycloak.always = BackChannelError("no")
    bob.refuse()

    assert _sync(httpx)(auth, "POST", bob.url, files={"file": b"text"}).status_code == 401
    assert _sync(httpx)(auth, "POST", bob.url, files={"file": b"text"}).status_code == 200
    assert auth.token() == old


@pytest.mark.parametrize(
    "challenge", ['Bearer error="insufficient_scope"', "Basic", 'DPoP error="invalid_token"', 'Bearer realm="bob"', ""]
)
def test_another_401_to_an_upload_marks_no_token(
    challenge: str, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    old = auth.token()
    clock.now += 10
    bob.refuse(headers={"WWW-Authenticate": challenge} if challenge else {})

    assert _sync(httpx)(auth, "POST", bob.url, files={"file": b"text"}).status_code == 401
    assert auth.token() == old
    assert len(keycloak.requests) == 1


@pytest.mark.parametrize("written", ["{}", "Bearer {}"])
def test_another_client_says_that_a_token_was_refused(written: str, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth()
    old = auth.token()
    clock.now += 10
    auth.refused(written.format(old))
    assert len(keycloak.requests) == 1  # asked for by the next call, not before

    new = auth.token()
    assert new != old
    auth.refused(old)  # late
    auth.refused("something else")
    auth.asking(min_validity=5).refused(old)
    assert auth.token() == new
    assert len(keycloak.requests) == 2


def test_refused_without_a_token_means_the_last_one_of_this_thread_or_task(keycloak: Keycloak, clock: Clock) -> None:
    async def task() -> None:
        await auth.atoken()
        clock.now += 10
        await asyncio.to_thread(auth.refused)  # somebody whose context is a copy
        assert await asyncio.create_task(auth.atoken()) == auth.token()

    auth = ServiceTokenAuth()
    old = auth.token()
    clock.now += 10
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(auth.refused).result()  # it got none: the current one
        new = elsewhere.submit(auth.token).result()
        assert new != old
        auth.refused()  # late: this thread got the old one last
        clock.now += 10
        assert elsewhere.submit(auth.token).result() == new
        ServiceTokenAuth(audience="bob").token()
        auth.refused()  # another object gave the last one: the current one of this object
        assert auth.token() != new
    asyncio.run(task())
    assert len(keycloak.requests) == 5


def test_another_client_that_is_refused_for_ever_costs_one_request_in_10_s(keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth()
    for _ in range(100):
        auth.refused(auth.token())
        clock.now += 0.5

    assert len(keycloak.requests) == 5


def test_a_refusal_before_the_first_token_is_nothing(keycloak: Keycloak) -> None:
    ServiceTokenAuth().refused("something")

    assert keycloak.requests == []


@pytest.mark.parametrize("case", ["a short life", "a refusal", "no answer", "an audience that is not granted"])
def test_a_log_handler_that_needs_our_token_holds_up_nobody(case: str, keycloak: Keycloak) -> None:
    keycloak.life = 20 if case == "a short life" else 300
    keycloak.aud = "account" if case == "an audience that is not granted" else "bob"
    if case == "a refusal":
        keycloak.always = refusal(401, "unauthorized_client")
    elif case == "no answer":
        keycloak.always = BackChannelError("no")
    auth, sent, failed = ServiceTokenAuth(audience="bob"), [], []

    class Ships(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                sent.append(auth.token())
            except TokenRequestError as error:
                failed.append(error)

    handler, log = Ships(level=logging.INFO), logging.getLogger()
    log.addHandler(handler)
    try:
        logging.getLogger("app").warning("the first line")  # the handler's lock is held while it waits for the token
        wait_until_idle()
    finally:
        log.removeHandler(handler)

    # A load that waits for the handler would bring the error of the deadline: "no answer within 5 s".
    assert (len(sent), len(failed)) == ((2, 0) if case == "a short life" else (0, 2))
    assert not any("its own value" in str(error) or "within" in str(error) for error in failed)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_an_async_body_and_an_open_file_are_sent_once(
    package: Any, bob: Receiver, clock: Clock, tmp_path: Path
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(2)

    assert _async(package, asyncio.run)(auth, "POST", bob.url, content=agenerator()).status_code == 401
    with file(tmp_path) as opened:
        assert _sync(package)(auth, "POST", bob.url, content=opened).status_code == 401
    assert [seen.body for seen in bob.seen] == [b"text", b"text"]


def test_a_second_401_is_returned_untouched(send: Send, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(body=b"first")
    bob.refuse(body=b"second")
    response = send(auth, "GET", bob.url)

    assert (response.status_code, response.content, len(bob.seen), len(keycloak.requests)) == (401, b"second", 2, 2)


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        "Bearer",
        'Bearer realm="x"',
        'Bearer error="insufficient_scope"',
        'Bearer error="invalid_request"',
        'Basic realm="x", error="invalid_token"',
        'DPoP error="invalid_token"',
        'Bearer realm="error=\\"invalid_token\\""',
        'Basic realm="Bearer error=invalid_token"',
        'Bearer error="invalid_token',
        'Bearer error="invalid_tokens"',
        'Bearer error = , Basic error="invalid_token"',
    ],
)
def test_another_challenge_renews_nothing(challenge: str, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(headers={"WWW-Authenticate": challenge} if challenge else {})

    assert _sync(httpx)(auth, "GET", bob.url).status_code == 401
    assert (len(bob.seen), len(keycloak.requests)) == (1, 1)


@pytest.mark.parametrize(
    "challenge",
    [
        'Bearer error="invalid_token"',
        "bearer error=invalid_token",
        'BEARER realm="a, b", error = "invalid_token"',
        'Basic realm="x", Bearer scope="a b", error="invalid_token"',
        'Negotiate abc==, Bearer error="invalid_token"',
        'Bearer realm="quoted \\" error=no",\terror=invalid_token',
        "Bearer error='invalid_token'",
        'Bearer realm="x";error="invalid_token"',
        "Bearer error=invalid_token;realm=x",
        'Bearer realm=a=b, error="invalid_token"',
        'Bearer scope=a b, error="invalid_token"',
        'Bearer scope=a b c d; error="invalid_token"',
        'Bearer error_description="a "b" c", error="invalid_token"',
        'Bearer realm="x" error="invalid_token"',
        'Bearer realm=http://x/?a="b", error="invalid_token"',
        'Bearer realm=(x), error="invalid_token"',
        'Bearer, Bearer error="invalid_token"',
        'Basic realm="x" Bearer error="invalid_token"',
    ],
)
def test_every_spelling_of_the_challenge_renews(challenge: str, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(headers={"WWW-Authenticate": challenge})

    assert _sync(httpx)(auth, "GET", bob.url).status_code == 200


def test_a_monstrous_challenge_costs_nothing(bob: Receiver) -> None:
    from s2s_fastapi.caller.challenges import challenge_error

    for text in (
        '"' * 10**6,
        "a=" * 10**6,
        "," * 10**6,
        " " * 10**6,
        'a="\\' * 10**6,
        'a="\\",' * 10**6,
        ";(" * 10**6,
        "a" * 10**6,
        "a " * 10**6,
    ):
        assert challenge_error([text]) == ""


def test_403_never_renews(send: Send, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.answers = [(403, INVALID_TOKEN, b"")]

    assert send(auth, "GET", bob.url).status_code == 403
    assert len(keycloak.requests) == 1


def test_a_receiver_that_refuses_for_ever_costs_keycloak_one_request_in_10_s(
    bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    bob.always = (401, INVALID_TOKEN, b"")
    for _ in range(40):
        assert _sync(httpx)(auth, "GET", bob.url).status_code == 401
        clock.now += 1

    assert len(keycloak.requests) <= 5


def test_the_same_token_again_is_no_reason_to_send_again(
    send: Send, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    keycloak.claims = {"jti": "always the same"}
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse()

    assert send(auth, "GET", bob.url).status_code == 401
    assert (len(bob.seen), len(keycloak.requests)) == (1, 2)


def test_where_renewal_fails_the_first_401_is_returned_whole(
    send: Send, bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    keycloak.always = refusal(401, "invalid_client")
    bob.refuse(body=b"x" * 100_000)
    response = send(auth, "GET", bob.url)

    assert (response.status_code, len(response.content)) == (401, 100_000)


def test_a_storm_of_refusals_makes_one_renewal(bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    old = auth.token()
    clock.now += 11
    keycloak.delay = 0.1
    bob.refused = {f"Bearer {old}"}

    async def main() -> list[int]:
        async with httpx.AsyncClient(auth=auth) as client:
            return [r.status_code for r in await asyncio.gather(*(client.get(bob.url) for _ in range(30)))]

    assert asyncio.run(main()) == [200] * 30
    assert len(keycloak.requests) == 2
    assert bob.tokens.count(f"Bearer {old}") == 30


@pytest.mark.parametrize("coding", [None, "gzip", "br", "zstd"])
def test_an_endless_401_is_not_read(coding: str | None, send: Send, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    coded = {"Content-Encoding": coding} if coding else {}
    bob.refuse(headers=INVALID_TOKEN | coded, body=itertools.repeat(b"x" * 65_536))
    response = send(auth, "GET", bob.url)

    assert response.status_code == 200
    assert response.history[0].content == b""
    assert bob.sent < 50_000_000


def test_a_long_content_length_is_not_waited_for(send: Send, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(headers=INVALID_TOKEN | {"Content-Length": str(10**10)}, body=b"x")

    assert send(auth, "GET", bob.url).status_code == 200


def test_a_short_401_stays_in_the_history(send: Send, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(body=b'{"detail": "expired"}')

    assert send(auth, "GET", bob.url).history[0].json() == {"detail": "expired"}


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_a_hook_that_has_read_the_401_disturbs_nothing(package: Any, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.refuse(body=b"x" * 10_000)
    read = {"event_hooks": {"response": [lambda response: response.read()]}}

    assert _sync(package)(auth, "GET", bob.url, client=read).status_code == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_elsewhere_carries_no_token_and_its_401_renews_nothing(  # noqa: PLR0917 - fixtures
    status: int, send: Send, bob: Receiver, charles: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.answers = [(status, {"Location": f"{charles.url}/stolen"}, b"")]
    charles.refuse()
    response = send(auth, "POST", bob.url, client={"follow_redirects": True}, content=b"text")

    assert response.status_code == 401
    assert charles.tokens == [None]
    assert len(keycloak.requests) == 1


def test_there_and_back_arrives_without_the_token_and_renews_nothing(
    send: Send, bob: Receiver, charles: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.answers = [(307, {"Location": charles.url}, b""), (401, INVALID_TOKEN, b"")]
    charles.answers = [(307, {"Location": f"{bob.url}/back"}, b"")]
    response = send(auth, "GET", bob.url, client={"follow_redirects": True})

    assert (response.status_code, bob.tokens[1], len(keycloak.requests)) == (401, None, 1)


def test_after_a_redirect_at_home_only_the_refused_request_is_repeated(send: Send, bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 11
    bob.answers = [(303, {"Location": "/b"}, b""), (401, INVALID_TOKEN, b"")]
    response = send(auth, "POST", f"{bob.url}/a", client={"follow_redirects": True}, content=b"text")

    assert response.status_code == 200
    assert [(seen.method, seen.path) for seen in bob.seen] == [("POST", "/a"), ("GET", "/b"), ("GET", "/b")]


def test_a_streamed_answer_is_not_buffered(bob: Receiver) -> None:
    with httpx.Client(auth=ServiceTokenAuth(bob.url)) as client:
        bob.answers = [(200, {}, itertools.repeat(b"data: x\n\n"))]
        with client.stream("GET", bob.url) as response:
            assert next(response.iter_raw()).startswith(b"data")


def test_a_fresh_token_is_attached_without_any_await(bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    flow = auth.async_auth_flow(httpx.Request("GET", bob.url))
    step = flow.__anext__()
    with pytest.raises(StopIteration) as yielded:
        step.send(None)  # no loop is running: an await on anything would show here

    assert yielded.value.value.headers["Authorization"]
    with pytest.raises(StopAsyncIteration):
        asyncio.run(_end(flow))


async def _end(flow: Any) -> None:
    await flow.asend(httpx.Response(200))


def test_asking_for_something_else_shares_with_all_that_ask_the_same(keycloak: Keycloak) -> None:
    keycloak.aud = ["bob", "charles"]
    alice = ServiceTokenAuth("http://bob:8000", audience="bob", scope="x")
    charles = alice.asking(audience="charles", origins=["http://charles:8000"])

    assert charles == ServiceTokenAuth("http://charles:8000", audience="charles", scope="x")
    assert charles.token() != alice.token()
    assert charles.token() == alice.asking(audience=["charles"]).token()
    assert charles.token() == ServiceTokenAuth(audience="charles", scope="x").token()
    assert alice.asking() == alice
    assert [request.form["scope"] for request in keycloak.requests] == ["x", "x"]


def test_the_environment_is_read_once_for_a_family_and_not_before_the_first_use(
    environment: pytest.MonkeyPatch, source: TokenSource
) -> None:
    environment.delenv("KEYCLOAK_REALM")
    auth = ServiceTokenAuth("http://bob:8000")
    with pytest.raises(ConfigurationError, match="KEYCLOAK_REALM"):
        auth.token()
    environment.setenv("KEYCLOAK_REALM", "corp")
    token = auth.token()
    environment.delenv("KEYCLOAK_REALM")

    assert auth.asking(origins="http://charles").token() == token


def test_settings_as_an_argument_win_over_the_environment(environment: pytest.MonkeyPatch, keycloak: Keycloak) -> None:
    environment.setenv("KEYCLOAK_REALM", "another")
    ServiceTokenAuth(settings=settings(realm="mine")).token()

    assert "/realms/mine/" in keycloak.requests[0].url


def test_each_of_two_settings_posts_its_own_secret_to_its_own_realm_only(
    environment: pytest.MonkeyPatch, source: TokenSource, keycloak: Keycloak, tmp_path: Path
) -> None:
    """The client, the audience and the scope are the same in both, and one secret comes from the environment."""
    theirs = tmp_path / "secret"
    theirs.write_text("the-partners-secret")
    partners = settings(url="http://partner:8080", name="partners", client_secret=None, client_secret_file=theirs)
    ours, partner = (ServiceTokenAuth(audience="bob", scope="s", settings=given) for given in (None, partners))
    tokens = [each.token() for each in (ours, partner, ours, partner)]

    def replaced(_: object) -> Reply:
        """The file has the new secret only when the old one is refused: it is read again, and posted to the same realm."""
        theirs.write_text("the-partners-next-secret")
        return refusal(401, "unauthorized_client")

    keycloak.answers.append(replaced)
    partner.asking(audience="bob", scope="t").token()

    here, there = "http://keycloak:8080/realms/corp", "http://partner:8080/realms/corp"
    posted = [(each.url.partition("/protocol")[0], each.headers["Authorization"]) for each in keycloak.requests]
    assert posted == [
        (here, basic(SECRET)),
        (there, basic("the-partners-secret")),
        (there, basic("the-partners-secret")),
        (there, basic("the-partners-next-secret")),
    ]
    assert (tokens[:2], len(set(tokens))) == (tokens[2:], 2)
    assert not any(SECRET in str(each.form) or "partners" in str(each.form) for each in keycloak.requests)


def basic(secret: str) -> str:
    return f"Basic {b64encode(f'chat-app-service:{secret}'.encode()).decode()}"


def test_another_source_in_use_is_asked_by_objects_that_exist_already(source: TokenSource, keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth("http://bob:8000")
    token = auth.token()
    theirs = Keycloak(claims={"jti": "theirs"})
    with using(TokenSource(channel=theirs, settings=lambda given: settings(realm="embedded"))):
        assert auth.token() != token
        assert "/realms/embedded/" in theirs.requests[0].url
    assert auth.token() == token
    assert IN_USE.source is source


def test_equality_is_by_value_and_not_by_anything_less() -> None:
    one = ServiceTokenAuth("http://bob:8000", "http://bob:8001", audience=("a", "b"), scope="s", settings=settings())
    same = ServiceTokenAuth("http://BOB:8001", "http://bob:8000", audience=["b", "a"], scope=["s"], settings=settings())
    others = [
        ServiceTokenAuth("http://bob:8000", audience=("a", "b"), scope="s", settings=settings()),
        ServiceTokenAuth("http://bob:8000", "http://bob:8001", audience="a", scope="s", settings=settings()),
        ServiceTokenAuth("http://bob:8000", "http://bob:8001", audience=("a", "b"), settings=settings()),
        ServiceTokenAuth("http://bob:8000", "http://bob:8001", audience=("a", "b"), scope="s"),
        ServiceTokenAuth(insecure_any_origin=True),
        ServiceTokenAuth(),
    ]

    assert one == same
    assert hash(one) == hash(same)
    assert len({one, same, *others}) == 7
    assert one != "http://bob:8000"


def test_it_shows_what_it_asks_for_and_no_secret() -> None:
    auth = ServiceTokenAuth("http://bob", audience="bob", scope="s", settings=settings())
    token = auth.token()
    shown = f"{auth!r} {auth} {vars(auth)} {auth.downstream}"

    assert repr(auth) == "ServiceTokenAuth('http://bob:80', audience=['bob'], scope=['s'])"
    assert token not in shown
    assert SECRET not in shown
    assert auth.downstream.origins == ("http://bob:80",)


def test_a_pickle_carries_what_was_written_and_no_token_or_secret(
    tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    token = ServiceTokenAuth("http://bob:8000", audience="bob").token()
    environment.delenv("KEYCLOAK_CLIENT_SECRET")
    auth = ServiceTokenAuth(
        "http://bob:8000", audience="bob", settings=settings(client_secret=None, client_secret_file=tmp_path)
    )
    plain = ServiceTokenAuth("http://bob:8000", audience=("a", "b"), scope="s")
    data = pickle.dumps([auth, plain])

    assert pickle.loads(data) == [auth, plain]  # noqa: S301 - our own
    assert token.encode() not in data
    assert copy.deepcopy(auth) is copy.copy(auth) is auth


def test_a_pickle_carries_that_no_name_was_written() -> None:
    anywhere = ServiceTokenAuth(insecure_any_origin=True)
    written = [ServiceTokenAuth("http://bob:8000"), anywhere.asking(scope="s"), anywhere.asking(min_validity=5)]

    assert pickle.loads(pickle.dumps(written)) == written  # noqa: S301 - our own


def test_settings_with_a_secret_in_them_are_not_pickled() -> None:
    with pytest.raises(TypeError, match="KEYCLOAK_CLIENT_SECRET_FILE") as caught:
        pickle.dumps(ServiceTokenAuth("http://bob:8000", settings=settings()))
    assert SECRET not in str(caught.value)


def test_neither_token_nor_secret_is_in_a_log_of_any_level(
    way: str, send: Send, bob: Receiver, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("s2s_fastapi", "httpx", "httpx2"):
        caplog.set_level(logging.DEBUG, logger=name)
    auth = ServiceTokenAuth(bob.url)
    token = auth.token()
    clock.now += 11
    bob.refuse()
    response = send(auth, "GET", bob.url)
    shown = caplog.text + repr(response.history) + repr(response.request.extensions) + repr(response.request.headers)

    assert token not in shown
    assert auth.token() not in shown
    assert SECRET not in shown


def test_a_request_that_is_withheld_shows_no_token_in_its_error(bob: Receiver) -> None:
    with pytest.raises(TokenWithheld) as caught:
        _sync(httpx)(ServiceTokenAuth(bob.url), "GET", bob.url, headers={"Authorization": "Bearer of-a-user"})

    assert "of-a-user" not in str(caught.value)
    assert (caught.value.status_code, caught.value.detail) == (500, "Internal Server Error")


@pytest.mark.parametrize(
    "script",
    [
        "import httpx2; httpx2.alias_httpx(); import httpx; assert httpx is httpx2",
        "import httpx, httpx2; assert httpx is not httpx2",
        "import httpx; import sys; sys.modules['httpx2'] = None; httpx2 = httpx",
    ],
    ids=["aliased", "both", "httpx alone"],
)
def test_one_class_for_httpx_and_httpx2_however_they_are_installed(script: str) -> None:
    check = f"""
{script}
import copy, inspect, pickle
from s2s_fastapi.caller.auth import ServiceTokenAuth
before = ServiceTokenAuth.__mro__
one, two = ServiceTokenAuth("http://bob"), ServiceTokenAuth("http://bob")
for package in (httpx, httpx2):
    assert isinstance(one, package.Auth)
    assert package.Client(auth=two).auth is two
assert type(one) is type(two) is type(one.asking(audience="bob"))
assert one == two == copy.copy(one) == pickle.loads(pickle.dumps(one))
assert ServiceTokenAuth.__mro__ == before
assert repr(type(one)) == repr(ServiceTokenAuth)
assert inspect.signature(type(one)) == inspect.signature(ServiceTokenAuth)
assert list(inspect.signature(ServiceTokenAuth).parameters)[:2] == ["origins", "audience"]

class Mine(ServiceTokenAuth):
    def __init__(self, name):
        super().__init__("http://bob")
        self.name = name

mine = Mine("mine")
assert (isinstance(mine, Mine), isinstance(mine, httpx2.Auth), mine.name, mine == one) == (True, True, "mine", True)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, timeout=20, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_httpx2_is_not_imported_before_an_object_is_made() -> None:
    check = "import sys, s2s_fastapi.caller.auth; assert 'httpx2' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=20, check=False)

    assert done.stderr == ""


def test_it_goes_to_a_spawned_process_that_reads_its_own_environment() -> None:
    auth = ServiceTokenAuth("http://bob:8000", audience="bob")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(repr, auth).result(20) == repr(auth)


def test_loops_in_three_threads_share_one_object(bob: Receiver, keycloak: Keycloak) -> None:
    keycloak.delay = 0.1
    auth = ServiceTokenAuth(bob.url)
    found: list[str] = []

    async def main() -> None:
        found.extend(await asyncio.gather(*(auth.atoken() for _ in range(50))))

    running = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(10)

    assert len(found) == 150
    assert (len(set(found)), len(keycloak.requests)) == (1, 1)


def test_a_cancelled_caller_hurts_nobody(keycloak: Keycloak) -> None:
    keycloak.delay = 0.2
    auth = ServiceTokenAuth("http://bob:8000")

    async def main() -> list[Any]:
        tasks = [asyncio.create_task(auth.atoken()) for _ in range(10)]
        await asyncio.sleep(0.05)
        for task in tasks[:5]:
            task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(main())
    assert [type(one) for one in found] == [asyncio.CancelledError] * 5 + [str] * 5
    assert len(keycloak.requests) == 1

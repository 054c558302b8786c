"""Lines 33 to 35, 39 and 42 to 49 of the list: a token endpoint that misbehaves, on a real socket, and what a caller makes of it."""

import socket
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import AudienceNotGranted, KeycloakSettings, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer, Fault
from s2s_fastapi.testing.faults import (
    LEFT_OUT,
    answering,
    disconnecting,
    dripping,
    endless,
    html,
    huge,
    redirecting,
    refusing,
    rewritten,
    slow,
    typed,
    with_members,
    zipped,
)
from tests.attacks.caller.stack import WAYS, Send, asked, idle, realm, settings
from tests.caller.fakes import Clock, Receiver
from tests.testing.asking import ODD_ID, ODD_SECRET, SECRET

pytestmark = pytest.mark.usefixtures("source")

FORM = b"access_token=opaque&token_type=Bearer&expires_in=300"


def twice(body: bytes) -> bytes:
    """Return a JSON object with its first member once more at its end."""
    first, _, _ = body.partition(b",")
    return body[:-1] + b"," + first[1:] + b"}"


MISBEHAVIOUR: dict[str, tuple[Fault, str]] = {
    "a page with 200": (html(200), "HTML or XML"),
    "a page with 502": (html(502), "answered 502"),
    "nothing": (answering(200), "is empty"),
    "204": (answering(204), "answered 204"),
    "a list": (answering(200, "[]"), "not an object"),
    "a text": (answering(200, '"token"'), "not an object"),
    "null": (answering(200, "null"), "not an object"),
    "a member that stands twice": (rewritten(twice), "duplicate members"),
    "a byte order mark": (rewritten(lambda body: b"\xef\xbb\xbf" + body), "byte order mark"),
    "UTF-16": (rewritten(lambda body: body.decode().encode("utf-16")), "not JSON"),
    "trailing garbage": (rewritten(lambda body: body + b"}"), "not JSON"),
    "cut short": (rewritten(lambda body: body[:-1]), "not JSON"),
    "depth without end": (answering(200, "[" * 100_000), "more than 32 levels"),
    "a gzip bomb": (zipped(), "compressed"),
    "a megabyte": (huge(), "larger than 262144 bytes"),
    "a terabyte": (endless(), "larger than 262144 bytes"),
    "a form": (answering(200, FORM) & typed("application/x-www-form-urlencoded"), "not JSON"),
    "an error in a 200": (refusing(200, "invalid_scope"), "invalid_scope"),
    "an error beside a token": (with_members(error="invalid_request"), "invalid_request"),
    "closed without an answer": (disconnecting(), "closed too early"),
    "closed in the middle": (disconnecting(within=True), "closed too early"),
}


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_what_is_no_token_answer_sends_nothing_and_is_remembered(
    name: str, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    fault, sentence = MISBEHAVIOUR[name]
    issuer.faults.add("token", fault)
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    for _ in range(3):
        with pytest.raises(TokenRequestError, match=sentence) as caught:
            WAYS["httpx"](auth, "GET", bob.url)
        assert SECRET not in str(caught.value)
    assert (len(asked(issuer)), bob.seen) == (1, [])

    clock.now += 60
    assert WAYS["httpx"](auth, "GET", bob.url).status_code == 200
    assert (len(asked(issuer)), len(bob.seen)) == (2, 1)


@pytest.mark.parametrize("name", MISBEHAVIOUR)
def test_nor_does_it_displace_a_token_that_is_good(name: str, issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    first = auth.token()
    issuer.faults.add("token", MISBEHAVIOUR[name][0])
    clock.now += 241
    assert auth.token() == first
    idle()
    assert auth.token() == first
    assert len(asked(issuer)) == 2

    clock.now += 12
    auth.token()
    idle()
    assert auth.token() != first


def test_all_of_it_reaches_every_client_as_the_same_error(send: Send, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", html(502), times=None)
    with pytest.raises(TokenRequestError, match="answered 502"):
        send(ServiceTokenAuth(bob.url, audience="receiver"), "GET", bob.url)
    assert bob.seen == []


@pytest.mark.parametrize("content_type", ["text/plain", "text/html", "application/jwt", ""])
def test_the_declared_type_of_a_good_answer_does_not_matter(content_type: str, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", typed(content_type))
    assert ServiceTokenAuth(audience="receiver").token()


# Line 43


def far(days: int) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(days=days), usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("retry_after", "at_least", "at_most"),
    [
        ("20", 20, 22),
        ("0", 1, 1.1),
        ("-5", 5, 5.5),
        ("315360000", 60, 66),
        pytest.param(far(3650), 60, 66, id="a date in ten years"),
        pytest.param(far(-1), 1, 1.1, id="yesterday"),
        ("soon", 5, 5.5),
        ("1e9", 5, 5.5),
        ("9" * 5000, 5, 5.5),
    ],
)
def test_retry_after_is_kept_and_never_for_more_than_a_minute(  # noqa: PLR0917 - fixtures
    status: int, retry_after: str, at_least: float, at_most: float, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    issuer.faults.add("token", answering(status, headers={"Retry-After": retry_after}))
    with pytest.raises(TokenRequestError) as caught:
        auth.token()
    assert caught.value.retryable
    clock.now += at_least - 0.01
    with pytest.raises(TokenRequestError):
        auth.token()
    assert len(asked(issuer)) == 1

    clock.now += at_most - at_least + 0.02
    assert auth.token()


@pytest.mark.parametrize(
    ("status", "error", "seconds"),
    [
        (401, "invalid_client", 30),
        (400, "invalid_client", 30),
        (401, "unauthorized_client", 30),
        (400, "unauthorized_client", 30),
        (400, "invalid_scope", 5),
    ],
)
def test_a_refusal_is_not_hammered(
    status: int, error: str, seconds: float, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    issuer.faults.add("token", refusing(status, error, "no"), times=None)
    for _ in range(int(seconds) * 4):
        with pytest.raises(TokenRequestError) as caught:
            auth.token()
        assert (caught.value.error, caught.value.retryable) == (error, False)
        clock.now += 0.24
    assert len(asked(issuer)) == 1


@pytest.fixture
def secret_file(issuer: EmbeddedIssuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("KEYCLOAK_CLIENT_SECRET")
    monkeypatch.setenv("KEYCLOAK_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    return tmp_path / "secret"


def test_a_new_secret_in_its_file_ends_the_wait_at_once(secret_file: Path, issuer: EmbeddedIssuer) -> None:
    secret_file.write_text("wrong")
    auth = ServiceTokenAuth(audience="receiver")
    for _ in range(3):
        with pytest.raises(TokenRequestError):
            auth.token()
    assert len(asked(issuer)) == 1

    secret_file.write_text(SECRET)
    assert auth.token()
    assert len(asked(issuer)) == 2


# Line 40 and the end of line 49


@pytest.mark.parametrize("partial", ["", " \n", SECRET[:5]])
def test_a_secret_file_that_is_half_written_is_no_end(
    partial: str, secret_file: Path, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    secret_file.write_text(partial)
    auth = ServiceTokenAuth(audience="receiver")
    with pytest.raises(Exception, match="CLIENT_SECRET_FILE"):
        auth.token()
    secret_file.write_text(f"{SECRET}\n")
    clock.now += 6
    assert auth.token()


def test_a_secret_that_is_rotated_while_its_request_travels_is_sent_in_the_same_load(
    secret_file: Path, issuer: EmbeddedIssuer
) -> None:
    secret_file.write_text("of-yesterday")

    def rotate(body: bytes) -> bytes:
        secret_file.write_text(SECRET)
        return body

    issuer.faults.add("token", rewritten(rotate))  # the answer is on its way by then

    assert ServiceTokenAuth(audience="receiver").token()
    assert [exchange.status for exchange in asked(issuer)] == [401, 200]


# Line 44


@contextmanager
def listening(converse: Callable[[socket.socket], None] | None = None) -> Iterator[str]:
    """Listen on loopback; without `converse` nobody ever accepts."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
        stop = threading.Event()

        def serve() -> None:
            while not stop.is_set():
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    converse(connection)  # type: ignore[misc]

        thread = threading.Thread(target=serve, daemon=True)
        if converse is not None:
            thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            stop.set()
            server.shutdown(socket.SHUT_RDWR)
            if converse is not None:
                thread.join(5)


def half_closed(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    connection.shutdown(socket.SHUT_WR)
    time.sleep(0.05)


def nonsense(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")  # a TLS alert


def fails(url: str, sentence: str) -> TokenRequestError:
    began = time.monotonic()
    with pytest.raises(TokenRequestError, match=sentence) as caught:
        ServiceTokenAuth(settings=_at(url)).token()
    assert time.monotonic() - began < 30  # 5 s, on a machine that has much to do
    assert caught.value.retryable
    assert "KEYCLOAK_URL" in caught.value.cure
    return caught.value


def _at(url: str) -> Any:

    return KeycloakSettings(url=url, realm="corp", client_id="caller", client_secret=SECRET)


def test_a_refused_connection_is_told_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fails(f"http://127.0.0.1:{port}", "connection refused")


def test_a_name_that_nobody_knows_is_told() -> None:
    fails("http://keycloak.invalid", "cannot connect to http://keycloak.invalid")


def test_what_speaks_no_tls_is_told() -> None:
    with listening(nonsense) as address:
        fails(f"https://{address}", "TLS failed|the connection broke|closed too early")


def test_an_answer_that_is_half_closed_is_told() -> None:
    with listening(half_closed) as address:
        fails(f"http://{address}", "closed too early")


def test_a_server_that_accepts_and_says_nothing_costs_5_seconds_and_its_late_answer_nothing(clock: Clock) -> None:
    with listening(lambda connection: time.sleep(6)) as address:
        fails(f"http://{address}", "no (complete )?answer within 5 s")
    idle()


@pytest.mark.parametrize("fault", [dripping(0.05), slow(30)])
def test_no_trickle_lasts_longer_than_the_deadline(fault: Fault, issuer: EmbeddedIssuer) -> None:
    # The channel's own timeout is shortened here, so that the test is; DEADLINE is what the package gives it.
    issuer.faults.add("token", fault)
    with using(TokenSource(channel=lambda _: BackChannel(timeout=0.5))):
        fails(issuer.url, "no complete answer within 0.5 s")
    idle()


# Lines 45 to 47


def test_ten_minutes_without_keycloak_cost_no_call_while_the_token_lives_and_few_attempts(
    send: Send, bob: Receiver, clock: Clock
) -> None:
    issuer = EmbeddedIssuer(realm(accessTokenLifespan=3600))
    with issuer.serving():
        auth = ServiceTokenAuth(bob.url, audience="receiver", settings=settings(issuer))
        auth.token()
        issuer.faults.add("token", disconnecting(), times=None)
        clock.now += 3600 - 60 - 540  # stale from here on at the latest
        for _ in range(20):
            clock.now += 29
            assert send(auth, "GET", bob.url).status_code == 200
            idle()
        assert len(bob.seen) == 20
        assert len(asked(issuer)) <= 1 + 20
        issuer.faults.clear()
        clock.now += 6
        assert send(auth, "GET", bob.url).status_code == 200
        idle()
        assert send(auth, "GET", bob.url).status_code == 200
        assert len(set(bob.tokens)) == 2


def test_an_outage_is_asked_about_once_in_5_seconds_at_most(issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    first = auth.token()
    issuer.faults.add("token", disconnecting(), times=None)
    clock.now += 241
    for _ in range(480):  # 48 s, ten calls in each
        clock.now += 0.1
        assert auth.token() == first
        idle()
    assert 2 <= len(asked(issuer)) <= 1 + 10


def test_an_error_is_forgotten_when_its_time_is_over(issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    for fault in (html(502), answering(503), disconnecting(), huge()):
        issuer.faults.add("token", fault)
    for _ in range(4):
        with pytest.raises(TokenRequestError):
            auth.token()
        clock.now += 5.6
    assert auth.token()
    assert len(asked(issuer)) == 5


class BrokenChannel:
    """Raises what nobody foresaw."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [KeyError(SECRET), MemoryError(SECRET), SystemExit(SECRET), RecursionError(SECRET)])
def test_an_exception_nobody_foresaw_is_told_by_its_type_and_the_next_try_is_free(
    error: BaseException, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    broken = BrokenChannel(error)
    working = BackChannel(timeout=20)
    channels: list[Any] = [broken]
    with using(TokenSource(channel=lambda _: _Switch(channels), clock=clock)):
        auth = ServiceTokenAuth(audience="receiver")
        with pytest.raises(TokenRequestError, match=type(error).__name__) as caught:
            auth.token()
        assert SECRET not in str(caught.value)
        channels[:] = [working]
        clock.now += 6
        assert auth.token()


class _Switch:
    def __init__(self, channels: list[Any]) -> None:
        self.channels = channels

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        return self.channels[0].post_form(url, form, headers)


def test_the_same_in_a_renewal_behind_leaves_the_token_and_the_next_renewal(
    issuer: EmbeddedIssuer, clock: Clock
) -> None:
    working, broken = BackChannel(timeout=20), BrokenChannel(KeyError("x"))
    channels: list[Any] = [working]
    with using(TokenSource(channel=lambda _: _Switch(channels), clock=clock)):
        auth = ServiceTokenAuth(audience="receiver")
        first = auth.token()
        channels[:] = [broken]
        clock.now += 241
        assert auth.token() == first
        idle()
        assert broken.calls == 1
        assert auth.token() == first

        channels[:] = [working]
        clock.now += 6
        auth.token()
        idle()
        assert auth.token() != first
    assert len(asked(issuer)) == 2


# Line 48


@pytest.mark.parametrize(
    "value",
    ["", LEFT_OUT, None, 7, [], "a\r\nX-Evil: 1", "a\nb", "a\0b", "a b", " a", "tökén", "a\N{SNOWMAN}", "a" * 1_000_000, "a" * 16_385,
     "Bearer a", "a,b", '"a"', "=a"],
)  # fmt: skip
def test_an_access_token_that_is_none_is_refused_before_there_is_a_header(
    value: Any, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", with_members(access_token=value))
    with pytest.raises(TokenRequestError, match=r"access_token|larger than") as caught:
        WAYS["httpx-asyncio"](ServiceTokenAuth(bob.url), "GET", bob.url)
    assert (len(str(caught.value)) < 1000, bob.seen) == (True, [])


# Line 49


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_an_odd_id_and_secret_arrive_as_they_are(method: str, issuer: EmbeddedIssuer) -> None:
    given = settings(issuer, ODD_ID, client_secret=ODD_SECRET, client_auth=method)
    assert ServiceTokenAuth(audience="receiver", settings=given).token()

    (exchange,) = asked(issuer)
    assert (exchange.client_id, exchange.status) == (ODD_ID, 200)
    if method == "client_secret_basic":
        header = exchange.request.header("authorization")
        assert header is not None
        id_and_secret = b64decode(header.removeprefix("Basic ")).decode("ascii")
        assert id_and_secret.count(":") == 1
        assert " " not in id_and_secret
        assert "+" not in id_and_secret


# Line 39


@pytest.mark.parametrize("kind", ["DPoP", "N_A", "mac", "", LEFT_OUT, None, 7, ["Bearer"]])
def test_a_token_of_another_type_is_found_before_it_is_kept(kind: Any, bob: Receiver, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", with_members(token_type=kind))
    with pytest.raises(TokenRequestError, match="not Bearer"):
        WAYS["httpx"](ServiceTokenAuth(bob.url, audience="receiver"), "GET", bob.url)
    assert bob.seen == []


def test_a_token_for_somebody_else_is_found_before_it_is_kept(
    send: Send, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="somebody-else")
    for _ in range(3):
        with pytest.raises(AudienceNotGranted, match="somebody-else") as caught:
            send(auth, "GET", bob.url)
    assert caught.value.granted == {"receiver"}
    assert (len(asked(issuer)), bob.seen) == (1, [])


# Lines 33 and 35


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_endpoint_that_redirects_gets_no_secret_sent_on(
    status: int, bob: Receiver, issuer: EmbeddedIssuer
) -> None:
    issuer.faults.add("token", redirecting(f"{bob.url}/token", status))
    with pytest.raises(TokenRequestError, match=rf"answered {status} \(redirects are not followed\).*KEYCLOAK_URL"):
        ServiceTokenAuth(audience="receiver").token()
    assert bob.seen == []


def test_no_proxy_no_netrc_and_no_cookie_has_a_part_in_it(
    bob: Receiver, issuer: EmbeddedIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login eve password eve\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, bob.url)
    issuer.faults.add("token", Fault(headers=(("Set-Cookie", "AUTH_SESSION_ID=x; Path=/"),)))
    auth = ServiceTokenAuth(audience="receiver")
    auth.token()
    clock.now += 400
    auth.token()

    assert bob.seen == []
    assert [exchange.request.header("cookie") for exchange in asked(issuer)] == [None, None]
    assert {exchange.client_id for exchange in asked(issuer)} == {"caller"}


def test_no_other_document_of_keycloaks_moves_the_token_endpoint(issuer: EmbeddedIssuer) -> None:
    ServiceTokenAuth(audience="receiver").token()
    assert [exchange.endpoint for exchange in issuer.requests()] == ["token"]

"""HTTP with Keycloak that ends: in time, in size, and with a sentence that is safe for the log. On real sockets."""

import contextlib
import gzip
import os
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from s2s_fastapi.backchannel.channel import BackChannel, BackChannelError, Reply, unused_proxy
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.settings import ProxyUrl
from tests.kit.authority import make_authority, server_context

SECRET = "hunter2-never-in-a-log"
Script = Callable[[socket.socket], object]


def answer(body: bytes = b"{}", *, status: str = "200 OK", headers: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


class Server:
    """Accepts on loopback, reads one request per connection, and lets a script write whatever it likes."""

    def __init__(self, script: Script | bytes, *, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.stopping = threading.Event()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            try:
                if self._tls:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                self._converse(connection)
            except OSError:
                pass  # the client left: that is what these tests are about
            finally:
                connection.close()

    def _converse(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        request = b""
        while b"\r\n\r\n" not in request:
            if not (chunk := connection.recv(65536)):
                return
            request += chunk
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(head + b"\r\n\r\n" + body)
        if isinstance(self._script, bytes):
            connection.sendall(self._script)
        else:
            self._script(connection)

    def drip(self, connection: socket.socket, head: bytes, drop: bytes = b" ") -> None:
        connection.sendall(head)
        while not self.stopping.wait(0.05):
            connection.sendall(drop)


def channel(*, timeout: float = 30, limit: int = 262_144, ca_file: Path | None = None) -> BackChannel:
    return BackChannel(timeout=timeout, limit=limit, ca_file=ca_file)


def refusal(job: Callable[[], object]) -> str:
    with pytest.raises(BackChannelError) as caught:
        job()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return str(caught.value)


def reply(body: bytes) -> Reply:
    return Reply(200, httpx.Headers(), body)


# What is sent.


def test_a_form_arrives_and_its_answer_comes_back() -> None:
    with Server(answer(b'{"access_token": "t"}', headers="X-Node: 1\r\n")) as keycloak:
        given = channel().post_form(
            keycloak.url + "/token", {"scope": "a b", "secret": "ü&="}, {"Authorization": "Basic x"}
        )
    assert given.status == 200
    assert given.headers["x-node"] == "1"
    assert given.json_object() == {"access_token": "t"}
    head, _, body = keycloak.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /token HTTP/1.1")
    assert b"Content-Type: application/x-www-form-urlencoded" in head
    assert b"Authorization: Basic x" in head
    assert b"Accept-Encoding: identity" in head
    assert b"Connection: close" in head
    assert body == b"scope=a+b&secret=%C3%BC%26%3D"


def test_plain_http_builds_no_tls_context() -> None:
    script = """
        import ssl, sys
        def forbidden(*_, **__):
            raise AssertionError("a TLS context for plain http")
        ssl.create_default_context = ssl.SSLContext.__new__ = forbidden
        from s2s_fastapi.backchannel.channel import BackChannel
        print(BackChannel.shared(None, 5.0).get(sys.argv[1]).status)
    """
    with Server(answer()) as server:
        command = [sys.executable, "-c", textwrap.dedent(script), server.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.stdout, done.returncode) == ("200\n", 0), done.stderr


def test_what_tls_trusts_is_read_once_for_all_who_trust_the_same() -> None:
    channel = BackChannel.shared(None, 5.0)
    assert BackChannel.shared(None, 5.0) is channel
    assert BackChannel.shared(None, 3.0) is not channel
    assert BackChannel.shared(Path("/ca.pem"), 5.0) is not channel


def test_no_cookie_is_kept_and_no_connection_is_shared() -> None:
    with Server(answer(headers="Set-Cookie: AUTH_SESSION=1; Path=/\r\n")) as keycloak:
        kept = channel()
        kept.get(keycloak.url)
        kept.get(keycloak.url)
    assert len(keycloak.requests) == 2
    assert not any(b"cookie" in request.lower() for request in keycloak.requests)


def test_proxies_and_netrc_of_the_environment_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NETRC", str(netrc))
    with Server(answer()) as keycloak:
        assert channel().get(keycloak.url).status == 200
    assert b"authorization" not in keycloak.requests[0].lower()


@pytest.mark.parametrize(
    "status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"]
)
def test_a_redirect_is_an_answer_and_is_not_followed(status: str) -> None:
    with (
        Server(answer()) as elsewhere,
        Server(answer(status=status, headers=f"Location: {elsewhere.url}\r\n")) as keycloak,
    ):
        given = channel().post_form(keycloak.url, {"client_secret": SECRET})
    assert given.sentence == f"answered {status[:3]} (redirects are not followed)"
    assert elsewhere.requests == []


def test_every_other_status_is_an_answer_too() -> None:
    with Server(answer(b'{"error": "invalid_client"}', status="401 Unauthorized")) as keycloak:
        given = channel().get(keycloak.url)
    assert (given.status, given.sentence) == (401, "answered 401")
    assert given.json_object() == {"error": "invalid_client"}


# Bounded in time.


@pytest.mark.parametrize(
    ("head", "drop"),
    [
        (b"", b""),  # silence
        (b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["silence", "header", "body", "chunks", "chunk-extension", "informational"],
)
def test_an_answer_that_drips_ends_at_the_deadline(head: bytes, drop: bytes) -> None:
    with ExitStack() as stack:
        keycloak = stack.enter_context(Server(lambda connection: keycloak.drip(connection, head, drop)))
        began = time.monotonic()
        assert refusal(lambda: channel(timeout=0.4).get(keycloak.url)) == "no complete answer within 0.4 s"
        assert 0.35 < time.monotonic() - began < 30  # without the deadline it would be for ever


def test_a_timeout_of_its_own_replaces_the_channels() -> None:
    with ExitStack() as stack:
        keycloak = stack.enter_context(Server(lambda connection: keycloak.drip(connection, b"", b"")))
        assert refusal(lambda: channel().get(keycloak.url, timeout=0.2)) == "no complete answer within 0.2 s"


def test_a_server_that_does_not_accept_ends_at_the_deadline_too() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(2):  # what the queue takes
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        began = time.monotonic()
        assert refusal(lambda: channel(timeout=0.3).get(url)) == "no complete answer within 0.3 s"
        assert time.monotonic() - began < 30


def test_a_name_with_several_addresses_is_tried_at_each() -> None:
    with Server(answer()) as keycloak:  # listens on 127.0.0.1 alone, and localhost is often ::1 first
        assert channel().get(keycloak.url.replace("127.0.0.1", "localhost")).status == 200


# Bounded in size.


@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_may_be_as_large_as_the_limit_and_no_larger(chunked: bool) -> None:
    def script(size: int) -> bytes:
        if chunked:
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, b"x" * size)
        return answer(b"x" * size)

    with Server(script(1000)) as exact, Server(script(1001)) as larger:
        assert len(channel(limit=1000).get(exact.url).body) == 1000
        assert refusal(lambda: channel(limit=1000).get(larger.url)) == "the answer is larger than 1000 bytes"


def test_an_answer_without_end_is_cut_at_the_limit() -> None:
    def pour(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with Server(pour) as keycloak:
        assert refusal(lambda: channel().get(keycloak.url)) == "the answer is larger than 262144 bytes"


def test_endless_headers_are_refused() -> None:
    with Server(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 50_000) as keycloak:
        assert (
            refusal(lambda: channel().get(keycloak.url))
            == "the answer is not HTTP, or the connection was closed too early"
        )


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_answer_is_refused_before_it_is_unpacked(encoding: str) -> None:
    bomb = gzip.compress(b"\0" * 10_000_000)
    with Server(answer(bomb, headers=f"Content-Encoding: {encoding}\r\n")) as keycloak:
        assert (
            refusal(lambda: channel().get(keycloak.url)) == "the answer is compressed, although the request forbids it"
        )


# What is told.


def test_a_refused_connection_names_the_origin_and_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    told = refusal(lambda: channel().post_form(url + "/realms/x/token?q=1", {"client_secret": SECRET}))
    assert told == f"cannot connect to {url}: connection refused"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP, or the connection was closed too early"),
        (b"", "the answer is not HTTP, or the connection was closed too early"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
            "the answer is not HTTP, or the connection was closed too early",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
            "the answer is not HTTP, or the connection was closed too early",
        ),
    ],
)
def test_what_is_not_a_complete_answer_is_said_in_a_sentence(script: bytes, sentence: str) -> None:
    with Server(script) as keycloak:
        assert refusal(lambda: channel().get(keycloak.url)) == sentence


@pytest.mark.parametrize(
    "script",
    [b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", answer(b"x" * 2000)],
    ids=["closed", "nonsense", "short", "large"],
)
def test_no_failure_reports_the_secret(script: bytes) -> None:
    with Server(script) as keycloak, pytest.raises(BackChannelError) as caught:
        channel(limit=1000).post_form(keycloak.url, {"client_secret": SECRET}, {"Authorization": SECRET})
    assert caught.value.connected
    assert caught.value.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_secret_that_cannot_be_sent_is_not_reported_either() -> None:
    lone = SECRET + "\ud800"
    told = refusal(lambda: channel().post_form("http://127.0.0.1:1", {"client_secret": lone}))
    assert told == "the request could not be made: UnicodeEncodeError"
    told = refusal(lambda: channel().get("http://127.0.0.1:1", {"Authorization": SECRET + "\r\nX: y"}))
    assert SECRET not in told


def test_whatever_a_transport_raises_only_the_type_is_reported() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError(SECRET)

    told = refusal(lambda: BackChannel(timeout=1, transport=lambda: httpx.MockTransport(broken)).get("http://keycloak"))
    assert told == "the request could not be made: ZeroDivisionError"


def test_a_transport_of_ones_own_is_made_for_each_exchange_and_bounded_alike() -> None:
    made: list[httpx.MockTransport] = []

    def transport() -> httpx.BaseTransport:
        made.append(httpx.MockTransport(lambda request: httpx.Response(200, content=b"x" * 11)))
        return made[-1]

    assert BackChannel(timeout=1, limit=11, transport=transport).get("http://keycloak").body == b"x" * 11
    told = refusal(lambda: BackChannel(timeout=1, limit=10, transport=transport).get("http://keycloak"))
    assert told == "the answer is larger than 10 bytes"
    assert len(made) == 2


def test_a_transport_of_ones_own_that_drips_ends_at_the_deadline() -> None:
    def drip() -> Iterator[bytes]:
        while True:
            time.sleep(0.02)
            yield b" "

    def transport() -> httpx.BaseTransport:
        return httpx.MockTransport(lambda request: httpx.Response(200, content=drip()))

    told = refusal(lambda: BackChannel(timeout=0.2, transport=transport).get("http://keycloak"))
    assert told == "no complete answer within 0.2 s"


def test_no_repr_shows_the_body_or_the_headers() -> None:
    assert repr(Reply(200, httpx.Headers({"Set-Cookie": SECRET}), SECRET.encode())) == "Reply(status=200)"


# TLS.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(authority: Path) -> ssl.SSLContext:
    return server_context(authority)


def test_the_ca_file_is_trusted(tls: ssl.SSLContext, authority: Path) -> None:
    with Server(answer(b'{"keys": []}'), tls=tls) as keycloak:
        assert channel(ca_file=authority).get(keycloak.url).json_object() == {"keys": []}


def test_without_it_the_certificate_is_not_trusted_and_nothing_is_sent(tls: ssl.SSLContext) -> None:
    with Server(answer(), tls=tls) as keycloak:
        told = refusal(lambda: channel().post_form(keycloak.url, {"client_secret": SECRET}))
    assert told.startswith(f"cannot connect to {keycloak.url}: its certificate is not trusted: self")
    assert keycloak.requests == []


def test_a_name_that_is_not_in_the_certificate_is_refused(tls: ssl.SSLContext, authority: Path) -> None:
    with Server(answer(), tls=tls) as keycloak:
        told = refusal(lambda: channel(ca_file=authority).get(keycloak.url.replace("127.0.0.1", "localhost")))
    assert "its certificate is not trusted: Hostname mismatch" in told


def test_tls_that_drips_ends_at_the_deadline_too(tls: ssl.SSLContext, authority: Path) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with ExitStack() as stack:
        keycloak = stack.enter_context(Server(lambda connection: keycloak.drip(connection, head), tls=tls))
        told = refusal(lambda: channel(ca_file=authority, timeout=0.4).get(keycloak.url))
    assert told == "no complete answer within 0.4 s"


def test_a_ca_file_that_is_replaced_is_read_again_after_a_connection_failed(
    tls: ssl.SSLContext, authority: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    path.write_bytes(make_authority(tmp_path).read_bytes())
    kept = channel(ca_file=path)
    with Server(answer(), tls=tls) as keycloak:
        assert "its certificate is not trusted" in refusal(lambda: kept.get(keycloak.url))
        path.write_bytes(authority.read_bytes())
        assert kept.get(keycloak.url).status == 200


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_channel_that_reads_its_ca_file_holds_no_lock_that_another_needs(
    tls: ssl.SSLContext, authority: Path, tmp_path: Path
) -> None:
    """A child forked while a thread is about to get such a lock would wait for it for ever."""
    slow, told = tmp_path / "ca.pem", list[str]()
    os.mkfifo(slow)
    reader = threading.Thread(
        target=lambda: told.append(refusal(lambda: channel(ca_file=slow).get("https://127.0.0.1:1")))
    )
    reader.start()
    with slow.open("wb") as pipe, Server(answer(), tls=tls) as keycloak:  # opened by both: it is being read
        statuses: list[int] = []
        other = threading.Thread(
            target=lambda: statuses.append(channel(ca_file=authority).get(keycloak.url).status), daemon=True
        )
        other.start()
        other.join(10)
        meanwhile = list(statuses)
        pipe.write(authority.read_bytes())
    reader.join(10)
    other.join(10)

    assert meanwhile == [200]
    assert "cannot connect to https://127.0.0.1:1" in told[0]


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"])
def test_a_ca_file_that_cannot_be_read_names_its_setting(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="KEYCLOAK_CA_FILE") as caught:
        channel(ca_file=path).get("https://127.0.0.1:1")
    assert str(path) in str(caught.value)
    assert caught.value.__context__ is None


# JSON.


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "the answer is empty"),
        (b" \r\n", "the answer is empty"),
        (b"<!DOCTYPE html><title>Sign in</title>", "the answer is HTML or XML instead of JSON"),
        (b"\n <html>", "the answer is HTML or XML instead of JSON"),
        (b"\xef\xbb\xbf{}", "the answer starts with a byte order mark"),
        (b"{\x00}", "the answer is not JSON"),
        (b"\xff\xfe{\x00}\x00", "the answer is not JSON"),
        (b'{"a": "\xff"}', "the answer is not JSON"),
        (b"{'a': 1}", "the answer is not JSON"),
        (b"{} {}", "the answer is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "the answer is not JSON"),
        (b'{"a": ' + b"[" * 100_000, "the answer has more than 32 levels"),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", "the answer has more than 32 levels"),
        (b"[]", "the answer is JSON, but not an object"),
        (b"null", "the answer is JSON, but not an object"),
        (b'"text"', "the answer is JSON, but not an object"),
        (b'{"a": 1, "a": 1}', "the answer has duplicate members"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "the answer has duplicate members"),
        (b'{"a": NaN}', "the answer has numbers that JSON does not know"),
        (b'{"a": 1e999}', "the answer has numbers that JSON does not know or nobody can hold"),
        (b'{"a": "\\ud800"}', "the answer has lone surrogates"),
        (b'{"a": -Infinity}', "the answer has numbers that JSON does not know"),
    ],
)
def test_what_is_not_a_json_object_is_said_in_a_sentence(body: bytes, sentence: str) -> None:
    assert refusal(lambda: reply(body).json_object()).startswith(sentence)


def test_a_json_object_is_returned_as_it_is() -> None:
    assert reply(b' {"a": ["\xc3\xbc", 1, null]} ').json_object() == {"a": ["ü", 1, None]}


# Through a proxy.


def proxied(proxy: str, **options: Any) -> BackChannel:
    return BackChannel(timeout=5, proxy=ProxyUrl(proxy), **options)


def test_a_proxy_takes_a_request_over_http_and_alone_sees_its_password() -> None:
    with Server(answer(b'{"keys": []}')) as proxy:
        kept = proxied(proxy.url.replace("://", f"://us%40er:{SECRET}@"))
        assert kept.get("http://keycloak.invalid:8080/certs").json_object() == {"keys": []}
    assert proxy.requests[0].startswith(b"GET http://keycloak.invalid:8080/certs HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + b64encode(f"us@er:{SECRET}".encode()) in proxy.requests[0]
    assert SECRET not in repr(kept) + repr(vars(kept))


def test_a_proxy_tunnels_https_and_sees_nothing_of_it(tls: ssl.SSLContext, authority: Path) -> None:
    with Server(answer(b'{"access_token": "t"}'), tls=tls) as keycloak, Server(tunnel(keycloak)) as proxy:
        kept = proxied(f"{proxy.url.replace('://', '://user:password@')}/", ca_file=authority)
        assert kept.post_form(f"{keycloak.url}/token", {"client_secret": SECRET}).status == 200
    assert proxy.requests[0].startswith(f"CONNECT {keycloak.url.removeprefix('https://')} HTTP/1.1".encode())
    assert SECRET.encode() not in proxy.requests[0]
    assert SECRET.encode() in keycloak.requests[0]
    assert b"proxy-authorization" not in keycloak.requests[0].lower()


def test_a_proxy_that_speaks_tls_is_checked_with_the_same_certificates(tls: ssl.SSLContext, authority: Path) -> None:
    with Server(answer(), tls=tls) as proxy:
        assert proxied(proxy.url, ca_file=authority).get("http://keycloak.invalid").status == 200
        told = refusal(lambda: proxied(proxy.url).get("http://keycloak.invalid"))
    assert f"through the proxy {proxy.url} (KEYCLOAK_PROXY): its certificate is not trusted" in told


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        (answer(status=f"407 {SECRET}"), "which wants another user name or password: put them into KEYCLOAK_PROXY"),
        (answer(status="502 Bad Gateway"), "which answered 502"),
        (answer(status="403 Forbidden"), "which answered 403"),
    ],
)
def test_a_proxy_that_refuses_is_named_without_its_password(script: bytes, sentence: str) -> None:
    with Server(script) as proxy:
        told = refusal(lambda: proxied(proxy.url.replace("://", f"://user:{SECRET}@")).get("https://keycloak.invalid"))
    assert (
        told == f"no connection to https://keycloak.invalid through the proxy {proxy.url} (KEYCLOAK_PROXY), {sentence}"
    )


def test_a_proxy_that_is_not_there_is_named_without_its_password() -> None:
    told = refusal(lambda: proxied(f"http://user:{SECRET}@127.0.0.1:1").get("https://keycloak.invalid"))
    assert told.startswith(
        "cannot connect to https://keycloak.invalid through the proxy http://127.0.0.1:1 (KEYCLOAK_PROXY): "
    )
    assert SECRET not in told


def test_a_proxy_that_drips_ends_at_the_deadline() -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(Server(lambda connection: proxy.drip(connection, b"HTTP/1.1 200 OK\r\nX: ")))
        told = refusal(lambda: BackChannel(timeout=0.3, proxy=ProxyUrl(proxy.url)).get("https://keycloak.invalid"))
    assert told == "no complete answer within 0.3 s"


@pytest.mark.parametrize(
    ("environment", "url", "name"),
    [
        ({"HTTPS_PROXY": f"http://u:{SECRET}@proxy"}, "https://keycloak", "HTTPS_PROXY"),
        ({"https_proxy": "http://proxy"}, "https://keycloak", "HTTPS_PROXY"),
        ({"HTTP_PROXY": "http://proxy"}, "http://keycloak", "HTTP_PROXY"),
        ({"ALL_PROXY": "http://proxy"}, "https://keycloak", "ALL_PROXY"),
        ({"HTTP_PROXY": "http://proxy"}, "https://keycloak", ""),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "keycloak"}, "https://keycloak:8443", ""),
        ({"HTTPS_PROXY": "http://proxy", "NO_PROXY": "*"}, "https://keycloak", ""),
        ({"HTTPS_PROXY": ""}, "https://keycloak", ""),
        ({}, "https://keycloak", ""),
    ],
)
def test_a_proxy_of_the_environment_that_is_not_used_is_known_by_its_name(
    environment: dict[str, str], url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert unused_proxy(url) == name


def tunnel(there: "Server") -> Script:
    """Return what a proxy does after CONNECT: carry bytes both ways until one side ends."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
            sink.shutdown(socket.SHUT_WR)

    def script(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", int(there.url.rpartition(":")[2]))) as onward:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=carry, args=(onward, connection))
            back.start()
            carry(connection, onward)
            back.join(5)

    return script

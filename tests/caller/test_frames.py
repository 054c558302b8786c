"""Error trackers record the locals of every frame above a log record: no such frame shows what proves who we are."""

import asyncio
import importlib
import json
import logging
import socketserver
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import httpx
import pytest
from joserfc.jwk import ECKey

from s2s_fastapi import KeycloakSettings, KeysUnavailable, ServiceTokenAuth, TokenRequestError, TokenWithheld
from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.caller.client_key import ClientKey, registration
from s2s_fastapi.caller.service_client import service_client
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.telemetry.foreign import LOGGERS, held_back
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.verifier.keys import KeySource
from tests.caller.bound import BindingKeycloak, proofs
from tests.caller.fakes import jwt, receiver, settings
from tests.caller.federated import federated, token
from tests.kit.authority import issue, make_authority
from tests.kit.mtls import TlsServer, keycloak
from tests.kit.reported import reported
from tests.testing.asking import SECRET, client, document


class Tracker(logging.Handler):
    """Keeps, with each record, what the frames above it show."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.kept: list[tuple[str, str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        frame: Any = sys._getframe().f_back
        while frame is not None:
            shown = " ".join(repr(value) for value in frame.f_locals.values())
            self.kept.append((record.name, frame.f_code.co_name, shown))
            frame = frame.f_back

    @property
    def names(self) -> set[str]:
        """The loggers that spoke."""
        return {name for name, _, _ in self.kept}

    def leaks(self, *secrets: str) -> list[tuple[str, str]]:
        """Return where one of `secrets` was seen. A test's own frames, and those of the runner, know what they look for."""
        return [
            (name, frame)
            for name, frame, shown in self.kept
            if any(secret in shown for secret in secrets if secret) and not frame.startswith(("test_", "run_one_test"))
        ]


class LoopbackProxy:
    """Gives each request the same answer, whatever it asks."""

    def __init__(self, answer: bytes) -> None:
        self.asked = 0

        class Answering(socketserver.StreamRequestHandler):
            def handle(handler) -> None:  # noqa: N805 - `self` is the proxy
                self.asked += 1
                while handler.rfile.readline().strip():
                    pass
                handler.wfile.write(answer)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    tracker, root = Tracker(), logging.getLogger()
    level = root.level
    root.addHandler(tracker)
    root.setLevel(logging.DEBUG)
    try:
        yield tracker
    finally:
        root.setLevel(level)
        root.removeHandler(tracker)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "private_key_jwt"])
def test_no_frame_above_a_log_record_shows_a_secret_an_assertion_or_a_token(
    tracker: Tracker, tmp_path: Path, method: str
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(ECKey.generate_key("P-256").as_pem(private=True))
    signs = client("signs", **registration("signs", [ClientKey.read(file)]))
    issuer = EmbeddedIssuer(document(clients=[client("caller"), signs]))
    proof: dict[str, Any] = {"client_id": "caller", "client_secret": SECRET}
    if method == "private_key_jwt":
        proof = {"client_id": "signs", "client_key_file": file}

    with issuer.serving(), using(TokenSource()):
        settings = KeycloakSettings(url=issuer.url, realm="corp", client_auth=method, **proof)
        token = ServiceTokenAuth(settings=settings).token()

    reported()
    (exchange,) = issuer.requests("token")
    header, assertion = exchange.request.header("authorization") or "", exchange.form.get("client_assertion", "")
    sent = [token, SECRET, file.read_text().splitlines()[1], header.rpartition(" ")[2], assertion.rpartition(".")[2]]
    assert "httpcore.http11" in tracker.names
    assert "httpx" not in tracker.names
    assert tracker.leaks(*sent) == []


@pytest.mark.parametrize("fault", ["", "foreign", "another key"])
def test_no_frame_above_a_log_record_shows_the_key_of_a_certificate(
    tracker: Tracker, tmp_path: Path, fault: str
) -> None:
    authority = make_authority(tmp_path / "authority")
    file = issue(make_authority(tmp_path / "foreign") if fault == "foreign" else authority, tmp_path, together=True)
    key = file if fault != "another key" else issue(authority, tmp_path / "other").with_suffix(".key")
    answer = keycloak(lambda claims: jwt(**claims))
    with TlsServer(authority, answer) as server, using(TokenSource()):
        auth = ServiceTokenAuth(
            settings=KeycloakSettings(
                url=server.url,
                realm="corp",
                client_id="caller",
                client_auth="tls_client_auth",
                client_cert_file=file,
                client_cert_key_file=None if key == file else key,
                ca_file=authority,
            )
        )
        token = ""
        if fault:
            with pytest.raises((TokenRequestError, ConfigurationError)):
                auth.token()
        else:
            token = auth.token()
        reported()
    lines = [
        line
        for one in {file, key}
        for line in one.read_text().partition("PRIVATE KEY-----\n")[2].splitlines()
        if not line.startswith("-")
    ]
    assert len(lines) >= 3
    assert tracker.kept
    assert tracker.leaks(token, *lines) == []


def test_no_frame_above_a_log_record_shows_the_token_of_a_platform(tracker: Tracker, tmp_path: Path) -> None:
    file = tmp_path / "token"
    texts, answers = [], []
    with receiver() as server:
        realm = f"{server.url}/realms/corp"
        cases: list[dict[str, Any]] = [{}, {}, {"aud": "x"}, {"exp": 5}, {"iat": 5}]
        for number, changes in enumerate(cases):
            life: dict[str, Any] = {"aud": realm, "iat": time.time(), "exp": time.time() + 3600, "jti": str(number)}
            texts.append(token(**{**life, **changes}))
            claims = {"azp": "chat-app-service", "iat": 100, "exp": 400}
            body = {"access_token": jwt(**claims), "expires_in": 300, "token_type": "Bearer"}
            refusal = {"error": "invalid_client", "error_description": texts[-1]}
            server.always = (401 if number == 1 else 200, {}, json.dumps(refusal if number == 1 else body).encode())
            file.write_text(texts[-1])
            with using(TokenSource()):
                auth = ServiceTokenAuth(settings=federated(file, url=server.url))
                try:
                    answers.append(auth.token())
                except TokenRequestError as error:
                    answers.append(error.error)
        reported()

    assert [answer if answer in ("", "invalid_client") else "token" for answer in answers] == [
        "token",
        "invalid_client",
        *[""] * 3,
    ]
    assert {"httpcore.http11", "s2s_fastapi.caller"} <= tracker.names
    assert len(server.seen) == 2
    assert tracker.leaks(*texts, *(part for text in texts for part in text.split(".")[1:])) == []


@pytest.mark.parametrize("way", ["httpx", "service_client", "requests", "aiohttp", "headers_for"])
def test_no_frame_above_a_log_record_shows_a_private_key_or_a_proof(tracker: Tracker, way: str) -> None:
    async def by_aiohttp() -> None:
        async with aiohttp.ClientSession(middlewares=[auth.for_aiohttp()]) as session:
            await session.get(bob.url)

    keycloak = BindingKeycloak(nonce="wanted")
    with receiver() as bob, using(TokenSource(channel=keycloak)):
        options: dict[str, Any] = {"audience": "bob", "settings": settings(), "dpop": True}
        auth = ServiceTokenAuth(bob.url, **options)
        wanted = {"WWW-Authenticate": 'DPoP error="use_dpop_nonce"', "DPoP-Nonce": "n"}
        bob.answers = [(307, {"Location": "/b"}, b""), (401, wanted, b""), (200, {}, b"")]
        if way == "httpx":
            httpx.get(bob.url, auth=auth, follow_redirects=True)
        elif way == "service_client":
            with service_client(bob.url, follow_redirects=True, **options) as client:
                client.get("/")
        elif way == "requests":
            with auth.for_requests() as session:
                session.get(bob.url)
        elif way == "aiohttp":
            asyncio.run(by_aiohttp())
        else:
            with pytest.raises(TokenWithheld):
                auth.headers_for("GET", f"{bob.url}0")
            httpx.get(bob.url, headers=auth.headers_for("GET", bob.url))
        token = auth._ready()
    reported()
    assert token.binding is not None
    private = token.binding.key._private.as_dict(private=True)["d"]
    texts = [proof.text.rpartition(".")[2] for proof in (*proofs(bob), *keycloak.shown) if proof is not None]
    assert len(texts) >= 3
    assert tracker.kept
    assert tracker.leaks(private) == []
    if way not in {"requests", "headers_for"}:  # there, frames of other packages hold the headers while they log
        assert tracker.leaks(token.value, *texts) == []


PASSWORD = "p4ssword-of-the-proxy"


def through(proxy: str, *, https: bool = False) -> KeycloakSettings:
    return KeycloakSettings(
        url="https://keycloak.invalid" if https else "http://keycloak.invalid",
        realm="corp",
        client_id="caller",
        client_secret=SECRET,
        proxy=proxy.replace("://", f"://user:{PASSWORD}@"),
    )


@pytest.mark.parametrize("https", [False, True], ids=["forwards", "tunnels"])
@pytest.mark.parametrize("status", [200, 407])
@pytest.mark.parametrize("asks", ["keys", "token"])
def test_no_frame_above_a_log_record_shows_the_password_of_the_proxy(
    tracker: Tracker, asks: str, status: int, https: bool
) -> None:
    answer = f"HTTP/1.1 {status} OK\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    with LoopbackProxy(answer) as proxy:
        settings = through(proxy.url, https=https)
        if asks == "keys":
            with pytest.raises(KeysUnavailable):
                KeySource.of(settings).get()
        else:
            with using(TokenSource()), pytest.raises(TokenRequestError):
                ServiceTokenAuth(settings=settings).token()
    reported()
    assert proxy.asked
    assert {"httpcore.connection", "httpcore.http11"} <= tracker.names
    pair = b64encode(f"user:{PASSWORD}".encode()).decode()
    assert tracker.leaks(PASSWORD, pair, SECRET, b64encode(f"caller:{SECRET}".encode()).decode()) == []


def test_no_frame_shows_a_secret_if_nothing_answers(tracker: Tracker) -> None:
    settings = KeycloakSettings(url="http://127.0.0.1:1", realm="corp", client_id="caller", client_secret=SECRET)
    with using(TokenSource()), pytest.raises(TokenRequestError):
        ServiceTokenAuth(settings=settings).token()
    reported()
    assert "httpcore.connection" in tracker.names
    assert tracker.leaks(SECRET) == []


def test_an_exchange_outside_of_a_load_holds_records_back_too(tracker: Tracker) -> None:
    with LoopbackProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as server:
        BackChannel(timeout=5).post_form(f"{server.url}/token", {"client_secret": SECRET})
    assert "httpcore.http11" in tracker.names
    assert tracker.leaks(SECRET) == []


def test_a_transport_that_somebody_gives_is_held_back_too(tracker: Tracker) -> None:
    with LoopbackProxy(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}") as server:
        channel = BackChannel(timeout=5, transport=httpx.HTTPTransport)
        channel.post_form(f"{server.url}/token", {"client_secret": SECRET})
    assert "httpcore.http11" in tracker.names
    assert tracker.leaks(SECRET) == []


# What is held back


class Needs(logging.Handler):
    """Ships each record with a token, as a handler does that writes to a service."""

    def __init__(self, settings: KeycloakSettings) -> None:
        super().__init__(logging.DEBUG)
        self.auth = ServiceTokenAuth(settings=settings)
        self.shipped: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.auth.token()
        self.shipped.append(record.name)


def test_a_handler_at_debug_that_needs_the_token_does_not_wait_for_itself() -> None:
    issuer, root = EmbeddedIssuer(document()), logging.getLogger()
    with issuer.serving(), using(TokenSource()):
        settings = KeycloakSettings(url=issuer.url, realm="corp", client_id="caller", client_secret=SECRET)
        handler, level = Needs(settings), root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            # The handler's lock is held while it waits. A record inside the load would wait for that lock, until the handler gets the
            # error of its deadline here.
            logging.getLogger("the app").info("hello")
            reported()
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
    assert handler.shipped[0] == "the app"
    assert "httpcore.http11" in handler.shipped
    assert len(issuer.requests("token")) == 1


@pytest.mark.parametrize("library", ["httpcore", "httpcore2"])
def test_every_logger_of_the_http_libraries_is_held_back(library: str) -> None:
    importlib.import_module(library)
    found = {name for name in logging.root.manager.loggerDict if name.startswith(f"{library}.")}
    assert found == {name for name in LOGGERS if name.startswith(f"{library}.")}


@pytest.mark.parametrize("name", LOGGERS)
def test_a_record_is_reported_once_when_the_exchange_is_over_with_its_own_time(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(name)
    with caplog.at_level(logging.DEBUG):
        with held_back():
            logger.debug("one %s", "step")
            logger.debug("another")
            assert caplog.messages == []
        assert caplog.messages == ["one step", "another"]
        logger.debug("later")
    assert caplog.messages == ["one step", "another", "later"]
    assert caplog.records[0].created <= caplog.records[1].created


def test_what_other_threads_log_meanwhile_is_reported_at_once(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("httpcore.http11")
    with caplog.at_level(logging.DEBUG), held_back():
        thread = threading.Thread(target=logger.debug, args=("of the app's own client",))
        thread.start()
        thread.join()
        assert caplog.messages == ["of the app's own client"]


def test_records_are_held_back_also_after_somebody_removed_our_filter(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("httpcore.http11")
    for _ in range(3):
        with caplog.at_level(logging.DEBUG), held_back():
            logger.debug("step")
            assert caplog.messages == []
        assert len(logger.filters) == 1
        caplog.clear()
        logger.filters.clear()


def test_records_are_reported_if_the_exchange_fails(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        logging.getLogger("httpcore.http11").debug("step")
        raise OSError

    with caplog.at_level(logging.DEBUG), pytest.raises(OSError), held_back():  # noqa: PT011 - raised two lines above
        fails()
    assert caplog.messages == ["step"]

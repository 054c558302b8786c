"""A Keycloak at the channel seam, a clock, and a receiver on a real socket."""

import json
import socket
import ssl
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

from s2s_fastapi.backchannel.channel import BackChannelError, Reply
from s2s_fastapi.settings import KeycloakSettings
from tests.kit.reported import sleeping

SECRET = "s3cret-of-the-chat-app"


class Clock:
    """A monotonic clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def settings(**changes: Any) -> KeycloakSettings:
    given: dict[str, Any] = {
        "url": "http://keycloak:8080",
        "realm": "corp",
        "client_id": "chat-app-service",
        "client_secret": SECRET,
    }
    return KeycloakSettings(**{name: value for name, value in (given | changes).items() if value is not None})


def b64(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


def jwt(**claims: Any) -> str:
    return f"{b64('{}')}.{b64(json.dumps(claims))}.{b64('signature')}"


def reply(status: int = 200, body: Any = None, headers: Mapping[str, str] | None = None) -> Reply:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, httpx.Headers(dict(headers or {})), content)


def refusal(status: int, error: str, description: str = "") -> Reply:
    return reply(status, {"error": error, "error_description": description} if description else {"error": error})


def wait_until_idle() -> None:
    """Let loads end, and what they report. A thread may start another, and one of an earlier test may sleep for a minute."""
    until = time.monotonic() + 10
    while any(thread.name.startswith("s2s_fastapi-") and not sleeping(thread) for thread in threading.enumerate()):
        if time.monotonic() > until:
            return
        time.sleep(0.001)


@dataclass
class Asked:
    """One token request."""

    url: str
    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class Keycloak:
    """Answers token requests: with what stands in `answers`, then with a token for `aud`."""

    aud: list[str] | str | None = "bob"
    life: int = 300
    delay: float = 0.0
    answers: list[Reply | BackChannelError | Callable[[Asked], Reply]] = field(default_factory=list)
    always: Reply | BackChannelError | None = None
    requests: list[Asked] = field(default_factory=list)
    claims: dict[str, Any] = field(default_factory=dict)
    scope: str | None = None
    opened: list[KeycloakSettings] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, settings: KeycloakSettings) -> "Keycloak":
        self.opened.append(settings)
        return self

    def post_form(self, url: str, form: dict[str, str], headers: dict[str, str] | None = None) -> Reply:
        asked = Asked(url, form, headers or {})
        with self.lock:
            self.requests.append(asked)
            number = len(self.requests)
            answer = self.answers.pop(0) if self.answers else self.always
        if self.delay:
            time.sleep(self.delay)
        if isinstance(answer, BackChannelError):
            raise answer
        if callable(answer):
            return answer(asked)
        return answer or self.grant(number)

    def grant(self, number: int) -> Reply:
        claims = {"iss": "http://keycloak:8080/realms/corp", "iat": 100, "exp": 100 + self.life, "jti": f"t{number}"}
        if self.aud is not None:
            claims["aud"] = self.aud
        body = {"access_token": jwt(**(claims | self.claims)), "expires_in": self.life, "token_type": "Bearer"}
        return reply(200, body if self.scope is None else body | {"scope": self.scope})


@dataclass
class Seen:
    """One request as it arrived over the wire."""

    method: str
    path: str
    host: str
    authorization: str | None
    body: bytes


INVALID_TOKEN = {"WWW-Authenticate": 'Bearer realm="bob", error="invalid_token", error_description="expired"'}

Answer = tuple[int, Mapping[str, str], bytes | Iterator[bytes]]


class Receiver:
    """A service on a real socket: it reads what was really sent, which httpx.MockTransport does not show."""

    def __init__(self, port: int, scheme: str = "http") -> None:
        self.url = f"{scheme}://127.0.0.1:{port}"
        self.seen: list[Seen] = []
        self.answers: list[Answer] = []
        self.always: Answer = (200, {}, b"ok")
        self.refused: set[str] = set()
        """Authorization values that are answered with 401 invalid_token, whenever they come."""
        self.sent = 0
        self.headers: list[Message] = []
        self.connections = 0
        self.dates: str | None = None
        """What its answers say in ``Date``; None: what its clock shows, "": nothing."""

    def refuse(
        self, times: int = 1, headers: Mapping[str, str] = INVALID_TOKEN, body: bytes | Iterator[bytes] = b""
    ) -> None:
        self.answers += [(401, headers, body)] * times

    @property
    def tokens(self) -> list[str | None]:
        return [seen.authorization for seen in self.seen]


@contextmanager
def receiver(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    class Conversation(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or each answer waits 40 ms for an acknowledgement

        def setup(self) -> None:
            there.connections += 1
            super().setup()

        def answer(self) -> None:
            there.headers.append(self.headers)
            there.seen.append(
                Seen(self.command, self.path, self.headers["Host"], self.headers["Authorization"], self.content())
            )
            refused = self.headers["Authorization"] in there.refused
            queued = there.answers if not refused else [(401, INVALID_TOKEN, b"")]
            status, headers, body = queued.pop(0) if queued else there.always
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if isinstance(body, bytes):
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                for chunk in body:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                    there.sent += len(chunk)
                self.wfile.write(b"0\r\n\r\n")
            except OSError:
                self.close_connection = True

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

        def content(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", "0")))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(timestamp) if there.dates is None else there.dates

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that went away

        def shutdown_request(self, request: Any) -> None:
            if isinstance(request, socket.socket):
                super().shutdown_request(request)

    server = Server(("127.0.0.1", 0), Conversation)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    there = Receiver(server.server_address[1], "https" if tls else "http")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)
    thread.start()
    try:
        yield there
    finally:
        server.shutdown()
        server.server_close()
        thread.join(2)

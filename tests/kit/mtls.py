"""A server on loopback that speaks TLS, asks for a client certificate, and remembers which one each request came with."""

import json
import socket
import ssl
import struct
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from tests.kit.authority import server_context

__all__ = ["Came", "TlsServer", "keycloak", "receiver"]


@dataclass(frozen=True)
class Came:
    """One request, and the ``x5t#S256`` of the certificate that its connection showed; "" if it showed none."""

    path: str
    thumbprint: str
    authorization: str = field(repr=False)
    form: Mapping[str, str] = field(repr=False)


Answer = tuple[int, dict[str, str], Any]


class TlsServer:
    """Answers with what `answer` makes of each request. Its certificate is that of `authority`; clients may show one of `trusted`.

    With `resets`, it ends each connection after its answer, as a server that crashes.
    """

    def __init__(
        self,
        authority: Path,
        answer: Callable[[Came], Answer],
        *,
        trusted: Path | None = None,
        mode: ssl.VerifyMode = ssl.CERT_OPTIONAL,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        resets: bool = False,
    ) -> None:
        self.came: list[Came] = []
        self.connections = 0
        context = server_context(authority)
        context.maximum_version = newest
        context.verify_mode = mode
        context.load_verify_locations(trusted or authority)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            disable_nagle_algorithm = True

            def setup(self) -> None:
                outer.connections += 1
                self.request = context.wrap_socket(self.request, server_side=True, do_handshake_on_connect=False)
                super().setup()

            def handle(self) -> None:
                try:
                    self.request.do_handshake()
                    super().handle()
                except OSError:  # the client left, or showed a certificate that is refused
                    self.close_connection = True

            def do_POST(self) -> None:
                der = self.request.getpeercert(binary_form=True)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                came = Came(
                    self.path,
                    urlsafe_b64encode(sha256(der).digest()).decode().rstrip("=") if der else "",
                    self.headers.get("Authorization", ""),
                    dict(parse_qsl(body.decode("utf-8", "replace"))),
                )
                outer.came.append(came)
                status, headers, content = answer(came)
                raw = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(raw)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)
                if resets:
                    self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True

            do_GET = do_CONNECT = do_POST  # noqa: N815 - the names that the base class calls

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    pass
                finally:
                    self.request.close()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def keycloak(
    issue: Callable[[dict[str, Any]], str], *, bound: bool = True, life: int = 300
) -> Callable[[Came], Answer]:
    """Return what a token endpoint answers that binds its tokens to the certificate of the request (RFC 8705 section 3)."""

    def answer(came: Came) -> Answer:
        claims: dict[str, Any] = {
            "aud": "bob",
            "azp": came.form.get("client_id", "chat-app-service"),
            "iat": 100,
            "exp": 100 + life,
        }
        if bound and came.thumbprint:
            claims["cnf"] = {"x5t#S256": came.thumbprint}
        return 200, {}, {"access_token": issue(claims), "token_type": "Bearer", "expires_in": life}

    return answer


def receiver(claims_of: Callable[[str], dict[str, Any]]) -> Callable[[Came], Answer]:
    """Return what a service answers that accepts a token only over a connection with its certificate."""

    def answer(came: Came) -> Answer:
        claims = claims_of(came.authorization.partition(" ")[2])
        if claims.get("cnf", {}).get("x5t#S256") != came.thumbprint:
            return 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}, {"detail": "wrong_certificate"}
        return 200, {}, {"thumbprint": came.thumbprint}

    return answer

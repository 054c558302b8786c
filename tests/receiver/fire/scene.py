"""The embedded issuer on a real socket, and a service that takes its keys from there."""

import json
import ssl
from pathlib import Path
from typing import Self

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer, Request, Response
from s2s_fastapi.testing.server import LoopbackServer
from tests.receiver.fire.service import Service, signed
from tests.testing.asking import CERTS, SECRET, document, part

__all__ = ["Scene"]


class Scene(Service):
    """One service and its Keycloak."""

    def __init__(self, *, unseen: bool = False, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(unseen=unseen)
        self.issuer = EmbeddedIssuer(document(), clock=self.time.wall)
        self.issuer.signing_kid("corp")  # keys take their time to be made
        self._tls = tls
        self._scheme = "https" if tls else "http"
        self._server: LoopbackServer | None = None
        self.serving = False

    def __enter__(self) -> Self:
        self._stack.callback(self.keycloak_stops)
        return super().__enter__()

    def keycloak_starts(self, *, tls: ssl.SSLContext | None = None) -> None:
        """Serve the issuer on a socket: the same one every time."""
        port = self._server.port if self._server is not None else 0
        server = LoopbackServer(self._answer, port=port)
        context = tls or self._tls
        if context is not None:
            # The handshake is left to the connection's own thread, or one that hangs would keep all others out.
            server._server.socket = context.wrap_socket(
                server._server.socket, server_side=True, do_handshake_on_connect=False
            )
        server.__enter__()
        self._server = server
        self.serving = True
        self.issuer.url = f"{self._scheme}://127.0.0.1:{server.port}"

    def keycloak_stops(self) -> None:
        """Close the socket; connections are refused from here on."""
        if self._server is not None and self.serving:
            self.serving = False
            self._server.__exit__()

    def _answer(self, request: Request) -> Response:
        if request.path == CERTS and not self._unseen:
            self.tally.fetches.append(self.time.monotonic())
        return self.issuer.answer(request)

    def certs(self) -> bytes:
        """Return the body of the JWKS as it is now; nothing is recorded, no fault applies."""
        return json.dumps({"keys": self.issuer._realm("corp").keys.published()}).encode()

    def token(self, client: str = "caller") -> str:
        """Return a new token of Keycloak's."""
        return self.issuer.service_token("corp", client)

    def service_starts(self, *, ca_file: Path | None = None) -> None:
        """Start the app and let it load its keys."""
        self.starts(
            KeycloakSettings(
                url=self.issuer.url, realm="corp", client_id="receiver", client_secret=SECRET, ca_file=ca_file
            )
        )

    def confusions(self) -> list[str]:
        """Return tokens whose header names a published key with another key's algorithm."""
        tokens = [self.token(), self.token("signs-ES256")]
        kids = [part(token, 0)["kid"] for token in tokens]
        return [signed(tokens[0], kid=kids[1]), signed(tokens[1], kid=kids[1], alg="ES256")]

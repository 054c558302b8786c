"""An issuer on loopback in the place of a cluster's API server, and the folder into which its kubelet projects a token."""

import json
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import RSAKey

__all__ = ["Cluster", "Projection", "federated_client"]


class Cluster:
    """Signs tokens of service accounts, and shows its keys as an API server does. `rotate` signs with a new key from then on."""

    def __init__(self) -> None:
        self._keys: list[RSAKey] = []
        self.fetched = 0
        """How often somebody read its keys."""
        self.rotate()
        cluster = self

        class Answering(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = cluster._answer(self.path)
                self.send_response(200 if answer else 404)
                body = json.dumps(answer).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self, *, shown: bool = True) -> RSAKey:
        """Make a key and return it; it signs from now on if it is `shown` to those who read the keys."""
        key = RSAKey.generate_key(2048, {"kid": uuid.uuid4().hex, "use": "sig", "alg": "RS256"})
        if shown:
            self._keys.append(key)
        return key

    def token(self, audience: str, *, key: RSAKey | None = None, age: int = 0, life: int = 3600, **claims: Any) -> str:
        """Return a token for `audience`, issued `age` seconds ago for `life` seconds; a claim that is None is left out."""
        key, since = key or self._keys[-1], int(time.time()) - age
        whole = {
            "iss": self.url,
            "aud": [audience],
            "iat": since,
            "nbf": since,
            "exp": since + life,
            "jti": str(uuid.uuid4()),
            **claims,
        }
        present = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode({"alg": "RS256", "kid": key.kid}, present, key, algorithms=["RS256"])

    def _answer(self, path: str) -> Mapping[str, Any] | None:
        if path.endswith("/.well-known/openid-configuration"):
            return {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/openid/v1/jwks",
                "id_token_signing_alg_values_supported": ["RS256"],
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
            }
        if path == "/openid/v1/jwks":
            self.fetched += 1
            return {"keys": [key.as_dict(private=False) for key in self._keys]}
        return None


class Projection:
    """A folder as the kubelet fills it: the file is a link through ``..data``, which a rename points to another folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0
        self.file = folder / "keycloak"
        self.file.symlink_to("..data/keycloak")

    def write(self, token: str) -> None:
        """Put another token in the place of the present one, in one step."""
        self._written += 1
        folder = self._folder / f"..{self._written}"
        folder.mkdir()
        (folder / "keycloak").write_text(token)
        link = self._folder / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(self._folder / "..data")


def federated_client(client_id: str, alias: str, subject: str, **more: Any) -> dict[str, Any]:
    """Return a client of a realm file that the tokens of `subject` from the identity provider `alias` prove."""
    return {
        "clientId": client_id,
        "enabled": True,
        "publicClient": False,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
        "clientAuthenticatorType": "federated-jwt",
        "attributes": {"jwt.credential.issuer": alias, "jwt.credential.sub": subject},
        **more,
    }

"""The realms of the stories on a running server, and how a plain client asks them for a token."""

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from example_app import cluster

__all__ = ["REALMS", "Realm", "claims_of", "filled", "fresh_secrets"]

_FILES = Path(__file__).resolve().parent / "realms"
REALMS = {path.stem: path for path in sorted(_FILES.glob("*.json"))}

# Upper case only: "${client_id}" in a role mapper is Keycloak's own.
_PLACEHOLDER = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def fresh_secrets() -> dict[str, str]:
    """Return a new random value for every placeholder of every realm file."""
    names = {name for path in REALMS.values() for name in _PLACEHOLDER.findall(path.read_text(encoding="utf-8"))}
    return {name: secrets.token_urlsafe(24) for name in sorted(names)} | {"CLUSTER_KEY": cluster.public_key()}


def filled(realm: str, values: Mapping[str, str]) -> dict[str, Any]:
    """Return a realm file with its placeholders replaced, as ``--import-realm`` would read it."""
    text = _PLACEHOLDER.sub(lambda found: json.dumps(values[found[1]])[1:-1], REALMS[realm].read_text(encoding="utf-8"))
    representation: dict[str, Any] = json.loads(text)
    return representation


def claims_of(token: str) -> dict[str, Any]:
    """Return what an access token says, unverified: these tests look at what Keycloak issues."""
    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@dataclass(frozen=True)
class Realm:
    """One realm of one server, with the secrets this run gave to its clients and users."""

    name: str
    url: str
    """The server as this machine reaches it, without its path."""
    public_url: str
    """The server as ``iss`` names it, without its path."""
    auth_path: str
    values: Mapping[str, str] = field(repr=False)
    exchanges: bool = True
    """Whether the server exchanges tokens: Keycloak 26.2 and newer do."""
    binds: bool = True
    """Whether the server binds tokens to keys (DPoP): Keycloak 26.4 and newer do."""

    @property
    def issuer(self) -> str:
        """What stands in ``iss``."""
        return f"{self.public_url}{self.auth_path}/realms/{self.name}"

    @property
    def internal(self) -> str:
        """The same realm at the address this machine reaches."""
        return f"{self.url}{self.auth_path}/realms/{self.name}"

    @property
    def token_url(self) -> str:
        """The token endpoint at the address this machine reaches."""
        return f"{self.internal}/protocol/openid-connect/token"

    @property
    def jwks_url(self) -> str:
        """The key set at the address this machine reaches."""
        return f"{self.internal}/protocol/openid-connect/certs"

    def secret(self, client_id: str) -> str:
        """Return a client's secret."""
        return self.values[f"{_variable(client_id)}_SECRET"]

    def password(self, username: str) -> str:
        """Return a user's password."""
        return self.values[f"{_variable(username)}_PASSWORD"]

    def environment(self, client_id: str) -> dict[str, str]:
        """Return the ``KEYCLOAK_*`` variables of the service that is this client."""
        return {**self._place(client_id), "KEYCLOAK_CLIENT_SECRET": self.secret(client_id)}

    def _place(self, client_id: str) -> dict[str, str]:
        variables = {"KEYCLOAK_URL": self.url, "KEYCLOAK_REALM": self.name, "KEYCLOAK_CLIENT_ID": client_id}
        if self.public_url != self.url:
            variables["KEYCLOAK_PUBLIC_URL"] = self.public_url
        if self.auth_path:
            variables["KEYCLOAK_AUTH_PATH"] = self.auth_path
        return variables

    def without_secret(self, client_id: str, token: Path) -> dict[str, str]:
        """Return the ``KEYCLOAK_*`` variables of the service that is this client, and proves it by a token of the cluster."""
        return {
            **self._place(client_id),
            "KEYCLOAK_CLIENT_AUTH": "federated_jwt",
            "KEYCLOAK_CLIENT_ASSERTION_FILE": str(token),
        }

    def ask(self, **form: str) -> httpx.Response:
        """Send a form to the token endpoint and return the answer, whatever it is."""
        return httpx.post(self.token_url, data=form, timeout=30, trust_env=False)

    def service_token(self, client_id: str, scope: str | None = None) -> str:
        """Return a client-credentials access token."""
        asked = {} if scope is None else {"scope": scope}
        return _granted(
            self.ask(
                grant_type="client_credentials", client_id=client_id, client_secret=self.secret(client_id), **asked
            )
        )

    def user_token(self, username: str, *, via: str, scope: str | None = None) -> str:
        """Return a user's access token, obtained through the client ``via``."""
        form = {"grant_type": "password", "client_id": via, "username": username, "password": self.password(username)}
        if f"{_variable(via)}_SECRET" in self.values:
            form["client_secret"] = self.secret(via)
        return _granted(self.ask(**form, **({} if scope is None else {"scope": scope})))


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _granted(answer: httpx.Response) -> str:
    # Its own sentence: raise_for_status would be silent about Keycloak's reason, and a repr of the request holds the secret.
    if answer.status_code != httpx.codes.OK:
        raise RuntimeError(f"token refused: {answer.status_code} {answer.text[:300]}")
    token: str = answer.json()["access_token"]
    return token

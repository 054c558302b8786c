"""One realm of the issuer: its model, its keys, and the parts of its file that no token shows."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.testing.assertions import Seen
from s2s_fastapi.testing.documents import with_secrets
from s2s_fastapi.testing.keys import RealmKeys

__all__ = ["IssuerRealm"]

_LIGHTWEIGHT = "client.use.lightweight.access.token.enabled"


class IssuerRealm:
    """A realm of the issuer, as in its file, with fresh keys. `model` computes what it puts into tokens."""

    def __init__(self, document: Mapping[str, Any], *, version: str) -> None:
        complete = with_secrets(document)
        self.model = RealmModel.read(complete, version=version)
        self.name = self.model.name
        self.keys = RealmKeys()
        self.not_before = self.model.not_before
        """Seconds since the epoch."""
        self.assertions = Seen()
        self._clients = {client["clientId"]: client for client in complete.get("clients") or ()}
        self._users = list(complete.get("users") or ())

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets of its confidential clients, by client id."""
        return {name: client["secret"] for name, client in self._clients.items() if client.get("secret")}

    def secret(self, client_id: str) -> str:
        """Return a client's secret.

        Raises:
            ConfigurationError: There is no such client, or it has none.
        """
        try:
            return self.secrets[client_id]
        except KeyError:
            raise ConfigurationError(f"The realm {self.name} has no client {client_id} with a secret.") from None

    @property
    def passwords(self) -> dict[str, str]:
        """The passwords of its users, by user name."""
        found = {name: self.password(name) for name in (str(user.get("username", "")) for user in self._users)}
        return {name: password for name, password in found.items() if password}

    def username(self, login: str) -> str:
        """Return the user that logs in with `login`: a name in any case, or an e-mail address; `login` if there is none."""
        for user in self._users:
            names = [name for name in (user.get("username"), user.get("email")) if isinstance(name, str) and name]
            if names and login.lower() in (name.lower() for name in names):
                return str(user.get("username", login))
        return login

    def password(self, username: str) -> str | None:
        """Return the password the file gives a user, or None."""
        for user in self._users:
            if user.get("username") == username:
                for credential in user.get("credentials") or ():
                    if credential.get("type") == "password":
                        return str(credential.get("value") or "") or None  # an empty password opens nothing
        return None

    def has(self, client_id: str) -> bool:
        """Return whether there is an enabled client of that name."""
        return self._clients.get(client_id, {"enabled": False}).get("enabled") is not False

    def signing(self, client_id: str) -> Mapping[str, Any] | None:
        """Return the attributes of an enabled client that uses signed assertions, or None."""
        client = self._clients.get(client_id, {})
        if client.get("clientAuthenticatorType") != "client-jwt" or not self.has(client_id):
            return None
        return client.get("attributes") or {}

    def lightweight(self, client_id: str) -> bool:
        """Return whether a client's tokens are lightweight, which the front of their ``jti`` shows."""
        attributes = self._clients.get(client_id, {}).get("attributes") or {}
        return str(attributes.get(_LIGHTWEIGHT, "")).lower() == "true"

    def permits_origin(self, client_id: str, origin: str) -> bool:
        """Return whether a browser's page of `origin` may have this client's tokens (``webOrigins``; ``+`` is its redirect URIs)."""
        client = self._clients.get(client_id, {})
        origins = set(client.get("webOrigins") or ())
        if "+" in origins:
            parts = (urlsplit(uri) for uri in client.get("redirectUris") or ())
            origins |= {f"{part.scheme}://{part.netloc}" for part in parts}
        return "*" in origins or origin in origins

"""One realm of the issuer: its model, its keys, and the parts of its file that no token shows."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.realm.exchange import ENABLED
from s2s_fastapi.realm.model import RealmModel
from s2s_fastapi.realm.notices import Notice, notices
from s2s_fastapi.testing.assertions import Seen
from s2s_fastapi.testing.federated import ProviderKeys
from s2s_fastapi.testing.issued import IssuedTokens
from s2s_fastapi.testing.keys import NewKey, RealmKeys

__all__ = ["IssuerRealm"]

_LIGHTWEIGHT = "client.use.lightweight.access.token.enabled"
_GRANTS = (
    ENABLED,
    "oauth2.device.authorization.grant.enabled",
    "oauth2.jwt.authorization.grant.enabled",
    "oidc.ciba.grant.enabled",
)
"""The attributes that switch a flow on. The other flows are members of the client."""


class IssuerRealm:
    """A realm of the issuer, as in its file. `model` computes what it puts into tokens.

    - `new_keys` gives what makes its keys, for its name.
    - If a realm of that name is in `before`, this one has the keys, the tokens, the made secrets and the revocations of that realm.
    """

    def __init__(
        self,
        document: Mapping[str, Any],
        *,
        version: str,
        before: Mapping[str, "IssuerRealm"] | None = None,
        new_keys: Callable[[str], NewKey] | None = None,
    ) -> None:
        given: object = document
        name = given.get("realm") if isinstance(given, Mapping) else None
        previous = (before or {}).get(str(name))
        self.made_secrets: dict[str, str] = dict(previous.made_secrets) if previous else {}
        """The secrets that the file does not have, by client id."""
        self.model = RealmModel.read(document, version=version, new_secret=self._new_secret)
        self.name = self.model.name
        self.keys: RealmKeys = (
            previous.keys if previous else RealmKeys(new_keys(self.name)) if new_keys else RealmKeys()
        )
        self.not_before: int = max(self.model.not_before, previous.not_before if previous else 0)
        """Seconds since the epoch."""
        self.assertions: Seen = previous.assertions if previous else Seen()
        self.provider_keys: ProviderKeys = previous.provider_keys if previous else ProviderKeys()
        """The keys of its identity providers."""
        self.proofs: Seen = previous.proofs if previous else Seen()
        """The ids of the DPoP proofs that it has accepted."""
        self.issued: IssuedTokens = previous.issued if previous else IssuedTokens()
        self._document = document
        self._users = list(document.get("users") or ())

    def _new_secret(self, client_id: str) -> str:
        return self.made_secrets.setdefault(client_id, secrets.token_urlsafe(24))

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Why Keycloak refuses the file, and how its answers may differ."""
        return notices(self._document, self.model)

    @property
    def secrets(self) -> dict[str, str]:
        """The secrets of its confidential clients, by client id."""
        clients = (self.model.client(client_id) for client_id in self.model.client_ids)
        return {client.id: client.secret for client in clients if client is not None and client.secret}

    def secret(self, client_id: str) -> str:
        """Return a client's secret.

        Raises:
            ConfigurationError: There is no such client, or it has none.
        """
        client = self.model.client(client_id)
        if client is None or not client.secret:
            raise ConfigurationError(f"The realm {self.name} has no client {client_id} with a secret.")
        return client.secret

    def gets_tokens(self, client_id: str) -> bool:
        """Return whether a flow of the client is on, by which it could get a token."""
        client = self.model.client(client_id)
        if client is None:
            return False
        listed: Mapping[str, Any] = next(
            (one for one in self._document.get("clients") or () if one.get("clientId") == client_id), {}
        )
        by_user = listed.get("standardFlowEnabled") is not False or bool(listed.get("implicitFlowEnabled"))
        by_attribute = any(client.attributes.get(name) == "true" for name in _GRANTS)
        return not client.bearer_only and (client.service_accounts or client.direct_access or by_user or by_attribute)

    @property
    def passwords(self) -> dict[str, str]:
        """The passwords of its users, by user name."""
        found = {name: self.password(name) for name in (str(user.get("username", "")) for user in self._users)}
        return {name: password for name, password in found.items() if password}

    def username(self, login: str) -> str:
        """Return the user that logs in with `login`: a name in any case, or an e-mail address; `login` if there is none."""
        by_email = self._document.get("loginWithEmailAllowed") not in {False, "false"}
        for user in self._users:
            known = (user.get("username"), user.get("email") if by_email else None)
            names = [name for name in known if isinstance(name, str) and name]
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
        client = self.model.client(client_id)
        return client is not None and client.enabled

    def signing(self, client_id: str) -> Mapping[str, str] | None:
        """Return the attributes of an enabled client that uses signed assertions, or None."""
        client = self.model.client(client_id)
        if client is None or not client.enabled or client.authenticator != "client-jwt":
            return None
        return client.attributes

    def lightweight(self, client_id: str) -> bool:
        """Return whether a client's tokens are lightweight, which the front of their ``jti`` shows."""
        client = self.model.client(client_id)
        return client is not None and client.attributes.get(_LIGHTWEIGHT) == "true"

    def permits_origin(self, client_id: str, origin: str) -> bool:
        """Return whether a browser's page of `origin` may have this client's tokens."""
        client = self.model.client(client_id)
        return client is not None and not client.web_origins.isdisjoint({"*", origin})

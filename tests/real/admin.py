"""What a test changes on a running server, by Keycloak's Admin REST."""

import ssl
import time
from collections.abc import Mapping
from typing import Any

import httpx

__all__ = ["PLAIN", "Admin"]

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For servers without TLS. A context with certificates is 25 ms of work for each client that is made."""
_LOGIN_SECONDS = 30.0  # Keycloak's admin-cli tokens live 60


class Admin:
    """The administrator of one server. Closes its connections after each call, so there is nothing to close."""

    def __init__(self, server: str, password: str, username: str = "admin") -> None:
        """Take the server's address with its path, if it has one, and the bootstrap administrator."""
        self._server = server
        self._login = {"grant_type": "password", "client_id": "admin-cli", "username": username, "password": password}
        self.login = f"{username}, password {password}"
        self._token = ""
        self._until = 0.0

    def __repr__(self) -> str:
        return f"Admin({self._server!r})"

    def request(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send one request below ``/admin/realms``; raise unless the answer is 2xx."""
        with httpx.Client(timeout=60, trust_env=False, verify=PLAIN) as client:
            if time.monotonic() >= self._until:
                asked = time.monotonic()
                answer = client.post(f"{self._server}/realms/master/protocol/openid-connect/token", data=self._login)
                answer.raise_for_status()
                self._token, self._until = answer.json()["access_token"], asked + _LOGIN_SECONDS
            answer = client.request(
                method,
                f"{self._server}/admin/realms{path}",
                json=body,
                headers={"Authorization": f"Bearer {self._token}"},
            )
        if not answer.is_success:
            raise RuntimeError(f"{method} /admin/realms{path}: {answer.status_code} {answer.text[:300]}")
        return answer

    def get(self, path: str) -> Any:
        """Return the JSON found below ``/admin/realms``."""
        return self.request("GET", path).json()

    def forget_login(self) -> None:
        """Log in anew at the next call."""
        self._until = 0.0

    # Realms

    def create_realm(self, realm: Mapping[str, Any]) -> None:
        """Create a realm from the JSON that ``--import-realm`` reads, secrets filled in."""
        self.request("POST", "", dict(realm))
        self.forget_login()  # the administrator's roles on the new realm come with the next token

    def delete_realm(self, realm: str) -> None:
        """Delete a realm and everything in it."""
        self.request("DELETE", f"/{realm}")

    def export_realm(self, realm: str) -> dict[str, Any]:
        """Return the realm with clients, groups, roles and service accounts; secrets are masked."""
        exported: dict[str, Any] = self.request(
            "POST", f"/{realm}/partial-export?exportClients=true&exportGroupsAndRoles=true"
        ).json()
        return exported

    def set_not_before(self, realm: str, epoch: int) -> None:
        """Revoke every token issued before ``epoch`` seconds; 0 revokes nothing."""
        self.request("PUT", f"/{realm}", {"realm": realm, "notBefore": epoch})

    # Clients and client scopes

    def client(self, realm: str, client_id: str) -> dict[str, Any]:
        """Return the client of that name."""
        found: list[dict[str, Any]] = self.get(f"/{realm}/clients?clientId={client_id}")
        if not found:
            raise LookupError(f"realm {realm} has no client {client_id}")
        return found[0]

    def update_client(self, realm: str, client_id: str, **changes: Any) -> None:
        """Change members of a client, such as ``enabled`` or ``secret``. Scope lists in here are ignored by Keycloak."""
        client = self.client(realm, client_id)
        self.request("PUT", f"/{realm}/clients/{client['id']}", {**client, **changes})

    def set_client_secret(self, realm: str, client_id: str, secret: str) -> None:
        """Replace a client's secret; the old one is refused from then on."""
        self.update_client(realm, client_id, secret=secret)

    def scope(self, realm: str, name: str) -> dict[str, Any]:
        """Return the client scope of that name."""
        found: list[dict[str, Any]] = [scope for scope in self.get(f"/{realm}/client-scopes") if scope["name"] == name]
        if not found:
            raise LookupError(f"realm {realm} has no client scope {name}")
        return found[0]

    def assign_scope(self, realm: str, client_id: str, scope: str, *, optional: bool = False) -> None:
        """Make a client scope a default (or optional) scope of the client."""
        self.request("PUT", self._assignment(realm, client_id, scope, "optional" if optional else "default"))

    def remove_scope(self, realm: str, client_id: str, scope: str, *, optional: bool = False) -> None:
        """Take a default (or optional) scope from the client."""
        self.request("DELETE", self._assignment(realm, client_id, scope, "optional" if optional else "default"))

    def _assignment(self, realm: str, client_id: str, scope: str, kind: str) -> str:
        return f"/{realm}/clients/{self.client(realm, client_id)['id']}/{kind}-client-scopes/{self.scope(realm, scope)['id']}"

    # Keys

    def signing_kid(self, realm: str, algorithm: str = "RS256") -> str:
        """Return the kid that signs now."""
        kid: str = self.get(f"/{realm}/keys")["active"][algorithm]
        return kid

    def rotate_keys(self, realm: str) -> str:
        """Add a signing key above all others and return its kid. It signs at once, the old ones stay published."""
        keys = self.get(f"/{realm}/keys")["keys"]
        priority = max((key.get("providerPriority", 0) for key in keys), default=0) + 1
        config = {
            "priority": [str(priority)],
            "enabled": ["true"],
            "active": ["true"],
            "keySize": ["2048"],
            "algorithm": ["RS256"],
        }
        component = {
            "name": f"rotated-{priority}",
            "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
        }
        self.request("POST", f"/{realm}/components", {**component, "config": config})
        return self.signing_kid(realm)

    def disable_key(self, realm: str, kid: str) -> None:
        """Withdraw a key: it neither signs nor is published any more."""
        provider = next(key["providerId"] for key in self.get(f"/{realm}/keys")["keys"] if key.get("kid") == kid)
        component = self.get(f"/{realm}/components/{provider}")
        component["config"] |= {"enabled": ["false"], "active": ["false"]}
        self.request("PUT", f"/{realm}/components/{provider}", component)

"""What a person does at the admin console, on paper or on a running server, so that a test can do it to both."""

import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from urllib.parse import urlencode

import httpx

from example_app.realm import filled, fresh_secrets
from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer, Request

RECEIVER, CALLER, FRONT_END = "crm-api-gateway", "chat-app-service", "crm-ui"
SCOPE, ROLE, REALM_ROLE = "tickets:write", "clerk", "auditor"
USER, PASSWORD = "dora", secrets.token_urlsafe(24)


def document(name: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a realm in which everything is right, and the secrets of its clients.

    It is written as realms are kept in a repository, with its service accounts among the users.
    """
    realm = filled("corp", fresh_secrets())
    realm["realm"] = name
    realm["roles"] = {"client": {RECEIVER: [{"name": ROLE}]}, "realm": [{"name": REALM_ROLE}]}
    attributes = {"include.in.token.scope": "true", "display.on.consent.screen": "false"}
    realm["clientScopes"].append({"name": SCOPE, "protocol": "openid-connect", "attributes": attributes})
    (caller,) = (client for client in realm["clients"] if client["clientId"] == CALLER)
    caller["defaultClientScopes"].append(SCOPE)
    caller["fullScopeAllowed"] = True  # as in a client that was made at the console
    front_end = {
        "clientId": FRONT_END,
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": True,
        "standardFlowEnabled": False,
        "directAccessGrantsEnabled": True,
        "serviceAccountsEnabled": False,
        "fullScopeAllowed": False,
        "defaultClientScopes": ["basic", "roles", "crm-audience"],
        "optionalClientScopes": [],
    }
    realm["clients"] = [client for client in realm["clients"] if client["clientId"] in (RECEIVER, CALLER)] + [front_end]
    realm["users"] = [
        {
            "username": f"service-account-{CALLER}",
            "enabled": True,
            "serviceAccountClientId": CALLER,
            "clientRoles": {RECEIVER: [ROLE]},
            "realmRoles": [REALM_ROLE],
        },
        {
            "username": USER,
            "enabled": True,
            "email": f"{USER}@corp.example",
            "emailVerified": True,
            "firstName": "Dora",
            "lastName": "D",
            "credentials": [{"type": "password", "value": PASSWORD}],
        },
    ]
    return realm, {client["clientId"]: client["secret"] for client in realm["clients"] if "secret" in client}


def hardcoded(claim: str, value: str) -> dict[str, Any]:
    """Return a mapper that writes a text into a claim."""
    config = {"claim.name": claim, "claim.value": value, "jsonType.label": "String", "access.token.claim": "true"}
    return {
        "name": claim,
        "protocol": "openid-connect",
        "protocolMapper": "oidc-hardcoded-claim-mapper",
        "config": config,
    }


class Console(ABC):
    """What a person can do to one realm, and how a plain client asks it for a token."""

    secrets: dict[str, str]
    version: str
    """The Keycloak's, real or imitated."""

    @abstractmethod
    def assign(self, client: str, scope: str, *, optional: bool = False) -> None:
        """Make a client scope a default (or optional) scope of a client."""

    @abstractmethod
    def unassign(self, client: str, scope: str, *, optional: bool = False) -> None: ...

    @abstractmethod
    def client(self, client: str, **members: Any) -> None:
        """Change members of a client, attributes one by one."""

    @abstractmethod
    def scope_attribute(self, scope: str, name: str, value: str) -> None: ...

    @abstractmethod
    def audience_in_lightweight(self) -> None:
        """Let the audience mapper write into lightweight tokens too."""

    @abstractmethod
    def hardcode(self, claim: str, value: str) -> None:
        """Add a mapper to the caller that writes a text into a claim of its tokens."""

    @abstractmethod
    def remove_mapper(self, claim: str) -> None: ...

    @abstractmethod
    def revoke(self) -> None:
        """Revoke the realm's tokens up to this second, and return in the next one."""

    @abstractmethod
    def map_role(self, scope: str, *, on: bool = True) -> None:
        """Add the role to (or take it from) the role mappings of a client scope."""

    @abstractmethod
    def give_role(self, *, on: bool = True) -> None:
        """Give the role to the caller's service account, or take it away."""

    @abstractmethod
    def give_realm_role(self, *, on: bool = True) -> None: ...

    @abstractmethod
    def give_default_roles(self) -> None:
        """Give the caller's service account what Keycloak gives to each account that is made at the console."""

    @abstractmethod
    def lifespan(self, seconds: int) -> None:
        """Set how long the realm's tokens live."""

    @abstractmethod
    def ask(self, form: dict[str, str], **headers: str) -> dict[str, Any]:
        """Return Keycloak's answer to a token request."""

    @abstractmethod
    def settings(self, **changes: Any) -> KeycloakSettings:
        """Return the receiver's settings."""

    def transport(self) -> Callable[[], httpx.BaseTransport] | None:
        """Return how the receiver reaches this realm; None is the network."""
        return None

    def service(self, scope: str | None = None, **headers: str) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "client_id": CALLER, "client_secret": self.secrets[CALLER]}
        return self.ask({**form, **({} if scope is None else {"scope": scope})}, **headers)

    def user(self, scope: str | None = None) -> dict[str, Any]:
        form = {"grant_type": "password", "client_id": FRONT_END, "username": USER, "password": PASSWORD}
        return self.ask({**form, **({} if scope is None else {"scope": scope})})


class Paper(Console):
    """The realm as a document, which an embedded issuer reads anew for each token: nobody starts a server to try something."""

    def __init__(self, version: str = "26.7.3", *, auth_path: str = "") -> None:
        self.realm, self.secrets = document("corp")
        self.version = version
        self._auth_path = auth_path
        self._issuer: EmbeddedIssuer | None = None

    @property
    def issuer(self) -> EmbeddedIssuer:
        if self._issuer is None:
            self._issuer = EmbeddedIssuer(
                deepcopy(self.realm), document("techstore")[0], version=self.version, auth_path=self._auth_path
            )
        return self._issuer

    def _changed(self, kind: str, key: str, name: str) -> dict[str, Any]:
        self._issuer = None
        (found,) = (one for one in self.realm[kind] if one[key] == name)
        assert isinstance(found, dict)
        return found

    def assign(self, client: str, scope: str, *, optional: bool = False) -> None:
        self._changed("clients", "clientId", client)[_list(optional=optional)].append(scope)

    def unassign(self, client: str, scope: str, *, optional: bool = False) -> None:
        self._changed("clients", "clientId", client)[_list(optional=optional)].remove(scope)

    def client(self, client: str, **members: Any) -> None:
        found = self._changed("clients", "clientId", client)
        attributes = {**found.get("attributes", {}), **members.pop("attributes", {})}
        found.update(members, attributes=attributes)

    def scope_attribute(self, scope: str, name: str, value: str) -> None:
        self._changed("clientScopes", "name", scope)["attributes"][name] = value

    def audience_in_lightweight(self) -> None:
        (mapper,) = self._changed("clientScopes", "name", "crm-audience")["protocolMappers"]
        mapper["config"]["lightweight.claim"] = "true"

    def hardcode(self, claim: str, value: str) -> None:
        self._changed("clients", "clientId", CALLER)["protocolMappers"] = [hardcoded(claim, value)]

    def remove_mapper(self, claim: str) -> None:
        self._changed("clients", "clientId", CALLER)["protocolMappers"] = []

    def revoke(self) -> None:
        self.issuer.set_not_before("corp", int(time.time()) + 1)
        time.sleep(1.1)

    def map_role(self, scope: str, *, on: bool = True) -> None:
        self._issuer = None
        self.realm["clientScopeMappings"] = {RECEIVER: [{"clientScope": scope, "roles": [ROLE]}]} if on else {}

    def give_role(self, *, on: bool = True) -> None:
        account = self._changed("users", "username", f"service-account-{CALLER}")
        account["clientRoles"] = {RECEIVER: [ROLE]} if on else {}

    def give_realm_role(self, *, on: bool = True) -> None:
        self._changed("users", "username", f"service-account-{CALLER}")["realmRoles"] = [REALM_ROLE] if on else []

    def give_default_roles(self) -> None:
        account = self._changed("users", "username", f"service-account-{CALLER}")
        account["realmRoles"] = [*account["realmRoles"], "default-roles-corp"]

    def lifespan(self, seconds: int) -> None:
        self._issuer = None
        self.realm.update(accessTokenLifespan=seconds, ssoSessionMaxLifespan=seconds)

    def ask(self, form: dict[str, str], **headers: str) -> dict[str, Any]:
        request = Request(
            "POST",
            f"{self._auth_path}/realms/corp/protocol/openid-connect/token",
            (("Content-Type", "application/x-www-form-urlencoded"), *headers.items()),
            urlencode(form).encode(),
        )
        answer = self.issuer.answer(request)
        assert answer.status == 200, answer.body
        granted: dict[str, Any] = json.loads(answer.body)
        return granted

    def settings(self, **changes: Any) -> KeycloakSettings:
        given = {
            "url": self.issuer.url,
            "auth_path": self._auth_path,
            "realm": "corp",
            "client_id": RECEIVER,
            **changes,
        }
        return KeycloakSettings(**given)

    def transport(self) -> Callable[[], httpx.BaseTransport]:
        return self.issuer.transport


def _list(*, optional: bool) -> str:
    return "optionalClientScopes" if optional else "defaultClientScopes"

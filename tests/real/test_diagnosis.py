"""What the operator reads when a realm is not set up right: on real servers, where the cure is applied and the next token works."""

import secrets
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from example_app.realm import Realm
from s2s_fastapi import KeycloakSettings
from tests.kit.console import CALLER, REALM_ROLE, RECEIVER, ROLE, Console, document, hardcoded
from tests.kit.diagnosis import Mistake, prove, prove_harmless
from tests.kit.mistakes import MISTAKES, UNDER_AUTH
from tests.real.server import Keycloak


class Live(Console):
    """A realm of a running server, changed by Keycloak's Admin REST."""

    def __init__(self, keycloak: Keycloak, name: str, secrets: dict[str, str]) -> None:
        self.keycloak, self.name, self.secrets = keycloak, name, secrets
        self.version = keycloak.version
        self.realm = Realm(name, keycloak.url, keycloak.public_url, keycloak.auth_path, {})

    def assign(self, client: str, scope: str, *, optional: bool = False) -> None:
        self.keycloak.admin.assign_scope(self.name, client, scope, optional=optional)

    def unassign(self, client: str, scope: str, *, optional: bool = False) -> None:
        self.keycloak.admin.remove_scope(self.name, client, scope, optional=optional)

    def client(self, client: str, **members: Any) -> None:
        self.keycloak.admin.update_client(self.name, client, **members)

    def scope_attribute(self, scope: str, name: str, value: str) -> None:
        found = self.keycloak.admin.scope(self.name, scope)
        self._ask("PUT", f"/client-scopes/{found['id']}", {**found, "attributes": {**found["attributes"], name: value}})

    def audience_in_lightweight(self) -> None:
        found = self.keycloak.admin.scope(self.name, "crm-audience")
        (mapper,) = found["protocolMappers"]
        mapper["config"]["lightweight.claim"] = "true"
        self._ask("PUT", f"/client-scopes/{found['id']}/protocol-mappers/models/{mapper['id']}", mapper)

    def hardcode(self, claim: str, value: str) -> None:
        self._ask("POST", f"/clients/{self._caller['id']}/protocol-mappers/models", hardcoded(claim, value))

    def remove_mapper(self, claim: str) -> None:
        caller = self._caller
        (mapper,) = (mapper for mapper in caller["protocolMappers"] if mapper["name"] == claim)
        self._ask("DELETE", f"/clients/{caller['id']}/protocol-mappers/models/{mapper['id']}", None)

    def revoke(self) -> None:
        self.keycloak.admin.set_not_before(self.name, int(time.time()) + 1)
        time.sleep(1.1)

    def map_role(self, scope: str, *, on: bool = True) -> None:
        found = self.keycloak.admin.scope(self.name, scope)
        self._roles(f"/client-scopes/{found['id']}/scope-mappings", on=on)

    def give_role(self, *, on: bool = True) -> None:
        self._roles(f"/users/{self._account}/role-mappings", on=on)

    def give_realm_role(self, *, on: bool = True) -> None:
        self._realm_role(REALM_ROLE, on=on)

    def give_default_roles(self) -> None:
        self._realm_role(f"default-roles-{self.name}", on=True)

    def lifespan(self, seconds: int) -> None:
        self._ask("PUT", "", {"accessTokenLifespan": seconds, "ssoSessionMaxLifespan": seconds})

    def ask(self, form: dict[str, str], **headers: str) -> dict[str, Any]:
        answer = httpx.post(self.realm.token_url, data=form, headers=headers, timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        granted: dict[str, Any] = answer.json()
        return granted

    def settings(self, **changes: Any) -> KeycloakSettings:
        given = {
            "url": self.keycloak.url,
            "auth_path": self.keycloak.auth_path,
            "realm": self.name,
            "client_id": RECEIVER,
        }
        if self.keycloak.public_url != self.keycloak.url:
            given["public_url"] = self.keycloak.public_url
        return KeycloakSettings(**{**given, **changes})

    @property
    def _caller(self) -> dict[str, Any]:
        return self.keycloak.admin.client(self.name, CALLER)

    @property
    def _account(self) -> str:
        caller = self._caller["id"]
        account: str = self.keycloak.admin.get(f"/{self.name}/clients/{caller}/service-account-user")["id"]
        return account

    def _realm_role(self, role: str, *, on: bool) -> None:
        found = self.keycloak.admin.get(f"/{self.name}/roles/{role}")
        self._ask("POST" if on else "DELETE", f"/users/{self._account}/role-mappings/realm", [found])

    def _roles(self, mappings: str, *, on: bool) -> None:
        owner = self.keycloak.admin.client(self.name, RECEIVER)["id"]
        role = self.keycloak.admin.get(f"/{self.name}/clients/{owner}/roles/{ROLE}")
        self._ask("POST" if on else "DELETE", f"{mappings}/clients/{owner}", [role])

    def _ask(self, method: str, path: str, body: Any) -> None:
        self.keycloak.admin.request(method, f"/{self.name}{path}", body)


def _lent(keycloak: Keycloak) -> Iterator[Live]:
    name = f"diagnosis-{secrets.token_hex(3)}"
    realm, clients = document(name)
    keycloak.admin.create_realm(realm)
    try:
        yield Live(keycloak, name, clients)
    finally:
        keycloak.admin.delete_realm(name)


@pytest.fixture
def console(keycloak: Keycloak) -> Iterator[Live]:
    """A realm of the test's own, in which everything is right."""
    yield from _lent(keycloak)


@pytest.fixture
def console_under_auth(keycloak_auth_path: Keycloak) -> Iterator[Live]:
    """The same on the server under ``/auth``, whose issuer is another address than the one it is reached on."""
    yield from _lent(keycloak_auth_path)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_named_with_its_cure_and_the_cure_helps(mistake: Mistake, console: Live) -> None:
    if console.version in mistake.versions:
        prove(mistake, console)
    else:
        prove_harmless(mistake, console)


@pytest.mark.parametrize("mistake", UNDER_AUTH, ids=str)
def test_a_mistake_about_the_path_and_the_public_address_is_named(mistake: Mistake, console_under_auth: Live) -> None:
    prove(mistake, console_under_auth)

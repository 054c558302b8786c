"""What `doctor` finds in a realm as an administrator: each change that it names is sent as it stands, and then the call works."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from s2s_fastapi import KeycloakSettings, require_caller
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.errors import S2SError
from s2s_fastapi.operations.admin import AdminApi, AdminTarget
from s2s_fastapi.operations.checks.table import CHECKS
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding
from s2s_fastapi.operations.tokens import requested
from tests.kit.declaring import caller, receiver
from tests.real.operating import KEYS
from tests.real.server import NEWEST, Keycloak

SECRET = "the-secret-of-this-test"
SCOPE = "for-the-ledger"
APPS = (caller("reporter", "ledger"), receiver("ledger", require_caller("reporter")))
CHECKED = ("admin", "client", "steps", "routes", "granted", "expiry")
MAPPER = {
    "name": "audience ledger",
    "protocol": "openid-connect",
    "protocolMapper": "oidc-audience-mapper",
    "config": {"included.client.audience": "ledger", "access.token.claim": "true"},
}


@dataclass
class Live:
    keycloak: Keycloak
    realm: str

    def send(self, method: str, path: str, body: Any = None) -> None:
        self.keycloak.admin.request(method, f"/{self.realm}{path}", body)

    def client(self, client_id: str, **members: Any) -> None:
        self.keycloak.admin.update_client(self.realm, client_id, **members)

    def id_of(self, client_id: str) -> str:
        return str(self.keycloak.admin.client(self.realm, client_id)["id"])

    @property
    def scope_path(self) -> str:
        return f"/client-scopes/{self.keycloak.admin.scope(self.realm, SCOPE)['id']}"

    def unassign(self) -> None:
        self.keycloak.admin.remove_scope(self.realm, "reporter", SCOPE)

    def make_optional(self) -> None:
        self.unassign()
        self.keycloak.admin.assign_scope(self.realm, "reporter", SCOPE, optional=True)

    def delete_mapper(self) -> None:
        (mapper,) = self.keycloak.admin.scope(self.realm, SCOPE)["protocolMappers"]
        self.send("DELETE", f"{self.scope_path}/protocol-mappers/models/{mapper['id']}")

    def drop(self) -> None:
        ledger = self.id_of("ledger")
        role = self.keycloak.admin.get(f"/{self.realm}/clients/{ledger}/roles/read")
        scope = self.keycloak.admin.scope(self.realm, "ledger-audience")["id"]
        self.send("POST", f"/client-scopes/{scope}/scope-mappings/clients/{ledger}", [role])

    def delete_client(self, client_id: str) -> None:
        self.send("DELETE", f"/clients/{self.id_of(client_id)}")

    # What is looked at

    def settings(self) -> KeycloakSettings:
        """Return the settings of the service with its present secret."""
        listed = self.keycloak.admin.get(f"/{self.realm}/clients?clientId=reporter")
        secret = listed[0].get("secret") if listed else None
        return KeycloakSettings(
            url=self.keycloak.url, realm=self.realm, client_id="reporter", client_secret=secret or SECRET
        )

    def works(self) -> bool:
        """Return whether the service gets a token for the ledger."""
        return not isinstance(requested(self.settings(), Wanted(frozenset({"ledger"}), frozenset())), S2SError)

    def found(self) -> dict[str, list[Finding]]:
        """Return the findings of the checks that need an administrator."""
        settings = KeycloakSettings(url=self.keycloak.url, realm=self.realm, client_id="reporter", client_secret=SECRET)
        environment = {
            "KEYCLOAK_URL": self.keycloak.url,
            "KEYCLOAK_REALM": self.realm,
            "KEYCLOAK_ADMIN_CLIENT_ID": "planner",
            "KEYCLOAK_ADMIN_CLIENT_SECRET": SECRET,
        }
        with AdminApi(AdminTarget.of(environment)) as api:
            facts = Facts(apps=APPS, files=("access.json",), settings=settings, admin=api)
            results = {name: list(check(facts)) for name, _, check in CHECKS if name in CHECKED}
        assert SECRET not in repr(results)
        return {
            name: findings
            for name, each in results.items()
            if (findings := [result for result in each if isinstance(result, Finding)])
        }


@contextmanager
def realm_of(keycloak: Keycloak, *rights: str) -> Iterator[Live]:
    """Lend a realm in which reporter calls ledger, and planner may look."""
    name = f"doctor-{time.time_ns()}"
    scope = {
        "name": SCOPE,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true"},
        "protocolMappers": [MAPPER],
    }
    closed = {"secret": SECRET, "standardFlowEnabled": False, "fullScopeAllowed": False}
    keycloak.admin.create_realm({"realm": name, "enabled": True, "components": KEYS})
    try:
        live = Live(keycloak, name)
        live.send("POST", "/client-scopes", scope)
        live.send("POST", "/clients", {**closed, "clientId": "ledger"})
        live.send("POST", f"/clients/{live.id_of('ledger')}/roles", {"name": "read"})
        live.send("POST", "/clients", {**closed, "clientId": "reporter", "serviceAccountsEnabled": True})
        keycloak.admin.assign_scope(name, "reporter", SCOPE)
        planner = {**closed, "fullScopeAllowed": True, "clientId": "planner", "serviceAccountsEnabled": True}
        live.send("POST", "/clients", planner)
        account = keycloak.admin.get(f"/{name}/clients/{live.id_of('planner')}/service-account-user")["id"]
        management = live.id_of("realm-management")
        roles = [keycloak.admin.get(f"/{name}/clients/{management}/roles/{right}") for right in rights]
        live.send("POST", f"/users/{account}/role-mappings/clients/{management}", roles)
        yield live
    finally:
        keycloak.admin.delete_realm(name)


MISTAKES: list[tuple[Callable[[Live], None], str, str]] = [
    (lambda live: live.client("reporter", serviceAccountsEnabled=False), "client", "no service account (step A)"),
    (Live.unassign, "steps", "is not assigned to reporter (step D)"),
    (Live.make_optional, "steps", "the code does not request it (step D)"),
    (lambda live: live.delete_client("reporter"), "client", "no client reporter (step A)"),
    (Live.delete_mapper, "steps", "No client scope has an Audience mapper for ledger (step C)"),
    (Live.drop, "steps", "Keycloak leaves the client scope ledger-audience out (step D)"),
]
"""In this order: the cure of the fifth makes the scope of the sixth, and a role that the last cure gives brings the audience too."""


def test_each_mistake_is_found_and_the_requests_that_doctor_names_mend_it(
    keycloaks: Callable[[str], Keycloak],
) -> None:
    with realm_of(keycloaks(NEWEST), "view-clients", "view-users", "view-realm") as live:
        assert live.works()
        assert live.found() == {}
        for mistake, check, words in MISTAKES:
            mistake(live)
            assert not live.works(), words
            found = live.found()

            assert words in " ".join(finding.seen for finding in found[check]), found
            for finding in found[check]:
                assert finding.console
                for change in finding.changes:
                    sent = json.loads(json.dumps(change.as_json()))
                    live.keycloak.admin.request(
                        sent["method"], sent["path"].removeprefix("/admin/realms"), sent["body"]
                    )
            assert live.works(), found


def test_a_receiver_without_a_client_and_full_scope_are_found_and_mended(
    keycloaks: Callable[[str], Keycloak],
) -> None:
    with realm_of(keycloaks(NEWEST), "view-clients", "view-users", "view-realm") as live:
        live.delete_client("ledger")
        live.client("reporter", fullScopeAllowed=True)
        found = live.found()

        assert "The realm has no client ledger (step B)" in found["steps"][0].seen
        assert "“Full scope allowed” is on" in found["client"][0].seen
        assert found["client"][0].changes == ()
        live.client("reporter", fullScopeAllowed=False)
        for finding in found["steps"]:
            for change in finding.changes:
                live.keycloak.admin.request(change.method, change.path.removeprefix("/admin/realms"), change.body)
        assert live.works()
        assert live.found() == {}


def test_a_right_that_is_missing_is_named_and_not_taken_for_an_empty_realm(
    keycloaks: Callable[[str], Keycloak],
) -> None:
    with realm_of(keycloaks(NEWEST), "view-users", "view-realm", "query-clients") as live:
        found = live.found()

        assert list(found) == ["admin"]
        assert "the role view-clients of the client realm-management" in found["admin"][0].cure

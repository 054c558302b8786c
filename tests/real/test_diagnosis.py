"""What the operator reads when a realm is not set up right: on real servers, where the cure is applied and the next token works."""

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from example_app.realm import Realm
from s2s_fastapi import KeycloakSettings
from s2s_fastapi.cli.commands import command_line
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.operations.app_processes import AppTarget, read_apps
from tests.kit.console import CALLER, REALM_ROLE, RECEIVER, ROLE, SCOPE, Console, document, hardcoded
from tests.kit.declaring import caller
from tests.kit.diagnosis import Mistake, Receiver, prove, prove_harmless
from tests.kit.mistakes import MISTAKES, UNDER_AUTH
from tests.real.admin import PLAIN
from tests.real.operating import KEYS
from tests.real.server import NEWEST, Keycloak
from tests.test_docs import DOCS, plain, tables

OPERATOR = "operator"
RIGHTS = ("view-clients", "view-users", "view-realm", "manage-clients", "manage-users")
SEEN_BY = {
    row[0]: row for row in next(each for each in tables(DOCS / "doctor.md") if each[0][0].startswith("the audience"))
}


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
        answer = httpx.post(self.realm.token_url, data=form, headers=headers, timeout=30, trust_env=False, verify=PLAIN)
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
    def environment(self) -> dict[str, str]:
        """The variables of the receiver, all right."""
        settings = self.settings()
        given = {
            "URL": settings.url,
            "AUTH_PATH": settings.auth_path,
            "REALM": self.name,
            "CLIENT_ID": RECEIVER,
            "PUBLIC_URL": self.keycloak.public_url,
        }
        return {f"KEYCLOAK_{name}": str(value) for name, value in given.items() if value}

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
    clients[OPERATOR] = secrets.token_urlsafe(24)
    operator = {"clientId": OPERATOR, "secret": clients[OPERATOR], "serviceAccountsEnabled": True, "enabled": True}
    # It needs its roles and nothing else: no scope of this realm, whose lists the tests change.
    realm["clients"].append({**operator, "protocol": "openid-connect", "defaultClientScopes": ["basic", "roles"]})
    realm["users"].append(
        {
            "username": f"service-account-{OPERATOR}",
            "enabled": True,
            "serviceAccountClientId": OPERATOR,
            "clientRoles": {"realm-management": list(RIGHTS)},
        }
    )
    keycloak.admin.create_realm({**realm, "components": KEYS})
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


@pytest.fixture(scope="module")
def access_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give what the two services declare: the receiver of the mistakes, and a caller of it that requests a scope or none."""
    folder = tmp_path_factory.mktemp("access")
    (app,) = read_apps([AppTarget("tests.operations.receiving_app:app", RECEIVER)])
    assert app.access is not None, app.problem
    chat = {"chat": caller(CALLER, RECEIVER), "scoped-chat": caller(CALLER, RECEIVER, scope=SCOPE)}
    for name, access in {"crm": app.access, **chat}.items():
        (folder / f"{name}.json").write_text(AccessFile((access,)).text)
    return folder


Looking = Callable[[Mistake, Live], Callable[[str], None]]


@pytest.fixture
def looking(access_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looking:
    """Give what `doctor` and `explain` say of a mistake, as the page has it; and the plan that `explain` names, carried out as printed."""
    monkeypatch.chdir(tmp_path)

    def run(environment: dict[str, str], *words: str, stdin: str = "") -> Any:
        return CliRunner().invoke(command_line(), words, env=environment, input=stdin, catch_exceptions=False)

    def look(mistake: Mistake, console: Live) -> Callable[[str], None]:
        admin = console.environment | {
            "KEYCLOAK_ADMIN_CLIENT_ID": OPERATOR,
            "KEYCLOAK_ADMIN_CLIENT_SECRET": console.secrets[OPERATOR],
        }
        chat = "scoped-chat" if mistake.reason == "scope_missing" else "chat"
        accesses = [word for name in ("crm", chat) for word in ("--access", str(access_files / f"{name}.json"))]
        asked = ["explain", "--json", *accesses, "--to", RECEIVER]
        checks, way, plan = map(plain, SEEN_BY[mistake.name][2:5])
        service = admin | {"KEYCLOAK_CLIENT_ID": CALLER, "KEYCLOAK_CLIENT_SECRET": console.secrets[CALLER]}

        def see(token: str) -> None:
            if way == "question":
                report = json.loads(run(service, "doctor", "--json", "--admin", *accesses).stdout)
                states = {check["name"]: check["state"] for check in report["checks"]}
                # In this realm “Full scope allowed” is on, which is a warning of client even if all is right.
                found = {name for name, state in states.items() if (name, state) != ("client", "warning")}
                found = {name for name in found if states[name] in ("problem", "warning")}
                expected = set(re.findall(r"[a-z]+", checks))
                if states["downstreams"] == "skipped":  # an administrator sees why: one fault is one finding
                    expected -= {"downstreams"}
                assert found == expected
                done = run(admin, *asked, "--client", CALLER)
            elif way == "token":
                wrong = {f"KEYCLOAK_{name.upper()}": str(value) for name, value in mistake.settings(console).items()}
                # A revocation is a matter of the realm, and what the receiver's variables say is one of its environment.
                done = run(admin if mistake.reason == "revoked" else console.environment | wrong, *asked, stdin=token)
            else:
                return
            printed = json.loads(done.stdout)
            (answer,) = (each for each in printed["routes"] if each["route"] == " ".join(mistake.to))
            bound = "DPoP" in mistake.name and way == "question"  # it gets no token at all
            assert answer["reason"] == ("no_credentials" if bound else mistake.reason), printed
            assert answer["cure"]
            assert [note for note in printed["notes"] if "package predicts" in note] == []
            commands = re.findall(r"s2s-fastapi ((?:plan|apply) .*)", "\n".join(printed["hints"]))
            assert bool(commands) is (plan == "cures"), printed["hints"]
            for command in commands:
                assert run(admin, *shlex.split(command)).exit_code in (0, 1)
            if commands:
                Receiver(console).accepts(str(console.service()["access_token"]), *mistake.to)

        return see

    return look


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_is_named_with_its_cure_and_the_cure_helps(mistake: Mistake, console: Live, looking: Looking) -> None:
    if console.version == NEWEST:
        prove(mistake, console, looking(mistake, console))
    elif console.version in mistake.versions:
        prove(mistake, console)
    else:
        prove_harmless(mistake, console)


@pytest.mark.parametrize("mistake", UNDER_AUTH, ids=str)
def test_a_mistake_about_the_path_and_the_public_address_is_named(mistake: Mistake, console_under_auth: Live) -> None:
    prove(mistake, console_under_auth)

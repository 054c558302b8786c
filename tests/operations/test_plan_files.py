"""A plan for a realm that is kept in a file: what it makes of the file, and what it writes for Terraform."""

import json
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller, require_realm_role, require_role, require_scope
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.plan import Plan, make_plan, question_of
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.steps import AddAudience, AssignScope, MakeClient, MakeScope
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import wanted
from s2s_fastapi.realm.model import Granted, RealmModel
from s2s_fastapi.testing import EmbeddedIssuer
from tests.cli.test_plan import run, written
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import plan_for, steps_of
from tests.operations.schemas import valid

CRM = receiver(
    "crm",
    require_caller("chat") & require_role("write"),
    require_caller("chat") & require_scope("crm:export"),
    require_caller("chat") & require_realm_role("partner"),
    require_caller("chat", "billing"),
)
URL = "https://archive.example"
APPS = (
    CRM,
    receiver("bob", require_caller("alice")),
    receiver("archive", require_caller("billing"), audience=URL),
    caller("chat", "crm"),
    caller("billing", "crm", URL),
    caller("alice", "bob", scope="untrusted-audience"),
)
EMPTY = {"realm": "corp", "enabled": True}
VERSIONS = ("26.7.3", "26.0.8")


def of_file(document: Mapping[str, Any], *apps: AppAccess, version: str = "26.7.3") -> Plan:
    needed, findings = wanted(apps, realm=str(document["realm"]))
    snapshot = read_snapshot(RealmFile(document, version=version), question_of(needed))
    return make_plan(snapshot, needed, findings, server="", issuer="", secret_file=lambda _: "")


def made(version: str = "26.7.3") -> dict[str, Any]:
    return realm_json(EMPTY, of_file(EMPTY, *APPS, version=version))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_empty_file_and_an_empty_server_get_the_same_steps(version: str) -> None:
    with FakeKeycloak(old=version == "26.0.8").api() as api:
        assert steps_of(of_file(EMPTY, *APPS, version=version)) == steps_of(plan_for(api, *APPS))


@pytest.mark.parametrize("version", VERSIONS)
def test_the_realm_of_the_new_file_issues_the_predicted_tokens(version: str) -> None:
    plan = of_file(EMPTY, *APPS, version=version)
    document = realm_json(EMPTY, plan)
    realm = RealmModel.read(document, version=version)

    assert len(plan.tokens) == 3
    for token in plan.tokens:
        assert token.after
        assert claims(realm, token.caller, token.request) == in_order(token.after)
    assert not of_file(document, *APPS, version=version).open
    assert EmbeddedIssuer(document).notices == ()
    assert "secret" not in json.dumps([document["clients"], document["users"]]).replace("client-secret", "")


def _without_lists(realm: Any) -> None:
    """Leave the lists to the import: all clients then have the realm's default scopes."""
    for client in realm["clients"]:
        del client["defaultClientScopes"], client["optionalClientScopes"]
    realm["defaultDefaultClientScopes"] = ["basic", "roles", "crm-audience", "crm:export"]
    realm["defaultOptionalClientScopes"] = ["untrusted-audience"]


def _without_scopes(realm: Any) -> None:
    """Leave even the scopes to the import."""
    _without_lists(realm)
    for name in ("clientScopes", "defaultDefaultClientScopes", "defaultOptionalClientScopes"):
        del realm[name]


def _of(realm: Any, kind: str, key: str, name: str) -> Any:
    return next(one for one in realm[kind] if one[key] == name)


CHANGED: dict[str, tuple[Callable[[Any], object], list[str]]] = {
    "no service accounts": (
        lambda realm: realm.pop("users"),
        ["Give the role write of the client crm to the service account of chat"],  # the realm role needs --grant now
    ),
    "service accounts that the import makes": (
        lambda realm: (
            realm.pop("users"),
            [
                client["defaultClientScopes"].remove("service_account")
                for client in realm["clients"]
                if client["serviceAccountsEnabled"]
            ],
        ),
        ["Give the role write of the client crm to the service account of chat"],  # the import adds the scope
    ),
    "a client less": (
        lambda realm: realm["clients"].remove(_of(realm, "clients", "clientId", "bob")),
        ["Make the client bob that only receives, without login flows, Full scope allowed off, default scopes basic"],
    ),
    "a mapper less": (
        lambda realm: _of(realm, "clientScopes", "name", "crm-audience").pop("protocolMappers"),
        ["Add an Audience mapper for crm to the client scope crm-audience"],
    ),
    "a role less": (
        lambda realm: realm.pop("roles"),
        [],  # Keycloak makes the roles that users and mappings name
    ),
    "no mappings": (
        lambda realm: (realm.pop("clientScopeMappings"), realm.pop("scopeMappings")),
        [
            "Let the realm role partner into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)",
            "Let the role write of the client crm into the tokens of chat (Clients, chat, Client scopes, chat-dedicated, Scope)",
        ],
    ),
    "a service account less": (
        lambda realm: (
            _of(realm, "clients", "clientId", "billing").update(serviceAccountsEnabled=False),
            realm["users"].remove(_of(realm, "users", "serviceAccountClientId", "billing")),
        ),
        ["Switch “Service account roles” of the client billing on"],
    ),
    "no scope of a client": (
        lambda realm: _of(realm, "clients", "clientId", "alice").update(optionalClientScopes=[]),
        ["Assign the client scope untrusted-audience to alice as Optional"],
    ),
}


@pytest.mark.parametrize("what", CHANGED)
def test_what_the_file_lacks_is_planned_and_the_new_file_has_it(what: str) -> None:
    change, steps = CHANGED[what]
    document = made()
    change(document)
    given = deepcopy(document)
    plan = of_file(document, *APPS)

    assert steps_of(plan) == steps
    assert of_file(realm_json(document, plan), *APPS).steps == ()
    assert document == given  # the file itself is not changed


@pytest.mark.parametrize("change", [_without_lists, _without_scopes])
def test_what_an_import_would_add_is_there_before_and_after(change: Callable[[Any], None]) -> None:
    document = made()
    change(document)
    plan = of_file(document, *APPS)
    after = RealmModel.read(realm_json(document, plan))

    assert of_file(realm_json(document, plan), *APPS).steps == ()
    for client in ("alice", "billing", "chat"):
        assert {*RealmModel.read(document).optional_scopes(client)} <= {*after.optional_scopes(client)}
    for realm, predicted in ((RealmModel.read(document), "before"), (after, "after")):
        for token in plan.tokens:
            assert claims(realm, token.caller, token.request) == in_order(getattr(token, predicted))


def claims(realm: RealmModel, client: str, scope: str | None) -> dict[str, Any]:
    """Return the claims of a token, of those that a plan predicts."""
    issued = realm.service_token(client, scope=scope)
    names = ("aud", "client_id", "scope", "realm_access", "resource_access")
    return in_order(
        {name: issued.claims[name] for name in names if name in issued.claims} if isinstance(issued, Granted) else {}
    )


def in_order(claims: Mapping[str, Any]) -> dict[str, Any]:
    return {**claims, "scope": sorted(claims["scope"].split())} if claims else {}


def test_what_no_step_changes_stays_as_it_is(tmp_path: Path) -> None:
    other = {"clientId": "other", "secret": "${OTHER_SECRET}", "redirectUris": ["https://other.example/*"]}
    user = {"username": "dora", "enabled": True, "credentials": [{"type": "password", "value": "${PASSWORD}"}]}
    given = {**EMPTY, "clients": [other], "users": [user], "accessTokenLifespan": 60, "smtpServer": {"host": "${HOST}"}}
    (tmp_path / "realm.json").write_text(json.dumps(given))
    done = run(
        {"OTHER_SECRET": "a-secret-of-the-environment", "PASSWORD": "another"},
        *("plan", *written(tmp_path, *APPS), "--realm-file", tmp_path / "realm.json"),
        *("--realm-json", tmp_path / "new.json", "--json"),
    )

    text = (tmp_path / "new.json").read_text()
    new = json.loads(text)
    assert done.exit_code == 1
    assert valid(done.stdout, "plan")["server"] == ""
    assert new["clients"][0] == other
    assert new["users"][0] == user
    assert {name: new[name] for name in ("accessTokenLifespan", "smtpServer")} == {
        "accessTokenLifespan": 60,
        "smtpServer": {"host": "${HOST}"},
    }
    assert "a-secret-of-the-environment" not in text + done.output
    assert stat.S_IMODE((tmp_path / "new.json").stat().st_mode) == 0o600
    assert "users cannot log in to the consoles of this realm" in done.stderr


def _blocks(content: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for prefix, section in (("", "resource"), ("data.", "data")):
        for kind, blocks in content.get(section, {}).items():
            for label, block in blocks.items():
                yield f"{prefix}{kind}.{label}", kind, block


def _read(content: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the blocks with each reference in the place of what it stands for, as Terraform evaluates them."""
    every = {address: block for address, _, block in _blocks(content)}

    def value(text: Any) -> Any:
        if isinstance(text, (list, dict)):
            return [value(one) for one in text] if isinstance(text, list) else text
        if not isinstance(text, str):
            return text
        found = re.fullmatch(r"\$\{((?:data\.)?[a-z_]+\.[A-Za-z][A-Za-z0-9_-]*)\.([a-z_]+)\}", text)
        if found:
            block = every[found[1]]  # there is such a block
            return f"{found[2]} of {found[1]}" if found[2] not in block else value(block[found[2]])
        assert not re.search(r"(?<!\$)\$\{|(?<!%)%\{", text), text
        return text.replace("$${", "${").replace("%%{", "%{")

    return [(kind, {name: value(one) for name, one in block.items()}) for _, kind, block in _blocks(content)]


def test_terraform_makes_what_the_plan_would_make() -> None:
    content, left_out = terraform(of_file(EMPTY, *APPS))
    blocks = _read(json.loads(json.dumps(content)))

    def of(kind: str) -> list[dict[str, Any]]:
        return [block for one, block in blocks if one == kind]

    assert left_out == ()
    assert "data" not in content
    assert {block["client_id"]: block["service_accounts_enabled"] for block in of("keycloak_openid_client")} == {
        "alice": True,
        "archive": False,
        "billing": True,
        "bob": False,
        "chat": True,
        "crm": False,
    }
    assert not any(block["full_scope_allowed"] for block in of("keycloak_openid_client"))
    assert all(block["lifecycle"] == {"prevent_destroy": True} for block in of("keycloak_openid_client"))
    lists = {block["client_id"]: block["default_scopes"] for block in of("keycloak_openid_client_default_scopes")}
    assert lists["id of keycloak_openid_client.chat"] == [
        "basic",
        "crm-audience",
        "crm:export",
        "roles",
        "service_account",
    ]
    optional = {block["client_id"]: block["optional_scopes"] for block in of("keycloak_openid_client_optional_scopes")}
    assert optional["id of keycloak_openid_client.alice"] == ["untrusted-audience"]
    assert optional["id of keycloak_openid_client.chat"] == []
    assert len(lists) == len(optional) == 6
    audiences = {
        block.get("included_client_audience") or block["included_custom_audience"]
        for block in of("keycloak_openid_audience_protocol_mapper")
    }
    assert audiences == {"crm", "bob", URL}
    assert {(block["name"], block.get("client_id")) for block in of("keycloak_role")} == {
        ("write", "id of keycloak_openid_client.crm"),
        ("partner", None),
    }
    assert len(of("keycloak_generic_role_mapper")) == 2
    assert [block["role"] for block in of("keycloak_openid_client_service_account_role")] == ["write"]
    assert [block["role"] for block in of("keycloak_openid_client_service_account_realm_role")] == ["partner"]


def test_terraform_calls_an_object_the_same_whatever_else_is_in_the_plan() -> None:
    few, many = ({one for one, *_ in _blocks(terraform(of_file(EMPTY, *apps))[0])} for apps in (APPS[:4], APPS))
    assert few
    assert few < many


def test_terraform_leaves_out_what_would_take_over_a_client_that_is_there() -> None:
    chat = {"clientId": "chat", "fullScopeAllowed": False, "defaultClientScopes": ["basic"]}
    content, left_out = terraform(of_file({**EMPTY, "clients": [chat, {"clientId": "crm"}]}, *APPS))

    assert any(str(step) == "Switch “Service account roles” of the client chat on." for step in left_out)
    assert AssignScope(client="chat", scope="crm-audience") in left_out
    assert {(kind, block.get("client_id")) for kind, block in _read({"data": content["data"]})} == {
        ("keycloak_openid_client", "chat"),
        ("keycloak_openid_client", "crm"),
    }
    assert not {"chat", "crm"} & content["resource"]["keycloak_openid_client"].keys()
    assert not {"chat", "crm"} & content["resource"]["keycloak_openid_client_default_scopes"].keys()
    roles = content["resource"]["keycloak_openid_client_service_account_role"].values()
    assert [role["service_account_user_id"] for role in roles] == [
        "${data.keycloak_openid_client.chat.service_account_user_id}"
    ]


HOSTILE = ('${file("/etc/passwd")}', "%{ if true }x", "$(id)", '"><script>', "$${x}", "%", "a b", "é", "-", "x-a__b")
"""Names that Terraform would evaluate, or that are no label of its own. Terraform 1.11 was seen to read each as text."""


def test_terraform_evaluates_no_name() -> None:
    steps = [
        *(MakeScope(scope=name, audiences=(name,), custom=(name,)) for name in HOSTILE),
        *(MakeClient(client=name, caller=True, default=HOSTILE) for name in HOSTILE),
        AddAudience(scope="there", audience="${x}"),
    ]
    plan = of_file({**EMPTY, "realm": "${r}"}, *APPS)
    content, _ = terraform(
        Plan(**{**{name: getattr(plan, name) for name in plan.__dataclass_fields__}, "steps": tuple(steps)})
    )
    blocks = _read(json.loads(json.dumps(content)))

    assert [block["client_id"] for kind, block in blocks if kind == "keycloak_openid_client"][: len(HOSTILE)] == list(
        HOSTILE
    )
    assert {block["realm_id"] for _, block in blocks} == {"${r}"}
    lists = [block["default_scopes"] for kind, block in blocks if kind == "keycloak_openid_client_default_scopes"]
    assert lists == [list(HOSTILE)] * len(HOSTILE)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", one.rpartition(".")[2]) for one, *_ in _blocks(content))


@pytest.mark.parametrize("name", ["${KC_DB_PASSWORD}", "$(env:HOME)"])
def test_realm_json_refuses_a_name_that_an_import_would_replace(name: str, tmp_path: Path) -> None:
    (tmp_path / "realm.json").write_text(json.dumps(EMPTY))
    apps = written(tmp_path, receiver(name, require_caller("chat")), caller("chat", name))
    done = run({}, "plan", *apps, "--realm-file", tmp_path / "realm.json", "--realm-json", tmp_path / "new.json")

    assert done.exit_code == 2
    assert "Realm JSON cannot hold" in done.stderr
    assert not (tmp_path / "new.json").exists()


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no file of a realm": (("--realm-json", "new.json"), "add --realm-file with its file"),
    "terraform without it": (("--terraform", "x.tf.json"), "add --realm-file with its file"),
    "a server too": (("--realm-file", "realm.json", "--realm", "corp"), "takes the place of a server"),
    "a saved plan": (("--realm-file", "realm.json", "--out", "plan.json"), "`apply` changes no file"),
    "another ending": (("--realm-file", "realm.json", "--terraform", "x.json"), "write x.tf.json"),
    "a file that is there": (
        ("--realm-file", "realm.json", "--realm-json", "realm.json"),
        "exists, and is not overwritten",
    ),
    "a name with a variable": (("--realm-file", "unfilled.json"), "variables of this machine are not read"),
    "a name that is filled": (
        ("--realm-file", "filled.json", "--realm-json", "new.json"),
        "without placeholders in names",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_use_is_one_sentence_and_writes_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, sentence = WRONG[what]
    files = written(tmp_path, *APPS)
    (tmp_path / "realm.json").write_text(json.dumps(EMPTY))
    (tmp_path / "filled.json").write_text(json.dumps({**EMPTY, "clients": [{"clientId": "${NAME:chat}"}]}))
    (tmp_path / "unfilled.json").write_text(json.dumps({**EMPTY, "realm": "r-${KEYCLOAK_ADMIN_CLIENT_SECRET}"}))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    done = run({"NAME": "chat", "KEYCLOAK_ADMIN_CLIENT_SECRET": "hush-hush"}, "plan", *files, *arguments)

    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "hush-hush" not in done.output
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before
    assert json.loads((tmp_path / "realm.json").read_text()) == EMPTY


def test_nothing_is_written_of_what_is_forbidden(tmp_path: Path) -> None:
    (tmp_path / "realm.json").write_text(json.dumps(EMPTY))
    crm = receiver("crm", require_caller("chat") & require_role("manage-users", client="realm-management"))
    files = written(tmp_path, crm, caller("chat", "crm"))
    outputs = ("--realm-json", tmp_path / "new.json", "--terraform", tmp_path / "new.tf.json")
    done = run({}, "plan", *files, "--realm-file", tmp_path / "realm.json", *outputs)

    assert done.exit_code == 2
    assert not (tmp_path / "new.json").exists()
    assert not (tmp_path / "new.tf.json").exists()


def test_the_steps_that_terraform_cannot_make_are_said(tmp_path: Path) -> None:
    (tmp_path / "realm.json").write_text(json.dumps({**EMPTY, "clients": [{"clientId": "chat"}]}))
    files = written(tmp_path, *APPS)
    done = run({}, "plan", *files, "--realm-file", tmp_path / "realm.json", "--terraform", tmp_path / "new.tf.json")

    assert done.exit_code == 1
    assert "because another resource has this client: Assign the client scope crm-audience to chat" in done.stderr
    assert "keycloak_openid_client" in json.loads((tmp_path / "new.tf.json").read_text())["resource"]

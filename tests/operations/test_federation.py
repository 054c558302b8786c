"""Clients without a secret in the commands: what access files say, what a plan makes, and whom it leaves alone."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from s2s_fastapi import require_caller
from s2s_fastapi.declared.access_file import SCHEMA, AccessFile, AppAccess, difference
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.client_authentication import (
    ByCertificate,
    ByFederation,
    ProviderKind,
    TrustedProvider,
    dn_problem,
)
from s2s_fastapi.operations.apply import apply_plan
from s2s_fastapi.operations.plan import Plan, make_plan, question_of, read_plan
from s2s_fastapi.operations.realm_file import RealmFile
from s2s_fastapi.operations.realm_json import realm_json
from s2s_fastapi.operations.snapshot import read_snapshot
from s2s_fastapi.operations.steps import MakeClient, MakeProvider
from s2s_fastapi.operations.terraform import terraform
from s2s_fastapi.operations.wanted import Severity, wanted
from tests.cli.test_plan import run
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.planning import applied, plan_for, steps_of
from tests.operations.schemas import valid

ISSUER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = "system:serviceaccount:prod:chat"
K8S = TrustedProvider(alias="k8s", kind="kubernetes", issuer=ISSUER)
CRM = receiver("crm", require_caller("chat", "billing"))
DN = "CN=chat,OU=svc,O=Acme"
CERTIFICATE = ByCertificate(subject_dn=DN, issuer_dn="CN=Acme CA,O=Acme")
ATTRIBUTES = {"jwt.credential.issuer": "k8s", "jwt.credential.sub": SUBJECT}
OF_CERTIFICATE = {
    "x509.subjectdn": DN,
    "x509.casubjectdn": "CN=Acme CA,O=Acme",
    "x509.allow.regex.pattern.comparison": "false",
}
MAKE = f"Make the identity provider k8s (kubernetes) for the tokens of {ISSUER}: it proves clients, and no user can log in through it"


def chat(subject: str = SUBJECT, provider: TrustedProvider = K8S, *, client_id: str = "chat") -> AppAccess:
    return replace(caller(client_id, "crm"), client_authentication=ByFederation(provider=provider, subject=subject))


def by_certificate() -> AppAccess:
    return replace(caller("chat", "crm"), client_authentication=CERTIFICATE)


def findings(plan: Plan, level: Severity) -> str:
    return "\n".join(each.text for each in plan.findings if each.level is level)


def made(client: Any) -> tuple[str, dict[str, str]]:
    return client["clientAuthenticatorType"], client["attributes"]


def provider_in(realm: FakeKeycloak, **changes: Any) -> dict[str, Any]:
    found = {"alias": "k8s", "providerId": "kubernetes", "enabled": True, "config": {"issuer": ISSUER}, **changes}
    realm.providers.append(found)
    return found


# The access file


def block(**members: Any) -> bytes:
    app = {"client_id": "chat", "client_authentication": members, "requires": None}
    return json.dumps({"version": 1, "apps": [{**app, "public_paths": [], "routes": [], "calls": []}]}).encode()


FEDERATED = {"method": "federated_jwt", "provider": "k8s", "type": "kubernetes", "issuer": ISSUER, "subject": SUBJECT}
MTLS = {"method": "tls_client_auth", "subject_dn": DN, "issuer_dn": "CN=Acme CA,O=Acme"}
OIDC = {**FEDERATED, "type": "oidc", "keys": "https://issuer.example/jwks"}
SPIFFE = {**OIDC, "type": "spiffe", "issuer": "spiffe://acme.test", "subject": "spiffe://acme.test/ns/prod/sa/chat"}


@pytest.mark.parametrize("members", [FEDERATED, MTLS, OIDC, SPIFFE], ids=lambda each: str(each.get("type", "x509")))
def test_the_block_is_read_and_written_as_it_was(members: dict[str, Any]) -> None:
    read = AccessFile.parse(block(**members))
    assert read.apps[0].client_authentication is not None
    assert json.loads(read.text)["apps"][0]["client_authentication"] == members
    assert AccessFile.parse(read.text.encode()).text == read.text
    jsonschema.validate(json.loads(read.text), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({}, 'its method is "federated_jwt" or "tls_client_auth"'),
        ({"method": "private_key_jwt"}, "its method is"),
        ({**FEDERATED, "secret": "x"}, "secret"),
        ({**FEDERATED, "type": "saml"}, "it is one of kubernetes, oidc, spiffe"),
        ({**FEDERATED, "issuer": "kubernetes"}, "is no issuer"),
        ({**FEDERATED, "issuer": "https://user:password@cluster.example"}, "is no issuer"),
        ({**FEDERATED, "provider": "a/b"}, "is no alias"),
        ({**FEDERATED, "subject": ""}, "it is empty"),
        ({**FEDERATED, "keys": "https://issuer.example/jwks"}, "leave keys out"),
        ({**OIDC, "keys": ""}, "keys is no URL"),
        ({**SPIFFE, "issuer": "https://acme.test"}, "is no trust domain"),
        ({**SPIFFE, "subject": "spiffe://acme.test.evil/x"}, "is no SPIFFE ID of spiffe://acme.test"),
        ({**MTLS, "subject_dn": "O=Acme,OU=svc,CN=chat"}, 'write "CN=chat,OU=svc,O=Acme"'),
        ({**MTLS, "subject_dn": "/O=Acme/CN=chat"}, "is no distinguished name"),
        ({**MTLS, "issuer_dn": "Acme"}, "is no distinguished name"),
        ({"method": "tls_client_auth", "subject_dn": DN}, "issuer_dn"),
    ],
)
def test_a_block_that_keycloak_could_not_use_is_refused_with_what_to_write(
    members: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        AccessFile.parse(block(**members))
    assert "client_authentication" in str(caught.value)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        DN,
        "cn=chat, ou=svc, o=Acme",
        "CN=chat",
        "O=Acme",
        "CN=a\\,b,O=Acme",
        "OU=svc,O=Acme",
        "UID=1,CN=chat,DC=acme,DC=test",
    ],
)
def test_a_name_with_the_most_specific_part_first_is_good(name: str) -> None:
    assert dn_problem(name) == ""


def test_what_people_wrote_stays_when_the_code_is_read_again(tmp_path: Path) -> None:
    declared = caller("chat", "crm")
    assert difference(chat(), declared, name="chat") == ""
    assert AccessFile((chat(),)).with_app(declared).apps == (declared,)
    kept = AccessFile((chat(),)).with_app(declared).app("chat")
    assert kept is not None
    assert kept.client_authentication == chat().client_authentication


# What a plan makes


def test_a_client_of_a_cluster_is_made_without_a_secret_beside_its_identity_provider(tmp_path: Path) -> None:
    realm = FakeKeycloak()
    other = provider_in(realm, alias="login", providerId="oidc", config={"issuer": "https://login.example"})
    before = json.dumps(other)
    with realm.api() as api:
        plan = applied(api, CRM, chat(), secrets=str(tmp_path))
        again = plan_for(api, CRM, chat())

    assert steps_of(plan)[0] == MAKE
    assert "which logs in by tokens of the identity provider k8s with the subject" in "\n".join(steps_of(plan))
    assert made(realm.client("chat")) == ("federated-jwt", ATTRIBUTES)
    assert realm.providers == [json.loads(before), K8S.representation]
    assert list(tmp_path.iterdir()) == []
    assert plan.restarts == ()
    assert again.steps == ()
    assert not again.open
    assert "Whoever makes tokens for" in findings(plan, Severity.NOTE)


def test_a_client_with_a_certificate_is_compared_by_its_exact_name(tmp_path: Path) -> None:
    realm = FakeKeycloak(
        rights=frozenset({"view-clients", "view-users", "view-realm", "manage-clients", "manage-users"})
    )
    with realm.api() as api:
        applied(api, CRM, by_certificate(), secrets=str(tmp_path))
        assert plan_for(api, CRM, by_certificate()).steps == ()

    assert made(realm.client("chat")) == ("client-x509", OF_CERTIFICATE)
    assert list(tmp_path.iterdir()) == []
    assert not any("identity-provider" in path for _, path, _ in realm.calls)


@pytest.mark.parametrize("kind", ["oidc", "spiffe"])
def test_each_type_of_identity_provider_proves_clients_and_lets_no_user_in(kind: ProviderKind, tmp_path: Path) -> None:
    issuer = "https://gh.example" if kind == "oidc" else "spiffe://acme.test"
    provider = TrustedProvider(alias="it", kind=kind, issuer=issuer, keys="https://keys.example/jwks")
    realm = FakeKeycloak()
    with realm.api() as api:
        plan = applied(api, CRM, chat(f"{issuer}/chat", provider), secrets=str(tmp_path))
        assert plan_for(api, CRM, chat(f"{issuer}/chat", provider)).steps == ()
    (found,) = realm.providers
    assert (found["providerId"], found["hideOnLogin"], found["linkOnly"]) == (kind, True, True)
    assert ("--features=spiffe" in findings(plan, Severity.NOTE)) is (kind == "spiffe")


def test_a_client_that_is_there_is_changed_only_if_an_operator_says_so(tmp_path: Path) -> None:
    realm = FakeKeycloak()
    realm.add_client(clientId="chat", serviceAccountsEnabled=True, clientAuthenticatorType="client-secret")
    before = dict(realm.client("chat"))
    with realm.api() as api:
        refused = plan_for(api, CRM, chat())
        assert not any("Let the client chat log in" in step for step in steps_of(refused))
        assert "--grant chat:client_authentication changes it" in findings(refused, Severity.OPEN)
        plan = applied(api, CRM, chat(), secrets=str(tmp_path), grant=("chat:client_authentication",))
        assert plan_for(api, CRM, chat()).steps == ()

    assert steps_of(plan)[-1].startswith("Let the client chat log in by tokens of the identity provider k8s")
    assert "CHECK THIS: after this plan chat logs in by nothing else" in findings(plan, Severity.NOTE)
    assert made(realm.client("chat")) == ("federated-jwt", ATTRIBUTES)
    assert realm.client("chat")["secret"] == before["secret"]


def test_a_client_that_logs_users_in_keeps_its_way_to_log_in(tmp_path: Path) -> None:
    realm = FakeKeycloak()
    realm.add_client(
        clientId="chat", serviceAccountsEnabled=True, standardFlowEnabled=True, clientAuthenticatorType="client-secret"
    )
    with realm.api() as api:
        plan = plan_for(api, CRM, by_certificate(), grant=("chat:client_authentication",))
    assert "its way to log in is not changed" in findings(plan, Severity.OPEN)
    assert not any("Let the client" in step for step in steps_of(plan))


def test_a_grant_for_an_app_without_the_block_says_so() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, CRM, caller("chat", "crm"), grant=("chat:client_authentication",))
    assert "the access file of chat has no client_authentication" in findings(plan, Severity.OPEN)


def test_an_app_that_only_receives_logs_in_nowhere(tmp_path: Path) -> None:
    crm = replace(CRM, client_authentication=CERTIFICATE)
    with FakeKeycloak().api() as api:
        plan = plan_for(api, crm, caller("chat", "crm"))
    assert "crm calls nobody, so its client does not log in" in findings(plan, Severity.NOTE)
    assert not any("certificates" in step for step in steps_of(plan))


# What a plan refuses


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (chat(client_id="billing"), f"have the same subject {SUBJECT} of k8s"),
        (
            chat("x", replace(K8S, issuer="https://other.example"), client_id="billing"),
            "describe the identity provider k8s differently",
        ),
        (
            chat("x", replace(K8S, alias="k9s"), client_id="billing"),
            "have two identity providers for one issuer (k9s, k8s)",
        ),
    ],
    ids=["subject", "alias", "issuer"],
)
def test_two_access_files_that_contradict_each_other_are_forbidden(other: AppAccess, problem: str) -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, CRM, chat(), other)
    assert problem in findings(plan, Severity.FORBIDDEN)
    assert not any(
        name in step for step in steps_of(plan) for name in ("client chat", "client billing", "identity provider")
    )


def test_one_app_with_two_ways_to_log_in_is_forbidden() -> None:
    with FakeKeycloak().api() as api:
        plan = plan_for(api, CRM, chat(), by_certificate())
    assert "2 apps that declare different things have the client id chat" in findings(plan, Severity.FORBIDDEN)


def test_a_subject_that_already_proves_another_client_is_forbidden() -> None:
    realm = FakeKeycloak()
    provider_in(realm)
    realm.add_client(clientId="older", serviceAccountsEnabled=True, attributes=ATTRIBUTES)
    with realm.api() as api:
        plan = plan_for(api, CRM, chat())
        assert plan_for(api, CRM, chat("system:serviceaccount:prod:chat2")).forbidden is False
    assert f"the subject {SUBJECT} of the identity provider k8s already proves older" in findings(
        plan, Severity.FORBIDDEN
    )
    assert not any("client chat" in step for step in steps_of(plan))


def test_the_same_subject_at_another_identity_provider_is_another_subject() -> None:
    realm = FakeKeycloak()
    provider_in(realm, alias="k9s", config={"issuer": "https://k9s.example"})
    realm.add_client(clientId="older", attributes={**ATTRIBUTES, "jwt.credential.issuer": "k9s"})
    other = chat(
        "x", TrustedProvider(alias="k9s", kind="kubernetes", issuer="https://k9s.example"), client_id="billing"
    )
    with realm.api() as api:
        plan = plan_for(api, CRM, chat(), other)
    assert not plan.forbidden
    assert len([step for step in plan.steps if isinstance(step, MakeProvider)]) == 1


EVIL = TrustedProvider(alias="k8s", kind="oidc", issuer="https://evil.example", keys="https://evil.example/jwks")


@pytest.mark.parametrize("asking", ["chat", "payroll"], ids=["a new client", "the client itself"])
def test_an_alias_that_clients_name_already_is_given_to_no_new_identity_provider(asking: str) -> None:
    """Somebody removed it, or has yet to make it: whoever makes it first could log in as these clients."""
    realm = FakeKeycloak()
    realm.add_client(
        clientId="payroll", serviceAccountsEnabled=True, clientAuthenticatorType="federated-jwt", attributes=ATTRIBUTES
    )
    with realm.api() as api:
        plan = plan_for(api, CRM, chat(SUBJECT if asking == "payroll" else "mine", EVIL, client_id=asking))
    assert "k8s is not there, and the realm already has clients that name it: payroll" in findings(
        plan, Severity.FORBIDDEN
    )
    assert not any(isinstance(step, MakeProvider) for step in plan.steps)


def test_an_identity_provider_that_was_removed_is_made_again_if_an_operator_names_each_of_its_clients() -> None:
    realm = FakeKeycloak()
    apps = [CRM, chat(), chat("system:serviceaccount:prod:billing", client_id="billing")]
    for client_id, subject in (("chat", SUBJECT), ("billing", "system:serviceaccount:prod:billing")):
        realm.add_client(
            clientId=client_id,
            serviceAccountsEnabled=True,
            clientAuthenticatorType="federated-jwt",
            attributes={**ATTRIBUTES, "jwt.credential.sub": subject},
        )
    grants = ("chat:client_authentication", "billing:client_authentication")
    with realm.api() as api:
        assert plan_for(api, *apps, grant=grants[:1]).forbidden
        plan = plan_for(api, *apps, grant=grants)
        assert not plan.forbidden
        apply_plan(plan, api)
    assert [each["alias"] for each in realm.providers] == ["k8s"]


def test_a_client_that_an_operator_gives_to_another_identity_provider_is_named_all_the_same() -> None:
    realm = FakeKeycloak()
    realm.add_client(
        clientId="payroll", serviceAccountsEnabled=True, clientAuthenticatorType="federated-jwt", attributes=ATTRIBUTES
    )
    k9s = TrustedProvider(alias="k9s", kind="kubernetes", issuer="https://k9s.example")
    with realm.api() as api:
        payroll = chat("theirs", k9s, client_id="payroll")
        plan = plan_for(api, CRM, chat("mine", EVIL), payroll, grant=("payroll:client_authentication",))
    assert "clients that name it: payroll" in findings(plan, Severity.FORBIDDEN)


def test_a_saved_plan_with_an_identity_provider_that_others_name_is_refused() -> None:
    realm = FakeKeycloak()
    plan = planned(realm)
    realm.add_client(clientId="payroll", attributes={**ATTRIBUTES, "jwt.credential.sub": "theirs"})
    with realm.api() as api:
        now = read_snapshot(api, plan.question)
        with pytest.raises(ConfigurationError, match="The plan has a step that no plan has: the identity provider k8s"):
            apply_plan(replace(plan, hash=now.hash), api)
    assert realm.writes() == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"config": {"issuer": "https://other.example"}}, "its issuer is https://other.example"),
        ({"enabled": False}, "it is disabled"),
        ({"providerId": "oidc"}, "its type is oidc"),
    ],
)
def test_an_identity_provider_that_is_there_with_other_settings_is_never_changed(changes: Any, problem: str) -> None:
    realm = FakeKeycloak()
    provider_in(realm, **changes)
    with realm.api() as api:
        plan = plan_for(api, CRM, chat())
    assert problem in findings(plan, Severity.OPEN)
    assert not any("client chat" in step or "identity provider" in step for step in steps_of(plan))


def test_a_second_identity_provider_of_one_issuer_is_not_planned() -> None:
    realm = FakeKeycloak()
    provider_in(realm, alias="cluster")
    with realm.api() as api:
        plan = plan_for(api, CRM, chat())
    assert f"The identity provider cluster already has the issuer {ISSUER}" in findings(plan, Severity.OPEN)
    assert not any("client chat" in step for step in steps_of(plan))


def test_an_old_keycloak_gets_no_client_with_a_secret_in_its_place() -> None:
    with FakeKeycloak(old=True).api() as api:
        plan = plan_for(api, CRM, chat())
    assert "needs Keycloak 26.6 or newer: this server is 26.0.8" in findings(plan, Severity.OPEN)
    assert not any("client chat" in step for step in steps_of(plan))


def test_a_planner_who_may_not_see_identity_providers_is_told_which_right_that_takes() -> None:
    realm = FakeKeycloak(rights=frozenset({"view-clients", "view-users", "view-realm"}))
    with realm.api() as api, pytest.raises(ConfigurationError, match="the role view-identity-providers"):
        plan_for(api, CRM, chat())
    with realm.api() as api:
        assert plan_for(api, CRM, by_certificate()).steps


# Carrying it out


def planned(realm: FakeKeycloak) -> Plan:
    with realm.api() as api:
        return plan_for(api, CRM, chat())


def test_a_client_with_the_same_subject_that_came_meanwhile_stops_the_plan() -> None:
    realm = FakeKeycloak()
    plan = planned(realm)
    realm.add_client(clientId="faster", attributes=ATTRIBUTES)
    with realm.api() as api, pytest.raises(ConfigurationError, match="The realm has changed since the plan was made"):
        apply_plan(plan, api)
    assert realm.writes() == []


def test_a_client_with_the_same_subject_that_comes_during_the_work_is_said_at_its_end() -> None:
    realm = FakeKeycloak()
    plan = planned(realm)

    def before(method: str, path: str) -> None:
        if method == "POST" and path.endswith("/clients"):
            realm.before = lambda method, path: None
            realm.add_client(clientId="faster", attributes=ATTRIBUTES)

    realm.before = before
    with realm.api() as api, pytest.raises(ConfigurationError, match="already proves faster"):
        apply_plan(plan, api)


def test_a_saved_plan_that_names_a_subject_of_somebody_else_is_refused() -> None:
    realm = FakeKeycloak()
    provider_in(realm)
    realm.add_client(clientId="older", attributes={**ATTRIBUTES, "jwt.credential.sub": "theirs"})
    plan = planned(realm)
    steps = tuple(replace(step, subject="theirs") if isinstance(step, MakeClient) else step for step in plan.steps)
    with (
        realm.api() as api,
        pytest.raises(ConfigurationError, match="The plan has a step that no plan has: the subject theirs"),
    ):
        apply_plan(replace(plan, steps=steps), api)
    assert realm.writes() == []


def test_a_saved_plan_is_read_as_it_was_written_and_fits_its_schema(tmp_path: Path) -> None:
    plan = planned(FakeKeycloak())
    file = tmp_path / "plan.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(plan.as_json()))
    assert read_plan(file)[0] == plan
    valid(file.read_text(), "plan")
    assert any(isinstance(step, MakeProvider) for step in plan.steps)


def test_an_applier_without_the_right_for_identity_providers_changes_nothing() -> None:
    realm = FakeKeycloak()
    plan = planned(realm)
    realm.rights = realm.rights - {"manage-identity-providers"}
    with realm.api() as api, pytest.raises(ConfigurationError, match="the role manage-identity-providers"):
        apply_plan(plan, api)
    assert realm.providers == []
    assert realm.client_id("chat") == ""


# Files


def of_file(*apps: AppAccess, **realm: Any) -> tuple[dict[str, Any], Plan]:
    document = {"realm": "corp", "enabled": True, **realm}
    needed, found = wanted(apps, realm="corp")
    snapshot = read_snapshot(RealmFile(document, version="26.7.3"), question_of(needed))
    return document, make_plan(snapshot, needed, found, server="", issuer="", secret_file=lambda _: "")


def test_a_realm_file_gets_the_identity_provider_beside_those_that_it_has() -> None:
    other = {
        "alias": "login",
        "providerId": "oidc",
        "config": {"issuer": "https://login.example", "clientSecret": "${S}"},
    }
    document, plan = of_file(CRM, chat(), identityProviders=[other])
    result = realm_json(document, plan)
    assert result["identityProviders"] == [other, K8S.representation]
    client = next(one for one in result["clients"] if one["clientId"] == "chat")
    assert made(client) == ("federated-jwt", ATTRIBUTES)
    assert of_file(CRM, chat(), **{name: value for name, value in result.items() if name != "realm"})[1].steps == ()


def test_terraform_has_the_certificate_and_refuses_the_identity_provider() -> None:
    content, left_out = terraform(of_file(CRM, by_certificate())[1])
    client = content["resource"]["keycloak_openid_client"]["chat"]
    assert (client["client_authenticator_type"], client["extra_config"]) == ("client-x509", OF_CERTIFICATE)
    assert left_out == ()
    with pytest.raises(ConfigurationError, match="has no resource for that: use --realm-json"):
        terraform(of_file(CRM, chat())[1])


# The command


def federate(*more: str) -> tuple[int, str, str]:
    result = run(
        {}, "federate", "--client-id", "chat", "--subject", SUBJECT, "--issuer", ISSUER, "--alias", "k8s", *more
    )
    return result.exit_code, result.stdout, result.stderr


def test_federate_prints_what_a_realm_file_takes_and_how_to_start_the_service() -> None:
    code, stdout, stderr = federate()
    content = json.loads(stdout)
    assert code == 0
    assert content["identityProviders"] == [K8S.representation]
    assert made(content["clients"][0]) == ("federated-jwt", ATTRIBUTES)
    assert "secret" not in content["clients"][0]
    assert "export KEYCLOAK_CLIENT_AUTH=federated_jwt" in stderr
    _, plan = of_file(CRM, chat(), **content)
    assert not any("identity provider" in str(step) or "log in" in str(step) for step in plan.steps)


@pytest.mark.parametrize(
    ("realm", "problem"),
    [
        ({"clients": [{"clientId": "older", "attributes": ATTRIBUTES}]}, "already proves older"),
        (
            {"identityProviders": [{"alias": "k8s", "providerId": "oidc", "config": {"issuer": ISSUER}}]},
            "its type is oidc",
        ),
        (
            {"identityProviders": [{"alias": "other", "providerId": "kubernetes", "config": {"issuer": ISSUER}}]},
            "Name other in its access file",
        ),
        (
            {"clients": [{"clientId": "older", "attributes": {**ATTRIBUTES, "jwt.credential.sub": "theirs"}}]},
            "the realm already has clients that name it: older",
        ),
    ],
    ids=["subject", "alias", "issuer", "alias of others"],
)
def test_federate_refuses_what_the_realm_of_a_file_contradicts(realm: Any, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "realm.json"
    file.write_text(json.dumps({"realm": "corp", "enabled": True, **realm}))
    code, stdout, stderr = federate("--realm-file", str(file))
    assert (code, stdout) == (2, "")
    assert problem in stderr


def test_federate_accepts_the_client_itself_and_a_realm_without_it(tmp_path: Path) -> None:
    file = tmp_path / "realm.json"
    for clients in ([], [{"clientId": "chat", "attributes": ATTRIBUTES}]):
        file.write_text(json.dumps({"realm": "corp", "enabled": True, "clients": clients}))
        assert federate("--realm-file", str(file))[0] == 0


def test_federate_refuses_a_subject_of_the_live_realm(monkeypatch: pytest.MonkeyPatch) -> None:
    realm = FakeKeycloak()
    realm.add_client(clientId="older", attributes=ATTRIBUTES)
    with realm.serving() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code, stdout, stderr = federate("--live")
    assert (code, stdout) == (2, "")
    assert "already proves older" in stderr
    assert realm.writes() == []


def test_federate_writes_the_block_into_an_access_file(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    file.write_text(AccessFile((caller("chat", "crm"),)).text)
    assert federate("--access", str(file))[0] == 0
    app = AccessFile.read(file).app("chat")
    assert app is not None
    assert app.client_authentication == chat().client_authentication
    file.write_text(AccessFile((caller("other", "crm"),)).text)
    code, stdout, stderr = federate("--access", str(file))
    assert (code, stdout) == (2, "")
    assert "has no app with the client id chat" in stderr


def test_federate_gives_two_apps_of_an_access_file_two_subjects(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    before = AccessFile((caller("chat", "crm"), chat(client_id="older"))).text
    file.write_text(before)
    code, stdout, stderr = federate("--access", str(file))
    assert (code, stdout, file.read_text()) == (2, "", before)
    assert "already proves older" in stderr


@pytest.mark.parametrize(
    ("issuer", "keys", "said"),
    [
        ("http://issuer.example", "http://issuer.example/jwks", True),
        ("http://issuer.example", "https://issuer.example/jwks", False),
        ("https://issuer.example", "http://127.0.0.1:8000/jwks", False),
    ],
)
def test_keys_that_are_fetched_without_tls_are_said(issuer: str, keys: str, said: bool) -> None:
    provider = TrustedProvider(alias="own", kind="oidc", issuer=issuer, keys=keys)
    options = ("--type", "oidc", "--alias", "own", "--issuer", issuer, "--keys", keys)
    result = run({}, "federate", "--client-id", "chat", "--subject", "s", *options)
    assert (result.exit_code, "without TLS" in result.stderr) == (0, said)
    with FakeKeycloak().api() as api:
        assert ("without TLS" in findings(plan_for(api, CRM, chat("s", provider)), Severity.NOTE)) is said
    cluster = TrustedProvider(alias="k8s", kind="kubernetes", issuer=issuer)
    assert ("without TLS" in cluster.caution) is issuer.startswith("http:")


def test_federate_refuses_what_is_no_issuer() -> None:
    result = run({}, "federate", "--client-id", "chat", "--subject", SUBJECT, "--issuer", "cluster.local")
    assert result.exit_code == 2
    assert "is no issuer" in result.stderr

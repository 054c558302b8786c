"""What a running server would answer to a client: its example token, corrected, and the realm beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from s2s_fastapi import require_caller
from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.operations.admin import AdminError
from s2s_fastapi.operations.explanation import Question, Token
from s2s_fastapi.operations.live_realm import LiveRealm
from tests.cli.command import run
from tests.kit.admin_rest import VIEW, FakeKeycloak
from tests.kit.declaring import caller, receiver
from tests.operations.schemas import valid

SCOPES = ["basic", "roles", "service_account", "crm-call"]
NOW = 1_800_000_000


@pytest.fixture
def server() -> FakeKeycloak:
    """Give a realm in which chat may call crm. The example is what a real server answers for it."""
    server = FakeKeycloak(rights=VIEW)
    server.add_client(clientId="crm")
    server.add_scope("crm-call", "crm", attributes={"include.in.token.scope": "true"})
    server.add_scope("mail-call", "mail", attributes={"include.in.token.scope": "true"})
    server.add_client(clientId="chat", serviceAccountsEnabled=True, fullScopeAllowed=False, defaultClientScopes=SCOPES)
    server.example = {
        "exp": NOW - 5_000 + 300,
        "iat": NOW - 5_000,
        "jti": "onrtna:1",
        "iss": "https://sso.example/realms/corp",
        "aud": "crm",
        "sub": "account",
        "typ": "Bearer",
        "azp": "chat",
        "sid": "a-session-of-the-console",
        "scope": "crm-call",
    }
    return server


def asked(server: FakeKeycloak, *scopes: str, client: str = "chat") -> Token:
    with server.api() as api:
        return LiveRealm(api, {"crm"}, clock=lambda: NOW).predicted(Question(client_id=client, scopes=scopes, to="crm"))


def notes(token: Token) -> list[str]:
    return [note for note in token.notes if "secret or key" not in note]


def test_an_example_becomes_the_token_of_the_client(server: FakeKeycloak) -> None:
    token = asked(server)

    assert (str(token.decision.reason), notes(token)) == ("allowed", [])
    assert token.principal is not None
    assert (token.principal.kind, token.principal.client_id, token.principal.audiences) == (
        "service",
        "chat",
        frozenset({"crm"}),
    )
    assert (token.principal.issued_at, token.principal.expires_at) == (NOW, NOW + 300)
    assert token.principal.issuer == "https://sso.example/realms/corp"
    assert "sid" not in token.principal.claims
    assert token.provenance is not None
    assert [(each.scope, each.audiences) for each in token.provenance.sources] == [("crm-call", frozenset({"crm"}))]


def test_a_claim_that_the_example_has_and_the_model_does_not_is_said_and_counts(server: FakeKeycloak) -> None:
    server.example["aud"] = ["crm", "billing"]
    token = asked(server)
    (note,) = notes(token)
    assert note.startswith("The example token has aud billing, crm, and this package predicts crm. The example counts")
    assert token.principal is not None
    assert token.principal.audiences == {"billing", "crm"}


def test_the_roles_of_keycloaks_own_clients_are_no_difference(server: FakeKeycloak) -> None:
    server.example["resource_access"] = {"account": {"roles": ["manage-account-links"]}}
    assert notes(asked(server)) == []


def test_a_mapper_that_writes_client_id_is_not_hidden(server: FakeKeycloak) -> None:
    server.example["client_id"] = "somebody-else"
    token = asked(server)
    assert token.principal is not None
    assert token.principal.kind == "unknown"


def test_the_example_of_a_lightweight_token_gets_the_subject_of_the_account(server: FakeKeycloak) -> None:
    del server.example["sub"]
    token = asked(server)
    assert token.principal is not None
    assert token.principal.subject == next(iter(server.accounts))


@pytest.mark.parametrize(
    ("members", "scopes", "words"),
    [
        ({}, ("nope",), "Make nope, a client scope that the realm does not have. Assign nope to the client chat"),
        ({}, ("mail-call",), "Assign mail-call to the client chat"),
        ({"enabled": False}, (), "Enable the client chat."),
        ({"publicClient": True}, (), 'Switch "Client authentication"'),
        ({"attributes": {"dpop.bound.access.tokens": "true"}}, (), 'or switch "Require DPoP bound tokens" off'),
    ],
    ids=["unknown scope", "scope of others", "disabled", "public", "DPoP"],
)
def test_what_an_example_does_not_see_is_read_from_the_realm(
    server: FakeKeycloak, members: dict[str, Any], scopes: tuple[str, ...], words: str
) -> None:
    server.client("chat").update(members)
    token = asked(server, *scopes)
    assert (str(token.decision.reason), token.principal) == ("no_credentials", None)
    assert words in token.decision.cure


@pytest.mark.parametrize(("authenticator", "notes"), [("client-x509", 0), ("client-secret", 1)])
def test_a_client_whose_tokens_are_bound_to_its_certificate_is_taken_for_one_that_shows_it(
    authenticator: str, notes: int, server: FakeKeycloak
) -> None:
    attributes = {"tls.client.certificate.bound.access.tokens": "true"}
    server.client("chat").update(attributes=attributes, clientAuthenticatorType=authenticator)
    token = asked(server)

    assert str(token.decision.reason) == "allowed"
    assert token.principal is not None
    assert token.principal.binding == "certificate"
    assert len([note for note in token.notes if "and none without one: set KEYCLOAK_CLIENT_CERT_FILE" in note]) == notes


def test_everything_that_keeps_a_client_from_a_token_is_said(server: FakeKeycloak) -> None:
    server.client("chat").update(enabled=False, publicClient=True)
    token = asked(server, "nope")
    assert "Enable the client chat." in token.decision.cure
    assert [each.cure.partition(" ")[0] for each in token.further] == ["Switch", "Make"]


def test_the_roles_of_a_group_and_of_the_groups_above_it_count(server: FakeKeycloak) -> None:
    above = server.add_group("all", server.add_role("crm", "read"))
    server.client("chat")["fullScopeAllowed"] = True
    account = server.account_of("chat")
    server.granted[account] = set()
    server.members[account] = [server.add_group("services", inside=above)]
    server.example |= {"resource_access": {"crm": {"roles": ["read"]}}}

    token = asked(server)

    assert notes(token) == []
    assert token.provenance is not None
    roles = {(each.scope, role.name) for each in token.provenance.sources for role in each.roles}
    assert roles == {("roles", "read")}


@pytest.mark.parametrize("right", sorted(VIEW))
def test_a_right_that_is_missing_is_named(server: FakeKeycloak, right: str) -> None:
    server.rights = VIEW - {right}
    with pytest.raises(AdminError, match=f"the role {right} of the client realm-management"):
        asked(server)


def test_a_client_that_is_not_there_is_said(server: FakeKeycloak) -> None:
    token = asked(server, client="nobody")
    assert "Make a client nobody (step A of the README)" in token.decision.cure
    assert token.notes == ()


def test_the_command_asks_the_server_whose_administrator_is_named_and_changes_nothing(server: FakeKeycloak) -> None:
    with server.serving() as environment:
        done = run("explain", "--json", "--client", "chat", "--to", "crm", **environment)
        mail = run("explain", "--json", "--client", "chat", "--to", "mail", **environment)
    printed = valid(done.stdout, "explain")
    assert (done.returncode, printed["routes"][0]["reason"], printed["token"]["kind"]) == (
        1,
        "routes_unknown",
        "service",
    )
    assert mail.returncode == 1
    assert "The scope mail-call has an Audience mapper for mail and is not assigned to chat" in json.dumps(
        json.loads(mail.stdout)["hints"]
    )
    assert server.writes() == []


def test_for_a_server_the_plan_and_its_carrying_out_are_named(server: FakeKeycloak, tmp_path: Path) -> None:
    server.client("chat")["defaultClientScopes"] = ["basic", "roles", "service_account"]
    del server.example["aud"]
    file = tmp_path / "access.json"
    file.write_text(AccessFile((receiver("crm", require_caller("chat")), caller("chat", "crm"))).text)
    with server.serving() as environment:
        done = run("explain", "--json", "--client", "chat", "--to", "crm", "--access", str(file), **environment)

    hints = "\n".join(json.loads(done.stdout)["hints"])
    assert f"s2s-fastapi plan {file} --out plan.json" in hints
    assert "s2s-fastapi apply --plan plan.json" in hints

"""What `doctor` finds with an administrator's rights: on a Keycloak in this process that has nothing but the Admin API."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from s2s_fastapi import KeycloakSettings, require_caller
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.checks.table import CHECKS
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Finding, Result, Seen, Skipped
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, receiver

NOW = 1_800_000_000
SECRET = "made-by-keycloak"
BOTH = (caller("reporter", "ledger"), receiver("ledger", require_caller("reporter")))
NAMES = ("admin", "client", "steps", "granted", "expiry")


def keycloak(**reporter: Any) -> FakeKeycloak:
    """Return a realm in which reporter may call ledger."""
    server = FakeKeycloak()
    server.add_client(clientId="ledger", fullScopeAllowed=False)
    server.add_scope("for-the-ledger", "ledger")
    lists = {"defaultClientScopes": ["basic", "service_account", "roles", "for-the-ledger"]}
    server.add_client(
        **{"clientId": "reporter", "serviceAccountsEnabled": True, "fullScopeAllowed": False, **lists, **reporter}
    )
    return server


def looked_at(
    server: FakeKeycloak, *apps: AppAccess, files: tuple[str, ...] = ("access.json",), **settings: Any
) -> dict[str, list[Result]]:
    """Return the results of the checks that need an administrator."""
    given = {"url": "http://keycloak.test", "realm": "corp", "client_id": "reporter", "client_secret": "the-services"}
    with server.api() as api:
        facts = Facts(
            apps=apps or BOTH,
            files=files,
            admin=api,
            settings=KeycloakSettings(**{**given, **settings}),
            clock=lambda: NOW,
        )
        results = {name: list(check(facts)) for name, _, check in CHECKS if name in NAMES}
    assert SECRET not in repr(results)
    assert not server.writes()
    return results


def findings(results: dict[str, list[Result]]) -> dict[str, list[Finding]]:
    found = {name: [one for one in each if isinstance(one, Finding)] for name, each in results.items()}
    return {name: each for name, each in found.items() if each}


def only(results: dict[str, list[Result]]) -> Finding:
    (each,) = findings(results).values()
    (finding,) = each
    return finding


def mended(server: FakeKeycloak, *found: Finding) -> dict[str, list[Finding]]:
    """Send the changes as they are printed, and look again."""
    for finding in found:
        assert finding.changes
        for change in finding.changes:
            sent = json.loads(json.dumps(change.as_json()))
            content = b"" if sent["body"] is None else json.dumps(sent["body"]).encode()
            answer = server.answer(
                httpx.Request(sent["method"], f"http://keycloak.test{sent['path']}", content=content)
            )
            assert answer.is_success, (change, answer.text)
    server.calls.clear()
    return findings(looked_at(server))


def test_nothing_is_found_if_everything_is_right() -> None:
    results = looked_at(keycloak())
    assert findings(results) == {}
    assert results["steps"] == [
        Seen('ledger is in the token, by mapper "audience ledger" of for-the-ledger (steps C and D).')
    ]
    assert results["expiry"] == [Seen("The secret of reporter does not expire.")]


MISTAKES: list[tuple[Callable[[FakeKeycloak], Any], str]] = [
    (lambda server: server.client("reporter").update(enabled=False), "disabled (step A)"),
    (lambda server: server.client("reporter").update(publicClient=True), "is public (step A)"),
    (lambda server: server.client("reporter").update(bearerOnly=True), "is bearer-only (step A)"),
    (lambda server: server.client("reporter").update(clientAuthenticatorType="client-jwt"), "logs in by Signed Jwt"),
    (lambda server: server.client("reporter").update(fullScopeAllowed=True), "“Full scope allowed” is on"),
    (
        lambda server: server.client("reporter").update(attributes={"access.token.signed.response.alg": "HS512"}),
        "signed with HS512",
    ),
    (
        lambda server: server.client("reporter").update(attributes={"client_credentials.use_refresh_token": "true"}),
        "gets refresh tokens",
    ),
    (
        lambda server: server.client("reporter").update(attributes={"dpop.bound.access.tokens": "true"}),
        "needs a DPoP proof",
    ),
    (
        lambda server: server.client("reporter").update(
            attributes={"tls.client.certificate.bound.access.tokens": "true"}
        ),
        "needs a client certificate",
    ),
    (lambda server: server.client("ledger").update(enabled=False), "The client ledger is disabled (step B)"),
    (lambda server: server.clients.pop(server.client_id("ledger")), "no client ledger (step B)"),
    (
        lambda server: server.delete_scope("for-the-ledger"),
        "No client scope has an Audience mapper for ledger (step C)",
    ),
    (
        lambda server: server.scope("for-the-ledger").update(protocolMappers=[]),
        "No client scope has an Audience mapper",
    ),
    (lambda server: server.client("reporter")["defaultClientScopes"].pop(), "is not assigned to reporter (step D)"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES, ids=[words for _, words in MISTAKES])
def test_a_mistake_is_one_finding_and_its_requests_mend_it(mistake: Callable[[FakeKeycloak], Any], words: str) -> None:
    server = keycloak()
    mistake(server)
    found = only(looked_at(server))
    assert words in found.seen
    assert found.console
    assert mended(server, found) == {}


def test_the_service_account_is_switched_on_and_keeps_its_roles_on_every_version() -> None:
    server = keycloak(serviceAccountsEnabled=False)
    found = findings(looked_at(server))["client"][0]
    assert "no service account (step A)" in found.seen
    assert found.plan == "s2s-fastapi plan access.json"
    (change,) = found.changes
    assert change.body == {
        "clientId": "reporter",
        "serviceAccountsEnabled": True,
        "authorizationServicesEnabled": False,
    }
    server.client("reporter").update(serviceAccountsEnabled=True, enabled=False, authorizationServicesEnabled=True)
    server._new_account(server.client_id("reporter"))
    (disabled,) = findings(looked_at(server))["client"]
    (change,) = disabled.changes
    assert change.body["serviceAccountsEnabled"] is True
    assert change.body["authorizationServicesEnabled"] is True


def test_a_client_that_is_missing_is_made_with_the_scope_that_is_there() -> None:
    server = keycloak()
    del server.clients[server.client_id("reporter")]
    results = looked_at(server)
    found = only(results)
    assert "no client reporter (step A)" in found.seen
    assert found.plan == "s2s-fastapi plan access.json"
    assert any(isinstance(each, Skipped) and "first make the client" in each.why for each in results["steps"])
    assert mended(server, found) == {}


def test_a_client_id_in_another_case_is_named() -> None:
    server = keycloak()
    server.client("reporter")["clientId"] = "Reporter"
    found = only(looked_at(server))
    assert found.seen.endswith("It has Reporter.")
    assert "upper and lower case count" in found.cure
    assert found.changes == ()


def test_an_optional_scope_that_is_not_requested_is_requested_in_the_code_or_made_default() -> None:
    server = keycloak(defaultClientScopes=["basic", "service_account"], optionalClientScopes=["for-the-ledger"])
    found = only(looked_at(server))
    assert "Optional for reporter, and the code does not request it (step D)" in found.seen
    assert [change.method for change in found.changes] == ["DELETE", "PUT"]
    requesting = (caller("reporter", "ledger", scope="for-the-ledger"), BOTH[1])
    assert findings(looked_at(server, *requesting)) == {}
    assert mended(server, found) == {}


def test_a_scope_that_drops_out_names_the_roles_that_it_needs() -> None:
    server = keycloak()
    role = server.add_role("ledger", "read")
    server.mapped[server.scope_id("for-the-ledger")] = {role}
    found = only(looked_at(server))
    assert "Keycloak leaves the client scope for-the-ledger out (step D)" in found.seen
    assert '"ledger: read"' in found.seen
    assert mended(server, found) == {}


def test_a_mapper_that_does_not_write_into_access_tokens_is_named() -> None:
    server = keycloak()
    server.scope("for-the-ledger")["protocolMappers"][0]["config"]["access.token.claim"] = "false"
    found = only(looked_at(server))
    assert "does not add it to access tokens (step C)" in found.seen
    assert "for-the-ledger, Mappers" in found.console


def test_an_audience_that_is_a_url_needs_no_client() -> None:
    server = keycloak()
    server.delete_scope("for-the-ledger")
    found = only(looked_at(server, caller("reporter", "https://ledger.example/api")))
    assert found.changes[0].body["name"] == "ledger.example-api-audience"
    assert found.changes[0].body["protocolMappers"][0]["config"]["included.custom.audience"] == (
        "https://ledger.example/api"
    )
    assert found.plan == "s2s-fastapi plan access.json ACCESS.json"


@pytest.mark.parametrize("there", [True, False])
def test_a_scope_that_the_code_requests_and_that_is_not_assigned_is_found(*, there: bool) -> None:
    server = keycloak()
    if there:
        server.add_scope("ledger:read")
    found = only(looked_at(server, caller("reporter", "ledger", scope="ledger:read"), BOTH[1]))
    assert "ledger:read" in found.seen
    assert "invalid_scope" in found.why
    assert [change.method for change in found.changes] == (["PUT"] if there else ["POST"])


def test_a_scope_whose_name_is_left_out_of_tokens_is_found() -> None:
    server = keycloak(optionalClientScopes=["ledger:read"])
    server.add_scope("ledger:read", attributes={"include.in.token.scope": "false"})
    server.client("reporter")["optionalClientScopes"] = ["ledger:read"]
    found = only(looked_at(server, caller("reporter", "ledger", scope="ledger:read"), BOTH[1]))
    assert "is not written into tokens" in found.seen


def test_an_audience_that_a_role_brings_is_named_with_the_role() -> None:
    server = keycloak(fullScopeAllowed=True)
    server.add_client(clientId="billing")
    role = server.add_role("billing", "pay")
    server.granted[
        next(iter(account for account, one in server.accounts.items() if one == server.client_id("reporter")))
    ].add(role)
    (found,) = findings(looked_at(server))["granted"]
    assert 'is for billing too, by mapper "audience resolve" of roles' in found.seen
    assert "The account has the role pay of billing." in found.seen
    assert "Take the role pay" in found.cure


@pytest.mark.parametrize(
    ("days", "level", "words"),
    [
        (-1, "problem", "expired on 2027-01-14 08:00 UTC"),
        (0, "problem", "expired"),
        (13, "warning", "expires on 2027-01-28 08:00 UTC"),
        (15, None, "expires on 2027-01-30"),
    ],
)
def test_the_end_of_a_secret_is_found_early(days: int, level: str | None, words: str) -> None:
    end = str(NOW + days * 86_400)
    results = looked_at(keycloak(attributes={"client.secret.expiration.time": end}))
    (result,) = results["expiry"]
    assert words in (result.seen if isinstance(result, Finding) else result.text if isinstance(result, Seen) else "")
    assert (result.level if isinstance(result, Finding) else None) == level
    if isinstance(result, Finding):
        assert [str(change).rpartition("/")[2] for change in result.changes] == ["client-secret"]


def test_a_former_secret_and_a_policy_that_rotates_are_found() -> None:
    attributes = {
        "client.secret.rotated": "the-former-secret",
        "client.secret.rotated.expiration.time": str(NOW + 60),
    }
    server = keycloak(attributes=attributes)
    server.policies = [{"name": "rotate", "enabled": True, "profiles": ["often"]}]
    server.profiles = [{"name": "often", "executors": [{"executor": "secret-rotation"}]}]
    results = looked_at(server)
    former, rotating = findings(results)["expiry"]
    assert "Keycloak accepts the former one until 2027-01-15 08:01 UTC" in former.seen
    assert "The client policy rotate rotates secrets." in rotating.seen
    assert "the-former-secret" not in repr(results)
    assert any(isinstance(each, Seen) and "Client policies in force: rotate" in each.text for each in results["client"])


def test_a_key_has_no_end_and_needs_another_authenticator() -> None:
    results = looked_at(
        keycloak(), client_secret=None, client_auth="private_key_jwt", client_key_file="/nowhere/key.pem"
    )
    assert results["expiry"] == [Skipped("This service has no secret in Keycloak.")]
    assert "this service by private_key_jwt" in only(results).seen


@pytest.mark.parametrize("right", ["view-clients", "view-users", "view-realm"])
def test_a_right_that_is_missing_is_one_warning_and_nothing_is_taken_for_missing(right: str) -> None:
    server = keycloak()
    server.rights = frozenset({"view-clients", "view-users", "view-realm"} - {right})
    results = looked_at(server)
    found = only(results)
    assert found.level == "warning"
    assert f"the role {right} of the client realm-management" in found.cure
    assert all(isinstance(each, Skipped) for name in NAMES[1:] for each in results[name])


def test_a_service_that_only_receives_needs_no_service_account() -> None:
    results = looked_at(keycloak(), client_id="ledger", client_secret=None)
    assert findings(results) == {}

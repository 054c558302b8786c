"""What `doctor` finds with an administrator's rights: on a Keycloak in this process that has nothing but the Admin API."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from s2s_fastapi import KeycloakSettings, require_caller, require_role, require_scope, require_user
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.declared.access_file import AppAccess
from s2s_fastapi.operations.admin import AdminError
from s2s_fastapi.operations.checks.exchange import check_exchange
from s2s_fastapi.operations.checks.table import CHECKS
from s2s_fastapi.operations.facts import Facts
from s2s_fastapi.operations.findings import Change, Finding, Result, Seen, Skipped
from s2s_fastapi.operations.inspection import inspected
from s2s_fastapi.testing import EmbeddedIssuer
from tests.kit.admin_rest import FakeKeycloak
from tests.kit.declaring import caller, on_behalf, receiver, with_users

NOW = 1_800_000_000
SECRET = "made-by-keycloak"
BOTH = (caller("reporter", "ledger"), receiver("ledger", require_caller("reporter")))
NAMES = ("admin", "client", "steps", "exchange", "routes", "granted", "expiry")


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


def mended(server: FakeKeycloak, *found: Finding, apps: tuple[AppAccess, ...] = BOTH) -> dict[str, list[Finding]]:
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
    return findings(looked_at(server, *apps))


def test_nothing_is_found_if_everything_is_right() -> None:
    results = looked_at(keycloak())
    assert findings(results) == {}
    assert results["steps"] == [
        Seen('ledger is in the token, by mapper "audience ledger" of for-the-ledger (steps C and D).')
    ]
    assert results["expiry"] == [Seen("The secret of reporter does not expire.")]


def on_reporter(**members: Any) -> Callable[[FakeKeycloak], Any]:
    return lambda server: server.client("reporter").update(members)


BY_STEPS: list[tuple[Callable[[FakeKeycloak], Any], str]] = [
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


@pytest.mark.parametrize(("mistake", "words"), BY_STEPS, ids=[words for _, words in BY_STEPS])
def test_a_mistake_is_one_finding_and_the_steps_of_the_plan_mend_it_as_requests(
    mistake: Callable[[FakeKeycloak], Any], words: str
) -> None:
    server = keycloak()
    mistake(server)
    found = only(looked_at(server))
    assert words in found.seen
    assert found.console
    assert found.plan == "s2s-fastapi plan access.json"
    assert mended(server, found) == {}


BY_HAND: list[tuple[Callable[[FakeKeycloak], Any], str]] = [
    (on_reporter(enabled=False), "disabled (step A)"),
    (on_reporter(publicClient=True), "is public (step A)"),
    (on_reporter(bearerOnly=True), "is bearer-only (step A)"),
    (on_reporter(clientAuthenticatorType="client-jwt"), "logs in by Signed Jwt"),
    (on_reporter(fullScopeAllowed=True), "“Full scope allowed” is on"),
    (on_reporter(attributes={"access.token.signed.response.alg": "HS512"}), "signed with HS512"),
    (on_reporter(attributes={"client_credentials.use_refresh_token": "true"}), "gets refresh tokens"),
    (on_reporter(attributes={"dpop.bound.access.tokens": "true"}), "needs a DPoP proof"),
    (on_reporter(attributes={"tls.client.certificate.bound.access.tokens": "true"}), "needs a client certificate"),
    (lambda server: server.client("ledger").update(enabled=False), "The client ledger is disabled (step B)"),
]


@pytest.mark.parametrize(("mistake", "words"), BY_HAND, ids=[words for _, words in BY_HAND])
def test_a_mistake_that_no_plan_mends_is_one_finding_with_its_place_in_the_console_and_no_request(
    mistake: Callable[[FakeKeycloak], Any], words: str
) -> None:
    server = keycloak()
    mistake(server)
    found = only(looked_at(server))
    assert words in found.seen
    assert found.console
    assert (found.changes, found.plan) == ((), "")


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
    server.client("reporter")["authorizationServicesEnabled"] = True
    (change,) = findings(looked_at(server))["client"][0].changes
    assert change.body["authorizationServicesEnabled"] is True
    server.client("reporter")["authorizationServicesEnabled"] = False
    assert mended(server, *findings(looked_at(server))["client"]) == {}


def test_a_client_that_is_missing_is_made_with_the_scope_that_is_there() -> None:
    server = keycloak()
    del server.clients[server.client_id("reporter")]
    results = looked_at(server)
    found = only(results)
    assert "no client reporter (step A)" in found.seen
    assert found.plan == "s2s-fastapi plan access.json"
    assert any(isinstance(each, Skipped) and "first make the client" in each.why for each in results["steps"])
    assert mended(server, found) == {}


def test_a_client_that_is_missing_is_made_after_the_scope_that_it_gets() -> None:
    server = keycloak()
    server.delete_scope("for-the-ledger")
    del server.clients[server.client_id("reporter")]
    found = only(looked_at(server))
    assert [change.path.rpartition("/")[2] for change in found.changes] == ["client-scopes", "clients"]
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


def test_a_mapper_in_a_scope_of_keycloak_itself_is_left_alone() -> None:
    server = keycloak()
    (mapper,) = server.scope("for-the-ledger")["protocolMappers"]
    server.delete_scope("for-the-ledger")
    silent = {**mapper, "config": {**mapper["config"], "access.token.claim": "false"}}
    server.scope("roles")["protocolMappers"].append(silent)
    found = only(looked_at(server))
    assert "No client scope has an Audience mapper for ledger (step C)" in found.seen


def test_an_audience_that_is_a_url_needs_no_client() -> None:
    server = keycloak()
    server.delete_scope("for-the-ledger")
    url = "https://ledger.example/api"
    answering = receiver("ledger", require_caller("reporter"), audience=url)
    found = only(looked_at(server, caller("reporter", url), answering))
    assert found.changes[0].body["name"] == f"{url}-audience"
    assert found.changes[0].body["protocolMappers"][0]["config"]["included.custom.audience"] == url


@pytest.mark.parametrize("there", [True, False])
def test_a_scope_that_the_code_requests_and_that_is_not_assigned_is_found(*, there: bool) -> None:
    server = keycloak()
    if there:
        server.add_scope("ledger:read")
    asking = receiver("ledger", require_caller("reporter") & require_scope("ledger:read"))
    apps = (caller("reporter", "ledger", scope="ledger:read"), asking)
    found = findings(looked_at(server, *apps))["steps"][0]
    assert "ledger:read" in found.seen
    assert "invalid_scope" in found.why
    assert "Assign the client scope ledger:read to reporter as Optional." in found.cure
    assert [change.method for change in found.changes] == (["PUT"] if there else ["POST", "PUT"])
    assert mended(server, found, apps=apps) == {}


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
        assert result.console.endswith("Client Secret, Regenerate")


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
    assert results["expiry"] == [Skipped("This service has no secret in Keycloak, or needs none.")]
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


# What the plan does not do is never offered


def keycloak_without_grant() -> FakeKeycloak:
    server = keycloak()
    server.client("reporter")["defaultClientScopes"].remove("for-the-ledger")
    return server


def nothing_is_offered(server: FakeKeycloak, *apps: AppAccess, **settings: Any) -> dict[str, list[Finding]]:
    """Return the findings, after looking that none of them has a request or assigns something."""
    found = findings(looked_at(server, *apps, **settings))
    assert found
    for each in (one for several in found.values() for one in several):
        assert each.changes == ()
        assert "Assign" not in each.cure
        assert "Assign" not in each.console
        assert "Add client scope" not in each.console
    return found


@pytest.mark.parametrize("call", [("ledger", ()), ("ledger", "for-the-ledger"), ("payroll", ())], ids=str)
def test_with_the_callers_file_alone_the_plan_is_named_and_nothing_else(call: tuple[str, Any]) -> None:
    server = keycloak_without_grant()
    server.add_client(clientId="payroll")
    server.add_scope("payroll-audience", "payroll")
    audience, scope = call
    found = nothing_is_offered(server, caller("reporter", audience, scope=scope))
    (finding,) = found["steps"]
    assert finding.plan == f"s2s-fastapi plan access.json {audience}.json"
    assert f"that of {audience} says who may call it" in finding.cure


def test_a_caller_that_the_called_app_does_not_accept_is_offered_nothing() -> None:
    refusing = receiver("ledger", require_caller("somebody-else"))
    found = nothing_is_offered(keycloak_without_grant(), caller("reporter", "ledger"), refusing)
    assert "Make the plan: it says why ledger is not granted." in found["steps"][0].cure


def test_a_scope_that_brings_more_than_the_audience_is_not_chosen_for_its_name() -> None:
    server = keycloak_without_grant()
    server.add_scope("aaa", "ledger", "payroll")
    (found,) = findings(looked_at(server))["steps"]
    assert "The client scopes aaa and for-the-ledger bring ledger, and none of them is assigned" in found.seen
    assert "aaa" not in found.cure
    assert server.scope_id("aaa") not in str(found.changes)
    assert mended(server, found) == {}


def test_a_scope_that_others_hold_gets_no_mapper() -> None:
    server = keycloak()
    server.delete_scope("for-the-ledger")
    shared = server.add_scope("ledger-audience")
    server.add_client(clientId="outsider", serviceAccountsEnabled=True, defaultClientScopes=["ledger-audience"])
    (found,) = findings(looked_at(server))["steps"]
    assert shared not in str(found.changes)
    assert mended(server, found) == {}


def test_a_role_that_reaches_keycloaks_own_is_never_proposed() -> None:
    server = keycloak()
    role = server.add_role("", "platform-ops")
    server.inside[role] = {uuid for uuid, one in server.roles.items() if one["name"] == "realm-admin"}
    server.mapped[server.scope_id("for-the-ledger")] = {role}
    (found,) = findings(looked_at(server))["steps"]
    assert "platform-ops" not in found.cure
    assert "role-mappings" not in str(found.changes)
    nothing_is_offered(server, BOTH[0])
    assert mended(server, found) == {}


def test_a_role_for_a_scope_that_drops_out_is_named_if_the_plan_grants_it() -> None:
    server = keycloak(optionalClientScopes=["ledger:read"])
    server.add_scope("ledger:read")
    server.client("reporter")["optionalClientScopes"] = ["ledger:read"]
    server.mapped[server.scope_id("ledger:read")] = {server.add_role("ledger", "read")}
    calling = caller("reporter", "ledger", scope="ledger:read")
    (found,) = findings(looked_at(server, calling, BOTH[1]))["steps"]
    assert (found.changes, found.plan) == ((), "")
    assert "Request another scope; or ask whoever manages this one" in found.cure
    (found,) = findings(
        looked_at(server, calling, receiver("ledger", require_caller("reporter") & require_role("read")))
    )["steps"]
    assert "Give the role read of the client ledger to the service account of reporter." in found.cure
    assert found.plan == "s2s-fastapi plan access.json"


@pytest.mark.parametrize("audience", ["realm-management", "account", "Broker", "https://keycloak.test/realms/corp"])
def test_an_audience_of_keycloak_itself_is_refused(audience: str) -> None:
    server = keycloak()
    other = receiver("other", require_caller("reporter"), audience=audience)
    for apps in ((caller("reporter", audience),), (caller("reporter", audience), other)):
        (found,) = nothing_is_offered(server, *apps)["steps"]
        assert "is a client of Keycloak itself" in found.seen or "Keycloak itself accepts tokens for that" in found.seen
        assert found.plan == ""


@pytest.mark.parametrize("client_id", ["admin-cli", "broker", "realm-management"])
def test_a_client_of_keycloak_itself_is_not_touched_for_a_service(client_id: str) -> None:
    found = nothing_is_offered(keycloak(), caller(client_id, "ledger"), BOTH[1], client_id=client_id)
    (finding,) = found["client"]
    assert "is a client of Keycloak itself" in finding.seen
    assert "Make a client for this service alone" in finding.cure
    assert list(found) == ["client"]


@pytest.mark.parametrize("scope", ["offline_access", "roles", "email"])
def test_a_scope_of_keycloak_itself_is_neither_assigned_nor_changed(scope: str) -> None:
    for held in ([], [scope]):
        server = keycloak(optionalClientScopes=held)
        if scope == "roles":
            server.client("reporter")["defaultClientScopes"].remove("roles")
        asking = receiver("ledger", require_caller("reporter") & require_scope(scope))
        found = findings(looked_at(server, caller("reporter", "ledger", scope=scope), asking)).get("steps", [])
        assert [each.changes for each in found] == [()] * len(found)
        assert all("Switch" not in each.cure and "Assign" not in each.cure for each in found)
        assert found or held
        assert held or ("is a client scope of Keycloak itself" in found[0].seen and not found[0].plan)


def test_a_forbidden_plan_has_no_step() -> None:
    forbidding = receiver(
        "ledger", require_caller("reporter") & require_role("manage-users", client="realm-management")
    )
    nothing_is_offered(keycloak_without_grant(), BOTH[0], BOTH[1], receiver("admin-cli", None))
    nothing_is_offered(keycloak_without_grant(), BOTH[0], forbidding)


def test_a_request_is_one_word_between_the_quotes_of_a_shell() -> None:
    change = Change("POST", "/admin/realms/corp/clients", {"clientId": "x'; touch /tmp/owned; '"})
    assert "'" not in str(change)
    assert json.loads(str(change).partition("clients ")[2]) == change.body


# The routes that name the caller


def test_a_route_that_names_the_caller_and_refuses_it_is_a_warning_with_the_plan() -> None:
    export = require_caller("reporter") & require_scope("ledger:export")
    apps = (caller("reporter", "ledger"), receiver("ledger", require_caller("reporter"), export, require_scope("x")))
    found = only(looked_at(keycloak(), *apps))
    assert found.level == "warning"
    assert found.seen == "1 of 2 routes of ledger that name this caller refuses it: POST /1 (scope_missing)."
    assert found.plan == "s2s-fastapi plan access.json"


@pytest.mark.parametrize("scopes", [((), "ledger:export"), ("ledger:export", ())], ids=["first", "last"])
def test_a_route_counts_as_open_if_it_accepts_the_token_of_one_declared_call(scopes: tuple[Any, Any]) -> None:
    server = keycloak()
    server.add_scope("ledger:export")
    server.client("reporter")["optionalClientScopes"] = ["ledger:export"]
    export = require_caller("reporter") & require_scope("ledger:export")
    calls = tuple(call for scope in scopes for call in caller("reporter", "ledger", scope=scope).calls)
    both = replace(BOTH[0], calls=calls)
    results = looked_at(server, both, receiver("ledger", require_caller("reporter"), export))
    assert findings(results) == {}
    assert results["routes"] == [Seen("No route of ledger that names this caller refuses it.")]


# A service that only receives


@pytest.mark.parametrize("secret", [None, SECRET], ids=["no secret", "a secret"])
def test_a_service_that_only_receives_is_told_what_is_true_of_it(secret: str | None) -> None:
    results = looked_at(keycloak(), BOTH[1], client_id="ledger", client_secret=secret)
    assert findings(results) == {}
    assert results["client"] == [
        Seen("The client ledger is there and enabled. A service that is only called needs no service account.")
    ]
    assert results["steps"] == [Skipped("This service declares no call.")]
    assert results["granted"] == [Skipped("The client gets no token: see client.")]


def test_a_client_that_gets_tokens_is_looked_at_although_its_app_declares_no_call() -> None:
    results = looked_at(keycloak(clientAuthenticatorType="client-jwt"), receiver("reporter", require_caller("web")))
    assert "logs in by Signed Jwt" in only(results).seen
    assert results["expiry"] == [Seen("The secret of reporter does not expire.")]


def test_a_missing_or_disabled_receiver_is_the_same_finding_for_itself_and_for_its_caller() -> None:
    server = keycloak()
    server.client("ledger")["enabled"] = False
    for _ in range(2):
        of_caller = only(looked_at(server))
        of_itself = only(looked_at(server, BOTH[1], client_id="ledger", client_secret=None))
        assert (of_itself.level, of_itself.seen, of_itself.console) == (
            of_caller.level,
            of_caller.seen,
            of_caller.console,
        )
        assert of_itself.level == "warning"
        assert "(step B)" in of_itself.seen
        server.clients.pop(server.client_id("ledger"), None)


# Time


def test_reading_the_realm_ends_although_each_answer_comes_in_time() -> None:
    seconds = iter(range(0, 100_000, 30))
    with keycloak().api() as api, pytest.raises(AdminError, match="did not answer within 120 s"):
        inspected(api, "reporter", (), realm="corp", clock=lambda: next(seconds))


@pytest.mark.parametrize("answer", [[], {"attributes": "none"}], ids=str)
def test_an_answer_that_is_no_client_is_a_finding_and_no_crash(answer: Any) -> None:
    server = keycloak()
    page = f"/clients/{server.client_id('reporter')}"
    server.before = lambda _, path: httpx.Response(200, json=answer) if path.endswith(page) else None
    assert "something else than a client" in only(looked_at(server)).cure


def test_no_more_tokens_are_requested_if_those_before_took_too_long() -> None:
    seconds = iter(range(0, 100_000, 40))
    settings = KeycloakSettings(url="http://127.0.0.1:1", realm="corp", client_id="x", client_secret=SECRET)
    facts = Facts(settings=settings, monotonic=lambda: next(seconds))
    said = [str(facts.token(Wanted(frozenset({name}), frozenset()))) for name in ("a", "b", "c")]
    assert ["took more than 60 s" in one for one in said] == [False, False, True]


# Calls on behalf of users

USERS_LEDGER = with_users(receiver("ledger", require_user("reporter")))
ON_BEHALF = (on_behalf("reporter", "ledger"), USERS_LEDGER)
LETS_IN = (
    with_users(receiver("reporter", require_user("web"), calls=ON_BEHALF[0].calls)),
    USERS_LEDGER,
)
EXCHANGE = {"standard.token.exchange.enabled": "true"}


def test_nothing_is_said_of_exchange_if_no_call_is_made_on_behalf_of_users() -> None:
    assert looked_at(keycloak())["exchange"] == [Skipped("This service declares no call on behalf of users.")]


def test_a_client_that_may_not_exchange_tokens_is_a_problem_and_the_change_cures_it() -> None:
    server = keycloak(attributes={"access.token.lifespan": "60"})
    (finding,) = findings(looked_at(server, *ON_BEHALF))["exchange"]

    assert finding.level == "problem"
    assert finding.seen == "The client reporter may not exchange tokens."
    assert finding.plan == "s2s-fastapi plan access.json"
    (change,) = finding.changes
    assert change.body == {
        "clientId": "reporter",
        "serviceAccountsEnabled": True,
        "authorizationServicesEnabled": False,
        "attributes": EXCHANGE,
    }
    assert mended(server, finding, apps=ON_BEHALF) == {}
    assert server.client("reporter")["attributes"] == {"access.token.lifespan": "60", **EXCHANGE}


def test_a_right_set_up_for_users_is_no_finding() -> None:
    results = looked_at(keycloak(attributes=EXCHANGE), *ON_BEHALF)

    assert findings(results) == {}
    assert Seen("The client reporter may exchange tokens.") in results["exchange"]
    assert Seen("ledger is in the tokens that are exchanged for those of users (steps C and D).") in results["steps"]


def test_a_client_that_only_exchanges_tokens_needs_no_service_account() -> None:
    server = keycloak(attributes=EXCHANGE, serviceAccountsEnabled=False)
    alone = looked_at(server, *ON_BEHALF)
    assert findings(alone) == {}
    assert (
        Seen(
            "The client reporter is enabled and confidential. This service calls only on behalf of users, so it needs no service account."
        )
        in alone["client"]
    )

    (finding,) = findings(looked_at(server))["client"]
    assert finding.seen == "The client reporter has no service account (step A)."


@pytest.mark.parametrize(("apps", "level"), [(BOTH, "problem"), (BOTH[1:], "warning")], ids=["a call", "nothing known"])
def test_a_missing_service_account_is_a_problem_of_a_service_that_declares_a_call(
    apps: tuple[AppAccess, ...], level: str
) -> None:
    (finding,) = findings(looked_at(keycloak(serviceAccountsEnabled=False), *apps))["client"]
    assert (finding.level, finding.seen) == (level, "The client reporter has no service account (step A).")


def test_a_scope_that_brings_the_audience_to_users_and_is_not_assigned_is_found_by_the_steps() -> None:
    server = keycloak(attributes=EXCHANGE, defaultClientScopes=["basic", "service_account"])
    (finding,) = findings(looked_at(server, *ON_BEHALF))["steps"]

    assert "for-the-ledger" in finding.seen
    assert "is not assigned to reporter (step D)" in finding.seen


@pytest.mark.parametrize(
    ("web", "problem"),
    [
        (None, "the realm has no such client"),
        ({}, "The tokens of users of web are not for reporter"),
        ({"defaultClientScopes": ["for-reporter"]}, ""),
        ({"optionalClientScopes": ["for-reporter"]}, ""),
    ],
    ids=["no client", "no scope", "a default scope", "an optional scope"],
)
def test_users_tokens_that_are_not_for_the_service_are_found(web: dict[str, Any] | None, problem: str) -> None:
    server = keycloak(attributes=EXCHANGE)
    server.add_scope("for-reporter", "reporter")
    if web is not None:
        server.add_client(clientId="web", publicClient=True, standardFlowEnabled=True, **web)
    results = looked_at(server, *LETS_IN)

    found = findings(results).get("exchange", [])
    assert [problem in one.seen for one in found] == [True] * bool(problem)
    assert bool(problem) or any("of users of web are for reporter" in str(one) for one in results["exchange"])


@pytest.mark.parametrize(("version", "able"), [("26.0.8", False), ("26.7.3", True)])
def test_a_server_without_token_exchange_is_found_without_an_administrator(version: str, able: bool) -> None:
    issuer = EmbeddedIssuer({"realm": "corp", "enabled": True}, version=version)
    with issuer.serving():
        settings = KeycloakSettings(url=issuer.url, realm="corp", client_id="reporter")
        (found,) = check_exchange(Facts(apps=ON_BEHALF, files=("access.json",), settings=settings))

    if able:
        assert found == Seen(
            "This Keycloak exchanges tokens. Whether it does so for this service, only an administrator sees (ledger)."
        )
    else:
        assert isinstance(found, Finding)
        assert "Calls on behalf of a user need Keycloak 26.2 or newer" in found.cure


def test_a_server_without_token_exchange_is_found_by_its_version_too() -> None:
    server = FakeKeycloak(old=True)
    server.add_client(clientId="reporter", serviceAccountsEnabled=True)

    (finding,) = findings(looked_at(server, *ON_BEHALF))["exchange"]
    assert finding.seen == "This Keycloak exchanges no tokens."

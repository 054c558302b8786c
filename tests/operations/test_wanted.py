"""To whom: what a plan grants because apps declare it, and what it never grants."""

import pytest

from s2s_fastapi import (
    require_audience,
    require_caller,
    require_claim,
    require_realm_role,
    require_role,
    require_scope,
    require_service,
    require_that,
    require_user,
)
from s2s_fastapi.declared.access_file import AppAccess, CallAccess
from s2s_fastapi.operations.wanted import Severity, Wanted, WantedCall, WantedExchange, WantedRole, WantedScope, wanted
from s2s_fastapi.realm.entities import Role
from s2s_fastapi.requirement.requirement import AllOf, AnyOf, Requirement
from tests.kit.declaring import caller, on_behalf, receiver, with_users


def of(*apps: AppAccess, grant: tuple[str, ...] = (), realm: str = "corp") -> tuple[Wanted, dict[Severity, str]]:
    found, findings = wanted(apps, grant, realm=realm)
    return found, {level: "\n".join(each.text for each in findings if each.level is level) for level in Severity}


def test_an_audience_is_granted_if_the_receiver_names_the_caller() -> None:
    found, said = of(receiver("crm", require_caller("chat")), caller("chat", "crm"))

    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert found.clients == {"chat": True, "crm": False}
    assert not any(said.values())


def test_who_wants_to_call_does_not_grant_it_to_itself() -> None:
    found, said = of(receiver("payroll", require_caller("hr")), caller("chat", "payroll"))

    assert found.calls == ()
    assert "chat calls payroll, and no route of payroll accepts chat" in said[Severity.OPEN]
    assert "--grant chat:audience=payroll grants the audience" in said[Severity.OPEN]


def test_without_the_file_of_the_receiver_nothing_is_granted() -> None:
    found, said = of(caller("chat", "payroll"))

    assert found.calls == ()
    assert "no access file of the app that is payroll is given" in said[Severity.OPEN]


def test_an_operator_can_grant_what_only_the_caller_declares() -> None:
    found, said = of(
        caller("chat", "payroll", "https://hr.example/api"), grant=("chat:payroll", "chat:https://hr.example/api")
    )

    assert found.reach == {"chat": frozenset({"payroll", "https://hr.example/api"})}
    assert said[Severity.OPEN] == ""
    assert "because --grant says so" in said[Severity.NOTE]


def test_a_receiver_that_accepts_any_service_is_said_in_capitals() -> None:
    found, said = of(receiver("crm", require_service()), caller("chat", "crm"))

    assert found.reach == {"chat": frozenset({"crm"})}
    assert said[Severity.NOTE].startswith("ANY SERVICE may call crm")


def test_a_route_for_users_accepts_no_service() -> None:
    found, said = of(receiver("crm", require_user("chat")), caller("chat", "crm"))

    assert found.reach == {}
    assert "no route of crm accepts chat" in said[Severity.OPEN]


def test_a_route_that_requires_a_scope_or_a_role_is_not_open_to_any_service() -> None:
    for app in (receiver("payroll", require_scope("pay:read")), receiver("payroll", require_role("reader"))):
        found, said = of(app, caller("chat", "payroll"))
        assert found.reach == {}
        assert "no route of payroll accepts chat" in said[Severity.OPEN]
    found, _ = of(receiver("payroll", require_scope("pay:read")), caller("chat", "payroll"), grant=("chat:pay:read",))
    assert found.reach == {"chat": frozenset({"payroll"})}


def test_a_public_route_opens_nothing() -> None:
    app = receiver("crm", None)
    public = AppAccess(
        app.client_id,
        app.requires,
        tuple(type(route)(route.path, route.methods, public=route.methods) for route in app.routes),
    )

    assert of(public, caller("chat", "crm"))[0].reach == {}


def test_a_route_with_an_audience_of_its_own_grants_that_one() -> None:
    app = AppAccess(
        "crm", require_service(), receiver("crm", require_audience("crm-admin") & require_caller("chat")).routes
    )

    assert of(app, caller("chat", "crm-admin"))[0].reach == {"chat": frozenset({"crm-admin"})}
    assert of(app, caller("chat", "crm"))[0].reach == {}


def test_a_role_and_a_scope_are_granted_to_whom_one_declaration_names_with_them() -> None:
    crm = receiver(
        "crm",
        require_caller("chat") & require_role("write") & require_scope("crm:write"),
        require_caller("chat", "billing"),
    )
    found, said = of(crm, caller("chat", "crm"), caller("billing", "crm"))

    assert found.roles == (WantedRole(caller="chat", role=Role("crm", "write")),)
    assert found.scopes == (WantedScope(caller="chat", scope="crm:write", optional=False),)
    assert found.reach == {"chat": frozenset({"crm"}), "billing": frozenset({"crm"})}
    assert said[Severity.OPEN] == ""


def test_a_role_without_a_caller_beside_it_is_a_finding_and_no_grant() -> None:
    found, said = of(receiver("crm", require_role("write"), require_caller("chat")), caller("chat", "crm"))

    assert found.roles == ()
    assert (
        "requires the role write of crm, and no declaration names a caller beside it: --grant CALLER:role=crm/write"
        in said[Severity.OPEN]
    )


def test_a_caller_that_requests_a_required_scope_does_not_grant_it_to_itself() -> None:
    crm = receiver("crm", require_scope("crm:write"), require_caller("chat"))
    found, said = of(crm, caller("chat", "crm", scope="crm:write"))

    assert found.scopes == ()
    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert "chat requests the scope crm:write, and no declaration names both" in said[Severity.OPEN]
    granted, said = of(crm, caller("chat", "crm", scope="crm:write"), grant=("chat:crm:write",))
    assert granted.scopes == (WantedScope(caller="chat", scope="crm:write", optional=True, by_hand=True),)
    assert said[Severity.OPEN] == ""


def test_naming_in_one_app_opens_no_other_app_that_requires_the_same_scope() -> None:
    named = receiver("crm", require_caller("chat") & require_scope("write"))
    other = receiver("payroll", require_scope("write"), require_caller("chat"))
    found, said = of(named, other, caller("chat", "crm", "payroll"))

    assert found.scopes == ()
    assert "chat is named for the scope write, and no declaration names both in each other app" in said[Severity.OPEN]


def test_an_app_does_not_hand_out_roles_of_another_app() -> None:
    crm = receiver("crm", require_caller("chat") & require_role("admin", client="payroll"))
    found, said = of(crm, receiver("payroll", require_role("admin") & require_caller("hr")), caller("chat", "crm"))

    assert found.roles == ()
    assert "crm names chat for the role admin of payroll, which another app owns" in said[Severity.OPEN]


def test_a_scope_that_no_route_requires_may_bring_the_audience() -> None:
    found, _ = of(receiver("bob", require_service()), caller("alice", "bob", scope="untrusted-audience"))

    assert found.calls == (WantedCall(caller="alice", audiences=("bob",), carriers=("untrusted-audience",)),)
    assert found.calls[0].request == "untrusted-audience"


def test_a_scope_for_no_audience_needs_a_grant() -> None:
    found, said = of(caller("alice", scope="anything"))
    assert found.calls == ()
    assert "--grant alice:scope=anything grants the scope" in said[Severity.OPEN]

    found, said = of(caller("alice", scope="anything"), grant=("alice:anything",))
    assert found.scopes == (WantedScope(caller="alice", scope="anything", optional=True, by_hand=True),)


FORBIDDEN = {
    "a role of realm-management": receiver(
        "crm", require_caller("chat") & require_role("manage-users", client="realm-management")
    ),
    "a role of realm-management for anybody": receiver(
        "crm", require_role("manage-users", client="realm-management"), require_caller("chat")
    ),
    "a role of account": receiver("crm", require_caller("chat") & require_role("manage-account", client="account")),
    "a role of broker": receiver("crm", require_caller("chat") & require_role("read-token", client="broker")),
    "the realm role admin": receiver("crm", require_caller("chat") & require_realm_role("admin")),
    "the default roles": receiver("crm", require_caller("chat") & require_realm_role("default-roles-corp")),
    "Keycloak's scope roles": receiver("crm", require_caller("chat") & require_scope("roles")),
    "Keycloak's scope profile": receiver("crm", require_caller("chat") & require_scope("profile")),
    "the client admin-cli": receiver("admin-cli", require_caller("chat")),
    "the client account": receiver("account", require_caller("chat")),
    "the client security-admin-console": receiver("security-admin-console", require_caller("chat")),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_plan_grants_what_is_of_keycloak_itself_and_no_option_lets_it_pass(what: str) -> None:
    app = FORBIDDEN[what]
    names = (
        "manage-users",
        "manage-account",
        "read-token",
        "admin",
        "default-roles-corp",
        "roles",
        "profile",
        "admin-cli",
        "account",
        "security-admin-console",
    )
    for grant in ((), tuple(f"chat:{name}" for name in names)):
        found, said = of(app, caller("chat", app.client_id), grant=grant)

        assert said[Severity.FORBIDDEN], what
        assert not found.roles
        assert not found.scopes
        assert found.clients.keys() <= {"chat", "crm"}
        assert found.reach.get("chat", frozenset()) <= {"crm"}


def test_an_audience_of_keycloak_itself_is_forbidden() -> None:
    found, said = of(caller("chat", "realm-management"), grant=("chat:realm-management",))
    assert found.calls == ()
    assert "realm-management is a client of Keycloak itself" in said[Severity.FORBIDDEN]


def test_the_clients_in_master_that_administer_other_realms_are_forbidden() -> None:
    assert of(caller("chat", "corp-realm"), grant=("chat:corp-realm",), realm="master")[1][Severity.FORBIDDEN]
    assert not of(caller("chat", "corp-realm"), grant=("chat:corp-realm",))[1][Severity.FORBIDDEN]


def test_two_apps_with_one_client_id_get_nothing_and_the_others_are_planned() -> None:
    found, said = of(
        receiver("crm", require_caller("chat")),
        receiver("crm", require_service()),
        caller("chat", "crm"),
        receiver("other"),
    )

    assert "2 apps that declare different things have the client id crm" in said[Severity.FORBIDDEN]
    assert found.clients == {"chat": True, "other": False}
    assert found.reach == {}


def test_the_same_app_in_two_files_is_one() -> None:
    app = receiver("crm", require_caller("chat"))
    assert of(app, app, caller("chat", "crm")) == of(app, caller("chat", "crm"))


def test_a_grant_for_nobody_or_for_nothing_is_a_finding() -> None:
    _, said = of(caller("chat"), grant=("nobody:crm", "chat:nothing"))

    assert "--grant nobody:crm names no caller" in said[Severity.OPEN]
    assert "no access file declares an audience, a scope or a role nothing" in said[Severity.OPEN]


def test_a_requirement_with_too_many_ways_is_a_finding_and_takes_no_time() -> None:
    many = AllOf(tuple(AnyOf(tuple(require_caller(f"{row}-{column}") for column in range(20))) for row in range(20)))
    found, said = of(receiver("crm", many), caller("chat", "crm"))

    assert "can be called in more than 5000 ways" in said[Severity.OPEN]
    assert found.reach == {}


def test_an_app_that_calls_and_receives_is_one_client_that_calls() -> None:
    both = receiver("crm", require_caller("chat"), calls=(CallAccess(("mail",)),))
    assert of(both, receiver("mail", require_caller("crm")))[0].clients == {"crm": True, "mail": False}


# No app opens another one


def test_an_app_that_claims_the_audience_of_another_one_lets_itself_in_nowhere() -> None:
    payroll = receiver("payroll", require_caller("hr"))
    evil = receiver("evil", require_caller("evil"), audience="payroll", calls=(CallAccess(("payroll",)),))
    found, said = of(payroll, evil, caller("hr", "payroll"))

    assert found.reach == {"hr": frozenset({"payroll"})}
    assert "evil calls payroll, and no route of payroll accepts evil" in said[Severity.OPEN]


def test_an_app_that_claims_the_audience_of_another_one_opens_it_for_nobody() -> None:
    payroll = receiver("payroll", require_caller("hr"))
    evil = receiver("evil", require_caller("friend"), audience="payroll")

    assert of(payroll, evil, caller("friend", "payroll"))[0].reach == {}
    caller_only = caller("payroll", "crm")
    found, said = of(caller_only, evil, caller("friend", "payroll"))
    assert found.reach == {}
    assert "payroll accepts no token with this audience" in said[Severity.OPEN]


def test_an_audience_of_two_apps_needs_both_of_them() -> None:
    url = "https://pay.example"
    one, other = (receiver(name, require_caller("chat"), audience=url) for name in ("crm", "payroll"))
    closed = receiver("payroll", require_caller("hr"), audience=url)

    assert of(one, other, caller("chat", url))[0].reach == {"chat": frozenset({url})}
    found, said = of(one, closed, caller("chat", url))
    assert found.reach == {}
    assert "no route of payroll accepts chat" in said[Severity.OPEN]


def test_an_app_lets_itself_in_for_its_own_client_id_and_for_no_other_audience() -> None:
    for audience, reach in (("crm", {"crm": frozenset({"crm"})}), ("https://pay.example", {})):
        app = receiver("crm", require_caller("crm"), audience=audience, calls=(CallAccess((audience,)),))
        assert of(app)[0].reach == reach


def test_an_audience_that_is_no_client_id_of_an_app_is_said_in_capitals() -> None:
    url = "https://crm.example/api"
    found, said = of(receiver("crm", require_caller("chat"), audience=url), caller("chat", url))

    assert found.reach == {"chat": frozenset({url})}
    assert said[Severity.NOTE].startswith(f"CHECK THIS: no app that is given has the client id {url}")
    assert "CHECK THIS" not in of(receiver("crm", require_caller("chat")), caller("chat", "crm"))[1][Severity.NOTE]


def test_an_app_that_names_itself_gets_no_scope_and_no_role() -> None:
    required = require_caller("evil") & require_scope("payroll.admin") & require_realm_role("superuser")
    evil = receiver("evil", required & require_role("own"), calls=(CallAccess(("evil",)),))
    found, said = of(evil)

    assert (found.scopes, found.roles) == ((), ())
    for what in ("scope=payroll.admin", "realm-role=superuser", "role=evil/own"):
        assert f"--grant evil:{what} grants" in said[Severity.OPEN]


def test_an_app_that_also_requires_the_scope_elsewhere_still_gets_it_from_the_app_that_names_it() -> None:
    crm = receiver("crm", require_caller("chat") & require_scope("read"))
    chat = receiver("chat", require_caller("web") & require_scope("read"), calls=(CallAccess(("crm",)),))

    assert of(crm, chat)[0].scopes == (WantedScope(caller="chat", scope="read", optional=False),)


VETOES = {
    "an app that the caller does not call": (receiver("payroll", require_caller("hr") & require_scope("write")),),
    "a route for users": (receiver("payroll", require_user("web") & require_scope("write")),),
    "a route with too many ways": (
        receiver(
            "payroll",
            require_scope("write")
            & AllOf(tuple(AnyOf(tuple(require_caller(f"{row}-{one}") for one in range(20))) for row in range(20))),
        ),
    ),
    "two apps of one client id": (
        receiver("payroll", require_caller("hr") & require_scope("write")),
        receiver("payroll", require_service()),
    ),
}


@pytest.mark.parametrize("what", VETOES)
def test_each_app_that_requires_a_scope_has_a_say_in_who_gets_it(what: str) -> None:
    crm = receiver("crm", require_caller("chat") & require_scope("write"))

    assert of(crm, caller("chat", "crm"))[0].scopes
    found, said = of(crm, *VETOES[what], caller("chat", "crm"))
    assert found.scopes == ()
    assert "--grant chat:scope=write grants the scope" in said[Severity.OPEN]


def test_a_scope_that_only_a_route_for_users_requires_brings_no_audience() -> None:
    crm = receiver("crm", require_user("web") & require_scope("crm:read"), require_caller("chat"))
    found, said = of(crm, caller("chat", "crm", scope="crm:read"))

    assert found.gates == {"crm:read"}
    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert "--grant chat:scope=crm:read grants the scope" in said[Severity.OPEN]


# What a grant means


def test_a_grant_that_fits_more_than_one_thing_grants_nothing_and_names_the_exact_forms() -> None:
    crm = receiver("crm", require_role("x"), require_scope("x"), require_realm_role("x"), require_caller("chat"))
    apps = (crm, receiver("payroll", require_role("x")), receiver("x"), caller("chat", "crm"))
    found, said = of(*apps, grant=("chat:x",))

    assert (found.scopes, found.roles, found.reach) == ((), (), {"chat": frozenset({"crm"})})
    forms = ("audience=x", "scope=x", "realm-role=x", "role=crm/x", "role=payroll/x")
    assert "--grant chat:x fits more than one thing" in said[Severity.OPEN]
    assert all(f"--grant chat:{form}" in said[Severity.OPEN] for form in forms)


def test_an_exact_grant_grants_exactly_that() -> None:
    crm = receiver("crm", require_role("x"), require_scope("x"), require_realm_role("x"), require_caller("chat"))
    apps = (crm, receiver("payroll", require_role("x")), receiver("x"), caller("chat", "crm"))
    for form, scopes, roles, audiences in (
        ("audience=x", (), (), {"crm", "x"}),
        ("scope=x", ("x",), (), {"crm"}),
        ("role=crm/x", (), (Role("crm", "x"),), {"crm"}),
        ("role=payroll/x", (), (Role("payroll", "x"),), {"crm"}),
        ("realm-role=x", (), (Role("", "x"),), {"crm"}),
    ):
        found, _ = of(*apps, grant=(f"chat:{form}",))
        assert tuple(each.scope for each in found.scopes) == scopes
        assert tuple(each.role for each in found.roles) == roles
        assert found.reach == {"chat": audiences}


def test_a_file_that_names_an_audience_like_an_exact_grant_does_not_get_in_its_way() -> None:
    crm = receiver("crm", require_scope("write"), require_caller("chat"))
    found, _ = of(crm, caller("chat", "crm"), caller("evil", "scope=write"), grant=("chat:scope=write",))

    assert [each.scope for each in found.scopes] == ["write"]
    assert found.reach == {"chat": frozenset({"crm"})}


def test_a_claim_and_a_condition_are_notes_and_what_stands_beside_them_is_granted() -> None:
    tenant, level = require_claim(("org", "tenant"), "acme", 1), require_that("level 2", lambda _: True)
    found, said = of(receiver("crm", require_caller("chat") & tenant & level), caller("chat", "crm"))

    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)
    assert 'of crm requires the claim org > tenant with 1 or "acme", and no plan writes it' in said[Severity.NOTE]
    assert "“Hardcoded claim”" in said[Severity.NOTE]
    assert 'of crm has the condition "level 2", which only its code decides.' in said[Severity.NOTE]
    assert said[Severity.OPEN] == said[Severity.FORBIDDEN] == ""


@pytest.mark.parametrize(
    ("requires", "why"),
    [
        (require_caller("chat") & require_caller("billing"), "no one is in all of [chat], [billing]"),
        (require_service() & require_user("web"), "never both"),
        (require_audience("a", only=True) & require_audience("b"), "for one audience only"),
    ],
    ids=["two callers", "two kinds", "two audiences"],
)
def test_what_nothing_in_keycloak_can_meet_is_one_sentence_and_the_rest_is_planned(
    requires: Requirement, why: str
) -> None:
    found, said = of(receiver("crm", requires, require_caller("chat")), caller("chat", "crm"))

    assert "Nothing in Keycloak can meet what " in said[Severity.OPEN]
    assert why in said[Severity.OPEN]
    assert said[Severity.OPEN].count("\n") == 0
    assert found.calls == (WantedCall(caller="chat", audiences=("crm",)),)


def test_what_can_be_met_in_one_of_its_ways_is_no_finding() -> None:
    either = (require_caller("chat") & require_caller("billing")) | require_caller("chat")
    _, said = of(receiver("crm", either), caller("chat", "crm"))

    assert not any(said.values())


@pytest.mark.parametrize(
    "audience",
    [
        "https://sso.example/realms/corp",
        "https://sso.example/auth/realms/corp/",
        "HTTPS://sso.example/Realms/Corp/protocol/openid-connect/token",
        "https://sso.example/realms/other/protocol/openid-connect?x=1#y",
    ],
)
def test_an_audience_that_keycloak_itself_answers_to_is_forbidden(audience: str) -> None:
    apps = (receiver("evil", require_caller("mallory"), audience=audience), caller("mallory", audience))
    found, said = of(*apps, grant=(f"mallory:audience={audience}",))

    assert found.reach.get("mallory", frozenset()) == frozenset()
    assert "is the issuer of a realm or one of its addresses" in said[Severity.FORBIDDEN]


@pytest.mark.parametrize(
    "audience", ["https://api.example/realms", "realms/corp", "https://api.example/realms/corp/notes"]
)
def test_an_audience_that_only_looks_like_an_address_of_keycloak_is_granted(audience: str) -> None:
    found, said = of(receiver("notes", require_caller("chat"), audience=audience), caller("chat", audience))

    assert found.reach["chat"] == {audience}
    assert not said[Severity.FORBIDDEN]


def test_the_ways_into_all_routes_of_an_app_have_a_bound() -> None:
    one = require_scope(*"a") | require_scope(*"b")
    wide = one
    for number in range(11):  # 4,096 ways
        wide = wide & (require_scope(f"a{number}") | require_scope(f"b{number}"))
    _, said = of(receiver("crm", wide, wide, wide, require_caller("chat")), caller("chat", "crm"))

    assert "/2 of crm can be called in 4096 ways, which are more than 10000 with those of the routes before it" in (
        said[Severity.OPEN].replace('"POST /2"', "/2")
    )
    assert "/1 of crm can be called" not in said[Severity.OPEN]


CRM = with_users(receiver("crm", require_user("shop-api")))


def test_a_call_on_behalf_of_users_is_granted_if_the_receiver_lets_them_in_through_the_caller() -> None:
    found, said = of(CRM, on_behalf("shop-api", "crm"))

    assert found.calls == (WantedCall(caller="shop-api", audiences=("crm",), on_behalf=True),)
    assert found.calls[0].exchanged_for == ("crm",)
    assert found.reach == {"shop-api": frozenset({"crm"})}
    assert found.exchanges == {"shop-api": WantedExchange(caller="shop-api", alone=True)}
    assert not any(said.values())


def test_who_may_call_as_itself_may_not_call_on_behalf_of_users_nor_the_other_way_round() -> None:
    services = with_users(receiver("crm", require_caller("shop-api")))
    other = with_users(receiver("crm", require_user("web")))
    for app in (services, other, receiver("crm", require_user("shop-api"))):  # the last one accepts services only
        found, said = of(app, on_behalf("shop-api", "crm"))
        assert found.reach == {}
        assert found.exchanges == {}
        assert (
            "shop-api calls crm on behalf of users, and no route of crm accepts users through shop-api. If it may call on their behalf, add it"
            " to require_user(...) there; or --grant shop-api:audience=crm grants the audience." in said[Severity.OPEN]
        )
    found, said = of(CRM, caller("shop-api", "crm"))
    assert found.reach == {}
    assert "no route of crm accepts shop-api" in said[Severity.OPEN]


def test_a_receiver_that_accepts_any_user_is_said_in_capitals() -> None:
    for app in (
        with_users(receiver("crm", require_user())),
        with_users(receiver("crm", require_role("clerk") & require_user())),
    ):
        found, said = of(app, on_behalf("shop-api", "crm"))

        assert found.reach == {"shop-api": frozenset({"crm"})}
        assert said[Severity.NOTE].startswith(
            'ANY USER, THROUGH ANY SERVICE, may call crm: its file names no client on "POST /0".'
        )
    found, said = of(
        with_users(receiver("crm", require_user() & require_scope("crm:write"))), on_behalf("shop-api", "crm")
    )
    assert found.reach == {}


def test_without_the_file_of_the_receiver_no_exchange_is_granted_unless_an_operator_does() -> None:
    found, said = of(on_behalf("shop-api", "payroll"))
    assert found.exchanges == {}
    assert "no access file of the app that is payroll is given" in said[Severity.OPEN]

    found, said = of(on_behalf("shop-api", "payroll"), grant=("shop-api:payroll",))
    assert found.exchanges.keys() == {"shop-api"}
    assert "because --grant says so" in said[Severity.NOTE]


@pytest.mark.parametrize("audience", ["realm-management", "account", "https://sso.example/realms/corp"])
def test_no_token_is_exchanged_for_keycloak_itself(audience: str) -> None:
    found, said = of(on_behalf("shop-api", audience), grant=(f"shop-api:{audience}",))

    assert found.exchanges == {}
    assert "on behalf of users, and no plan grants that audience" in said[Severity.FORBIDDEN]


def test_a_call_on_behalf_of_users_for_nobody_is_a_finding() -> None:
    found, said = of(CRM, on_behalf("shop-api", "", scope="crm:write"))

    assert found.calls == ()
    assert "shop-api calls on behalf of users, and names no audience for it" in said[Severity.OPEN]


def test_a_scope_that_is_named_beside_users_is_granted_to_who_requests_it_on_their_behalf() -> None:
    crm = with_users(receiver("crm", require_user("shop-api") & require_scope("crm:write"), require_caller("shop-api")))

    found, said = of(crm, on_behalf("shop-api", "crm", scope="crm:write"))
    assert found.scopes == (WantedScope(caller="shop-api", scope="crm:write", optional=True),)
    assert said[Severity.OPEN] == ""

    found, said = of(crm, caller("shop-api", "crm", scope="crm:write"))
    assert found.scopes == ()
    assert "no declaration names both" in said[Severity.OPEN]

    found, said = of(crm, on_behalf("shop-api", "crm"))
    assert found.scopes == ()  # the code does not request it, and its own tokens shall not have it


def test_a_role_of_users_is_no_role_of_the_service() -> None:
    crm = with_users(
        receiver(
            "crm", require_user("shop-api") & require_role("clerk"), require_caller("shop-api") & require_role("boss")
        )
    )

    found, said = of(crm, on_behalf("shop-api", "crm"))

    assert found.roles == ()
    assert found.exchanges["shop-api"].roles == (Role("crm", "clerk"),)
    assert said[Severity.OPEN] == ""
    found, _ = of(crm, on_behalf("shop-api", "crm", own=caller("shop-api", "crm").calls))
    assert found.roles == (WantedRole(caller="shop-api", role=Role("crm", "boss")),)
    assert found.exchanges["shop-api"].alone is False


def test_the_clients_through_which_users_call_are_those_that_the_caller_names() -> None:
    shop = with_users(
        receiver(
            "shop-api",
            require_user("web", "app"),
            require_service() | require_user("kiosk"),
            calls=on_behalf("", "crm").calls,
        )
    )

    assert of(CRM, shop)[0].exchanges["shop-api"].through == ("app", "kiosk", "web")

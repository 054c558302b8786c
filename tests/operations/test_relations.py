"""Who may call whom: each way in which what is declared and what is granted can fit together, or not."""

from typing import Any

import pytest

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.operations.access_check import check_access
from s2s_fastapi.operations.graph import as_json
from s2s_fastapi.operations.relations import Relation, Status, Unanswered, relations, unanswered
from s2s_fastapi.realm.model import RealmModel
from tests.operations.landscape import MAIL, SHOP, STOCK, app, call, client, file, realm, route

ONLY_SHOP = {"caller": [SHOP]}
RECEIVER = app(STOCK, route("/items", ONLY_SHOP), route("/count", ONLY_SHOP))
CALLER = app(SHOP, calls=[call(STOCK)], receives=False)


def only(*found: Relation) -> Relation:
    (one,) = found
    return one


def test_a_call_that_is_declared_and_granted_works_on_every_route_that_accepts_the_token() -> None:
    found = only(*relations([file(RECEIVER, CALLER)], realm(client(SHOP, STOCK), client(STOCK))))

    assert (found.caller, found.receiver, found.status) == (SHOP, STOCK, Status.WORKS)
    assert [(each.route, each.accepted) for each in found.routes] == [("GET /count", True), ("GET /items", True)]
    assert found.token is not None
    assert found.token["aud"] == STOCK


def test_several_files_are_one_landscape() -> None:
    granted = realm(client(SHOP, STOCK), client(STOCK))

    assert relations([file(RECEIVER), file(CALLER)], granted) == relations([file(RECEIVER, CALLER)], granted)


def test_a_declared_call_without_the_audience_is_not_granted() -> None:
    found = only(*relations([file(RECEIVER, CALLER)], realm(client(SHOP), client(STOCK))))

    assert found.status is Status.NOT_GRANTED
    assert {each.reason for each in found.routes} == {"wrong_audience"}


def test_a_caller_to_which_keycloak_gives_no_token_is_not_granted_and_keycloaks_answer_is_shown() -> None:
    found = only(*relations([file(RECEIVER, CALLER)], realm(client(SHOP, STOCK, accounts=False), client(STOCK))))

    assert found.status is Status.NOT_GRANTED
    assert found.note.startswith("401 unauthorized_client")


def test_a_declared_call_whose_role_is_missing_is_refused() -> None:
    strict = app(STOCK, route("/items", {"and": [ONLY_SHOP, {"role": ["reader"], "client": STOCK}]}))
    found = only(*relations([file(strict, CALLER)], realm(client(SHOP, STOCK), client(STOCK))))

    assert found.status is Status.REFUSED
    assert [each.reason for each in found.routes] == ["role_missing"]


def test_a_caller_that_no_route_allows_is_said_whatever_keycloak_grants() -> None:
    closed = app(STOCK, route("/items", {"caller": [MAIL]}))
    found = {each.caller: each.status for each in relations([file(closed, CALLER)], realm(client(SHOP, STOCK)))}

    assert found == {SHOP: Status.NOT_ALLOWED, MAIL: Status.ALLOWED}


def test_a_role_that_keycloak_could_grant_does_not_make_a_call_one_that_is_never_allowed() -> None:
    strict = app(STOCK, route("/items", {"and": [ONLY_SHOP, {"realm_role": ["reader"]}, {"scope": ["read"]}]}))

    assert only(*relations([file(strict, CALLER)])).status is Status.DECLARED


@pytest.mark.parametrize("by", ["mapper", "optional scope"])
def test_a_grant_that_no_app_declares_is_found(by: str) -> None:
    open_to_all = app(STOCK, route("/items"))
    other = client(MAIL, STOCK) if by == "mapper" else client(MAIL, optional=["to-stock"])
    found = only(*relations([file(open_to_all)], realm(other, client(STOCK), scopes=[("to-stock", STOCK)])))

    assert (found.caller, found.status) == (MAIL, Status.NOT_DECLARED)
    assert found.scopes == (() if by == "mapper" else ("to-stock",))


def test_an_audience_that_nobody_declares_is_found_even_if_every_route_refuses_its_token() -> None:
    found = relations([file(RECEIVER)], realm(client(MAIL, STOCK), client(SHOP), client(STOCK)))

    assert found[1] == Relation(SHOP, STOCK, Status.ALLOWED)
    assert (found[0].caller, found[0].status, found[0].audiences) == (MAIL, Status.NOT_DECLARED, (STOCK,))
    assert {each.reason for each in found[0].routes} == {"caller_not_allowed"}


def test_a_grant_that_needs_two_optional_scopes_is_found_with_these_two() -> None:
    strict = app(STOCK, route("/items", {"scope": ["admin"]}))
    other = client(MAIL, optional=["unused", "to-stock", "admin"])
    scopes = [("to-stock", STOCK), ("admin", "else"), ("unused", "else")]
    found = only(*relations([file(strict)], realm(other, client(STOCK), scopes=scopes)))

    assert (found.status, found.scopes) == (Status.NOT_DECLARED, ("to-stock", "admin"))
    assert [each.accepted for each in found.routes] == [True]


SCOPED = app(
    STOCK, route("/items", ONLY_SHOP), route("/count", {"and": [ONLY_SHOP, {"scope": ["read"]}]}), route("/open")
)


def test_a_route_that_names_the_caller_and_refuses_it_needs_attention() -> None:
    granted = realm(client(SHOP, STOCK, optional=["read"]), client(STOCK), scopes=[("read", "else")])
    found = only(*relations([file(SCOPED, CALLER)], granted))

    assert (found.status, found.status.problem) == (Status.IN_PART, True)
    assert found.note == "1 of 2 routes that name this caller refuses it: GET /count (scope_missing)"


def test_a_route_that_another_token_of_the_caller_opens_is_not_refused() -> None:
    twice = app(SHOP, calls=[call(STOCK), call(STOCK, "read")], receives=False)
    granted = realm(client(SHOP, STOCK, optional=["read"]), client(STOCK), scopes=[("read", "else")])
    found = only(*relations([file(SCOPED, twice)], granted))

    assert (found.status, found.note, found.scopes) == (Status.WORKS, "", ("read",))
    assert all(each.accepted for each in found.routes)


def test_of_several_tokens_the_one_with_a_problem_is_shown() -> None:
    twice = app(SHOP, calls=[call(STOCK, "absent"), call(STOCK)], receives=False)

    assert only(*relations([file(RECEIVER, twice)], realm(client(SHOP, STOCK)))).status is Status.NOT_GRANTED


def test_a_second_app_of_the_same_client_is_refused() -> None:
    opened = app(STOCK, route("/items"))
    with pytest.raises(ConfigurationError, match="Several apps have the client id stock"):
        relations([file(RECEIVER), file(opened)])
    assert relations([file(RECEIVER), file(RECEIVER)]) == relations([file(RECEIVER)])


def test_a_caller_whose_file_does_not_declare_the_call_is_a_grant_too_much_even_if_a_route_names_it() -> None:
    silent = app(SHOP, receives=False)

    assert only(*relations([file(RECEIVER, silent)], realm(client(SHOP, STOCK)))).status is Status.NOT_DECLARED
    assert only(*relations([file(RECEIVER)], realm(client(SHOP, STOCK)))).status is Status.ALLOWED


def test_a_call_by_scope_is_asked_with_its_scope() -> None:
    asking = app(SHOP, calls=[call(STOCK, "to-stock")], receives=False)
    granted = realm(client(SHOP, optional=["to-stock"]), client(STOCK), scopes=[("to-stock", STOCK)])

    assert only(*relations([file(RECEIVER, asking)], granted)).status is Status.WORKS
    assert only(*relations([file(RECEIVER, CALLER)], granted)).status is Status.NOT_GRANTED


def test_without_a_realm_only_what_is_declared_is_shown() -> None:
    found = only(*relations([file(RECEIVER, CALLER)]))

    assert (found.status, found.routes, found.token) == (Status.DECLARED, (), None)


def test_a_service_is_no_relation_to_itself() -> None:
    own = app(STOCK, route("/items"), calls=[call(STOCK)])

    assert relations([file(own)], realm(client(STOCK, STOCK))) == ()


def test_an_audience_that_no_given_app_accepts_is_named() -> None:
    lost = app(SHOP, calls=[call(STOCK), call("ghost")], receives=False)

    assert unanswered([file(RECEIVER, lost)]) == (Unanswered(SHOP, "ghost"),)
    assert unanswered([file(lost), file(RECEIVER)]) == (Unanswered(SHOP, "ghost"),)


def test_a_route_of_which_only_some_methods_are_public_is_still_judged() -> None:
    part = app(STOCK, {"path": "/items", "public": ["GET"], "requires": ONLY_SHOP})
    whole = app(STOCK, {"path": "/items", "methods": ["GET"], "public": ["GET"]})
    granted = realm(client(SHOP, STOCK), client(STOCK))

    assert only(*relations([file(part, CALLER)], granted)).status is Status.WORKS
    assert only(*relations([file(whole, CALLER)], granted)).status is Status.NOT_ALLOWED


def test_a_condition_lets_a_caller_in_as_far_as_anybody_but_the_app_can_tell() -> None:
    partner = {"condition": "partner of level 2"}
    strict = app(
        STOCK, route("/items", {"and": [ONLY_SHOP, partner]}), route("/mail", {"and": [{"caller": [MAIL]}, partner]})
    )
    found = {
        each.caller: each for each in relations([file(strict, CALLER)], realm(client(SHOP, STOCK), client(STOCK)))
    }[SHOP]

    assert found.status is Status.WORKS
    assert [(each.route, each.accepted, each.reason) for each in found.routes] == [
        ("GET /items", True, "condition_unknown"),
        ("GET /mail", False, "caller_not_allowed"),
    ]
    assert 'Only the app can tell whether shop meets the condition "partner of level 2"' in found.routes[
        0
    ].cure.replace(SHOP, "shop")


def test_a_claim_that_no_mapper_writes_is_refused_and_could_be_written() -> None:
    tenant = {
        "and": [{"claim": ["org", "tenant"], "values": ["acme", 1]}, {"claim": ["org", "tenant"], "values": [True]}]
    }
    strict = app(STOCK, route("/items", {"and": [ONLY_SHOP, tenant]}))
    found = only(*relations([file(strict, CALLER)], realm(client(SHOP, STOCK), client(STOCK))))

    assert found.status is Status.REFUSED
    assert [each.reason for each in found.routes] == ["claim_missing"]
    assert only(*relations([file(strict, CALLER)])).status is Status.DECLARED


# Calls on behalf of users

EITHER = {"or": [{"service": "any"}, {"user": "any"}]}
FOR_USERS = {
    **RECEIVER,
    "requires": {"and": [{"audience": [STOCK]}, EITHER]},
    "routes": [route("/items", {"user": [SHOP]})],
}
FOR_A_CLERK = {
    **FOR_USERS,
    "routes": [
        route("/items", {"and": [{"user": [SHOP]}, {"role": ["clerk"], "client": STOCK}]}),
        route("/own", ONLY_SHOP),
    ],
}
ON_BEHALF = app(SHOP, calls=[{**call(STOCK), "on_behalf": True}], receives=False)
EXCHANGES = {**client(SHOP, STOCK), "attributes": {"standard.token.exchange.enabled": "true"}}


def test_a_call_on_behalf_of_users_is_judged_with_a_users_token_whose_roles_nobody_knows() -> None:
    for receiver in (FOR_USERS, FOR_A_CLERK):
        found = only(*relations([file(receiver, ON_BEHALF)], realm(EXCHANGES, client(STOCK))))

        assert (found.status, found.on_behalf, found.note) == (Status.WORKS, True, "")
        assert found.token is not None
        assert "client_id" not in found.token
    assert as_json([found])["relations"][0]["on_behalf"] is True


def test_a_client_that_may_not_exchange_tokens_calls_nobody_on_behalf_of_users() -> None:
    found = only(*relations([file(FOR_USERS, ON_BEHALF)], realm(client(SHOP, STOCK), client(STOCK))))

    assert found.status is Status.NOT_GRANTED
    assert found.note == "400 invalid_request: Standard token exchange is not enabled for the requested client"


def test_a_receiver_that_names_only_the_service_does_not_let_its_users_in() -> None:
    found = only(*relations([file(RECEIVER, ON_BEHALF)], realm(EXCHANGES, client(STOCK))))

    assert found.status is Status.NOT_ALLOWED
    assert found.cure.startswith(f"Add {SHOP} to require_user(...)")


def test_calls_of_both_kinds_are_one_relation() -> None:
    both = app(SHOP, calls=[call(STOCK), {**call(STOCK), "on_behalf": True}], receives=False)
    found = only(*relations([file(FOR_A_CLERK, both)], realm(EXCHANGES, client(STOCK))))

    assert found.status is Status.WORKS
    assert [each.accepted for each in found.routes] == [True, True]


def test_access_check_knows_calls_on_behalf_of_users() -> None:
    def said(receiver: Any, model: RealmModel) -> str:
        return "\n".join(finding.text for finding in check_access(file(receiver, ON_BEHALF).apps, model))

    assert said(FOR_A_CLERK, realm(EXCHANGES, client(STOCK))) == ""
    assert said(FOR_A_CLERK, realm(client(SHOP, STOCK), client(STOCK))) == (
        "shop calls stock on behalf of users, and Keycloak refuses the exchange: invalid_request Standard token exchange is not enabled for"
        " the requested client."
    )
    assert "no route of stock accepts its token" in said(RECEIVER, realm(EXCHANGES, client(STOCK)))

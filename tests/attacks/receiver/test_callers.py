"""Attacks by callers who are somebody else, or may do less: lines 21 and 22 of the list."""

from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI

from s2s_fastapi import Principal, require_caller, require_realm_role, require_role, require_user
from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import KEYS, Stack, broken, stack, token
from tests.kit.missing import MISSING
from tests.kit.realm import Realm

OURS = "crm-api-gateway"


# 21: who


@pytest.mark.parametrize(
    "azp", [MISSING, None, "", [], ["chat-app-service"], {}, 0, 1, True, "a\nb", "a\u0000"], ids=repr
)
def test_the_caller_is_one_name(azp: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, azp=azp), Reason.MALFORMED_CLAIMS)


USER = {"client_id": MISSING, "sid": "5e55", "azp": "crm-ui"}

KINDS: dict[str, tuple[dict[str, Any], Reason]] = {
    "azp of another client": ({"azp": "billing"}, Reason.UNKNOWN_KIND),
    "client_id of another client": ({"client_id": "billing"}, Reason.UNKNOWN_KIND),
    "client_id in another case": ({"client_id": "CHAT-APP-SERVICE"}, Reason.UNKNOWN_KIND),
    "client_id in a list": ({"client_id": ["chat-app-service"]}, Reason.UNKNOWN_KIND),
    "client_id null": ({"client_id": None}, Reason.UNKNOWN_KIND),
    "client_id missing": ({"client_id": MISSING}, Reason.UNKNOWN_KIND),
    "client_id under its old name": ({"client_id": MISSING, "clientId": "chat-app-service"}, Reason.UNKNOWN_KIND),
    "a session as well": ({"sid": "s"}, Reason.UNKNOWN_KIND),
    "a session of null": ({"sid": None}, Reason.UNKNOWN_KIND),
    "an empty session": ({"sid": ""}, Reason.UNKNOWN_KIND),
    "a session that is no string": ({**USER, "sid": 1}, Reason.UNKNOWN_KIND),
    "a user": (USER, Reason.NOT_A_SERVICE),
    "a user of the calling service": ({**USER, "azp": "chat-app-service"}, Reason.NOT_A_SERVICE),
    "a user named like a service account": (
        {**USER, "azp": "chat-app-service", "preferred_username": "service-account-chat-app-service"},
        Reason.NOT_A_SERVICE,
    ),
    "a user with a service account's every claim but its client_id": (
        {**USER, "azp": "chat-app-service", "clientHost": "10.0.0.1", "clientAddress": "10.0.0.1", "scope": "service"},
        Reason.NOT_A_SERVICE,
    ),
    "a name of a service account alone": (
        {"client_id": MISSING, "preferred_username": "service-account-chat-app-service"},
        Reason.UNKNOWN_KIND,
    ),
    "an impersonated user": ({**USER, "act": {"sub": "root"}, "may_act": {"sub": "root"}}, Reason.NOT_A_SERVICE),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "reason"), KINDS.values(), ids=KINDS)
def test_who_cannot_prove_to_be_a_service_is_none(changes: dict[str, Any], reason: Reason) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, **changes), reason)


def guarded(*requirements: Any, **options: Any) -> Stack:
    """Return an app whose path /y asks for more than a service."""
    app = FastAPI(openapi_url=None)

    @app.get("/y")
    async def y(caller: Annotated[Principal, Depends(requirements[0])]) -> dict[str, str]:
        return {"client_id": caller.client_id}

    realm = Realm(key=KEYS["RS256"])
    return Stack(realm, app=app, **options)


@pytest.mark.parametrize(
    "name",
    [
        "billing",
        "chat-app-servic",
        "chat-app-service2",
        "chat-app",
        "CHAT-APP-SERVICE",
        "service-account-chat-app-service",
        "*",
    ],
)
def test_another_client_of_the_realm_with_the_same_audience_is_not_the_one_that_may(name: str) -> None:
    attacked = guarded(require_caller("chat-app-service"))
    other = broken(attacked, azp=name, client_id=name)
    assert attacked.bearer(token(attacked.realm), path="/y").status_code == 200
    attacked.accepts(other, name)  # it is a good token: only this route is not for it
    attacked.refuses(other, Reason.CALLER_NOT_ALLOWED, path="/y")
    assert attacked.bearer(token(attacked.realm), path="/y").status_code == 200


def test_a_user_of_another_front_end_is_not_the_one_that_may() -> None:
    attacked = guarded(require_user("crm-ui"), users=True)
    ours, other = broken(attacked, **USER), broken(attacked, **{**USER, "azp": "crm-ui-2"})
    assert attacked.bearer(ours, path="/y").status_code == 200
    attacked.refuses(other, Reason.CALLER_NOT_ALLOWED, outbound=0, path="/y")


# 22: scopes and roles

WRONG_TYPES: list[Any] = [None, "", "admin", 0, 1, True, [], ["admin"], 1.5]


@pytest.mark.parametrize("value", WRONG_TYPES, ids=repr)
@pytest.mark.parametrize("name", ["realm_access", "resource_access"])
def test_access_is_an_object(name: str, value: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, **{name: value}), Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize(
    "roles",
    [None, "", "admin", "admin,user", 0, True, {}, {"admin": True}, [1], [None], [["admin"]], ["admin", 1], [{}]],
    ids=repr,
)
def test_roles_are_a_list_of_strings(roles: Any) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    attacked.holds(good, broken(attacked, realm_access={"roles": roles}), Reason.MALFORMED_CLAIMS)
    attacked.holds(good, broken(attacked, resource_access={OURS: {"roles": roles}}), Reason.MALFORMED_CLAIMS)


@pytest.mark.parametrize("scope", [None, 0, True, [], ["admin"], {}, {"admin": 1}], ids=repr)
def test_the_scope_is_one_string(scope: Any) -> None:
    attacked = stack("RS256")
    attacked.holds(token(attacked.realm), broken(attacked, scope=scope), Reason.MALFORMED_CLAIMS)


ROLES: dict[str, dict[str, Any]] = {
    "letters of a word": {"realm_access": {"roles": list("admin")}},
    "a word with it inside": {"realm_access": {"roles": ["administrator", "no-admin", "admin2", "ADMIN", " admin", "admin "]}},
    "a list in one name": {"realm_access": {"roles": ["user,admin", "user admin", "user\nadmin", "admin\u0000", "[admin]"]}},
    "a scope of that name": {"scope": "admin"},
    "a role of the client": {"resource_access": {OURS: {"roles": ["admin"]}}},
    "a claim of that name": {"roles": ["admin"], "role": "admin", "groups": ["admin"], "authorities": ["ROLE_admin"]},
    "a client named like the realm": {"resource_access": {"realm": {"roles": ["admin"]}, "": {"roles": ["admin"]}}},
    "100 000 others, or as many as fit": {"realm_access": {"roles": [f"r{n}" for n in range(1000)]}},
}  # fmt: skip


@pytest.mark.parametrize("changes", ROLES.values(), ids=ROLES)
def test_a_role_of_the_realm_is_exactly_that(changes: dict[str, Any]) -> None:
    attacked = guarded(require_realm_role("admin"))
    good = broken(attacked, realm_access={"roles": ["admin"]})
    assert attacked.bearer(good, path="/y").status_code == 200
    attacked.refuses(broken(attacked, **changes), Reason.ROLE_MISSING, path="/y")


@pytest.mark.parametrize(
    "access",
    [
        {"crm": {"roles": ["admin"]}},
        {"CRM-API-GATEWAY": {"roles": ["admin"]}},
        {"crm-api-gateway ": {"roles": ["admin"]}},
        {"crm-api-gateway\u0000": {"roles": ["admin"]}},
        {"account": {"roles": ["admin"]}, OURS: {"roles": ["user"]}},
        {OURS: {"roles": []}},
        {OURS: {"role": ["admin"]}},
        {f"{OURS}.admin": {"roles": ["admin"]}},
    ],
    ids=repr,
)
def test_a_role_of_another_client_is_none_of_ours(access: Any) -> None:
    attacked = guarded(require_role("admin"))
    good = broken(attacked, resource_access={OURS: {"roles": ["admin"]}})
    assert attacked.bearer(good, path="/y").status_code == 200
    attacked.refuses(broken(attacked, resource_access=access), Reason.ROLE_MISSING, path="/y")


def test_a_token_of_a_hundred_thousand_roles_is_not_even_read() -> None:
    attacked = stack("RS256")
    many = broken(attacked, realm_access={"roles": [f"r{n}" for n in range(100_000)]})
    attacked.holds(token(attacked.realm), many, Reason.INVALID_REQUEST)


LINES = "x\r\n2026-01-01 ERROR root logged in\x1b[31m\u2028"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": [LINES]},
        {"aud": [f"{LINES}{n}" for n in range(100)]},
        {"iss": "http://evil.example/" + "x" * 5000},
        {"typ": LINES},
        {"jti": LINES},
        {"typ": ["x" * 5000]},
        {"resource_access": {LINES: "x"}},
        {"exp": LINES},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_nothing_that_a_token_says_begins_a_line_of_the_log_or_fills_it(changes: dict[str, Any]) -> None:
    attacked = stack("RS256")
    attacked.bearer(broken(attacked, **changes))
    line = attacked.observed.lines[-1]
    assert line.isprintable()
    assert len(line) < 8000

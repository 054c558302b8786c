"""A session belongs to the caller who opened it. For everybody else there is none."""

from collections.abc import Callable
from typing import Any

import pytest

from s2s_fastapi import require_service, require_user
from s2s_fastapi.accepted import digest
from s2s_fastapi.mcp import current_principal
from tests.kit.realm import Realm, settings
from tests.mcp.conftest import Start
from tests.mcp.tools import Tools

TRIES: dict[str, Callable[[Any], Any]] = {
    "call": lambda caller: caller.send("tools/call", name="whoami", arguments={}),
    "stream": lambda caller: caller.stream(),
    "end": lambda caller: caller.end(),
}


@pytest.fixture(autouse=True)
def whoami(tools: Tools) -> None:
    def whoami() -> str:
        return current_principal().client_id

    tools.tool(whoami, require_service() | require_user())


@pytest.mark.parametrize("attempt", TRIES)
def test_the_session_of_another_caller_does_not_exist(start: Start, token_of: Any, attempt: str) -> None:
    make = start()
    owner, thief = make(token_of("agent")).open(), make(token_of("billing"))

    thief.session = "0" * 32
    unknown = TRIES[attempt](thief)
    thief.session = owner.session
    stolen = TRIES[attempt](thief)

    assert (stolen.status_code, stolen.text) == (unknown.status_code, unknown.text)
    assert stolen.status_code == 404
    assert owner.call("whoami") == "agent"


@pytest.mark.parametrize("attempt", TRIES)
def test_a_user_does_not_continue_the_session_of_another_user_of_the_same_client(
    start: Start, user_token: Any, attempt: str
) -> None:
    make = start(users=True)
    owner, thief = make(user_token("ann")).open(), make(user_token("bob"))
    thief.session = owner.session

    assert TRIES[attempt](thief).status_code == 404
    assert owner.call("whoami") == "crm-ui"


def test_two_users_stay_apart_if_the_realm_leaves_the_subject_out(start: Start, user_token: Any) -> None:
    make = start(users=True)
    owner, again = make(user_token(None, sid="first")).open(), make(user_token(None, sid="first"))
    thief = make(user_token(None, sid="second"))
    again.session = thief.session = owner.session

    assert again.call("whoami") == "crm-ui"
    assert TRIES["call"](thief).status_code == 404


def test_a_caller_of_the_same_name_in_another_realm_is_another_caller(
    start: Start, realm: Realm, token_of: Any
) -> None:
    partners = Realm("partners")
    both = [settings(), settings(realm="partners", url="http://keycloak.test", name="partners")]
    make = start(users=True, settings=both)
    owner = make(token_of("agent")).open()
    thief = make(partners.token(azp="agent", client_id="agent", sub="sub-of-agent"))
    thief.session = owner.session

    assert TRIES["call"](thief).status_code == 404


def test_the_owner_goes_on_with_a_new_token_and_ends_the_session(start: Start, token_of: Any) -> None:
    owner = start()(token_of("agent")).open()
    owner.token = token_of("agent")

    assert owner.call("whoami") == "agent"
    assert owner.end().status_code == 200
    assert TRIES["call"](owner).status_code == 404


def test_a_session_id_is_no_credential(start: Start, token_of: Any) -> None:
    owner = start()(token_of("agent")).open()
    owner.token = "no-token"

    assert [TRIES[attempt](owner).status_code for attempt in TRIES] == [401, 401, 401]


def test_the_sdk_knows_the_caller_and_has_no_token_to_send_on(start: Start, tools: Tools, token_of: Any) -> None:
    from mcp.server.auth.middleware.auth_context import get_access_token

    seen: list[Any] = []

    def look() -> str:
        seen.append(get_access_token())
        return ""

    tools.tool(look)
    token = token_of("agent", scope="profile email")
    start()(token).open().ask("tools/call", name="look", arguments={})

    assert [(each.client_id, each.subject, each.claims["iss"], each.token) for each in seen] == [
        ("agent", "sub-of-agent", "http://keycloak.test/realms/corp", f"digest:{digest(token).hex()}")
    ]
    assert seen[0].scopes == ["email", "profile"]

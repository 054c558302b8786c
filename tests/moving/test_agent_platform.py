"""A platform for agents that was moved: users on a list, its own services, terms of use, and a chat on a WebSocket."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.websockets import WebSocketDisconnect

from tests.moving.agent_platform import app as platform
from tests.moving.agent_platform import auth
from tests.moving.agent_platform.app import app

ANN: Any = {"via": "platform-ui", "claims": {"email": "ann@acme.example"}}


class Accepted:
    async def accepted_by(self, subject: str) -> bool:
        return subject != "late"


@pytest.fixture
def client(client_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(auth, "USERS", frozenset({"ann@acme.example"}))  # as PLATFORM_USERS has it
    app.dependency_overrides[auth.terms_of_use] = Accepted
    yield client_of(app, auth.verifier, client_id="platform")
    app.dependency_overrides.clear()


def user(as_user: Callable[..., Any], **claims: Any) -> Any:
    return as_user("ann", via="platform-ui", claims={"email": "ann@acme.example", **claims})


def test_a_user_on_the_list_who_has_accepted_the_terms_is_admitted(client: Any, as_user: Callable[..., Any]) -> None:
    answer = client.get("/agents", auth=user(as_user, sub="ann-1"))

    assert answer.json() == {"uid": "ann-1", "username": "ann"}


def test_a_user_who_has_not_accepted_the_terms_reaches_the_terms_alone(
    client: Any, as_user: Callable[..., Any]
) -> None:
    late = user(as_user, sub="late")

    assert [client.get(path, auth=late).status_code for path in ("/terms", "/agents")] == [200, 403]


def test_a_user_who_is_not_on_the_list_or_has_not_verified_the_address_is_refused(
    client: Any, as_user: Callable[..., Any]
) -> None:
    refused = [
        user(as_user, email="bob@acme.example"),
        user(as_user, email=None),
        user(as_user, email_verified=False),
        user(as_user, email_verified="true"),
    ]

    assert [client.get("/agents", auth=each).status_code for each in refused] == [403] * 4


def test_without_a_list_every_user_counts(
    client: Any, as_user: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "USERS", frozenset())

    assert client.get("/agents", auth=user(as_user, email="bob@acme.example")).status_code == 200


def test_a_service_needs_the_role_and_a_user_with_the_role_is_none(
    client: Any, as_user: Callable[..., Any], as_service: Callable[..., Any]
) -> None:
    callers = [
        as_service("evaluator", roles="service_agent"),
        as_service("evaluator"),
        as_user("ann", via="platform-ui", claims=ANN["claims"], roles="service_agent"),
    ]

    assert [client.post("/evaluations", auth=each).status_code for each in callers] == [200, 403, 403]


def test_a_token_that_lives_longer_than_an_hour_is_refused(client: Any, as_user: Callable[..., Any]) -> None:
    long_lived = as_user("ann", **ANN, expires_in=3700)

    assert client.get("/agents", auth=long_lived).status_code == 401


def test_who_has_no_token_for_the_platform_is_refused(client: Any, as_user: Callable[..., Any]) -> None:
    for_another = as_user("ann", **ANN, audience="another-service")

    assert [client.get("/agents").status_code, client.get("/agents", auth=for_another).status_code] == [401, 401]


def test_the_chat_takes_the_token_from_the_header_or_as_the_first_message(
    client: Any, as_user: Callable[..., Any]
) -> None:
    with client.websocket_connect("/chat", headers=user(as_user).headers) as socket:
        assert socket.receive_text() == "hello ann"
    with client.websocket_connect("/chat") as socket:
        socket.send_text(user(as_user).token)
        assert socket.receive_text() == "hello ann"


@pytest.mark.parametrize("first", ["", "a", "not.a.token", "two words"])
def test_the_chat_ends_if_the_first_message_is_no_token(client: Any, first: str) -> None:
    with client.websocket_connect("/chat") as socket:
        socket.send_text(first)
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text()

    assert ended.value.code == 1008


def test_the_chat_ends_if_the_first_message_is_the_token_of_somebody_who_is_not_known(
    client: Any, as_user: Callable[..., Any]
) -> None:
    with client.websocket_connect("/chat") as socket:
        socket.send_text(user(as_user, email="bob@acme.example").token)
        with pytest.raises(WebSocketDisconnect) as ended:
            socket.receive_text()

    assert ended.value.code == 1008


def test_the_chat_ends_if_no_token_comes_in_time(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "PATIENCE", 0)
    with client.websocket_connect("/chat") as socket, pytest.raises(WebSocketDisconnect) as ended:
        socket.receive_text()

    assert ended.value.code == 1008

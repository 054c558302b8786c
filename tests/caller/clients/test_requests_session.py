"""`for_requests`: what a session of requests sends, sends again and gives back, seen by the receiver."""

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from s2s_fastapi import ServiceTokenAuth, TokenRequestError
from tests.caller.fakes import Clock, Keycloak, Receiver, refusal

pytestmark = pytest.mark.usefixtures("source")

INVALID = {"WWW-Authenticate": 'Bearer error="invalid_token"'}


def lines() -> Iterator[bytes]:
    yield b"one "
    yield b"two"


def test_every_request_carries_the_token_of_one_token_request(bob: Receiver, keycloak: Keycloak) -> None:
    auth = ServiceTokenAuth(bob.url)
    with auth.for_requests() as session:
        assert [session.get(bob.url).status_code for _ in range(3)] == [200] * 3
    assert bob.tokens == [f"Bearer {auth.token()}"] * 3
    assert len(keycloak.requests) == 1


@pytest.mark.parametrize(
    "body",
    [{}, {"data": b"bytes"}, {"data": "text"}, {"data": {"a": "form"}}, {"json": {"a": 1}}, {"files": {"f": b"file"}}],
    ids=lambda body: "-".join((*body, *(type(value).__name__ for value in body.values()))) or "none",
)
def test_a_refused_request_is_sent_again_whole(body: dict[str, Any], bob: Receiver, clock: Clock) -> None:
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.get(bob.url)
        clock.now += 10
        bob.refuse()
        response = session.post(bob.url, **body)

    first, second = bob.seen[1:]
    assert (response.status_code, first.body) == (200, second.body)
    assert first.body or not body
    assert first.authorization == bob.tokens[0] != second.authorization


@pytest.mark.parametrize("body", [lines, lambda: io.BytesIO(b"file"), lambda: iter([b"x"])])
def test_a_body_that_can_be_read_once_is_sent_once(body: Callable[[], Any], bob: Receiver, clock: Clock) -> None:
    auth = ServiceTokenAuth(bob.url)
    with auth.for_requests() as session:
        session.get(bob.url)
        clock.now += 10
        bob.refuse()
        assert session.post(bob.url, data=body()).status_code == 401
        assert session.get(bob.url).status_code == 200

    assert len(bob.seen) == 3
    assert bob.tokens[1] != bob.tokens[2], "the next request has another token"


def test_a_prepared_request_that_is_sent_again_has_the_new_token_and_never_holds_one(
    bob: Receiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    with auth.for_requests() as session:
        prepared = session.prepare_request(requests.Request("POST", bob.url, data=b"text"))
        response = session.send(prepared)
        clock.now += 10
        auth.refused()
        again = session.send(response.request)

    assert bob.tokens[0] != bob.tokens[1] == f"Bearer {auth.token()}"
    assert "Authorization" not in {**prepared.headers, **response.request.headers, **again.request.headers}


def test_an_error_of_the_connection_has_the_request_without_the_token(bob: Receiver, clock: Clock) -> None:
    class Broken(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            if len(bob.seen) == 2:
                raise requests.ConnectionError(request=request)
            return super().send(request, *args, **options)

    nobody = ServiceTokenAuth("http://127.0.0.1:1")
    with nobody.for_requests() as session, pytest.raises(requests.ConnectionError) as first:
        session.get("http://127.0.0.1:1")
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.mount("http://", Broken())
        session.get(bob.url)
        clock.now += 10
        bob.refuse()
        with pytest.raises(requests.ConnectionError) as second:
            session.get(bob.url)

    for error in (first.value, second.value):
        assert error.request is not None
        assert "Authorization" not in error.request.headers


def test_a_hook_that_raises_sees_the_second_answer_only(bob: Receiver, clock: Clock) -> None:
    def check(response: requests.Response, *_: Any, **__: Any) -> None:
        seen.append(response.status_code)
        response.raise_for_status()

    seen: list[int] = []
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.hooks["response"].append(check)
        session.get(bob.url)
        clock.now += 10
        bob.refuse()
        session.get(bob.url)
        clock.now += 10
        bob.refuse(2)
        with pytest.raises(requests.HTTPError):
            session.get(bob.url)
    assert seen == [200, 200, 401]


@pytest.mark.parametrize("challenge", ['Bearer error="insufficient_scope"', "Bearer", "Basic", None])
def test_another_refusal_renews_nothing(challenge: str | None, bob: Receiver, keycloak: Keycloak, clock: Clock) -> None:
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.get(bob.url)
        clock.now += 10
        bob.refuse(headers={"WWW-Authenticate": challenge} if challenge else {})
        assert session.get(bob.url).status_code == 401
        session.get(bob.url)
    assert len(keycloak.requests) == 1


def test_if_there_is_no_other_token_the_401_comes_back_and_nothing_is_sent_again(
    bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    auth.token()
    clock.now += 10
    keycloak.always = refusal(503, "down")
    bob.refuse()
    with auth.for_requests() as session:
        assert session.get(bob.url).status_code == 401
    assert len(bob.seen) == 1


def test_without_a_token_nothing_is_sent(bob: Receiver, keycloak: Keycloak) -> None:
    keycloak.always = refusal(401, "unauthorized_client")
    with ServiceTokenAuth(bob.url).for_requests() as session, pytest.raises(TokenRequestError):
        session.get(bob.url)
    assert bob.seen == []


def test_a_redirect_within_the_origin_takes_the_token_along_and_may_be_refused_once(
    bob: Receiver, clock: Clock
) -> None:
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.get(bob.url)
        clock.now += 10
        bob.answers = [(307, {"Location": "/there"}, b""), (401, INVALID, b"")]
        assert session.post(bob.url, data=b"text").status_code == 200
    first, refused, second = bob.seen[1:]
    assert [seen.path for seen in (first, refused, second)] == ["/", "/there", "/there"]
    assert first.authorization == refused.authorization != second.authorization
    assert refused.body == second.body == b"text"


def test_an_endless_401_is_not_read(bob: Receiver, clock: Clock) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 65536

    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.get(bob.url)
        clock.now += 10
        bob.refuse(body=endless())
        assert session.get(bob.url).status_code == 200
    assert bob.sent < 10_000_000


def test_an_adapter_of_ones_own_is_used_and_sees_the_token(bob: Receiver) -> None:
    class Counting(HTTPAdapter):
        def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
            sent.append("Authorization" in request.headers)
            return super().send(request, *args, **options)

    sent: list[bool] = []
    with ServiceTokenAuth(bob.url).for_requests() as session:
        session.mount("http://", Counting())
        session.get(bob.url)
    assert sent == [True]


def test_a_session_is_not_pickled_and_says_what_to_do(bob: Receiver) -> None:
    with ServiceTokenAuth(bob.url).for_requests() as session, pytest.raises(TypeError, match=r"call for_requests\(\)"):
        pickle.dumps(session)

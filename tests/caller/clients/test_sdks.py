"""SDKs that take a function for the key, and SDKs that take an httpx client: one that behaves as openai's Python client does."""

from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from s2s_fastapi import ServiceTokenAuth, TokenWithheld
from tests.caller.fakes import Clock, Keycloak, Receiver

pytestmark = pytest.mark.usefixtures("source")


class RefusedError(Exception):
    """What the SDK raises at a 401."""


class Sdk:
    """It asks for the key before each request, always sends an Authorization header, follows redirects, and does not retry a 401."""

    def __init__(self, api_key: str | Callable[[], str], base_url: str, http_client: Any = None) -> None:
        if not api_key:
            raise ValueError("api_key must be set")
        self._api_key = api_key
        self._base_url = base_url
        self._client = http_client or httpx.Client(follow_redirects=True)

    def close(self) -> None:
        self._client.close()

    def chat(self) -> str:
        key = self._api_key() if callable(self._api_key) else self._api_key
        headers = {"Authorization": f"Bearer {key}"}
        response = self._client.post(f"{self._base_url}/chat", json={"model": "m"}, headers=headers)
        if response.status_code == 401:
            raise RefusedError
        return str(response.text)


@pytest.mark.parametrize("package", [httpx, httpx2])
def test_the_placeholder_gives_way_to_the_token_and_a_refused_request_is_sent_again(
    package: Any, bob: Receiver, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    with package.Client(auth=auth, follow_redirects=True) as client:
        sdk = Sdk(auth.placeholder, bob.url, client)
        assert sdk.chat() == "ok"
        clock.now += 10
        bob.refuse()
        assert sdk.chat() == "ok"

    assert bob.tokens[0] == bob.tokens[1] != bob.tokens[2] == f"Bearer {auth.token()}"
    assert bob.seen[1].body == bob.seen[2].body == b'{"model":"m"}'


def test_the_placeholder_is_no_secret_and_one_for_all(bob: Receiver) -> None:
    first, second = ServiceTokenAuth(bob.url), ServiceTokenAuth("https://other.example", audience="other")
    assert first.placeholder == second.placeholder == "s2s-fastapi-placeholder"


@pytest.mark.parametrize(
    "value",
    ["bearer {}", "Bearer  {}", "Bearer {} ", "Bearer {}x", "Bearer x{}", "{}", "Basic {}", "Bearer {}, Bearer {}"],
)
def test_what_is_not_exactly_the_placeholder_is_a_header_of_ones_own(value: str, bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url)
    header = value.format(auth.placeholder, auth.placeholder)
    with httpx.Client(auth=auth) as client, pytest.raises(TokenWithheld):
        client.get(bob.url, headers={"Authorization": header})
    with auth.for_requests() as session, pytest.raises(TokenWithheld):
        session.get(bob.url, headers={"Authorization": header.rstrip() + "y"})
    assert bob.seen == []


def test_sdks_on_requests_take_the_placeholder_too(bob: Receiver) -> None:
    auth = ServiceTokenAuth(bob.url)
    with auth.for_requests() as session:
        session.get(bob.url, headers={"Authorization": f"Bearer {auth.placeholder}"})
    assert bob.tokens == [f"Bearer {auth.token()}"]


def test_an_sdk_that_asks_a_function_gets_the_cached_token_and_another_one_after_refused(
    bob: Receiver, keycloak: Keycloak, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url)
    with httpx.Client(follow_redirects=True) as client:
        sdk = Sdk(auth.token, bob.url, client)
        assert [sdk.chat(), sdk.chat()] == ["ok", "ok"]
        assert len(keycloak.requests) == 1

        clock.now += 10
        bob.refuse()
        with pytest.raises(RefusedError):
            sdk.chat()
        auth.refused()
        assert sdk.chat() == "ok"
    assert bob.tokens[0] == bob.tokens[2] != bob.tokens[3]

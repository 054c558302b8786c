"""Lines 1 to 7 of the list: how long a token is believed, whatever Keycloak and the clocks say."""

import math
import pickle
import threading
import time
from typing import Any

import pytest

from s2s_fastapi import ConfigurationError, ServiceTokenAuth, TokenRequestError
from s2s_fastapi.caller.token_source import TokenSource, using
from s2s_fastapi.testing import EmbeddedIssuer
from s2s_fastapi.testing.faults import LEFT_OUT, answering, slow, with_members
from tests.attacks.caller.stack import (
    WAYS,
    Send,
    asked,
    idle,
    in_asyncio,
    in_trio,
    realm,
    settings,
)
from tests.caller.fakes import INVALID_TOKEN, Clock, Receiver

pytestmark = pytest.mark.usefixtures("source")

# The token itself says 300 s, so expires_in can only take away from that.
LIVES: list[tuple[Any, float]] = [
    (LEFT_OUT, 290),
    (None, 290),
    ("300", 290),
    (300.7, 290),
    (10**30, 290),
    (60, 54),
    ("60", 54),
    (60.5, 54.45),
    (1, 1),
    (0.5, 0.5),
]


@pytest.mark.parametrize(("expires_in", "usable"), LIVES)
def test_whatever_expires_in_says_a_token_is_used_for_a_time_that_ends(
    expires_in: Any, usable: float, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    issuer.faults.add("token", with_members(expires_in=expires_in))
    first = auth.token()

    issuer.faults.add("token", answering(503), times=None)
    clock.now += usable - 0.01
    assert auth.token() == first
    idle()
    clock.now += 0.02
    with pytest.raises(TokenRequestError):
        auth.token()


@pytest.mark.parametrize("expires_in", [0, -1, "300.5", "", "soon", True, False, [], {}, ["300"]])
def test_an_expires_in_that_is_no_time_is_an_error_and_no_crash(expires_in: Any, issuer: EmbeddedIssuer) -> None:
    issuer.faults.add("token", with_members(expires_in=expires_in))
    with pytest.raises(TokenRequestError, match=r"expires_in is not a number of seconds|has expired already") as caught:
        ServiceTokenAuth(audience="receiver").token()

    assert not caught.value.retryable


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_a_number_json_does_not_know_is_an_error(number: str, issuer: EmbeddedIssuer) -> None:
    text = f'{{"access_token":"opaque","token_type":"Bearer","expires_in":{number}}}'
    issuer.faults.add("token", answering(200, text))
    with pytest.raises(TokenRequestError, match=r"cannot be used|numbers that JSON does not know"):
        ServiceTokenAuth().token()


@pytest.mark.parametrize("life", [5, 20, 60, 300])
def test_requests_track_time_and_not_calls(life: int, clock: Clock) -> None:
    issuer = EmbeddedIssuer(realm(accessTokenLifespan=life))
    with issuer.serving():
        auth = ServiceTokenAuth(audience="receiver", settings=settings(issuer))
        began = clock.now
        for _ in range(100):
            auth.token()
            idle()
            clock.now += life / 25
        assert len(asked(issuer)) <= 1.5 * math.ceil((clock.now - began) / life) + 1  # renewed from 0.63 of its life on


@pytest.mark.parametrize("hours", [-48, -0.2, 0.2, 48])
def test_a_clock_that_is_off_changes_nothing(hours: float, clock: Clock) -> None:
    issuer = EmbeddedIssuer(realm(), clock=lambda: time.time() + hours * 3600)
    with issuer.serving():
        auth = ServiceTokenAuth(audience="receiver", settings=settings(issuer))
        first = auth.token()
        clock.now += 215
        assert auth.token() == first
        clock.now += 76
        assert auth.token() != first
    assert len(asked(issuer)) == 2


def test_after_a_suspend_that_the_clock_did_not_count_the_401_brings_a_new_token(
    send: Send, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    asleep = auth.token()
    bob.refused.add(f"Bearer {asleep}")  # an hour later everywhere but on our monotonic clock, which is at 11 s
    clock.now += 11

    assert send(auth, "POST", bob.url, content=b"text").status_code == 200
    assert bob.tokens == [f"Bearer {asleep}", f"Bearer {auth.token()}"]
    assert len(asked(issuer)) == 2


def test_a_token_that_was_under_way_for_longer_than_it_lives_is_not_used(bob: Receiver, clock: Clock) -> None:
    issuer = EmbeddedIssuer(realm(accessTokenLifespan=30), clock=lambda: time.time() + _ahead(clock, 40))
    with issuer.serving(), using(TokenSource(clock=clock)), pytest.raises(TokenRequestError, match="longer to answer"):
        WAYS["httpx"](ServiceTokenAuth(bob.url, audience="receiver", settings=settings(issuer)), "GET", bob.url)
    assert bob.seen == []


def _ahead(clock: Clock, seconds: float) -> float:
    clock.now += seconds
    return 0.0


def test_the_same_token_again_after_a_renewal_makes_no_loop(
    send: Send, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    issuer.faults.add("token", answering(200, _answer(issuer)), times=None)
    bob.always = (401, INVALID_TOKEN, b"")
    for _ in range(5):
        clock.now += 11
        assert send(auth, "GET", bob.url).status_code == 401

    assert len(bob.seen) == 5
    assert len(asked(issuer)) <= 6


def _answer(issuer: EmbeddedIssuer) -> str:
    token = issuer.service_token("corp", "caller")
    return f'{{"access_token":"{token}","token_type":"Bearer","expires_in":300}}'


# min_validity: a token for work that takes its time.


@pytest.mark.parametrize("needed", [60, 290])
def test_a_token_with_less_left_than_needed_is_renewed_in_front(
    needed: float, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    first = auth.token(min_validity=needed)
    clock.now += 300 - needed
    assert auth.token(min_validity=needed) == first
    clock.now += 0.01
    second = auth.token(min_validity=needed)

    assert second != first
    assert auth.token() == second, "what is renewed for one is renewed for all"
    idle()
    assert len(asked(issuer)) == 2


@pytest.mark.parametrize("run", [in_asyncio, in_trio])
def test_it_is_renewed_for_async_code_too(run: Any, issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth = ServiceTokenAuth(audience="receiver")

    async def main() -> None:
        first = await auth.atoken(min_validity=200)
        clock.now += 101
        assert await auth.atoken() == first
        assert await auth.atoken(min_validity=200) != first

    run(main)
    assert len(asked(issuer)) == 2


def test_requests_may_ask_for_it_and_share_the_token(
    send: Send, bob: Receiver, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(bob.url, audience="receiver")
    lasting = auth.asking(min_validity=120)
    assert send(lasting, "GET", bob.url).status_code == 200
    clock.now += 181
    assert send(auth, "GET", bob.url).status_code == 200
    assert send(lasting, "GET", bob.url).status_code == 200

    assert bob.tokens[0] == bob.tokens[1] != bob.tokens[2]
    assert len(asked(issuer)) == 2


def test_a_hundred_who_need_it_at_once_make_one_request(issuer: EmbeddedIssuer, clock: Clock) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    auth.token()
    clock.now += 150
    issuer.faults.add("token", slow(0.2))
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(auth.token(min_validity=200))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(found), len(set(found)), len(asked(issuer))) == (100, 1, 2)


@pytest.mark.parametrize("needed", [290.5, 300, 301, 86_400])
def test_more_than_the_tokens_live_is_an_error_that_says_so_and_no_storm(
    needed: float, issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    auth.token()
    clock.now += 20
    for _ in range(20):
        with pytest.raises(TokenRequestError, match=r"live 300 s, so .* \(at most 290:.*Lower min_validity") as caught:
            auth.token(min_validity=needed)
        assert not caught.value.retryable
        clock.now += 1

    assert auth.token()
    assert len(asked(issuer)) == 1


def test_while_keycloak_is_down_it_is_asked_once_in_a_while_and_others_go_on(
    issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    first = auth.token()
    clock.now += 150
    issuer.faults.add("token", answering(503, headers={"Retry-After": "30"}), times=None)
    for _ in range(60):
        with pytest.raises(TokenRequestError) as caught:
            auth.token(min_validity=200)
        assert caught.value.retryable
        assert auth.token() == first
        clock.now += 1

    assert len(asked(issuer)) <= 1 + 2


def test_within_10_s_of_a_failed_renewal_its_error_is_raised_and_no_shorter_token_is_returned(
    issuer: EmbeddedIssuer, clock: Clock
) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    first = auth.token()
    clock.now += 150
    issuer.faults.add("token", answering(503, headers={"Retry-After": "1"}))
    for _ in range(2):
        with pytest.raises(TokenRequestError, match="503"):
            auth.token(min_validity=200)
        clock.now += 5  # the failure is no longer remembered, but the last request was less than 10 s ago
    assert len(asked(issuer)) == 2
    assert auth.token(min_validity=200) != first


@pytest.mark.parametrize("wrong", [-1, -0.001, math.nan, math.inf, True, "30", [30]])
def test_what_is_no_number_of_seconds_is_refused_where_it_is_written(wrong: Any, issuer: EmbeddedIssuer) -> None:
    auth = ServiceTokenAuth(audience="receiver")
    with pytest.raises(ConfigurationError, match="min_validity"):
        auth.asking(min_validity=wrong)
    with pytest.raises(ConfigurationError, match="min_validity"):
        auth.token(min_validity=wrong)
    assert auth.token(min_validity=0) == auth.token()
    assert len(asked(issuer)) == 1


def test_it_is_a_part_of_what_an_auth_object_is() -> None:
    auth = ServiceTokenAuth("http://bob:8000", audience="receiver")
    lasting = auth.asking(min_validity=30)

    assert lasting != auth == lasting.asking(min_validity=0)
    assert lasting.asking(scope="profile") == auth.asking(scope="profile", min_validity=30)
    assert repr(lasting) == "ServiceTokenAuth('http://bob:8000', audience=['receiver'], min_validity=30)"
    assert pickle.loads(pickle.dumps(lasting)) == lasting  # noqa: S301 - our own

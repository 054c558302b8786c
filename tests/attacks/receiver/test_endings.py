"""Attacks with tokens that were good: line 41 of the list, and the remembered half of line 19.

A token that was verified once is not verified again; everything that can have changed since is.
"""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, NOW, claims, stack, token
from tests.kit.realm import Clock

IAT = int(NOW())


# 19 and 41: a remembered token ends when an unknown one would


@pytest.mark.parametrize(
    ("seconds", "reason"), [(329, None), (329.999, None), (330, Reason.EXPIRED), (10**6, Reason.EXPIRED)]
)
def test_a_remembered_token_expires_in_its_second(seconds: float, reason: Reason | None) -> None:
    clock = Clock()
    attacked, fresh = stack("RS256", clock=clock), stack("RS256", clock=clock)
    good = token(attacked.realm)
    attacked.accepts(good)
    clock.advance(seconds)
    for app in (attacked, fresh):
        assert app.bearer(good).status_code == (401 if reason else 200)
        assert app.observed.decisions[-1].reason == (reason or Reason.ALLOWED)


TIMES = st.floats(-100_000, 100_000, allow_nan=False) | st.sampled_from([-31.0, -30.0, -29.0, 299.0, 329.0, 330.0])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    times=st.lists(TIMES, min_size=1, max_size=6),
    nbf=st.none() | st.integers(-1000, 1000),
    life=st.integers(1, 86_400),
    revoked=st.none() | st.integers(-10, 10),
)
def test_at_every_moment_remembered_and_unknown_tokens_are_judged_alike(
    times: list[float], nbf: int | None, life: int, revoked: int | None
) -> None:
    # Clocks go back, too: after a leap, or on the day somebody sets them right.
    clock = Clock()
    remembering, anew = (stack("EdDSA", clock=clock, cached_tokens=size) for size in (100, 0))
    changes = {} if nbf is None else {"nbf": IAT + nbf}
    good = remembering.realm.sign(claims(remembering.realm, exp=IAT + life, **changes))
    for app in (remembering, anew):
        app.bearer(good)
        app.realm.not_before = 0 if revoked is None else IAT + revoked
        app.monotonic.advance(600)
    for seconds in times:
        clock.now = IAT + seconds
        answers = [app.bearer(good) for app in (remembering, anew)]
        assert answers[0].status_code == answers[1].status_code
        assert answers[0].content == answers[1].content
        assert remembering.observed.decisions[-1].reason is anew.observed.decisions[-1].reason


def test_a_remembered_token_ends_with_its_key() -> None:
    attacked = stack("RS256", "ES256")
    good, other = token(attacked.realm), attacked.realm.sign(claims(attacked.realm), key=KEYS["ES256"])
    attacked.accepts(good)
    attacked.accepts(other)
    attacked.realm.published = [KEYS["ES256"].jwk]
    attacked.monotonic.advance(600)
    attacked.accepts(other)
    attacked.monotonic.advance(5)
    attacked.refuses(good, Reason.UNKNOWN_KEY, outbound=1)
    attacked.accepts(other)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda jwk: {**FORGER["RS256"].jwk, "kid": jwk["kid"]}, id="another key under its kid"),
        pytest.param(lambda jwk: {**jwk, "use": "enc"}, id="for encryption now"),
        pytest.param(lambda jwk: {**jwk, "alg": "RS512"}, id="for another algorithm now"),
        pytest.param(lambda jwk: {**jwk, "kid": "renamed"}, id="under another kid"),
        pytest.param(lambda jwk: {**jwk, "d": "AQAB"}, id="its private part published"),
    ],
)
def test_a_remembered_token_ends_when_its_key_is_not_that_key_any_more(
    change: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    attacked = stack("RS256", "ES256")
    good = token(attacked.realm)
    attacked.accepts(good)
    attacked.realm.published[0] = change(attacked.realm.published[0])
    attacked.monotonic.advance(600)
    attacked.accepts(attacked.realm.sign(claims(attacked.realm), key=KEYS["ES256"]))  # fetches
    attacked.monotonic.advance(5)  # an unknown key may be asked for at once
    response = attacked.bearer(good)
    assert response.status_code == 401
    assert attacked.observed.decisions[-1].reason in {Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE}


def test_a_remembered_token_is_not_served_longer_than_the_last_good_keys() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm, exp=IAT + 80_000)
    attacked.accepts(good)
    attacked.realm.answer = lambda request: httpx.Response(503)
    attacked.monotonic.advance(3599)
    attacked.accepts(good)
    attacked.monotonic.advance(1)
    attacked.shows_nothing(attacked.bearer(good), Reason.KEYS_UNAVAILABLE)


def test_revoke_all_ends_what_was_issued_before_and_nothing_else() -> None:
    attacked = stack("RS256")
    old, new = token(attacked.realm, iat=IAT - 1), token(attacked.realm)
    attacked.accepts(old)
    attacked.accepts(new)
    attacked.realm.not_before = IAT
    attacked.monotonic.advance(600)
    attacked.accepts(new)  # fetches
    attacked.refuses(old, Reason.REVOKED)
    attacked.accepts(new)


NO_DATES: list[Any] = [None, "0", "", 0.5, True, False, -1, [], {}]


@pytest.mark.parametrize(
    "page",
    [
        *({"tokens-not-before": value} for value in NO_DATES),
        *({}, {"not-before": 0}, {"tokens_not_before": 0}),
        *(httpx.Response(404), httpx.Response(500), httpx.Response(302, headers={"Location": "http://evil.example/"})),
        *(httpx.Response(200, content=b"<html>"), httpx.Response(200, json=[0]), httpx.Response(503, json={"tokens-not-before": 0})),
    ],
    ids=repr,
)  # fmt: skip
def test_no_page_that_says_nothing_takes_a_revocation_back(page: Any) -> None:
    attacked = stack("RS256")
    attacked.realm.not_before = IAT
    old, new = token(attacked.realm, iat=IAT - 1), token(attacked.realm)
    attacked.holds(new, old, Reason.REVOKED)
    answer = page if isinstance(page, httpx.Response) else httpx.Response(200, json=page)
    attacked.realm.answer = lambda request: None if request.url.path.endswith("/certs") else answer
    attacked.monotonic.advance(600)
    attacked.holds(new, old, Reason.REVOKED)

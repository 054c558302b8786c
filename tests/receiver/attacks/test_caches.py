"""Attacks on what is remembered: lines 38 and 41 of the list, and the cached half of line 19.

A token that was verified once is not verified again; everything that can have changed since is.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from s2s_fastapi.decision import Reason
from tests.realm import Clock, Realm, SigningKey
from tests.receiver.attacks.stack import FORGER, KEYS, NOW, Stack, claims, stack, token

IAT = int(NOW())


# 38: what a remembered token is remembered by


@pytest.mark.parametrize("shared", [20, 64, 200, -20, -2])
def test_a_token_is_remembered_by_the_whole_of_it_and_not_by_its_beginning(shared: int) -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    rest = good[shared:]
    turned = "".join("B" if sign == "A" else sign if sign == "." else "A" for sign in rest[:1]) + rest[1:]
    broken = good[:shared] + turned
    assert broken != good
    attacked.lets_in(good)
    assert attacked.bearer(broken).status_code == 401
    attacked.lets_in(good)


def test_callers_whose_tokens_begin_and_end_alike_are_not_taken_for_each_other() -> None:
    attacked = stack("RS256")
    names = ["chat-app-service", "billing", "chat-app-servicf"]
    made = {name: token(attacked.realm, azp=name, client_id=name, jti="1", sub="1") for name in names}
    assert len({text[:100] for text in made.values()}) == 1
    for _ in range(2):
        for name, text in made.items():
            attacked.lets_in(text, name)


def test_a_header_payload_or_signature_of_one_remembered_token_is_none_of_another() -> None:
    attacked = stack("RS256")
    one, other = token(attacked.realm), token(attacked.realm, azp="billing", client_id="billing")
    attacked.lets_in(one)
    attacked.lets_in(other, "billing")
    for part in (1, 2):
        mixed = one.split(".")
        mixed[part] = other.split(".")[part]
        attacked.refuses(".".join(mixed), Reason.INVALID_SIGNATURE)


def test_what_one_app_remembers_is_nothing_to_another_app() -> None:
    realm = Realm(key=KEYS["RS256"])
    crm = Stack(realm)
    realm.requests.clear()
    billing = Stack(realm, audience="billing")
    realm.requests.clear()
    strict = Stack(realm, users=True)
    for_crm, for_billing = token(realm), token(realm, aud="billing")
    user = realm.sign({**claims(realm, client_id=None, azp="crm-ui"), "sid": "s"})
    for _ in range(2):
        assert [app.bearer(for_crm).status_code for app in (crm, billing, strict)] == [200, 401, 200]
        assert [app.bearer(for_billing).status_code for app in (crm, billing, strict)] == [401, 200, 401]
        # /x asks for a service; the middleware of the third app lets users pass to it.
        assert [app.bearer(user).status_code for app in (crm, billing, strict)] == [403, 401, 403]


def test_what_one_realm_s_app_remembers_is_nothing_to_another_realm_s() -> None:
    ours, theirs = Realm("corp", key=SigningKey("ES256", kid="1")), Realm("partner", key=SigningKey("ES256", kid="1"))
    for realm in (ours, theirs):
        realm.published = [realm.key.jwk]
    here, there = Stack(ours), Stack(theirs)
    good, other = token(ours), token(theirs)
    for _ in range(2):
        here.lets_in(good)
        there.lets_in(other)
        assert here.bearer(other).status_code == there.bearer(good).status_code == 401


def test_a_refusal_is_not_remembered_beyond_its_reason() -> None:
    clock = Clock()
    attacked = stack("RS256", clock=clock)
    late = token(attacked.realm, iat=IAT + 40, exp=IAT + 340)
    attacked.lets_in(token(attacked.realm))
    attacked.refuses(late, Reason.NOT_YET_VALID)
    clock.advance(10)
    attacked.lets_in(late)


def test_a_key_that_was_unknown_is_known_once_it_is_published() -> None:
    attacked = stack("RS256")
    rotated = attacked.realm.sign(claims(attacked.realm), key=FORGER["RS256"])
    attacked.lets_in(token(attacked.realm))
    attacked.monotonic.advance(5)
    attacked.refuses(rotated, Reason.UNKNOWN_KEY, outbound=1)
    attacked.realm.published.append(FORGER["RS256"].jwk)
    attacked.monotonic.advance(5)
    attacked.lets_in(rotated)


def test_no_number_of_tokens_makes_the_memory_grow() -> None:
    attacked = Stack(Realm(key=KEYS["EdDSA"]), cached_tokens=10)
    attacked.realm.published = [KEYS["EdDSA"].jwk]
    made = [token(attacked.realm) for _ in range(40)]
    for text in made:
        attacked.lets_in(text)
    assert 0 < len(attacked.gate.verifier.tokens) <= 10
    for text in reversed(made):
        attacked.lets_in(text)
    assert 0 < len(attacked.gate.verifier.tokens) <= 20  # one that is about to move may count twice


def test_no_refused_token_takes_a_place_in_the_memory() -> None:
    attacked = stack("RS256")
    attacked.lets_in(token(attacked.realm))
    for _ in range(20):
        attacked.refuses(
            attacked.realm.sign(claims(attacked.realm), key=_as_ours(FORGER["RS256"])), Reason.INVALID_SIGNATURE
        )
        attacked.refuses(token(attacked.realm, aud="billing"), Reason.WRONG_AUDIENCE)
    assert len(attacked.gate.verifier.tokens) == 1


def _as_ours(key: SigningKey) -> SigningKey:
    forged = SigningKey.__new__(SigningKey)
    forged.private, forged.algorithm, forged.kid = key.private, key.algorithm, KEYS["RS256"].kid
    return forged


# A remembered token opens no other request


@pytest.mark.parametrize("cached_tokens", [10_000, 0], ids=["remembered", "verified anew"])
def test_a_good_token_does_not_make_a_bad_request_good(cached_tokens: int) -> None:
    attacked = stack("RS256", cached_tokens=cached_tokens)
    good = token(attacked.realm)
    attacked.lets_in(good)
    bearer = f"Bearer {good}"
    for values, path, reason in [
        ([bearer, bearer], "/x", Reason.INVALID_REQUEST),
        ([bearer, "Basic YTpi"], "/x", Reason.INVALID_REQUEST),
        (["", bearer], "/x", Reason.INVALID_REQUEST),
        ([f"{bearer}, {bearer}"], "/x", Reason.INVALID_REQUEST),
        ([f"{bearer} x"], "/x", Reason.INVALID_REQUEST),
        ([f"{bearer}\x00"], "/x", Reason.INVALID_REQUEST),
        ([bearer], f"/x?access_token={good}", Reason.INVALID_REQUEST),
        ([bearer], "/x?access_token=", Reason.INVALID_REQUEST),
        ([bearer], "/x?a=b&access%5Ftoken=x", Reason.INVALID_REQUEST),
        ([f"Basic {good}"], "/x", Reason.NO_CREDENTIALS),
        ([f"DPoP {good}"], "/x", Reason.NO_CREDENTIALS),
        ([f"Token {good}"], "/x", Reason.NO_CREDENTIALS),
        ([f"Bearer{good}"], "/x", Reason.NO_CREDENTIALS),
        ([good], "/x", Reason.NO_CREDENTIALS),
        ([], f"/x?access_token={good}", Reason.NO_CREDENTIALS),
    ]:
        told = len(attacked.observed.decisions)
        attacked.shows_nothing(attacked.send(*values, path=path), reason)
        assert [decision.reason for decision in attacked.observed.decisions[told:]] == [reason]
    for value in (f"bearer {good}", f"BEARER  {good}", f" {bearer} ", f"\t{bearer}"):
        assert attacked.send(value).status_code == 200
    assert attacked.realm.fetches == 1


def test_what_a_route_does_to_its_request_opens_no_later_one() -> None:
    attacked = stack("RS256")

    @attacked.app.get("/grab")
    async def grab(request: Request) -> list[str]:
        before = list(request.auth.scopes)
        request.auth.scopes.append("admin")
        for change in (
            lambda: request.user.claims.update(azp="root"),
            lambda: request.user.claims["aud"].append("billing"),
            lambda: setattr(request.user, "client_id", "root"),
            lambda: request.user.client_roles.update(admin=frozenset()),
        ):
            with pytest.raises((AttributeError, TypeError)):
                change()
        return before

    good = token(attacked.realm, aud=["crm-api-gateway", "account"])
    for _ in range(2):
        assert attacked.bearer(good, path="/grab").json() == ["email", "profile"]


# 19 and 41: a remembered token ends when an unknown one would


@pytest.mark.parametrize(
    ("seconds", "reason"), [(329, None), (329.999, None), (330, Reason.EXPIRED), (10**6, Reason.EXPIRED)]
)
def test_a_remembered_token_expires_in_its_second(seconds: float, reason: Reason | None) -> None:
    clock = Clock()
    attacked, fresh = stack("RS256", clock=clock), stack("RS256", clock=clock)
    good = token(attacked.realm)
    attacked.lets_in(good)
    clock.advance(seconds)
    for app in (attacked, fresh):
        assert app.bearer(good).status_code == (401 if reason else 200)
        assert app.observed.decisions[-1].reason == (reason or Reason.ALLOWED)


TIMES = st.floats(-100_000, 100_000, allow_nan=False) | st.sampled_from([-31.0, -30.0, -29.0, 299.0, 329.0, 330.0])


@settings(deadline=None, max_examples=60)
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
    attacked.lets_in(good)
    attacked.lets_in(other)
    attacked.realm.published = [KEYS["ES256"].jwk]
    attacked.monotonic.advance(600)
    attacked.lets_in(other)
    attacked.monotonic.advance(5)
    attacked.refuses(good, Reason.UNKNOWN_KEY, outbound=1)
    attacked.lets_in(other)


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
    attacked.lets_in(good)
    attacked.realm.published[0] = change(attacked.realm.published[0])
    attacked.monotonic.advance(600)
    attacked.lets_in(attacked.realm.sign(claims(attacked.realm), key=KEYS["ES256"]))  # fetches
    attacked.monotonic.advance(5)  # an unknown key may be asked for at once
    response = attacked.bearer(good)
    assert response.status_code == 401
    assert attacked.observed.decisions[-1].reason in {Reason.UNKNOWN_KEY, Reason.INVALID_SIGNATURE}


def test_a_remembered_token_is_not_served_longer_than_the_last_good_keys() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm, exp=IAT + 80_000)
    attacked.lets_in(good)
    attacked.realm.answer = lambda request: httpx.Response(503)
    attacked.monotonic.advance(3599)
    attacked.lets_in(good)
    attacked.monotonic.advance(1)
    attacked.shows_nothing(attacked.bearer(good), Reason.KEYS_UNAVAILABLE)


def test_revoke_all_ends_what_was_issued_before_and_nothing_else() -> None:
    attacked = stack("RS256")
    old, new = token(attacked.realm, iat=IAT - 1), token(attacked.realm)
    attacked.lets_in(old)
    attacked.lets_in(new)
    attacked.realm.not_before = IAT
    attacked.monotonic.advance(600)
    attacked.lets_in(new)  # fetches
    attacked.refuses(old, Reason.REVOKED)
    attacked.lets_in(new)


@pytest.mark.parametrize(
    "page",
    [
        *({"tokens-not-before": value} for value in (None, "0", "", 0.5, True, False, -1, [], {})),
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


def test_a_hundred_requests_at_once_with_a_token_nobody_knew_are_judged_alike() -> None:
    attacked = stack("RS256")
    good = token(attacked.realm)
    header, payload, signature = good.split(".")
    bad = f"{header}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"

    async def burst() -> list[int]:
        transport = httpx.ASGITransport(attacked.guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://crm.test") as client:
            tokens = [good, bad] * 50
            sent = [client.get("/x", headers={"Authorization": f"Bearer {text}"}) for text in tokens]
            return [response.status_code for response in await asyncio.gather(*sent)]

    assert asyncio.run(burst()) == [200, 401] * 50
    assert attacked.realm.fetches == 1

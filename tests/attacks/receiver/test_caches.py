"""Attacks on what is remembered: line 38 of the list. One token, one service, one request."""

import asyncio

import httpx
import pytest
from starlette.requests import Request

from s2s_fastapi.decision import Reason
from tests.attacks.receiver.stack import FORGER, KEYS, NOW, Stack, claims, stack, token
from tests.kit.realm import Clock, Realm, SigningKey

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
    attacked.accepts(good)
    assert attacked.bearer(broken).status_code == 401
    attacked.accepts(good)


def test_callers_whose_tokens_begin_and_end_alike_are_not_taken_for_each_other() -> None:
    attacked = stack("RS256")
    names = ["chat-app-service", "billing", "chat-app-servicf"]
    made = {name: token(attacked.realm, azp=name, client_id=name, jti="1", sub="1") for name in names}
    assert len({text[:100] for text in made.values()}) == 1
    for _ in range(2):
        for name, text in made.items():
            attacked.accepts(text, name)


def test_a_header_payload_or_signature_of_one_remembered_token_is_none_of_another() -> None:
    attacked = stack("RS256")
    one, other = token(attacked.realm), token(attacked.realm, azp="billing", client_id="billing")
    attacked.accepts(one)
    attacked.accepts(other, "billing")
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
        here.accepts(good)
        there.accepts(other)
        assert here.bearer(other).status_code == there.bearer(good).status_code == 401


def test_a_refusal_is_not_remembered_beyond_its_reason() -> None:
    clock = Clock()
    attacked = stack("RS256", clock=clock)
    late = token(attacked.realm, iat=IAT + 40, exp=IAT + 340)
    attacked.accepts(token(attacked.realm))
    attacked.refuses(late, Reason.NOT_YET_VALID)
    clock.advance(10)
    attacked.accepts(late)


def test_a_key_that_was_unknown_is_known_once_it_is_published() -> None:
    attacked = stack("RS256")
    rotated = attacked.realm.sign(claims(attacked.realm), key=FORGER["RS256"])
    attacked.accepts(token(attacked.realm))
    attacked.monotonic.advance(5)
    attacked.refuses(rotated, Reason.UNKNOWN_KEY, outbound=1)
    attacked.realm.published.append(FORGER["RS256"].jwk)
    attacked.monotonic.advance(5)
    attacked.accepts(rotated)


def test_no_number_of_tokens_makes_the_memory_grow() -> None:
    attacked = Stack(Realm(key=KEYS["EdDSA"]), cached_tokens=10)
    attacked.realm.published = [KEYS["EdDSA"].jwk]
    made = [token(attacked.realm) for _ in range(40)]
    for text in made:
        attacked.accepts(text)
    assert 0 < len(attacked.checked.verifier.tokens) <= 10
    for text in reversed(made):
        attacked.accepts(text)
    assert 0 < len(attacked.checked.verifier.tokens) <= 20  # one that is about to move may count twice


def test_no_refused_token_takes_a_place_in_the_memory() -> None:
    attacked = stack("RS256")
    attacked.accepts(token(attacked.realm))
    for _ in range(20):
        attacked.refuses(
            attacked.realm.sign(claims(attacked.realm), key=_as_ours(FORGER["RS256"])), Reason.INVALID_SIGNATURE
        )
        attacked.refuses(token(attacked.realm, aud="billing"), Reason.WRONG_AUDIENCE)
    assert len(attacked.checked.verifier.tokens) == 1


def _as_ours(key: SigningKey) -> SigningKey:
    forged = SigningKey.__new__(SigningKey)
    forged.private, forged.algorithm, forged.kid = key.private, key.algorithm, KEYS["RS256"].kid
    return forged


# A remembered token opens no other request


@pytest.mark.tells_secrets("the client of this test logs the URL it was given, with the query", "log httpx")
@pytest.mark.parametrize("cached_tokens", [10_000, 0], ids=["remembered", "verified anew"])
def test_a_good_token_does_not_make_a_bad_request_good(cached_tokens: int) -> None:
    attacked = stack("RS256", cached_tokens=cached_tokens)
    good = token(attacked.realm)
    attacked.accepts(good)
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

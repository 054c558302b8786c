"""A token that was accepted is not verified again, and refused in the very second in which it would be refused as a new one."""

import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from s2s_fastapi.accepted import digest
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.verifier.accepted_tokens import CACHED_TOKENS, AcceptedTokens, RememberedToken
from s2s_fastapi.verifier.bearer import credentials_of, token_in
from s2s_fastapi.verifier.checks import Checks
from s2s_fastapi.verifier.jwks import VerificationKey
from s2s_fastapi.verifier.jws import Jws, parse
from s2s_fastapi.verifier.keys import KeySource
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verdict import Verdict
from s2s_fastapi.verifier.verifier import Verifier
from tests.kit.forks import in_child, needs_fork
from tests.kit.realm import Clock, Realm, SigningKey, key_source, settings, token_verifier

NOW = 1_800_000_000


class Counted:
    """The realm's keys, and how many signatures they had to check."""

    def __init__(self, keys: KeySource, delay: float = 0.0) -> None:
        self._keys = keys
        self._delay = delay
        self.checked = 0

    not_before: int
    """The realm's own, if a test does not set another."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    def key(self, kid: str, algorithm: str) -> VerificationKey | Decision:
        return self._counting(self._keys.key(kid, algorithm))

    async def akey(self, kid: str, algorithm: str) -> VerificationKey | Decision:
        return self._counting(await self._keys.akey(kid, algorithm))

    def _counting(self, key: VerificationKey | Decision) -> VerificationKey | Decision:
        if isinstance(key, Decision):
            return key

        def verify(message: bytes, signature: bytes) -> bool:
            self.checked += 1
            time.sleep(self._delay)
            return key.verify(message, signature)

        return replace(key, verify=verify)


class Bench:
    """A verifier on two clocks of its own, over a realm."""

    def __init__(self, size: int = CACHED_TOKENS, *, delay: float = 0.0, **expected: Any) -> None:
        self.realm = Realm()
        self.wall, self.monotonic = Clock(NOW), Clock(0.0)
        self.keys = Counted(key_source(self.realm, self.monotonic), delay)
        checks = replace(Checks.of(settings(), frozenset({"crm-api-gateway"})), **expected)
        self.verifier = Verifier(checks, self.keys, AcceptedTokens(size), clock=self.wall)  # type: ignore[arg-type]

    def token(self, **changes: Any) -> bytes:
        """Return the credentials of a new token."""
        return credentials_of(self.realm.token(**{"iat": NOW, "exp": NOW + 300, **changes}).encode())

    def decide(self, token: bytes) -> Verdict:
        return self.verifier.known(token) or self.verifier.decide(token)

    def reason(self, token: bytes) -> Reason:
        return self.decide(token).decision.reason

    def renew(self) -> None:
        """Let the realm be asked for its keys."""
        self.monotonic.advance(601)
        self.verifier.keys.get()


def test_a_token_that_comes_again_is_not_verified_again() -> None:
    bench = Bench()
    token = bench.token()
    first = bench.verifier.decide(token)
    assert first.decision.reason is Reason.ALLOWED
    assert all(bench.verifier.decide(token) is first for _ in range(10))
    assert anyio.run(bench.verifier.adecide, token) is first
    assert anyio.run(bench.verifier.adecide, token, backend="trio") is first
    assert bench.verifier.known(token) is first
    assert bench.keys.checked == 1


def test_where_another_thread_was_first_and_the_keys_went_stale_it_is_verified_again() -> None:
    bench = Bench()
    token = bench.token()
    first = bench.verifier.decide(token)
    jws = parse(token_in(token))
    assert isinstance(jws, Jws)
    key = bench.verifier.keys.get().find(jws.kid, jws.algorithm)
    assert key is not None
    bench.monotonic.advance(500)
    assert bench.verifier.keys.peek() is None

    assert bench.verifier.judged(token, jws, key) == first


def test_a_token_is_known_at_once_from_either_generation() -> None:
    bench = Bench(2)
    token, other = bench.token(), bench.token()
    first, second = bench.verifier.decide(token), bench.verifier.decide(other)
    assert list(bench.verifier.tokens.recent) == [other]
    assert token in bench.verifier.tokens
    assert other in bench.verifier.tokens
    assert bench.verifier.known(token) is first
    assert list(bench.verifier.tokens.recent) == [token]
    assert bench.verifier.known(other) is second
    assert bench.keys.checked == 2


def test_what_stands_for_a_token_is_of_the_whole_token_each_time_it_comes() -> None:
    bench = Bench()
    tokens = [bench.token(), bench.token()]
    for token in tokens * 2:
        assert bench.verifier.decide(token).digest == digest(token_in(token))
    assert digest(tokens[0]) != digest(tokens[1])
    assert bench.verifier.decide(bench.token(aud="billing")).digest == b""


def test_a_token_is_not_known_while_no_keys_are_there() -> None:
    bench = Bench()
    token = bench.token()
    bench.decide(token)
    bench.verifier.tokens.recent[token].keys = None
    bench.monotonic.advance(601)
    assert bench.verifier.keys.peek() is None
    assert bench.verifier.known(token) is None


def test_switched_off_every_token_is_verified_each_time_and_none_is_kept() -> None:
    bench = Bench(0)
    token = bench.token()
    assert [bench.reason(token) for _ in range(5)] == [Reason.ALLOWED] * 5
    assert bench.keys.checked == 5
    assert (len(bench.verifier.tokens), bench.verifier.known(token)) == (0, None)


@pytest.mark.parametrize("size", [-1, 1.5, True, "10", None])
def test_a_size_that_is_none_is_an_error(size: Any) -> None:
    with pytest.raises(ConfigurationError, match="cached_tokens takes"):
        AcceptedTokens(size)
    with pytest.raises(ConfigurationError, match="cached_tokens takes"):
        TokenVerifier(settings(), cached_tokens=size).verify("a.b.c")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "billing"}, Reason.WRONG_AUDIENCE),
        ({"iss": "http://keycloak.test/realms/other"}, Reason.WRONG_ISSUER),
        ({"exp": NOW - 31}, Reason.EXPIRED),
        ({"typ": "ID"}, Reason.WRONG_TYPE),
    ],
)
def test_a_refused_token_is_not_kept(changes: dict[str, Any], reason: Reason) -> None:
    bench = Bench()
    token = bench.token(**changes)
    assert [bench.reason(token) for _ in range(3)] == [reason] * 3
    assert len(bench.verifier.tokens) == 0
    assert bench.keys.checked == 3


def test_a_forged_token_is_not_kept_nor_taken_for_the_true_one() -> None:
    bench = Bench()
    token = bench.token()
    assert bench.reason(token) is Reason.ALLOWED
    head, payload, signature = token_in(token).split(b".")
    other = bench.token().split(b".")
    for forged in (
        b".".join((head, other[1], signature)),
        b".".join((head, payload, other[2])),
        token_in(token)[:-1],
        token_in(token) + b"A",
        token_in(token)[:40],
        token_in(token).swapcase(),
        b" " + token_in(token),
    ):
        assert bench.reason(credentials_of(forged)) in {Reason.INVALID_SIGNATURE, Reason.MALFORMED_TOKEN}
    assert len(bench.verifier.tokens) == 1


# What can change after it was accepted


@pytest.mark.parametrize("kept", [False, True], ids=["seen for the first time", "seen before"])
def test_expiry_comes_in_the_same_second(kept: bool) -> None:
    bench = Bench()
    token = bench.token()
    if kept:
        assert bench.reason(token) is Reason.ALLOWED
    bench.wall.now = NOW + 330 - 0.001
    assert (bench.reason(token) if kept else Reason.ALLOWED) is Reason.ALLOWED
    bench.wall.now = NOW + 330
    assert bench.verifier.known(token) is None
    assert bench.reason(token) is Reason.EXPIRED
    assert token not in bench.verifier.tokens


@pytest.mark.parametrize("kept", [False, True], ids=["seen for the first time", "seen before"])
def test_expiry_comes_in_the_same_second_for_a_token_that_is_only_observed(kept: bool) -> None:
    bench = Bench()
    tokens = AcceptedTokens()
    verifier = Verifier(
        bench.verifier.checks, bench.verifier.keys, tokens, observe_until=NOW + 10_000, clock=bench.wall
    )
    token = bench.token(aud="billing")
    if kept:
        assert verifier.decide(token).observed
    bench.wall.now = NOW + 330 - 0.001
    assert verifier.decide(token).observed
    if not kept:
        tokens.drop(token)
    bench.wall.now = NOW + 330
    assert verifier.known(token) is None
    assert verifier.decide(token).decision.reason is Reason.EXPIRED


@pytest.mark.parametrize("leeway", [0, 60])
def test_with_the_tolerance_that_was_set(leeway: int) -> None:
    bench = Bench(leeway=leeway)
    token = bench.token()
    assert bench.reason(token) is Reason.ALLOWED
    bench.wall.now = NOW + 300 + leeway - 0.001
    assert bench.reason(token) is Reason.ALLOWED
    assert bench.keys.checked == 1
    bench.wall.now = NOW + 300 + leeway
    assert bench.reason(token) is Reason.EXPIRED


@pytest.mark.parametrize("claim", ["iat", "nbf"])
def test_a_clock_that_is_set_back_makes_it_too_young_again(claim: str) -> None:
    bench = Bench()
    token = bench.token(**{"iat": NOW - 100, claim: NOW + 30})
    assert bench.reason(token) is Reason.ALLOWED
    bench.wall.now = NOW - 0.001
    assert bench.reason(token) is Reason.NOT_YET_VALID
    bench.wall.now = NOW
    assert bench.reason(token) is Reason.ALLOWED


def test_old_servers_nbf_of_zero_is_no_date() -> None:
    bench = Bench()
    token = bench.token(nbf=0)
    assert bench.verifier.decide(token) is bench.verifier.decide(token)


@pytest.mark.parametrize(("issued", "reason"), [(NOW - 1, Reason.REVOKED), (NOW, Reason.ALLOWED)])
def test_revoke_all_ends_it_with_the_next_keys(issued: int, reason: Reason) -> None:
    bench = Bench()
    token = bench.token(iat=issued)
    assert bench.reason(token) is Reason.ALLOWED
    bench.realm.not_before = NOW
    bench.renew()
    assert bench.reason(token) is reason


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_its_key_withdrawn_it_is_gone_however_often_it_was_used(uses: int) -> None:
    bench = Bench()
    token = bench.token()
    assert [bench.reason(token) for _ in range(uses)] == [Reason.ALLOWED] * uses
    bench.realm.published = [SigningKey().jwk]
    bench.renew()
    assert bench.verifier.known(token) is None
    bench.monotonic.advance(5)
    assert bench.reason(token) is Reason.UNKNOWN_KEY
    assert token not in bench.verifier.tokens


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_another_key_under_its_kid_is_not_its_key_however_often_it_was_used(uses: int) -> None:
    bench = Bench()
    token = bench.token()
    assert [bench.reason(token) for _ in range(uses)] == [Reason.ALLOWED] * uses
    bench.realm.published = [SigningKey(kid=bench.realm.key.kid).jwk]
    bench.renew()
    assert bench.reason(token) is Reason.INVALID_SIGNATURE


def test_its_key_kept_among_others_it_is_not_verified_again() -> None:
    bench = Bench()
    token = bench.token()
    assert bench.reason(token) is Reason.ALLOWED
    for _ in range(3):
        bench.realm.published = [SigningKey("ES256").jwk, bench.realm.key.jwk]
        bench.renew()
        assert bench.reason(token) is Reason.ALLOWED
    assert bench.keys.checked == 1


def test_keys_too_old_to_trust_fail_it_as_they_fail_a_new_one() -> None:
    bench = Bench(leeway=60)
    token = bench.token(exp=NOW + 4000)
    assert bench.reason(token) is Reason.ALLOWED
    bench.realm.answer = lambda request: httpx.Response(500)
    bench.monotonic.advance(3599)
    assert bench.reason(token) is Reason.ALLOWED
    bench.monotonic.advance(2)
    assert bench.reason(token) is Reason.KEYS_UNAVAILABLE
    assert anyio.run(bench.verifier.adecide, token).decision.reason is Reason.KEYS_UNAVAILABLE
    assert bench.keys.checked == 1


MOMENTS = [
    pytest.param(NOW - 30, 0, True, id="at the earliest moment"),
    pytest.param(NOW - 30.001, 0, False, id="before the earliest moment"),
    pytest.param(NOW + 329.999, 0, True, id="at the last moment"),
    pytest.param(NOW + 330, 0, False, id="past the last moment"),
    pytest.param(NOW, NOW, True, id="issued in the second of the revocation"),
    pytest.param(NOW, NOW + 1, False, id="issued in the second before the revocation"),
]
"""A moment, the realm's not-before, and whether the token is accepted then."""


@pytest.mark.parametrize(("now", "not_before", "holds"), MOMENTS)
def test_what_is_remembered_of_it_holds_exactly_as_long_as_the_token(now: float, not_before: int, holds: bool) -> None:
    bench = Bench()
    bench.reason(token := bench.token())
    kept, keys = bench.verifier.tokens.recent[token], bench.verifier.keys.get()
    assert kept.holds(keys, not_before, now) is holds


@pytest.mark.parametrize(("now", "not_before", "known"), MOMENTS)
def test_a_token_that_was_used_often_is_known_exactly_as_long_as_it_holds(
    now: float, not_before: int, known: bool
) -> None:
    bench = Bench()
    bench.reason(token := bench.token())
    assert all(bench.verifier.known(token) for _ in range(3))
    bench.wall.now = now
    bench.keys.not_before = not_before
    assert (bench.verifier.known(token) is not None) is known


# Bounds


def entry(**changes: Any) -> RememberedToken:
    bench = Bench()
    bench.reason(token := bench.token())
    return replace(bench.verifier.tokens.recent[token], **changes)


def test_it_keeps_no_more_tokens_than_it_was_told() -> None:
    tokens, one = AcceptedTokens(100), entry()
    for number in range(10_000):
        tokens.put(b"%d" % number, one)
        assert len(tokens) <= 100
    assert b"9999" in tokens
    assert b"9899" not in tokens


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_tiny_one_still_remembers_the_last(size: int) -> None:
    tokens, one = AcceptedTokens(size), entry()
    for number in range(10):
        tokens.put(b"%d" % number, one)
        assert tokens.get(b"%d" % number) is one
    assert len(tokens) <= size + 1


def test_it_keeps_no_more_bytes_than_1_kb_for_each() -> None:
    tokens, one = AcceptedTokens(100), entry()
    for number in range(1000):
        tokens.put(b"%016384d" % number, one)
        assert sum(map(len, [*tokens.recent, *tokens._older])) <= 100 * 1000
    assert len(tokens) > 2


def test_as_many_tokens_of_1_kb_as_it_was_told_are_all_kept() -> None:
    tokens, one = AcceptedTokens(100), entry()
    names = [b"%01000d" % number for number in range(100)]
    for name in names:
        tokens.put(name, one)
    assert all(name in tokens for name in names)


def test_what_is_used_stays_and_what_is_not_goes() -> None:
    tokens, one = AcceptedTokens(100), entry()
    tokens.put(b"used", one)
    tokens.put(b"unused", one)
    for number in range(1000):
        tokens.put(b"%d" % number, one)
        assert tokens.get(b"used") is one
    assert b"unused" not in tokens


def test_what_is_dropped_is_gone_from_both_generations() -> None:
    tokens, one = AcceptedTokens(4), entry()
    for token in (b"a", b"b", b"c"):
        tokens.put(token, one)
    tokens.get(b"a")
    tokens.drop(b"a")
    tokens.drop(b"never there")
    assert b"a" not in tokens
    assert tokens.get(b"a") is None
    assert tokens.get(b"b") is one


def test_one_verifier_knows_nothing_of_anothers_tokens() -> None:
    realm = Realm()
    token = realm.token()
    first = token_verifier(realm)
    assert first.decide(token).decision.reason is Reason.ALLOWED
    assert token_verifier(realm, audience="billing").decide(token).decision.reason is Reason.WRONG_AUDIENCE
    assert token.encode() not in token_verifier(realm).ready().tokens


# Threads and processes


def test_fifty_threads_with_one_new_token_check_its_signature_once() -> None:
    bench = Bench(delay=0.05)
    token = bench.token()
    bench.verifier.keys.get()
    together = threading.Barrier(50)

    def ask(_: int) -> Reason:
        together.wait(10)
        return bench.reason(token)

    with ThreadPoolExecutor(50) as threads:
        assert set(threads.map(ask, range(50))) == {Reason.ALLOWED}
    assert bench.keys.checked == 1


def test_hundred_tasks_that_wait_for_keys_with_one_token_check_its_signature_once() -> None:
    bench = Bench()
    token = bench.token()
    reasons: list[Reason] = []

    async def ask() -> None:
        reasons.append((await bench.verifier.adecide(token)).decision.reason)

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(ask)

    anyio.run(all_at_once)
    assert reasons == [Reason.ALLOWED] * 100
    assert bench.keys.checked == 1


def test_threads_that_come_and_go_get_each_token_its_own_verdict() -> None:
    bench = Bench(8)
    tokens = {bench.token(azp=f"c{number}", client_id=f"c{number}"): f"c{number}" for number in range(40)}
    wrong: list[str] = []

    def ask(seed: int) -> None:
        dice = random.Random(seed)
        for token in dice.choices(list(tokens), k=200):
            principal = bench.verifier.decide(token).principal
            if principal is None or principal.client_id != tokens[token]:
                wrong.append(tokens[token])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(ask, range(8)))
    assert wrong == []
    assert len(bench.verifier.tokens) <= 8 + 1


@needs_fork
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12: fork beside threads
def test_a_child_forked_while_a_thread_verifies_can_verify() -> None:
    bench = Bench()
    token = bench.token()
    bench.reason(token)
    held = {bench.verifier.tokens.lock(b"%d" % number) for number in range(200)}
    verifying = ThreadPoolExecutor(1)  # not this thread, which the child has: the locks are re-entrant
    for lock in held:
        assert verifying.submit(lock.acquire).result()

    def child() -> None:
        assert bench.reason(bench.token()) is bench.reason(token) is Reason.ALLOWED

    status = in_child(child)
    for lock in held:
        verifying.submit(lock.release).result()
    verifying.shutdown()
    assert status == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals here")
def test_a_signal_handler_that_asks_about_the_very_token_that_is_verified_gets_its_verdict() -> None:
    bench = Bench()
    token = bench.token()
    inside: list[Reason] = []

    class Interrupted(Counted):
        def _counting(self, key: VerificationKey | Decision) -> VerificationKey | Decision:
            assert isinstance(key, VerificationKey)

            def verify(message: bytes, signature: bytes) -> bool:
                if not inside:
                    inside.append(Reason.INVALID_SIGNATURE)
                    signal.raise_signal(signal.SIGUSR1)
                return key.verify(message, signature)

            return replace(key, verify=verify)

    def handler(*_: object) -> None:
        # The first to come here would be the first to wait for itself, and not even an alarm would wake it.
        free = bench.verifier.tokens.lock(token).acquire(blocking=False)
        assert free
        bench.verifier.tokens.lock(token).release()
        inside[0] = bench.reason(token)

    bench.verifier.keys = Interrupted(bench.verifier.keys)  # type: ignore[assignment]
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        assert bench.reason(token) is Reason.ALLOWED
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert inside == [Reason.ALLOWED]

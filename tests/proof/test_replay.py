"""A proof is accepted once, and never forgotten before its time, whatever the clocks, the load and the callers do."""

import asyncio
import contextlib
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2s_fastapi.errors import ConfigurationError, ReplayStoreUnavailable
from s2s_fastapi.proof.replay import InProcessReplayStore, ReplayQuota, ReplayStore, Sender, quota_of
from tests.kit.forks import in_child, needs_fork

IN_ITS_OWN_TIME = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
LIFE = 45.0


class Clocks:
    """Both clocks of a machine. Time passes on both; somebody may set only the one."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.wall = 1_800_000_000.0

    def pass_by(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def store(self, size: int = 1000) -> InProcessReplayStore:
        return InProcessReplayStore(size, clock=lambda: self.monotonic, wall=lambda: self.wall)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")[::-1]


def first(store: ReplayStore, number: int, seconds: float = LIFE) -> bool:
    return asyncio.run(store.first_use(key(number), seconds))


def test_a_key_is_new_once() -> None:
    store = Clocks().store()
    assert first(store, 1)
    assert not first(store, 1)
    assert first(store, 2)
    assert not first(store, 1)


@pytest.mark.parametrize("start", [0.0, 0.5, 1.0, 3.999])
@pytest.mark.parametrize("seconds", [1.0, 15.0, 44.9, 45.0, 55.0])
def test_a_key_is_remembered_for_its_seconds_and_then_forgotten(start: float, seconds: float) -> None:
    clocks = Clocks()
    store = clocks.store()
    clocks.pass_by(start)
    assert first(store, 1, seconds)
    clocks.pass_by(seconds - 0.001)
    assert not first(store, 1, seconds)
    clocks.pass_by(5)  # the rest of its bucket
    assert first(store, 2, seconds)
    assert store.remembered == 1


def test_a_full_store_refuses_and_forgets_nothing() -> None:
    clocks = Clocks()
    store = clocks.store(size=3)
    assert [first(store, number) for number in range(3)] == [True] * 3
    with pytest.raises(ReplayStoreUnavailable, match="full: it remembers 3 proofs"):
        first(store, 3)
    assert [first(store, number) for number in range(3)] == [False] * 3
    clocks.pass_by(LIFE + 4)
    assert first(store, 3)
    assert store.remembered == 1


@pytest.mark.parametrize("size", [0, -1])
def test_a_store_of_no_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        InProcessReplayStore(size)


def test_a_clock_that_is_set_forward_makes_it_forget_nothing() -> None:
    clocks = Clocks()
    store = clocks.store()
    assert first(store, 1)
    clocks.wall += 86_400
    assert not first(store, 1)
    clocks.pass_by(LIFE - 1)
    assert not first(store, 1)


def test_a_clock_that_is_set_back_refuses_what_could_have_been_forgotten() -> None:
    clocks = Clocks()
    store = clocks.store()
    issued = clocks.wall
    assert first(store, 1)
    clocks.pass_by(50)
    assert first(store, 2)  # the first one is forgotten now: it is too old
    clocks.wall -= 60  # the proof of 50 s ago is young again
    assert clocks.wall < issued
    with pytest.raises(ReplayStoreUnavailable, match="set back") as error:
        first(store, 1, issued + LIFE - clocks.wall)
    with pytest.raises(ReplayStoreUnavailable):
        first(store, 3)
    assert not first(store, 2)
    assert error.value.retry_after == 1  # for this proof, which ends when the one that was forgotten last does
    clocks.pass_by(11)
    assert first(store, 3)


def test_what_was_forgotten_is_the_latest_end_of_all_that_was_forgotten_together() -> None:
    clocks = Clocks()
    store = clocks.store()
    start = clocks.wall
    assert first(store, 1)
    clocks.wall -= 8
    assert first(store, 2)  # in the same step as the first one, with an earlier end
    clocks.pass_by(50)
    clocks.wall = start - 5
    with pytest.raises(ReplayStoreUnavailable):
        first(store, 1)


def test_what_was_forgotten_later_may_have_ended_earlier() -> None:
    clocks = Clocks()
    store = clocks.store()
    start = clocks.wall
    assert first(store, 1)
    clocks.pass_by(10)
    clocks.wall = start - 100
    assert first(store, 2)
    clocks.pass_by(60)
    clocks.wall = start - 10
    with pytest.raises(ReplayStoreUnavailable):
        first(store, 1)


def test_the_clocks_are_read_and_all_else_is_done_under_the_lock() -> None:
    """Without the lock, two threads would find the same proof new only once in a million tries."""
    held: list[bool] = []

    def clock_of(owner: Callable[[], InProcessReplayStore | ReplayQuota]) -> Callable[[], float]:
        def clock() -> float:
            held.append(owner()._lock.locked())
            return 0.0

        return clock

    store = InProcessReplayStore(clock=clock_of(lambda: store))
    limited = ReplayQuota(store, clock=clock_of(lambda: limited))
    assert asyncio.run(limited.first_use(ANN, key(1), LIFE))
    assert held == [True, True]


def test_a_clock_that_is_corrected_by_a_few_seconds_refuses_nobody() -> None:
    clocks = Clocks()
    store = clocks.store()
    for number in range(200):
        clocks.pass_by(1)
        assert first(store, number)
    clocks.wall -= 10
    assert first(store, 1000)


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 30), st.floats(-100, 100) | st.just(0.0)), max_size=40))
@IN_ITS_OWN_TIME
def test_no_proof_is_accepted_twice_whatever_the_clock_does(events: list[tuple[int, float, float]]) -> None:
    """A caller has a few proofs, each with its own iat. They are sent again and again while the wall clock is set to and fro."""
    clocks = Clocks()
    store = clocks.store()
    issued: dict[int, float] = {}
    accepted: set[int] = set()
    for number, passed, jump in events:
        clocks.pass_by(passed)
        clocks.wall += jump
        iat = issued.setdefault(number, clocks.wall)
        if not clocks.wall - 30 <= iat <= clocks.wall + 10:
            continue  # refused before the store is asked
        try:
            is_first = first(store, number, max(1.0, iat + 45 - clocks.wall))
        except ReplayStoreUnavailable:
            continue
        assert is_first is (number not in accepted)
        accepted.add(number)


def test_threads_and_loops_share_it_and_one_of_them_is_first() -> None:
    store = InProcessReplayStore()
    found: list[bool] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        async def all_of_them() -> list[bool]:
            return [await store.first_use(key(number), LIFE) for number in range(300)]

        barrier.wait()
        found.extend(asyncio.run(all_of_them()))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count(True) == 300
    assert len(found) == 2400


@needs_fork
def test_a_forked_child_knows_what_its_parent_knew_even_if_a_thread_held_the_lock() -> None:
    store = InProcessReplayStore()
    assert first(store, 1)
    quota = ReplayQuota(store)

    def child() -> None:
        assert not first(store, 1)
        assert first(store, 2)
        assert asyncio.run(quota.first_use(Sender("i", "c"), key(3), LIFE))

    with store._lock, quota._lock:
        assert in_child(child) == 0
    assert first(store, 2)  # the parent knows nothing of the child


def test_a_proof_takes_about_a_hundred_bytes() -> None:
    clocks = Clocks()
    store = clocks.store(size=20_000)

    async def fill() -> None:
        for _ in range(20_000):
            clocks.pass_by(LIFE / 20_000)
            await store.first_use(os.urandom(32), LIFE)

    tracemalloc.start()
    asyncio.run(fill())
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert taken / 20_000 < 160


def test_the_clocks_of_a_store_are_those_of_the_machine() -> None:
    store = InProcessReplayStore()
    assert store._clock is time.monotonic
    assert store._wall is time.time
    assert store.size == 200_000


# The share of a caller

REALM = "https://sso.example/realms/a"
ANN, BOB = Sender(REALM, "ann"), Sender(REALM, "bob")


@dataclass
class Store:
    """A store of somebody else."""

    answer: Callable[[], bool] = lambda: True
    asked: list[bytes] = field(default_factory=list)

    async def first_use(self, key: bytes, seconds: float) -> bool:
        self.asked.append(key)
        return self.answer()


def use(quota: ReplayQuota, caller: Sender, number: int = 0, seconds: float = LIFE) -> bool:
    return asyncio.run(quota.first_use(caller, key(number), seconds))


def quota(store: ReplayStore, clocks: Clocks, size: int | None = None) -> ReplayQuota:
    return ReplayQuota(store, size=size, clock=lambda: clocks.monotonic)


def test_a_caller_has_half_and_another_has_its_own() -> None:
    clocks = Clocks()
    limited = quota(clocks.store(size=10), clocks)
    assert [use(limited, ANN, number) for number in range(5)] == [True] * 5
    with pytest.raises(ReplayStoreUnavailable, match="client ann has 5 proofs"):
        use(limited, ANN, 5)
    assert [use(limited, BOB, number) for number in range(10, 15)] == [True] * 5


def test_the_same_client_id_of_another_issuer_is_another_caller() -> None:
    clocks = Clocks()
    limited = quota(Store(), clocks, size=2)
    assert use(limited, ANN)
    assert use(limited, Sender("https://sso.example/realms/b", "ann"))
    with pytest.raises(ReplayStoreUnavailable):
        use(limited, ANN)


def test_a_share_is_free_again_when_its_proofs_have_run_out() -> None:
    clocks = Clocks()
    limited = quota(Store(), clocks, size=4)
    assert use(limited, ANN)
    clocks.pass_by(20)
    assert use(limited, ANN)
    clocks.pass_by(LIFE - 20.001)
    with pytest.raises(ReplayStoreUnavailable):
        use(limited, ANN)
    clocks.pass_by(4.001)
    assert use(limited, ANN)
    with pytest.raises(ReplayStoreUnavailable):
        use(limited, ANN)


def test_whoever_replays_a_proof_takes_nothing_from_its_owner() -> None:
    clocks = Clocks()
    limited = quota(clocks.store(size=10), clocks)
    assert use(limited, ANN, 1)
    assert [use(limited, ANN, 1) for _ in range(100)] == [False] * 100
    assert [use(limited, ANN, number) for number in range(2, 6)] == [True] * 4


def test_a_store_that_fails_takes_nothing_from_a_share() -> None:
    def fail() -> bool:
        raise ReplayStoreUnavailable("no")

    clocks = Clocks()
    store = Store(fail)
    limited = quota(store, clocks, size=4)
    for _ in range(10):
        with pytest.raises(ReplayStoreUnavailable, match=r"^no$"):
            use(limited, ANN)
    store.answer = lambda: True
    assert use(limited, ANN)


def test_a_request_that_is_cancelled_counts_because_the_store_may_know_its_proof() -> None:
    def cancelled() -> bool:
        raise asyncio.CancelledError

    clocks = Clocks()
    limited = quota(Store(cancelled), clocks, size=2)
    with pytest.raises(asyncio.CancelledError):
        use(limited, ANN)
    with pytest.raises(ReplayStoreUnavailable):
        use(limited, ANN)


def test_requests_that_wait_for_the_store_count() -> None:
    async def story() -> list[bool | BaseException]:
        go = asyncio.Event()

        class Slow:
            async def first_use(self, key: bytes, seconds: float) -> bool:
                await go.wait()
                return True

        limited = ReplayQuota(Slow(), size=6)
        tasks = [asyncio.ensure_future(limited.first_use(ANN, key(number), LIFE)) for number in range(10)]
        await asyncio.sleep(0)
        go.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = asyncio.run(story())
    assert found.count(True) == 3
    assert sum(isinstance(each, ReplayStoreUnavailable) for each in found) == 7


def test_a_store_is_not_asked_when_the_share_is_used_up() -> None:
    clocks = Clocks()
    store = Store()
    limited = quota(store, clocks, size=2)
    assert use(limited, ANN, 1)
    with pytest.raises(ReplayStoreUnavailable):
        use(limited, ANN, 2)
    assert store.asked == [key(1)]


def refuses(quota: ReplayQuota, caller: Sender, said: str) -> bool:
    with pytest.raises(ReplayStoreUnavailable, match=said):
        use(quota, caller)
    return True


def fill(quota: ReplayQuota, caller: Sender) -> int:
    """Return how many proofs a caller gets accepted."""
    for used in range(1000):
        try:
            assert use(quota, caller, used)
        except ReplayStoreUnavailable:
            return used
    raise AssertionError("it has no end")


class Sized(Store):
    """One whose connections have a size."""

    size = 3


@pytest.mark.parametrize(
    ("store", "size"),
    [
        (Store(), 200_000),
        (Sized(), 200_000),
        (InProcessReplayStore(50), 50),
        (InProcessReplayStore(1), 1),
    ],
    ids=["another", "another with a size", "ours", "the smallest"],
)
def test_the_size_is_that_of_our_own_store_only(store: ReplayStore, size: int) -> None:
    assert ReplayQuota(store)._size == size
    assert ReplayQuota(store, size=9)._size == 9


def test_a_realm_of_several_leaves_half_to_the_first_one_however_many_names_it_makes_up() -> None:
    limited = quota(Store(), Clocks(), size=40)
    partner = "https://sso.example/realms/partner"
    further = [Sender(partner, f"c{number}", several=True, further=True) for number in range(10)]
    assert sum(use(limited, each, 1) for each in further) == 10
    assert refuses(limited, Sender(partner, "c11", several=True, further=True), "callers of .*partner")
    other = Sender("https://sso.example/realms/other", "x", several=True, further=True)
    assert fill(limited, other) == 5
    own = [Sender(REALM, name, several=True) for name in ("ann", "bob", "charles")]
    assert [fill(limited, each) for each in own] == [10, 10, 0]


def test_all_further_realms_together_have_half() -> None:
    limited = quota(Store(), Clocks(), size=40)
    realms = [f"https://sso.example/realms/{number}" for number in range(5)]
    further = [Sender(realm, name, several=True, further=True) for realm in realms for name in ("a", "b")]
    assert sum(fill(limited, each) for each in further) == 20
    assert refuses(limited, further[-1], "all realms after the first one have together 20 proofs")


def test_the_only_realm_has_all() -> None:
    limited = quota(Store(), Clocks(), size=40)
    assert [fill(limited, each) for each in (ANN, BOB, Sender(REALM, "charles"))] == [20, 20, 0]


def test_one_user_leaves_room_for_the_other_users_of_the_client() -> None:
    limited = quota(Store(), Clocks(), size=60)
    assert fill(limited, Sender(REALM, "app", "eve")) == 3
    assert refuses(limited, Sender(REALM, "app", "eve"), "user eve of the client app has 3 proofs")
    assert fill(limited, Sender(REALM, "app", "alice")) == 3
    assert fill(limited, Sender(REALM, "other", "eve")) == 3
    assert fill(limited, Sender(REALM, "app")) == 24  # what the two have left of the client's 30


def test_its_memory_is_that_of_the_proofs_that_count_however_many_names_there_are() -> None:
    clocks = Clocks()
    limited = quota(Store(), clocks, size=100)
    for number in range(1000):
        clocks.pass_by(0.3)
        with contextlib.suppress(ReplayStoreUnavailable):
            use(limited, Sender(REALM, f"c{number}" * 1000, f"u{number}"))
        assert sum(map(len, limited._buckets.values())) <= 3 * 100
    clocks.pass_by(LIFE + 4)
    assert use(limited, ANN)
    assert sum(map(len, limited._buckets.values())) == 2


def test_what_is_taken_back_leaves_nothing() -> None:
    limited = quota(Store(lambda: False), Clocks())
    for number in range(10):
        assert not use(limited, Sender(REALM, f"c{number}", f"u{number}"))
    assert not any(limited._buckets.values())


def test_all_who_name_no_store_have_one_together() -> None:
    assert quota_of(None) is quota_of(None)
    assert isinstance(quota_of(None).store, InProcessReplayStore)
    own = InProcessReplayStore()
    assert quota_of(own).store is own

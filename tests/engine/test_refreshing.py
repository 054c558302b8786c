"""One value, loaded once for everybody, renewed ahead, kept through failures."""

import asyncio
import contextvars
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest
import trio

from s2s_fastapi.engine.refreshing import Failed, Loaded, Refreshing
from s2s_fastapi.engine.reports import report
from s2s_fastapi.engine.single_flight import running_trio
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.errors import S2SError, TokenRequestError

SECONDS = 60.0
"""Longer than anything takes on a busy machine: only what hangs comes near it."""
LoadResult = Loaded[Any] | Failed
SECRET = "hunter2-in-a-local-variable"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Value:
    """A token: equal ones are still two."""

    def __init__(self, number: int) -> None:
        self.number = number


class Loader:
    """Counts its loads, takes its time, and stops at a gate on demand."""

    def __init__(self, *script: LoadResult | BaseException | Callable[[], LoadResult], takes: float = 0.0) -> None:
        self.script = list(script)
        self.takes = takes
        self.began: list[float] = []
        self.threads: list[threading.Thread] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    @property
    def loads(self) -> int:
        return len(self.began)

    def __call__(self) -> LoadResult:
        secret = SECRET
        self.began.append(time.monotonic())
        self.threads.append(threading.current_thread())
        self.entered.set()
        assert self.gate.wait(SECONDS), secret
        time.sleep(self.takes)
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0] if self.script else fresh(len(self.began))
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step


class NoThreads(Workers):
    """What workers are like at interpreter shutdown, or at the system's limit."""

    def submit(self, job: Callable[[], object], **_: Any) -> bool:
        return False


def fresh(number: int = 1) -> Loaded[Value]:
    return Loaded(Value(number), fresh_for=60, stale_while_revalidate=40)


def failed(retry_in: float = 30.0) -> Failed:
    return Failed(TokenRequestError("no answer"), retry_in)


def make(load: Callable[[], LoadResult], **options: Any) -> Refreshing[Any]:
    given: dict[str, Any] = {
        "name": "token",
        "workers": Workers("test"),
        "timeout": SECONDS,
        "jitter": lambda: 0.0,
        "unavailable": TokenRequestError,
    }
    return Refreshing(load, **(given | options))


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def idle(value: Refreshing[Any]) -> None:
    until(lambda: not value.state().loading)


def in_threads(count: int, job: Callable[[], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(job) for _ in range(count)]]


def error_of(job: Callable[[], object]) -> S2SError:
    with pytest.raises(S2SError) as caught:
        job()
    return caught.value


# Fresh, stale, expired.


def test_nothing_is_loaded_before_somebody_asks() -> None:
    loader = Loader()
    value = make(loader)
    assert value.peek() is None
    assert loader.loads == 0
    assert value.get().number == 1
    assert value.peek() is value.get()
    assert loader.loads == 1


def test_fresh_until_just_before_the_end_and_stale_at_it() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock)
    first = value.get()
    clock.now += 59.999
    assert value.peek() is first
    assert value.get() is first
    idle(value)
    assert loader.loads == 1
    clock.now = 1060.0
    assert value.peek() is None
    assert value.get() is first  # served, and one renewal runs in the background
    until(lambda: value.peek() is not None)
    assert value.get().number == 2
    assert loader.loads == 2


def test_usable_until_just_before_the_end_and_expired_at_it() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(0.0))
    value = make(loader, clock=clock)
    first = value.get()
    clock.now = 1099.999
    assert value.get() is first
    idle(value)
    clock.now = 1100.0
    error_of(value.get)


def test_ages_count_from_before_the_load_began() -> None:
    clock = Clock()

    def slow() -> LoadResult:
        clock.now += 5
        return fresh()

    value = make(slow, clock=clock)
    value.get()
    assert value.state().age == 5
    clock.now = 1059.999
    assert value.state().fresh
    clock.now = 1060.0
    assert not value.state().fresh


def test_only_the_current_value_has_an_age() -> None:
    clock = Clock()
    value = make(Loader(), clock=clock)
    assert value.age(Value(1)) == math.inf

    first = value.get()
    clock.now += 7
    assert value.age(first) == 7

    second = value.renew(first)
    assert (value.age(second), value.age(first)) == (0, math.inf)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 60.0), (0.5, 57.0), (1.0, 54.0)])
def test_jitter_only_ever_shortens_by_at_most_a_tenth(jitter: float, seconds: float) -> None:
    clock = Clock()
    value = make(Loader(), clock=clock, jitter=lambda: jitter)
    value.get()
    clock.now = 1000 + seconds - 0.001
    assert value.peek() is not None
    clock.now = 1000 + seconds
    assert value.peek() is None


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_a_value_without_time_for_a_renewal_is_fresh_until_it_expires_whatever_the_jitter(jitter: float) -> None:
    clock = Clock()
    value = make(lambda: Loaded(Value(1), fresh_for=10, stale_while_revalidate=0), clock=clock, jitter=lambda: jitter)
    value.get()
    clock.now = 1009.999
    assert value.peek() is not None
    clock.now = 1010.0
    assert value.peek() is None
    assert not value.state().usable


def test_a_stale_value_is_renewed_once_for_a_thousand_readers() -> None:
    clock, loader = Clock(), Loader(takes=0.05)
    value = make(loader, clock=clock)
    first = value.get()
    clock.now = 1070.0
    assert all(seen is first for seen in in_threads(20, lambda: min((value.get() for _ in range(50)), key=id)))
    idle(value)
    assert loader.loads == 2


def test_a_value_that_has_expired_when_it_arrives_reaches_its_waiters_and_does_not_loop() -> None:
    loader = Loader(Loaded(Value(1), fresh_for=0, stale_while_revalidate=0), takes=0.05)
    value = make(loader)
    assert {seen.number for seen in in_threads(20, value.get)} == {1}
    assert loader.loads <= 2  # a thread that came after the first load had finished
    assert value.peek() is None


def test_start_warms_up_in_the_background_and_never_raises() -> None:
    loader = Loader(failed(30.0), fresh())
    value = make(loader)
    value.start()
    idle(value)
    value.start()  # the failure is remembered
    idle(value)
    assert loader.loads == 1
    value.forget_failure()
    value.start()
    idle(value)
    value.start()  # fresh
    idle(value)
    assert loader.loads == 2
    make(loader, workers=NoThreads("none")).start()


# One load for everybody.


def test_a_thousand_threads_a_thousand_tasks_on_three_loops_and_trio_share_one_load() -> None:
    loader = Loader(takes=0.3)
    loader.gate.clear()
    value = make(loader, max_waiters=3000)
    seen: list[Any] = []

    async def one() -> None:
        seen.append(await value.aget())

    async def many(count: int) -> None:
        await asyncio.gather(*(one() for _ in range(count)))

    async def many_in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(one)

    jobs: list[Callable[[], Any]] = [lambda: seen.append(value.get())] * 1000
    jobs += [lambda count=count: asyncio.run(many(count)) for count in (334, 333, 333)]  # type: ignore[misc]
    jobs.append(lambda: trio.run(many_in_trio))
    size = threading.stack_size(256 * 1024)
    try:
        threads = [threading.Thread(target=job) for job in jobs]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(size)
    until(lambda: len(value._single_flight._waiters) == 2100 if value._single_flight else False)
    loader.gate.set()
    for thread in threads:
        thread.join(SECONDS)
    assert len(seen) == 2100
    assert len(set(map(id, seen))) == 1
    assert loader.loads == 1


@pytest.mark.parametrize("leader", [True, False])
def test_a_cancelled_asyncio_task_hurts_nobody(leader: bool) -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader)

    async def main() -> None:
        tasks = [asyncio.create_task(value.aget()) for _ in range(3)]
        await asyncio.sleep(0.02)
        victim = tasks.pop(0 if leader else 1)
        victim.cancel()
        with pytest.raises(asyncio.CancelledError):
            await victim
        loader.gate.set()
        assert {seen.number for seen in await asyncio.gather(*tasks)} == {1}

    asyncio.run(main())
    assert loader.loads == 1


def test_a_cancelled_trio_task_hurts_nobody() -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader)

    async def main() -> None:
        with trio.move_on_after(0.02) as scope:
            await value.aget()
        assert scope.cancelled_caught
        loader.gate.set()
        assert (await value.aget()).number == 1

    trio.run(main)
    assert loader.loads == 1


def test_a_loop_that_was_closed_while_it_waited_hurts_nobody() -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(value.aget(), 0.02)

    async def impatient_in_trio() -> None:
        with trio.move_on_after(0.02):
            await value.aget()

    asyncio.run(impatient())
    trio.run(impatient_in_trio)
    loader.gate.set()
    assert value.get().number == 1
    assert loader.loads == 1


def test_a_blocking_read_on_a_loop_thread_while_a_task_of_that_loop_waits_does_not_lock_up() -> None:
    value = make(Loader(takes=0.05))

    async def main() -> None:
        task = asyncio.create_task(value.aget())
        await asyncio.sleep(0)
        assert value.get() is await task

    asyncio.run(main())


def test_waiters_are_bounded_and_the_next_one_fails_at_once() -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader, max_waiters=3)

    async def main() -> None:
        tasks = [asyncio.create_task(value.aget()) for _ in range(3)]
        await asyncio.sleep(0.02)
        with pytest.raises(TokenRequestError, match="3 callers are waiting already"):
            await value.aget()
        assert "3 callers are waiting" in str(error_of(value.get))
        tasks.pop().cancel()
        await asyncio.sleep(0.02)
        tasks.append(asyncio.create_task(value.aget()))  # the waiter of the cancelled one is free again
        await asyncio.sleep(0.02)
        loader.gate.set()
        assert len(await asyncio.gather(*tasks)) == 3

    asyncio.run(main())


def test_each_waiter_leaves_at_its_own_deadline_and_the_late_answer_is_kept() -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader, timeout=0.05)

    async def main() -> None:
        with pytest.raises(TokenRequestError, match=r"token: no answer within 0\.1 s"):
            await value.aget(timeout=0.1)

    value.start()
    assert loader.entered.wait(SECONDS)  # else the error would be that the load did not begin
    assert "no answer within 0.05 s" in str(error_of(value.get))
    assert "no answer within 0 s" in str(error_of(lambda: value.get(timeout=-1)))
    asyncio.run(main())
    trio.run(main)
    loader.gate.set()
    idle(value)
    assert value.peek() is not None
    assert loader.loads == 1


def test_a_waiter_that_leaves_at_its_deadline_makes_room_for_another() -> None:
    loader = Loader()
    loader.gate.clear()
    value = make(loader, max_waiters=1, timeout=0.01)
    value.start()
    assert loader.entered.wait(SECONDS)
    for _ in range(3):
        assert "no answer within" in str(error_of(value.get))
    loader.gate.set()
    idle(value)


def test_a_caller_whose_load_never_began_gets_an_error_that_does_not_blame_the_other_side() -> None:
    workers, hung, queued = Workers("test", threads=1), Loader(), Loader()
    hung.gate.clear()

    def blame(sentence: str) -> S2SError:
        return TokenRequestError(sentence, cure="Is it up?")

    first, second = make(hung, workers=workers, unanswered=blame), make(queued, workers=workers, unanswered=blame)
    first.start()
    assert hung.entered.wait(SECONDS)
    assert str(error_of(lambda: first.get(timeout=0.05))) == "token: no answer within 0.05 s Is it up?"
    told = "its load did not begin within 0.05 s, because all threads for Keycloak are busy with other exchanges"
    assert str(error_of(lambda: second.get(timeout=0.05))) == f"token: {told}"
    with pytest.raises(TokenRequestError, match=told):
        asyncio.run(second.aget(timeout=0.05))
    hung.gate.set()
    idle(second)
    assert second.peek() is not None  # its late answer is kept, too


# Failures are values.


def test_a_failure_never_displaces_a_usable_value_and_holds_back_the_next_try() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(30.0), fresh(3))
    value = make(loader, clock=clock)
    first = value.get()
    clock.now = 1060.0
    assert value.get() is first
    idle(value)
    assert value.state().next_try_in == 30.0
    assert isinstance(value.state().last_error, TokenRequestError)
    clock.now = 1089.999
    assert value.get() is first
    idle(value)
    assert loader.loads == 2
    clock.now = 1090.0
    assert value.get() is first
    idle(value)
    assert value.get().number == 3
    assert value.state().last_error is None
    assert value.state().failures == 1


def test_a_failure_is_remembered_until_its_time_is_over() -> None:
    clock, loader = Clock(), Loader(failed(30.0), fresh())
    value = make(loader, clock=clock)
    error_of(value.get)
    clock.now = 1029.999
    error_of(value.get)
    assert loader.loads == 1
    clock.now = 1030.0
    value.get()
    assert loader.loads == 2


def test_a_failure_is_remembered_up_to_a_tenth_longer_and_never_shorter() -> None:
    clock = Clock()
    value = make(Loader(failed(30.0)), clock=clock, jitter=lambda: 0.999)
    error_of(value.get)
    assert 30 < (value.state().next_try_in or 0) <= 33


def test_forgive_lets_the_next_reader_try_at_once() -> None:
    loader = Loader(failed(30.0), fresh())
    value = make(loader)
    error_of(value.get)
    value.forget_failure()
    assert value.state().last_error is None
    assert value.get() is value.peek()


def test_forgive_covers_a_load_that_is_under_way_with_the_old_secret() -> None:
    loader = Loader(failed(30.0), fresh())
    loader.gate.clear()
    value = make(loader)
    value.start()
    assert loader.entered.wait(SECONDS)
    value.forget_failure()
    loader.gate.set()
    idle(value)
    assert value.state().next_try_in is None
    value.get()


def test_every_waiter_raises_an_instance_of_its_own_chained_to_nothing() -> None:
    value = make(Loader(failed(30.0), takes=0.05))
    errors = in_threads(20, lambda: error_of(value.get))
    assert len(set(map(id, errors))) == 20
    for error in errors:
        assert error.__cause__ is None
        assert error.__context__ is None
        assert len(traceback.extract_tb(error.__traceback__)) < 8


@pytest.mark.parametrize(
    "ending", [RuntimeError(SECRET), SystemExit(SECRET), MemoryError(SECRET), KeyboardInterrupt(SECRET)]
)
def test_however_a_load_ends_everybody_wakes_up_and_only_the_type_is_reported(ending: BaseException) -> None:
    value = make(Loader(ending, takes=0.05))
    for error in in_threads(5, lambda: error_of(value.get)):
        assert str(error) == f"token: the load ended with {type(ending).__name__}"
        told = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
        assert SECRET not in told


def test_a_remembered_failure_is_a_new_instance_for_each_as_well() -> None:
    value = make(Loader(failed(30.0)))
    error_of(value.get)
    assert error_of(value.get) is not error_of(value.get)
    assert value.state().last_error is not value.state().last_error


def test_a_load_that_returns_something_else_is_a_failure() -> None:
    value = make(lambda: None)  # type: ignore[arg-type, return-value]
    assert str(error_of(value.get)) == "token: the load ended with NoneType"


@pytest.mark.parametrize("workers", [Workers("test"), NoThreads("none")])
def test_a_load_that_asks_for_its_own_value_gets_an_error_instead_of_a_deadlock(workers: Workers) -> None:
    asked: list[S2SError] = []

    def load() -> LoadResult:
        asked.append(error_of(value.get))
        asked.append(error_of(lambda: asyncio.run(value.aget())))
        return fresh()

    value = make(load, workers=workers)
    assert value.get(timeout=SECONDS).number == 1
    assert [str(error) for error in asked] == ["token: the load asks for its own value"] * 2


def test_without_threads_a_sync_caller_loads_by_itself_and_an_async_one_is_reported() -> None:
    loader = Loader(takes=0.02)
    assert {seen.number for seen in in_threads(5, make(loader, workers=NoThreads("none")).get)} == {1}
    assert loader.loads == 1
    value = make(loader, workers=NoThreads("none"))
    with pytest.raises(TokenRequestError, match="no thread could be started"):
        asyncio.run(value.aget())


def test_a_stale_value_outlives_a_system_without_threads() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, workers=NoThreads("none"), clock=clock)
    first = value.get()
    clock.now = 1070.0
    assert value.get() is first
    assert loader.loads == 1
    assert value.state().next_try_in == 5.0


def test_ctrl_c_during_a_load_of_ones_own_ends_it_for_all_and_is_raised() -> None:
    value = make(Loader(KeyboardInterrupt()), workers=NoThreads("none"))
    with pytest.raises(KeyboardInterrupt):
        value.get()
    assert "KeyboardInterrupt" in str(error_of(value.get))
    assert not value.state().loading


def test_ctrl_c_while_a_load_begins_leaves_no_load_that_never_ends() -> None:
    class Interrupted(Workers):
        def submit(self, job: Callable[[], object], **options: Any) -> bool:
            interrupts.append(1)
            if len(interrupts) == 1:
                raise KeyboardInterrupt
            return super().submit(job, **options)

    interrupts: list[int] = []
    value = make(Loader(), workers=Interrupted("test"))
    with pytest.raises(KeyboardInterrupt):
        value.get()
    assert value.get().number == 1


# Kept beyond its time while loads fail.


def kept() -> Loaded[Value]:
    return Loaded(Value(1), fresh_for=60, stale_while_revalidate=40, stale_if_error=940)


def test_an_expired_value_is_not_served_before_a_load_was_tried() -> None:
    clock, loader = Clock(), Loader(kept(), fresh(2))
    value = make(loader, clock=clock)
    value.get()
    clock.now = 1100.0
    assert value.get().number == 2


@pytest.mark.parametrize("takes", ["failure", "for ever"])
def test_an_expired_value_is_served_while_loads_fail_but_not_for_ever(takes: str) -> None:
    clock, loader = Clock(), Loader(kept(), failed(5.0))
    value = make(loader, clock=clock, timeout=0.05 if takes == "for ever" else SECONDS)
    first = value.get(timeout=SECONDS)
    if takes == "for ever":
        loader.gate.clear()
    clock.now = 1999.999
    assert value.get() is first
    clock.now = 2000.0
    error_of(value.get)
    loader.gate.set()


def test_through_an_outage_one_caller_waits_and_the_others_are_served_while_the_next_try_runs_in_the_background() -> (
    None
):
    clock, loader = Clock(), Loader(kept(), failed(5.0))
    value = make(loader, clock=clock)
    first = value.get()
    clock.now = 1200.0
    assert value.get() is first  # waited for the load that failed
    assert value.state().usable
    clock.now = 1204.999
    assert value.get() is first
    assert loader.loads == 2
    loader.gate.clear()
    clock.now = 1205.0
    began = time.monotonic()
    assert value.get() is first  # at once, though the next load hangs, and would do so for all of its time
    assert time.monotonic() - began < SECONDS / 2
    assert value.renew(Value(0)) is first
    loader.gate.set()
    idle(value)
    assert loader.loads == 3
    clock.now = 1215.0  # nobody asked for a while: the failure is not recent, and somebody waits again
    assert not value.state().usable
    loader.script = [fresh(9)]
    assert value.get().number == 9


def test_a_load_that_nobody_waits_for_any_more_counts_as_a_failure_while_it_hangs() -> None:
    clock, loader = Clock(), Loader(kept(), fresh(2))
    value = make(loader, clock=clock, timeout=0.05)
    first = value.get(timeout=SECONDS)
    loader.gate.clear()
    clock.now = 1100.0
    assert value.get() is first  # waited for its own deadline
    clock.now = 1100.049
    assert not value.state().usable
    clock.now = 1100.05
    assert value.state().usable
    assert value.get(timeout=SECONDS) is first  # at once, or the test would take as long
    assert asyncio.run(value.aget(timeout=SECONDS)) is first
    clock.now = 2000.0
    error_of(value.get)
    loader.gate.set()
    idle(value)
    assert loader.loads == 2
    assert value.get().number == 2


def test_a_load_that_waits_for_its_time_is_not_late() -> None:
    clock, loader = Clock(), Loader(kept(), fresh(2))
    value = make(loader, clock=clock, timeout=5.0, spacing=200.0)
    first = value.get()
    clock.now = 1099.0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.renew, first, wait_for_spacing=True)
        until(lambda: value.state().loading)
        clock.now = 1120.0
        assert not value.state().usable
        assert value.get().number == waiting.result().number == 2


def test_beyond_the_limit_of_waiters_an_expired_value_is_served_but_does_not_pass_for_a_renewed_one() -> None:
    clock, loader = Clock(), Loader(kept(), fresh(2))
    value = make(loader, clock=clock, max_waiters=1)
    first = value.get()
    loader.gate.clear()
    clock.now = 1100.0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.get)
        until(lambda: value._single_flight is not None and value._single_flight._waiters)
        assert value.get() is first
        assert asyncio.run(value.aget()) is first
        assert "waiting already" in str(error_of(lambda: value.renew(first)))
        clock.now = 2000.0
        assert "waiting already" in str(error_of(value.get))
        loader.gate.set()
        assert waiting.result().number == 2


# Forced renewals.


def test_renew_is_a_compare_and_set() -> None:
    loader = Loader(takes=0.02)
    value = make(loader)
    first = value.get()
    renewed = in_threads(20, lambda: value.renew(first))
    assert {seen.number for seen in renewed} == {2}
    assert value.renew(first) is renewed[0]
    assert loader.loads == 2


def test_renew_raises_its_failure_and_the_value_stays() -> None:
    value = make(Loader(fresh(1), failed()))
    first = value.get()
    assert isinstance(error_of(lambda: value.renew(first)), TokenRequestError)
    assert value.get() is first


def test_renew_is_not_held_back_by_a_remembered_failure_unless_nothing_is_usable() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(1000.0), fresh(3), failed(1000.0))
    value = make(loader, clock=clock)
    first = value.get()
    error_of(lambda: value.renew(first))
    third = value.renew(first)
    assert third.number == 3
    error_of(lambda: value.renew(third))
    clock.now = 1100.0
    error_of(lambda: value.renew(third))  # the first one without a usable value asks
    assert loader.loads == 5
    error_of(lambda: value.renew(third))  # and what it was told holds the others back
    assert loader.loads == 5


def test_renew_without_a_value_loads_one_whatever_the_spacing() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock, spacing=1000)
    first = value.renew(Value(0))
    clock.now = 1100.0
    assert value.renew(first).number == 2


def test_within_the_spacing_the_value_comes_back_unchanged_and_at_its_end_it_is_renewed() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock, spacing=10)
    first = value.get()
    clock.now = 1009.999
    assert value.renew(first) is first
    assert asyncio.run(value.arenew(first)) is first
    assert loader.loads == 1
    clock.now = 1010.0
    assert value.renew(first).number == 2


def test_spacing_counts_from_a_load_that_failed_too() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(0.0))
    value = make(loader, clock=clock, spacing=10)
    first = value.get()
    clock.now = 1010.0
    error_of(lambda: value.renew(first))
    clock.now = 1019.999
    assert value.renew(first) is first
    clock.now = 1020.0
    error_of(lambda: value.renew(first))
    assert loader.loads == 3


def test_who_waits_for_the_spacing_shares_one_load_at_its_end() -> None:
    loader = Loader()
    value = make(loader, spacing=0.3)
    first = value.get()

    async def main() -> list[Any]:
        return await asyncio.gather(*(value.arenew(first, wait_for_spacing=True) for _ in range(50)))

    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(value.renew, first, wait_for_spacing=True) for _ in range(20)]
        until(lambda: value.state().loading)
        assert value.renew(first) is first  # this one does not wait
        assert value.get() is first
        seen = [*asyncio.run(main()), *(future.result() for future in waiting)]
    assert {value.number for value in seen} == {2}
    assert loader.loads == 2
    assert 0.3 <= loader.began[1] - loader.began[0] < SECONDS / 2


def test_who_has_no_value_at_all_does_not_wait_for_the_spacing_of_another() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock, spacing=600, timeout=600)
    first = value.get()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.renew, first, wait_for_spacing=True)
        until(lambda: value.state().loading)
        clock.now = 1100.0
        assert value.get().number == 2
        assert waiting.result(SECONDS / 2).number == 2  # the spacing is longer
    assert loader.loads == 2


def test_without_a_thread_nobody_waits_for_a_spacing_that_nobody_ends() -> None:
    loader = Loader()
    value = make(loader, workers=NoThreads("none"), spacing=60)
    first = value.get()
    assert "no thread" in str(error_of(lambda: value.renew(first, wait_for_spacing=True)))
    assert value.get() is first


def test_renew_joins_a_load_that_is_under_way() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock, spacing=1000)
    first = value.get()
    clock.now = 1060.0
    loader.gate.clear()
    value.get()  # begins one in the background
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.renew, first)
        loader.gate.set()
        assert waiting.result(SECONDS).number == 2
    assert loader.loads == 2


# What a load carries.


def test_a_load_in_the_foreground_has_the_context_of_its_caller_and_one_in_the_background_has_none() -> None:
    variable = contextvars.ContextVar("request", default="nothing")
    seen: list[str] = []
    asked_in: list[threading.Thread] = []
    clock = Clock()

    def load() -> LoadResult:
        seen.append(variable.get())
        return fresh()

    def foreground(why: str) -> contextvars.Context:
        asked_in.append(threading.current_thread())
        context = contextvars.Context()
        context.run(variable.set, f"the trace of {variable.get()}")
        return context

    value = make(load, clock=clock, foreground=foreground)
    variable.set("alice")
    value.get()
    clock.now = 1070.0
    value.get()
    idle(value)
    assert seen == ["the trace of alice", "nothing"]
    assert asked_in == [threading.current_thread()]
    other = make(load)
    other.get()
    assert seen[-1] == "nothing"


# Forks, exits.


PRELUDE = """
    import os, sys, threading, time, warnings
    from s2s_fastapi.engine.workers import Workers
    from s2s_fastapi.engine.refreshing import Failed, Loaded, Refreshing
    loads, TOKENS = [], Workers("tokens")
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_the_value_at_once_and_a_jitter_of_its_own() -> None:
    result = run("""
        value = Refreshing(lambda: loads.append(1) or Loaded("v", 60, 40), name="t", workers=TOKENS, timeout=5)
        value.get()
        while threading.active_count() > 1:
            time.sleep(0.001)
        # An idle process has no thread, so 3.12 has nothing to warn about (-W error).
        jitter = value._jitter
        if (child := os.fork()) == 0:
            assert value.peek() == "v" and len(loads) == 1
            assert value._jitter != jitter
            assert value._held.fresh_until == value._held.began + 60 * (1 - 0.1 * value._jitter)
            assert value.renew("v") == "v" and len(loads) == 2
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert value._jitter == jitter
    """)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_in_the_middle_of_a_load_makes_its_own() -> None:
    result = run("""
        gate, held = threading.Event(), threading.Event()
        def load():
            loads.append(os.getpid())
            gate.wait(60)
            return Loaded(os.getpid(), 60, 40)
        value = Refreshing(load, name="t", workers=TOKENS, timeout=60)
        value.start()
        while not loads:
            time.sleep(0.001)
        holder = threading.Thread(target=lambda: (value._lock.acquire(), held.set(), gate.wait(60), value._lock.release()))
        holder.start()              # another thread holds the lock at the fork: the child must not find it taken
        held.wait()
        warnings.simplefilter("ignore")
        if (child := os.fork()) == 0:
            gate.set()
            os._exit(0 if value.get(timeout=60) == os.getpid() else 1)
        assert os.waitpid(child, 0)[1] == 0
        gate.set()
        assert value.get() == os.getpid()
        holder.join()
    """)
    assert result.returncode == 0, result.stderr


def test_the_process_exits_promptly_in_the_middle_of_a_load() -> None:
    result = run("""
        entered = threading.Event()
        value = Refreshing(lambda: (entered.set(), time.sleep(600)), name="t", workers=TOKENS, timeout=0.05)
        value.start()
        entered.wait()
        try:
            value.get()
        except Exception as error:
            print(error)
        print(time.monotonic())
    """)
    assert result.returncode == 0, result.stderr
    told, at = result.stdout.split("\n")[:2]
    assert told == "t: no answer within 0.05 s"
    assert time.monotonic() - float(at) < SECONDS


def test_at_the_exit_a_sync_caller_still_gets_its_value() -> None:
    result = run("""
        import atexit
        value = Refreshing(lambda: Loaded(threading.current_thread().name, 60, 40), name="t", workers=TOKENS, timeout=5)
        atexit.register(lambda: print(value.renew("s2s_fastapi-tokens")))
        print(value.get())
    """)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("s2s_fastapi-tokens\n")
    assert len(result.stdout.split()) == 2


def test_no_repr_shows_the_value() -> None:
    value = make(lambda: Loaded(SECRET, 60, 40))
    value.get()
    assert SECRET not in f"{value!r} {value._held!r} {value.state()!r} {Loaded(SECRET, 1, 2)!r}"


def test_a_trio_that_another_thread_is_still_importing_is_no_running_trio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", ModuleType("trio"))

    assert running_trio() is None
    assert asyncio.run(_loaded_in_front()) == "value"


async def _loaded_in_front() -> str:
    value = Refreshing[str](lambda: Loaded("value", 60, 0), name="half-way", workers=Workers("half-way"), timeout=5)
    return await value.aget()


# A refused value.


def refusable(*script: LoadResult, **options: Any) -> tuple[Refreshing[Any], Loader, Clock, Value]:
    clock, loader = Clock(), Loader(*script)
    value = make(loader, clock=clock, spacing=10.0, **options)
    first = value.get()
    clock.now += 10
    return value, loader, clock, first


@pytest.mark.parametrize("read", [lambda value: value.get(), lambda value: asyncio.run(value.aget())])
def test_after_a_refusal_the_next_read_waits_for_another_value(read: Callable[[Any], Value]) -> None:
    value, loader, _, first = refusable()
    value.refuse(first)
    assert value.peek() is None
    assert value.ready() is None
    assert loader.loads == 1  # nobody has asked yet
    assert read(value).number == 2


def test_a_refusal_within_the_spacing_is_remembered_until_its_end() -> None:
    value, loader, clock, first = refusable()
    clock.now = 1003.0
    value.refuse(first)
    clock.now = 1009.999
    assert value.get() is first
    idle(value)
    assert loader.loads == 1
    clock.now = 1010.0
    assert value.get().number == 2


def test_a_refusal_of_what_is_not_the_current_value_changes_nothing() -> None:
    value, loader, clock, first = refusable()
    value.refuse(first)
    second = value.get()
    clock.now += 20
    value.refuse(first)
    value.refuse(Value(2))
    assert value.peek() is second
    make(Loader()).refuse(first)
    assert loader.loads == 2


def test_a_second_refusal_gives_a_refused_value_no_further_time() -> None:
    value, loader, clock, first = refusable(fresh(1), failed(0.0), fresh(3))
    value.refuse(first)
    assert value.get() is first  # the load failed
    clock.now += 9.999
    value.refuse(first)
    assert value.get() is first
    clock.now += 0.001
    assert value.get().number == 3
    assert loader.loads == 3


@pytest.mark.parametrize("retry_in", [0.0, 1.0, 5.0, 30.0])
def test_while_loads_fail_a_refused_value_is_served_as_long_as_it_would_have_been(retry_in: float) -> None:
    value, loader, clock, first = refusable(fresh(1), failed(retry_in))
    value.refuse(first)
    while clock.now < 1100.0:
        assert value.get() is first
        idle(value)
        clock.now += 0.5
    assert loader.loads > 2
    error_of(value.get)


def test_a_refused_value_is_asked_for_again_at_most_once_in_the_spacing_while_loads_fail() -> None:
    value, loader, clock, first = refusable(fresh(1), failed(1.0))
    value.refuse(first)
    for _ in range(40):  # to 1050, before it is stale
        value.get()
        value.refuse(first)
        idle(value)
        clock.now += 1
    assert loader.loads == 1 + 4


def test_a_refusal_while_a_load_is_under_way_waits_for_that_load() -> None:
    value, loader, clock, first = refusable()
    clock.now = 1060.0
    loader.gate.clear()
    assert value.get() is first  # a renewal runs in the background
    value.refuse(first)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.get)
        until(lambda: value._single_flight is not None and value._single_flight._waiters)
        loader.gate.set()
        assert waiting.result(SECONDS).number == 2
    assert loader.loads == 2


def test_a_refusal_soon_after_a_load_waits_for_the_renewal_that_is_under_way() -> None:
    value, loader, clock, first = refusable(Loaded(Value(1), fresh_for=2, stale_while_revalidate=98), fresh(2))
    clock.now = 1003.0  # within the spacing of the first load
    loader.gate.clear()
    assert value.get() is first  # a renewal runs in the background
    value.refuse(first)
    assert value.ready() is None
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.get)
        until(lambda: value._single_flight is not None and value._single_flight._waiters)
        loader.gate.set()
        assert waiting.result(SECONDS).number == 2
    assert loader.loads == 2


def test_a_thousand_refusals_of_one_value_from_threads_and_tasks_are_one_load() -> None:
    value, loader, _, first = refusable()
    loader.takes = 0.02

    def refuse_and_read() -> Value:
        value.refuse(first)
        return value.get()  # type: ignore[no-any-return]

    assert {seen.number for seen in in_threads(20, lambda: [refuse_and_read() for _ in range(50)][-1])} == {2}
    assert loader.loads == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_remembers_a_refusal() -> None:
    value, _, _, first = refusable()
    value.refuse(first)
    value.after_fork()
    assert value.peek() is None
    assert value.get().number == 2


# No usable value is left.


def test_a_renewal_that_failed_in_the_background_does_not_stop_the_first_caller_without_a_value() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(30.0), fresh(3))
    value = make(loader, clock=clock)
    value.get()
    clock.now = 1099.0
    value.get()
    idle(value)
    assert loader.loads == 2
    clock.now = 1100.0
    assert value.get().number == 3


def test_a_failure_that_the_first_caller_without_a_value_got_stops_the_others() -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(30.0))
    value = make(loader, clock=clock)
    value.get()
    clock.now = 1099.0
    value.get()
    idle(value)
    clock.now = 1100.0
    for _ in range(50):
        error_of(value.get)
    assert loader.loads == 3
    clock.now = 1129.999
    error_of(value.get)
    assert loader.loads == 3
    clock.now = 1130.0
    error_of(value.get)
    assert loader.loads == 4


def test_a_failed_warm_up_does_not_hold_back_the_first_read() -> None:
    loader = Loader(failed(30.0), fresh(2))
    value = make(loader, clock=Clock())
    value.start()
    idle(value)
    assert value.get().number == 2


def test_loads_that_have_to_be_apart_stay_so() -> None:
    clock, loader = Clock(), Loader(failed(30.0), fresh(2))
    value = make(loader, clock=clock, apart=5.0)
    value.start()
    idle(value)
    clock.now = 1004.999
    error_of(value.get)
    assert loader.loads == 1
    clock.now = 1005.0
    assert value.get().number == 2


@pytest.mark.parametrize("read", [lambda value: value.get(), lambda value: asyncio.run(value.aget())])
def test_a_caller_that_joined_a_background_renewal_which_fails_waits_for_the_next_load(
    read: Callable[[Any], Value],
) -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(30.0), fresh(3))
    value = make(loader, clock=clock)
    value.get()
    clock.now = 1099.0
    loader.gate.clear()
    value.get()
    clock.now = 1100.0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, value)
        until(lambda: value._single_flight is not None and value._single_flight._waiters)
        loader.gate.set()
        assert waiting.result(SECONDS).number == 3


def test_a_failure_in_doubt_is_tried_once_more_by_who_waits() -> None:
    clock, loader = Clock(), Loader(Failed(TokenRequestError("no"), 30.0, doubtful=True), fresh(2))
    assert make(loader, clock=clock).get().number == 2
    assert loader.loads == 2


def test_a_loader_that_is_in_doubt_for_ever_makes_no_storm() -> None:
    loader = Loader(Failed(TokenRequestError("no"), 30.0, doubtful=True))
    error_of(make(loader, clock=Clock()).get)
    assert loader.loads == 3


@pytest.mark.parametrize("read", [lambda value: value.get(), lambda value: asyncio.run(value.aget())])
@pytest.mark.parametrize("usable", [True, False])
def test_a_process_that_stood_still_in_a_load_fails_no_call(usable: bool, read: Callable[[Any], Value]) -> None:
    clock, loader = Clock(), Loader(fresh(1), failed(30.0), fresh(3))
    value = make(loader, clock=clock, timeout=5.0)
    value.get()
    clock.now = 1099.0 if usable else 1100.0
    loader.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read, value)  # in the background if the value is usable, else it waits
        assert loader.entered.wait(SECONDS)
        until(lambda: loader.loads == 2)
        if not usable:
            until(lambda: value._single_flight is not None and value._single_flight._waiters)
        clock.now += 3600
        loader.gate.set()
        assert waiting.result(SECONDS).number == (1 if usable else 3)
    assert read(value).number == 3


def test_a_waiter_that_slept_much_too_long_gets_its_time_once_more() -> None:
    clock, loader = Clock(), Loader()
    value = make(loader, clock=clock, timeout=0.2)
    loader.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(value.get)
        assert loader.entered.wait(SECONDS)
        clock.now += 3600
        time.sleep(0.25)
        loader.gate.set()
        assert waiting.result(SECONDS).number == 1


@pytest.mark.parametrize(("late", "loads"), [(0.0, 1), (0.9, 1), (1.1, 2)])
def test_a_load_that_ended_in_its_time_is_believed(late: float, loads: int) -> None:
    clock = Clock()
    began: list[float] = []

    def load() -> LoadResult:
        began.append(clock.now)
        if len(began) == 1:
            clock.now += 5.0 + late
        return failed(30.0)

    error_of(make(load, clock=clock, timeout=5.0).get)
    assert len(began) == loads


def test_the_rest_after_a_failure_counts_from_when_the_load_was_due_at_latest() -> None:
    clock = Clock()

    def load() -> LoadResult:
        clock.now += 3600.0
        return failed(30.0)

    value = make(load, clock=clock, timeout=5.0)
    value.start()
    idle(value)
    assert value.state().next_try_in is None


# The outcome comes first.


def test_a_report_that_needs_the_value_gets_it() -> None:
    reported: list[Any] = []

    def load() -> LoadResult:
        report(lambda: reported.append(value.get(timeout=1.0)))
        return fresh(7)

    value = make(load)
    assert value.get().number == 7
    until(lambda: reported)
    assert reported[0] is value.get()


def test_a_report_of_a_failure_that_asks_again_gets_the_failure_at_once() -> None:
    reported: list[float] = []

    def load() -> LoadResult:
        report(ask)
        return failed(30.0)

    def ask() -> None:
        began = time.monotonic()
        error_of(value.get)  # it would wait for all of its time
        reported.append(time.monotonic() - began)

    value = make(load)
    error_of(value.get)
    until(lambda: reported)
    assert reported[0] < SECONDS / 2


def test_a_lock_that_a_waiter_holds_and_a_report_needs_holds_up_nobody() -> None:
    handler, reported = threading.Lock(), threading.Event()

    def load() -> LoadResult:
        def write() -> None:
            with handler:
                reported.set()

        report(write)
        return fresh()

    value = make(load)
    with handler:  # as a log handler that asks for the value has it
        assert value.get(timeout=1.0).number == 1
    assert reported.wait(SECONDS)


def test_reports_that_hang_leave_the_threads_to_the_loads() -> None:
    workers, gate = Workers("test"), threading.Event()

    def load() -> LoadResult:
        report(lambda: gate.wait(SECONDS))
        return fresh()

    hanging = [make(load, workers=workers) for _ in range(4)]
    assert all(value.get(timeout=1.0) for value in hanging)
    assert make(Loader(), workers=workers).get(timeout=1.0).number == 1
    gate.set()


def test_a_report_that_raises_takes_no_other_with_it_and_nobody_hears_of_it() -> None:
    reported: list[str] = []

    def broken() -> None:
        raise ValueError(SECRET)

    def load() -> LoadResult:
        report(broken)
        report(lambda: reported.append(variable.get()))
        return fresh()

    variable = contextvars.ContextVar("variable", default="the load's context")
    variable.set("the request's")
    assert make(load).get().number == 1
    until(lambda: reported)
    assert reported == ["the load's context"]


def test_without_a_thread_reports_come_after_the_outcome_too() -> None:
    reported: list[Any] = []

    def load() -> LoadResult:
        report(lambda: reported.append(value.peek()))
        return fresh()

    value = make(load, workers=NoThreads("none"))
    assert reported == [] or reported == [value.get()]
    assert value.get() is reported[0]


def test_what_is_reported_outside_of_a_load_is_reported_at_once() -> None:
    reported: list[int] = []
    report(lambda: reported.append(1))
    assert reported == [1]

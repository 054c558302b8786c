"""One body for sync and async callers."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import trio

from s2s_fastapi.engine.steps import Step, Steps, arun, run

Drive = Callable[[Steps[Any]], Any]

DRIVERS: dict[str, Drive] = {
    "run": run,
    "arun on asyncio": lambda steps: asyncio.run(arun(steps)),
    "arun on trio": lambda steps: trio.run(arun, steps),
}


@pytest.fixture(params=DRIVERS)
def drive(request: pytest.FixtureRequest) -> Drive:
    return DRIVERS[request.param]


def bringing(value: object) -> Step:
    async def suspend() -> object:
        return value

    return lambda: value, suspend


def raising(error: BaseException) -> Step:
    def block() -> object:
        raise error

    async def suspend() -> object:
        raise error

    return block, suspend


def test_a_body_is_sent_what_each_step_brings_and_its_return_value_is_the_result(drive: Drive) -> None:
    def body() -> Steps[list[object]]:
        first = yield bringing("first")
        second = yield bringing(None)
        return [first, second]

    assert drive(body()) == ["first", None]


def test_a_body_without_steps_waits_for_nothing(drive: Drive) -> None:
    def body() -> Steps[str]:
        yield from ()
        return "at once"

    assert drive(body()) == "at once"


def test_a_sync_caller_only_blocks_and_an_async_caller_only_suspends() -> None:
    used: list[str] = []

    def body() -> Steps[None]:
        async def suspend() -> None:
            used.append("suspended")

        yield lambda: used.append("blocked"), suspend

    run(body())
    asyncio.run(arun(body()))
    assert used == ["blocked", "suspended"]


def test_what_a_step_raises_is_thrown_into_the_body_which_may_go_on(drive: Drive) -> None:
    def body() -> Steps[list[object]]:
        try:
            yield raising(ValueError("one"))
        except ValueError as error:
            seen = str(error)
        return [seen, (yield bringing("two"))]

    assert drive(body()) == ["one", "two"]


def test_what_the_body_does_not_catch_reaches_the_caller_alone(drive: Drive) -> None:
    error = ValueError("one")

    def body() -> Steps[None]:
        with contextlib.suppress(KeyError):
            yield raising(KeyError("caught"))
        yield raising(error)

    with pytest.raises(ValueError, match="one") as caught:
        drive(body())
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None


def test_a_cancelled_caller_leaves_the_body_in_order() -> None:
    left: list[str] = []

    def body() -> Steps[None]:
        try:
            yield (lambda: None), asyncio.Event().wait
        finally:
            left.append("left")

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await arun(body())

    asyncio.run(cancelled())
    assert left == ["left"]

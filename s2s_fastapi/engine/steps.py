"""One body for sync and async callers: a generator that yields what to wait for, and two drivers that wait."""

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeAlias, TypeVar

__all__ = ["Step", "Steps", "arun", "run"]

R = TypeVar("R")

Step: TypeAlias = tuple[Callable[[], Any], Callable[[], Awaitable[Any]]]
"""Two ways to wait for the same thing: one blocks the thread, the other suspends the task."""

Steps: TypeAlias = Generator[Step, Any, R]
"""A body: it is sent what each step brought, or is thrown what the step raised."""


def run(steps: Steps[R]) -> R:
    """Return what the body returns, and block at each step."""
    result, error = None, None
    try:
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as done:
                value: R = done.value
                return value
            result, error = None, None
            try:
                result = step[0]()
            except BaseException as raised:  # noqa: BLE001 - the body decides, also about Ctrl-C
                error = raised
    finally:
        del error  # its traceback holds this frame


async def arun(steps: Steps[R]) -> R:
    """Do as `run`, without blocking the running asyncio or trio loop. A cancellation is thrown into the body too."""
    result, error = None, None
    try:
        while True:
            try:
                step = steps.send(result) if error is None else steps.throw(error)
            except StopIteration as done:
                value: R = done.value
                return value
            result, error = None, None
            try:
                result = await step[1]()
            except BaseException as raised:  # noqa: BLE001 - the body decides
                error = raised
    finally:
        del error

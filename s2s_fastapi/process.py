"""What the whole process does: fork, and exit. One registry for all objects that must know of it.

The hooks are installed when the first object is registered. An object is forgotten when nobody else holds it.
"""

import atexit
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

__all__ = ["delay_forks", "watch_exit", "watch_forks"]

_SETTLE_SECONDS: Final = 5.0

W = TypeVar("W")


class Forked(Protocol):
    """An object with state that belongs to one process: locks, threads, connections."""

    def after_fork(self) -> None:
        """Replace that state; called in the child, which has one thread."""


class Unsettled(Protocol):
    """An object that is sometimes in the middle of something that a fork must not interrupt."""

    @property
    def unsettled(self) -> bool:
        """Whether it is so now."""


class Exiting(Protocol):
    """An object that has something left to do before the interpreter exits."""

    def at_exit(self) -> None:
        """Do it, in less than a second."""


# By id, and not a WeakSet: other threads may add an object while one iterates.
_forked: "WeakValueDictionary[int, Forked]" = WeakValueDictionary()
_unsettled: "WeakValueDictionary[int, Unsettled]" = WeakValueDictionary()
_exiting: "WeakValueDictionary[int, Exiting]" = WeakValueDictionary()
_installed: Final[set[str]] = set()


def watch_forks(thing: Forked) -> None:
    """Call `thing.after_fork()` in every forked child."""
    _forked[id(thing)] = thing
    _install_fork_hooks()


def delay_forks(thing: Unsettled) -> None:
    """Let a fork wait while `thing` is unsettled, for 5 s at most."""
    _unsettled[id(thing)] = thing
    _install_fork_hooks()


def watch_exit(thing: Exiting) -> None:
    """Call `thing.at_exit()` when the interpreter exits; it may still log, since the hook of `logging` runs later."""
    _exiting[id(thing)] = thing
    if "exit" not in _installed:
        _installed.add("exit")
        atexit.register(_at_exit)


def _install_fork_hooks() -> None:
    if "fork" not in _installed:
        _installed.add("fork")
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _alive(things: "WeakValueDictionary[int, W]") -> list[W]:
    return [thing for thing in (reference() for reference in things.valuerefs()) if thing is not None]


def _before_fork(clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep) -> None:
    # Bounded: the forking thread may itself be what an unsettled thread waits for.
    until = clock() + _SETTLE_SECONDS
    while any(thing.unsettled for thing in _alive(_unsettled)) and clock() < until:
        sleep(0.001)


def _after_fork() -> None:
    for thing in _alive(_forked):
        thing.after_fork()


def _at_exit() -> None:
    with ExitStack() as stack:  # if one raises, the others still run
        for thing in _alive(_exiting):
            stack.callback(thing.at_exit)

"""What the whole process does: fork, and exit. One registry for all objects that must know of it.

The hooks are installed when the first object is registered. An object is forgotten when nobody else holds it.
"""

import atexit
import logging  # noqa: F401 - its fork hook must be registered before ours: see `_install_fork_hooks`
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

__all__ = ["delay_forks", "undisturbed", "watch_exit", "watch_forks"]

_SETTLE_SECONDS: Final = 5.0

R = TypeVar("R")
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
_sections: Final[dict[object, int]] = {}
"""What is not to be disturbed now, and by which thread it is done."""
_installed: Final[set[str]] = set()


def watch_forks(thing: Forked) -> None:
    """Call `thing.after_fork()` in every forked child."""
    _forked[id(thing)] = thing
    _install_fork_hooks()


def delay_forks(thing: Unsettled) -> None:
    """Let a fork wait while `thing` is unsettled, for 5 s at most."""
    _unsettled[id(thing)] = thing
    _install_fork_hooks()


def undisturbed(work: Callable[[], R]) -> R:
    """Return what `work()` returns. A fork by another thread waits for it, so it must be short and wait for nothing.

    A child that is forked in the middle of an import keeps half a module. A child that is forked while OpenSSL reads certificates
    keeps a lock that is never released.
    """
    section = object()
    try:  # around the entry too: Ctrl-C may come at any line, and a section that stays would delay every later fork
        _sections[section] = threading.get_ident()
        _install_fork_hooks()
        return work()
    finally:
        _sections.pop(section, None)


def watch_exit(thing: Exiting) -> None:
    """Call `thing.at_exit()` when the interpreter exits; it may still log, since the hook of `logging` runs later."""
    _exiting[id(thing)] = thing
    if "exit" not in _installed:
        _installed.add("exit")
        atexit.register(_at_exit)


def _install_fork_hooks() -> None:
    # Python runs the hooks of `before` in the reverse order. The hook of `logging` takes the lock of all loggers, which a thread that
    # imports a module may need: so it must come after the wait of ours.
    if "fork" not in _installed:
        _installed.add("fork")
        if hasattr(os, "register_at_fork"):  # not on Windows
            os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _alive(things: "WeakValueDictionary[int, W]") -> list[W]:
    return [thing for thing in (reference() for reference in things.valuerefs()) if thing is not None]


def _before_fork(clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep) -> None:
    # Bounded: the forking thread may itself be what an unsettled thread waits for.
    until = clock() + _SETTLE_SECONDS
    while _disturbing() and clock() < until:
        sleep(0.001)


def _disturbing() -> bool:
    own = threading.get_ident()
    return any(thread != own for thread in list(_sections.values())) or any(
        thing.unsettled for thing in _alive(_unsettled)
    )


def _after_fork() -> None:
    _sections.clear()  # of threads that the child does not have
    for thing in _alive(_forked):
        thing.after_fork()


def _at_exit() -> None:
    with ExitStack() as stack:  # if one raises, the others still run
        for thing in _alive(_exiting):
            stack.callback(thing.at_exit)

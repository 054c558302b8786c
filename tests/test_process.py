"""The one registry for forks and the exit of the process."""

import os
import subprocess
import sys
import textwrap

import pytest

from s2s_fastapi import process

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


THINGS = """
import gc, os, sys
from s2s_fastapi.process import watch_exit, watch_forks

class Thing:
    def __init__(self, name):
        self.name = name
        watch_forks(self)
        watch_exit(self)
    def after_fork(self):
        print("forked", self.name, flush=True)
    def at_exit(self):
        print("exit", self.name, flush=True)
"""


@needs_fork
def test_each_object_that_lives_is_called_once_in_a_forked_child_and_never_in_the_parent() -> None:
    result = run(f"""{THINGS}
kept, forgotten = Thing("kept"), Thing("forgotten")
watch_forks(kept)
del forgotten
gc.collect()
if (child := os.fork()) == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
os._exit(0)
""")
    assert (result.returncode, result.stdout, result.stderr) == (0, "forked kept\n", "")


def test_each_object_that_lives_is_called_once_at_exit_the_last_one_first() -> None:
    result = run(f"""{THINGS}
first, forgotten, last = Thing("first"), Thing("forgotten"), Thing("last")
watch_exit(first)
del forgotten
gc.collect()
""")
    assert (result.returncode, result.stdout, result.stderr) == (0, "exit last\nexit first\n", "")


def test_an_object_that_raises_at_exit_keeps_no_other_from_its_turn() -> None:
    result = run(f"""{THINGS}
class Broken(Thing):
    def at_exit(self):
        raise ValueError("broken")

first, broken, last = Thing("first"), Broken("broken"), Thing("last")
""")
    assert result.stdout == "exit last\nexit first\n"
    assert "ValueError: broken" in result.stderr


def test_importing_installs_no_hook() -> None:
    result = run("""
        import s2s_fastapi.process, s2s_fastapi.engine.workers, s2s_fastapi.receiver.middleware, s2s_fastapi.caller.auth
        print(s2s_fastapi.process._installed)
    """)
    assert (result.stdout, result.stderr) == ("set()\n", "")


# In a process of its own, because the objects of other tests may be unsettled, too.
SLOW = """
from s2s_fastapi import process

class Slow:
    def __init__(self, waits):
        self.now, self.waits = 0, waits
    @property
    def unsettled(self):
        return self.now < self.waits
    def sleep(self, _):
        self.now += 1
"""


def test_a_fork_waits_until_nothing_is_unsettled_and_5_seconds_at_most() -> None:
    result = run(f"""{SLOW}
for waits in (0, 3, 5, 60):
    slow = Slow(waits)
    process.delay_forks(slow)
    process._before_fork(lambda: slow.now, slow.sleep)
    print(waits, slow.now)
""")
    assert (result.stdout, result.stderr) == ("0 0\n3 3\n5 5\n60 5\n", "")


def test_a_fork_waits_for_what_another_thread_must_do_undisturbed_and_not_for_its_own() -> None:
    result = run("""
        import threading
        from s2s_fastapi import process

        waits, results = [], []
        begun, end = threading.Event(), threading.Event()

        def work():
            begun.set()
            assert end.wait(30)
            return "done"

        def sleep(seconds):
            waits.append(seconds)
            end.set()
            thread.join()

        thread = threading.Thread(target=lambda: results.append(process.undisturbed(work)))
        thread.start()
        assert begun.wait(30)
        process.undisturbed(lambda: process._before_fork(lambda: len(waits), sleep))
        print(len(waits), *results)
    """)
    assert (result.stdout, result.stderr) == ("1 done\n", "")


def test_what_raises_is_over() -> None:
    def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        process.undisturbed(work)
    assert process._sections == {}


@needs_fork
def test_a_child_waits_for_no_thread_of_its_parent() -> None:
    """The wait of the first fork is bounded; what the other thread did is not over in the child, and never will be."""
    result = run("""
        import os, threading, warnings
        from s2s_fastapi import process
        warnings.simplefilter("ignore")  # 3.12 warns, because a thread runs: our point here
        process._SETTLE_SECONDS = 0.0
        begun, never = threading.Event(), threading.Event()
        threading.Thread(target=lambda: process.undisturbed(lambda: (begun.set(), never.wait())), daemon=True).start()
        begun.wait()
        assert process._disturbing()
        if (child := os.fork()) == 0:
            os._exit(process._disturbing())
        assert os.waitpid(child, 0)[1] == 0
    """)
    assert (result.returncode, result.stderr) == (0, "")

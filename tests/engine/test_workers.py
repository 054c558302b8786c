"""Threads for loads: few, short-lived, gone when the process wants to go."""

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from s2s_fastapi.engine.workers import Workers, WorkersByServer

SECONDS = 60.0
"""Longer than anything takes on a busy machine: only what hangs comes near it."""


def until(condition: object, seconds: float = SECONDS) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.005)
    return False


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a fresh interpreter, where a warning (a thread at the fork) is an error."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS, check=False)


def test_a_job_runs_on_a_daemon_thread_that_bears_the_name_of_its_lane() -> None:
    seen: list[threading.Thread] = []
    assert Workers("keys").submit(lambda: seen.append(threading.current_thread()))
    assert until(lambda: seen)
    assert seen[0].daemon
    assert seen[0].name == "s2s_fastapi-keys"


def test_at_most_four_threads_work_and_none_is_left_when_the_queue_is_empty() -> None:
    workers, gate = Workers("busy"), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def job() -> None:
        running.append(1)
        most.append(len(running))
        gate.wait(0.02)
        running.pop()

    for _ in range(20):
        assert workers.submit(job)
    assert until(lambda: len(most) == 20)
    assert max(most) == 4
    assert until(lambda: not any(thread.name == "s2s_fastapi-busy" for thread in threading.enumerate()))


def test_no_job_is_lost_between_a_thread_that_leaves_and_one_that_comes() -> None:
    workers, done = Workers("race", threads=1), []
    for number in range(3000):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
        if number % 7 == 0:
            time.sleep(0)
    assert until(lambda: len(done) == 3000)


def test_a_delayed_job_waits_for_its_time_and_lets_others_pass() -> None:
    workers, order = Workers("delayed", threads=1), []
    began = time.monotonic()
    workers.submit(lambda: order.append(("late", time.monotonic() - began)), delay=0.5)
    assert until(lambda: workers._watched)  # its thread sleeps
    workers.submit(lambda: order.append(("at once", time.monotonic() - began)))
    assert until(lambda: len(order) == 2)
    assert [name for name, _ in order] == ["at once", "late"]
    assert order[1][1] >= 0.5


def test_two_delayed_jobs_that_are_due_together_run_side_by_side() -> None:
    workers, together = Workers("pair"), threading.Barrier(2, timeout=SECONDS)
    met: list[int] = []
    for _ in range(2):
        workers.submit(lambda: met.append(together.wait()), delay=0.05)
    assert until(lambda: len(met) == 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_raises_takes_nobody_with_it() -> None:
    workers, done = Workers("broken", threads=1), threading.Event()

    def broken() -> None:
        raise ValueError

    workers.submit(broken)
    workers.submit(done.set)
    assert done.wait(SECONDS)
    assert until(lambda: not any(thread.name == "s2s_fastapi-broken" for thread in threading.enumerate()))


def test_what_a_job_does_afterwards_keeps_no_other_job_waiting() -> None:
    workers, gate, done = Workers("afterwards", threads=2), threading.Event(), []
    for _ in range(2):
        workers.submit(lambda: None, afterwards=lambda: gate.wait(SECONDS))
    for number in range(2):
        workers.submit(lambda number=number: done.append(number))  # type: ignore[misc]
    assert until(lambda: len(done) == 2)
    gate.set()
    assert until(lambda: not any(thread.name == "s2s_fastapi-afterwards" for thread in threading.enumerate()))


def test_twice_as_many_threads_as_may_work_is_the_end_whatever_hangs_afterwards() -> None:
    workers, gate, done = Workers("hanging", threads=2), threading.Event(), []
    for _ in range(20):
        workers.submit(lambda: None, afterwards=lambda: gate.wait(SECONDS))
    workers.submit(lambda: done.append(1))
    assert until(lambda: sum(thread.name == "s2s_fastapi-hanging" for thread in threading.enumerate()) == 4)
    time.sleep(0.02)
    assert sum(thread.name == "s2s_fastapi-hanging" for thread in threading.enumerate()) == 4
    assert not done
    gate.set()
    assert until(lambda: done)


@pytest.mark.parametrize(
    ("url", "same"),
    [
        ("http://keycloak:8080/realms/other/protocol/openid-connect/token", True),
        ("http://keycloak:8080", True),
        ("https://keycloak:8080/realms/corp", False),
        ("http://keycloak:8081/realms/corp", False),
        ("http://keycloak.internal:8080/realms/corp", False),
    ],
)
def test_each_server_has_a_lane_of_its_own_whatever_the_path(url: str, same: bool) -> None:
    pools = WorkersByServer("test")
    workers = pools.to("http://keycloak:8080/realms/corp")
    assert (pools.to(url) is workers) is same


def test_two_servers_that_hang_do_not_delay_a_third() -> None:
    pools, gate, done = WorkersByServer("third"), threading.Event(), threading.Event()
    hung = [pools.to(f"http://hangs-{number}") for number in range(2)]
    for workers in hung:
        for _ in range(20):
            workers.submit(lambda: gate.wait(SECONDS))
    pools.to("http://healthy").submit(done.set)
    assert done.wait(1)
    assert sum(thread.name == "s2s_fastapi-third" for thread in threading.enumerate()) <= 2 * 4 + 1
    gate.set()


def test_a_lane_that_nobody_holds_is_forgotten() -> None:
    pools = WorkersByServer("test")
    kept = pools.to("http://kept")
    for number in range(100):
        pools.to(f"http://forgotten-{number}")
    gc.collect()
    assert len(pools._pools) == 1
    assert pools.to("http://kept") is kept


def test_importing_starts_no_thread() -> None:
    result = run("""
        import threading
        import s2s_fastapi.engine.workers, s2s_fastapi.engine.refreshing, s2s_fastapi.backchannel.channel
        assert threading.active_count() == 1
    """)
    assert result.returncode == 0, result.stderr


def test_the_process_exits_within_half_a_second_whatever_its_threads_do() -> None:
    result = run("""
        import time
        from s2s_fastapi.engine.workers import KEYS, TOKENS
        pools = [pools.to(f"http://keycloak-{number}") for pools in (KEYS, TOKENS) for number in range(3)]
        for workers in pools:
            for _ in range(5):
                workers.submit(lambda: time.sleep(600))
                workers.submit(lambda: None, afterwards=lambda: time.sleep(600))
        pools[0].submit(lambda: print("never"), delay=300)
        time.sleep(0.05)
        print(time.monotonic())
    """)
    took = time.monotonic() - float(result.stdout)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert 0.4 < took < SECONDS


def test_a_delayed_job_does_not_keep_the_process() -> None:
    result = run("""
        import time
        from s2s_fastapi.engine.workers import Workers
        workers = Workers("keys")
        workers.submit(lambda: print("never"), delay=300)
        print(time.monotonic())
    """)
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - float(result.stdout) < SECONDS


def test_after_the_exit_began_no_thread_can_be_had_and_submit_returns_false() -> None:
    result = run("""
        import atexit, threading, time
        from s2s_fastapi.engine.workers import KEYS
        begun = threading.Event()
        idle, busy, other = (KEYS.to(f"http://{name}") for name in ("idle", "busy", "other"))
        atexit.register(lambda: print(*(workers.submit(lambda: print("never")) for workers in (idle, busy, other))))
        idle.submit(lambda: None)
        busy.submit(lambda: (begun.set(), time.sleep(60)))  # goes on after the exit began
        begun.wait()
    """)
    assert (result.returncode, result.stdout) == (0, "False False False\n"), result.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_with_an_empty_lane_that_works() -> None:
    result = run("""
        import os, sys, threading, time, warnings
        from s2s_fastapi.engine.workers import Workers
        workers = Workers("forked", threads=1)
        gate = threading.Event()
        printed = threading.Event()
        workers.submit(gate.wait)                     # works while we fork
        workers.submit(lambda: (print("parent's"), printed.set()))  # and this one waits for it
        warnings.simplefilter("ignore")            # 3.12 warns, because the gate's thread runs: our point here
        if (child := os.fork()) == 0:
            done = threading.Event()
            assert workers.submit(done.set)
            os._exit(0 if done.wait(60) else 1)
        assert os.waitpid(child, 0)[1] == 0
        gate.set()
        printed.wait(60)
    """)
    assert (result.returncode, result.stdout) == (0, "parent's\n"), result.stderr


@pytest.mark.parametrize("busy", ["import", "undisturbed"])
def test_a_fork_waits_for_an_import_and_for_what_is_not_to_be_disturbed_and_for_nothing_else(
    busy: str, tmp_path: Path
) -> None:
    (tmp_path / "slow_module.py").write_text("import time\nBEGAN = True\ntime.sleep(0.3)\nDONE = True\n")
    check = f"""
import os, sys, threading, time
sys.path.insert(0, {str(tmp_path)!r})
from s2s_fastapi.engine.workers import Workers
from s2s_fastapi.process import undisturbed

go = threading.Event()
begun, done = [], []

def load():
    if {busy!r} == "import":
        import slow_module
        done.append(slow_module.DONE)
    else:
        undisturbed(lambda: (begun.append(True), time.sleep(0.3), done.append(True)))
    go.wait(120)  # an exchange: nobody waits for that

Workers("test").submit(load)
while not (begun or hasattr(sys.modules.get("slow_module"), "BEGAN")):
    time.sleep(0.001)
child = os.fork()
if child == 0:
    os._exit(0 if done == [True] else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert not go.is_set()
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", check],
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

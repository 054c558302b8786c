"""What servers said: clocks that are followed, and nonces that are kept."""

import threading
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s2s_fastapi.caller.origins import pin
from s2s_fastapi.caller.servers import Servers, seconds_of

BOB, CHARLES, KEYCLOAK = pin("http://bob"), pin("http://charles"), pin("http://keycloak")
NOW = 1_900_000_000.0


class Machine:
    """A machine whose two clocks are moved together, or one of them alone."""

    def __init__(self, wall: float = NOW) -> None:
        self.wall = wall
        self.monotonic = 50.0
        self.servers = Servers(clock=lambda: self.monotonic, wall=lambda: self.wall)

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def hear(self, shown: float, *, after: float = 0.0, issuer: bool = False) -> None:
        """Get the answer to a request that took `after` seconds; `shown` is the server's time now."""
        began = self.monotonic - after
        self.servers.showed_time(BOB, formatdate(int(shown), usegmt=True), began, issuer=issuer)

    @property
    def time(self) -> float:
        return self.servers.time(BOB)


def test_without_a_word_of_any_server_this_machines_clock_counts() -> None:
    machine = Machine()
    machine.pass_by(7.5)
    assert machine.time == NOW + 7.5


@hypothesis_settings(deadline=None)
@given(st.floats(-0.9, 0.9), st.floats(0, 1), st.floats(0, 5))
def test_a_right_clock_is_never_made_worse(off: float, fraction: float, took: float) -> None:
    machine = Machine(NOW + fraction)
    machine.hear(NOW + fraction + off, after=took)
    assert machine.time == machine.wall


@hypothesis_settings(deadline=None)
@given(
    st.floats(4, 598).flatmap(lambda off: st.sampled_from([off, -off])),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
)
def test_a_wrong_clock_is_right_within_a_second(off: float, fraction: float, took: float) -> None:
    machine = Machine(NOW + fraction)
    machine.hear(NOW + fraction + off, after=took)
    assert abs(machine.time - (machine.wall + off)) <= 1.0


@pytest.mark.parametrize("off", [-601.5, 601.5, 86_400.0, -86_400.0])
def test_a_clock_that_is_more_than_ten_minutes_off_is_not_followed(off: float) -> None:
    machine = Machine()
    machine.hear(NOW + off)
    assert machine.time == NOW


@pytest.mark.parametrize("step", [-500.0, 500.0])
def test_a_step_of_this_machines_clock_changes_nothing(step: float) -> None:
    machine = Machine()
    machine.hear(NOW)
    machine.wall += step
    machine.pass_by(60)
    assert machine.time == NOW + 60


def test_a_machine_that_slept_for_an_hour_has_the_right_time_on_its_wall_only() -> None:
    machine = Machine()
    machine.hear(NOW)
    machine.wall += 3600
    assert machine.time == machine.wall


def test_a_server_that_sets_its_clock_is_followed_again() -> None:
    machine = Machine()
    machine.hear(NOW + 300)
    machine.pass_by(60)
    machine.hear(machine.wall)
    assert machine.time == machine.wall


def test_each_server_has_its_own_clock_and_others_get_that_of_keycloak() -> None:
    machine = Machine()
    servers = machine.servers
    servers.showed_time(KEYCLOAK, formatdate(NOW + 120, usegmt=True), machine.monotonic, issuer=True)
    servers.showed_time(BOB, formatdate(NOW - 120, usegmt=True), machine.monotonic)

    assert abs(servers.time(BOB) - (NOW - 120)) < 1
    assert abs(servers.time(CHARLES) - (NOW + 120)) < 1
    servers.gave_nonce(CHARLES, "n")
    assert abs(servers.time(CHARLES) - (NOW + 120)) < 1, "a nonce says nothing of the time"


@pytest.mark.parametrize(
    "date", [None, "", "soon", "Mon, 99 Foo 2026 99:99:99 GMT", "Mon, 30 Nov 99999 00:00:00 GMT", "9" * 5000]
)
def test_what_is_no_date_changes_nothing(date: str | None) -> None:
    machine = Machine()
    machine.servers.showed_time(BOB, date, machine.monotonic)
    assert (seconds_of(date), machine.time) == (None, NOW)


def test_a_date_is_read() -> None:
    assert seconds_of("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777.0
    assert seconds_of(formatdate(1_900_000_000, usegmt=True)) == 1_900_000_000.0


# Nonces


def test_a_nonce_is_of_one_server_and_the_last_one_counts() -> None:
    servers = Servers()
    servers.gave_nonce(BOB, "n-1")
    servers.gave_nonce(BOB, None)
    assert (servers.nonce(BOB), servers.nonce(CHARLES)) == ("n-1", "")
    servers.gave_nonce(BOB, "n-2")
    assert servers.nonce(BOB) == "n-2"
    servers.gave_nonce(CHARLES, "x" * 512)
    assert servers.nonce(CHARLES) == "x" * 512


@pytest.mark.parametrize("nonce", ["", " ", "a b", 'a"b', "a\\b", "a\nb", "a\x00", "ä", "x" * 513, "n\n"])
def test_what_cannot_be_a_nonce_is_ignored(nonce: str) -> None:
    servers = Servers()
    servers.gave_nonce(BOB, "right")
    servers.gave_nonce(BOB, nonce)
    assert servers.nonce(BOB) == "right"


def test_a_clock_does_not_drop_a_nonce() -> None:
    servers = Servers()
    servers.gave_nonce(BOB, "n")
    servers.showed_time(BOB, formatdate(time.time() + 60, usegmt=True), servers.clock())
    assert servers.nonce(BOB) == "n"


def test_the_memory_is_bounded_and_forgets_who_said_nothing_for_longest() -> None:
    servers = Servers()
    for number in range(1025):
        servers.gave_nonce(pin(f"http://s{number}"), "n")
        servers.gave_nonce(BOB, f"n-{number}")

    assert len(servers._servers) == 1024
    assert servers.nonce(BOB) == "n-1024"
    assert servers.nonce(pin("http://s0")) == ""
    assert servers.nonce(pin("http://s1024")) == "n"


def test_that_a_new_proof_did_not_help_is_of_one_server_and_bounded_as_all_else() -> None:
    machine = Machine()
    servers = machine.servers
    servers.gave_nonce(BOB, "n")
    servers.refused_new_proof(BOB)
    assert not servers.worth_new_proof(BOB)
    assert servers.worth_new_proof(CHARLES)
    assert servers.nonce(BOB) == "n"
    machine.hear(NOW)
    machine.pass_by(9.9)
    assert not servers.worth_new_proof(BOB)
    machine.pass_by(0.1)
    assert servers.worth_new_proof(BOB)
    for number in range(1025):
        servers.refused_new_proof(pin(f"http://s{number}"))
    assert len(servers._servers) == 1024


def test_a_forked_child_has_a_lock_of_its_own() -> None:
    servers = Servers()
    servers.gave_nonce(BOB, "n")
    thread = threading.Thread(target=servers._lock.acquire)  # as one of the parent's
    thread.start()
    thread.join()
    servers.after_fork()
    servers.gave_nonce(BOB, "n-2")
    assert servers.nonce(BOB) == "n-2"

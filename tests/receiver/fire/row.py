"""One row of the table: a fault, what is promised through it, and how it is played."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.receiver.fire.scene import Scene
from tests.receiver.fire.service import HOUR, SPACING, Service, Tally

__all__ = ["RETRY", "ROWS", "Expectation", "Row", "row", "running", "through"]

RETRY = 6.0  # the longest rest after a failure, jitter included, is 5.5 s


@dataclass(frozen=True)
class Expectation:
    """A fault, and what is promised through it."""

    fault: str
    promise: str
    refused: int
    """How many valid requests may be answered 401."""
    unavailable: bool
    """Whether there is a time beyond the limits, in which valid requests are answered 503."""

    def check(self, tally: Tally) -> None:
        """Hold a run to the promise."""
        assert tally.valid > 0
        assert tally.others == []
        assert tally.refused <= self.refused
        assert (tally.unavailable > 0) is self.unavailable
        assert tally.forged > 0
        assert tally.let_in == 0
        assert tally.fetches
        # A fetch is noted when it arrives, and on a busy machine one is longer on its way than another.
        assert tally.least_distance >= SPACING - 1


@dataclass(frozen=True)
class Row(Expectation):
    """A row that is played with the embedded issuer, in a folder of its own."""

    play: Callable[[Path], Tally]


ROWS: list[Row] = []


def row(
    fault: str, promise: str, *, refused: int = 0, unavailable: bool = False
) -> Callable[[Callable[[Path], Tally]], Callable[[Path], Tally]]:
    """Add a play to the table."""

    def add(play: Callable[[Path], Tally]) -> Callable[[Path], Tally]:
        ROWS.append(Row(fault, promise, refused, unavailable, play))
        return play

    return add


@contextmanager
def running(*, unseen: bool = False) -> Iterator[Scene]:
    """Give a service that has its keys."""
    with Scene(unseen=unseen) as scene:
        scene.keycloak_starts()
        scene.service_starts()
        yield scene


def through(scene: Service, seconds: float, step: float, *, each: int = 1) -> None:
    """Let a time pass with some valid requests in every step, and new tokens and forged ones now and then."""
    until = scene.time.monotonic() + seconds
    renewed = -HOUR
    while (now := scene.time.monotonic()) < until:
        if now - renewed >= min(120, seconds / 20):
            renewed, token = now, scene.token()
            scene.forged()
        scene.valid(*[token] * each)
        scene.pass_time(step)

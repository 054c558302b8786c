"""The caller's part of the run."""

from dataclasses import dataclass

from benchmarks import machine
from benchmarks.caller import attach, bursts, memory, outage
from benchmarks.caller.figures import CallerFigures
from benchmarks.realm import issuer

PACKAGES = ("s2s-fastapi", "httpx", "httpx2", "httpcore", "httpx-auth", "Authlib")


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    most_callers: int
    outage_seconds: float
    keys: int


WHOLE = Extent(rounds=600, most_callers=2000, outage_seconds=60, keys=1000)
QUICK = Extent(rounds=20, most_callers=100, outage_seconds=5, keys=50)


def measure(extent: Extent, machine_then: dict[str, str]) -> CallerFigures:
    """Return everything; what needs quiet comes first, then the outage and the memory at once."""
    print("caller: CPU time ...", flush=True)
    realm = issuer()
    with realm.serving():
        attached = attach.measure(realm, extent.rounds)
    print("caller: bursts ...", flush=True)
    stormed = bursts.measure(extent.most_callers)
    print("caller: outage, memory ...", flush=True)
    without = outage.started(extent.outage_seconds)
    return CallerFigures(
        attach=attached,
        bursts=stormed,
        kept=memory.measure(extent.keys),
        outages=outage.finished(without),
        outage_seconds=extent.outage_seconds,
        how=f"CPU: {extent.rounds} rounds of {attach.BATCH} flows of each row, the rows shuffled in each round. Bursts: each once, in a"
        f" process of its own, at an issuer that answers after {bursts.ANSWER_SECONDS:g} s; given up after {bursts.LIMIT_SECONDS:g} s. Outage:"
        f" {outage.CALLERS} callers of each row, a call every {outage.PAUSE_SECONDS:g} s. All on loopback, in one run.",
        machine=machine_then,
        versions=machine.versions(PACKAGES),
    )

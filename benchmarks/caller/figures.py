"""The figures of the caller's run as values: plain numbers, without what measured them."""

from dataclasses import dataclass

from benchmarks.caller.rows import Attach, Burst, Outage
from benchmarks.figures import Figure


@dataclass(frozen=True)
class Stormed:
    """What a cold burst came to."""

    requests: int
    """Token requests that the issuer saw."""
    served: int
    """Callers who had a token in the end."""
    tokens: int
    """How many different ones they had."""
    seconds: float
    """Until the last of those had it."""
    cut: bool
    """Callers still waited when the measurement was given up."""


@dataclass(frozen=True)
class Endured:
    """What an outage came to."""

    calls: int
    failed: int
    """Calls for which there was no token."""
    requests: int
    """Token requests while there was no answer."""


@dataclass(frozen=True)
class Kept:
    """What one more key keeps: bytes of Python's objects, and bytes of the process."""

    keys: int
    traced: float
    resident: float


@dataclass(frozen=True)
class CallerFigures:
    """Everything of the caller that one run measured."""

    attach: dict[Attach, Figure]
    bursts: dict[Burst, Stormed]
    outages: dict[Outage, Endured]
    outage_seconds: float
    kept: Kept
    how: str
    machine: dict[str, str]
    versions: dict[str, str]

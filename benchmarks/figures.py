"""The figures of one run as values: plain numbers, without what measured them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """Microseconds of CPU for one call: the low and the high percentile of its batches, and the low one in each fifth of the run."""

    low: float
    high: float
    blocks: tuple[float, ...]


@dataclass(frozen=True)
class Throughput:
    """What one kind of server did with the bare app, the floor and the guarded one: medians of all rounds."""

    rates: tuple[float, ...]
    """Requests per second."""
    cpu: tuple[float, ...]
    """Microseconds of the server's CPU for one request: it holds where something else takes a part of the core."""
    floor_keeps: tuple[float, float, float]
    """Percent of the bare app's rate in the same round: median, lowest and highest."""
    guarded_keeps: tuple[float, float, float]
    over_floor: tuple[float, float, float]
    """The guarded app's rate over the floor's in the same round."""


@dataclass(frozen=True)
class OtherPython:
    """Microseconds of CPU for one request with a repeated token, on another Python."""

    version: str
    bare: float
    floor: float
    ours: float

    @property
    def times_floor(self) -> float:
        """What ours costs, over what the floor costs."""
        return (self.ours - self.bare) / (self.floor - self.bare)


@dataclass(frozen=True)
class Memory:
    """Bytes that one verified token keeps, and resident megabytes after so many distinct ones."""

    per_token: float
    growth: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Imports:
    """Milliseconds of CPU for fastapi and httpx, for what comes after them, and s2s_fastapi in percent of the first."""

    before: float
    ours: float
    receiver: float
    """What a receiving service takes out of s2s_fastapi after that."""
    caller: float
    """What a calling service takes out of it, after that."""
    more: tuple[float, float, float]
    """Median, and the percentiles 20 and 80."""
    modules: int
    parts: tuple[tuple[str, float], ...]
    """What it consists of: the packages that come in with it, in milliseconds of their own, largest first."""

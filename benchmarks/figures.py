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
    """Median requests per second of each app, and what the others keep of the bare one's, in percent: median, lowest, highest round."""

    bare: float
    floor: float
    guarded: float
    floor_keeps: tuple[float, float, float]
    guarded_keeps: tuple[float, float, float]


@dataclass(frozen=True)
class Memory:
    """Bytes that one verified token keeps, and resident megabytes after so many distinct ones."""

    per_token: float
    growth: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Imports:
    """Milliseconds of CPU for fastapi and httpx, for s2s_fastapi after them, and the second in percent of the first."""

    before: float
    ours: float
    more: tuple[float, float, float]
    """Median, and the percentiles 20 and 80."""
    modules: int
    parts: tuple[tuple[str, float], ...]
    """What it consists of: the packages that come in with it, in milliseconds of their own, largest first."""

"""The time of an issuer and of all that trusts it: one value that a test turns."""

import time
from collections.abc import Callable

__all__ = ["IssuerTime"]


class IssuerTime:
    """Turns the clocks of the issuer, of the receivers and of the callers together.

    Time goes on by itself as well. What waits for the real clock (the read timeout of a connection) is not turned.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._turned = 0.0

    def forward(self, seconds: float) -> None:
        """Let `seconds` pass at once; a negative number turns the clocks back."""
        self._turned += seconds

    def reset(self) -> None:
        """Turn the clocks back to the real time."""
        self._turned = 0.0

    def now(self) -> float:
        """Return the seconds since the epoch."""
        return self._clock() + self._turned

    def monotonic(self) -> float:
        """Return the seconds of a monotonic clock that was turned as far."""
        return time.monotonic() + self._turned

    def __repr__(self) -> str:
        return f"IssuerTime(turned {self._turned:+g} s)"

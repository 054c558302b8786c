"""The seam for whoever wants to see decisions."""

from typing import Protocol

from s2s_fastapi.decision import Decision

__all__ = ["Observer"]


class Observer(Protocol):
    """Whoever wants to see decisions: called once for each, on the request's own thread, so it must not block.

    An observer with an attribute ``wants_allowed`` that is false is told of refusals only.
    """

    def decided(self, decision: Decision) -> None:
        """Take note of one decision."""

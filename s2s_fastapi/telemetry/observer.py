"""The interface for code that observes decisions."""

from typing import Protocol

from s2s_fastapi.decision import Decision

__all__ = ["Observer"]


class Observer(Protocol):
    """Gets each decision once, on the thread of the request, so it must not block.

    An observer with a false attribute ``wants_allowed`` gets only refusals.
    """

    def decided(self, decision: Decision) -> None:
        """Observe one decision."""

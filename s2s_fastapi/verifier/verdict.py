"""What the verifier says about one token."""

from dataclasses import dataclass, field
from typing import Protocol

from s2s_fastapi.decision import Decision
from s2s_fastapi.principal import Principal
from s2s_fastapi.telemetry.metrics import DECISIONS, accepted_labels

__all__ = ["Judge", "Verdict"]


class Judge(Protocol):
    """Whatever can decide about a principal: a requirement."""

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide; ``client_id`` is the receiving app's own."""

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return every reason to refuse that would have to be gone, the one to answer with among them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about one token, and whom it speaks of where its signature held."""

    decisions: tuple[Decision, ...]
    """One; or several that are all only observed."""
    principal: Principal | None = None
    digest: bytes = b""
    """What stands for an accepted token where the token itself must not be kept."""
    lets_in: bool = field(init=False)
    observed: bool = field(init=False)
    """Let in although there is a reason to refuse."""
    scopes: tuple[str, ...] = field(init=False)
    """The principal's, in order: found once for each token, not at each request."""

    labels: dict[str, str] = field(init=False, repr=False, compare=False)
    """What the metrics count each acceptance with: empty before the first one is counted."""

    def __post_init__(self) -> None:
        principal, decision = self.principal, self.decision
        object.__setattr__(self, "lets_in", principal is not None and decision.lets_in)
        object.__setattr__(self, "observed", decision.observed)
        object.__setattr__(self, "labels", {})
        object.__setattr__(self, "scopes", tuple(sorted(principal.scopes)) if principal is not None else ())

    def count_acceptance(self) -> None:
        """Count one request that was accepted with this token."""
        if not self.labels:
            self.labels.update(accepted_labels(self.decision.client_id))
        DECISIONS.add(1, self.labels)

    @property
    def decision(self) -> Decision:
        """The first of the decisions."""
        return self.decisions[0]

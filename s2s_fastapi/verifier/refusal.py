"""How the steps of the receiver say no to each other."""

from s2s_fastapi.decision import Reason

__all__ = ["Refused"]


class Refused(Exception):
    """A step found a reason to refuse the token; ``cure`` and ``client_id`` may hold claim values only if the signature held.

    It never leaves the receiver: the verifier turns it into a decision.
    """

    def __init__(self, reason: Reason, cure: str = "", *, client_id: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure
        self.client_id = client_id

"""Tokens that are bound to a key (DPoP, RFC 9449): one becomes an acceptance only by the proof of the same request.

The token is verified first, as every other one (`s2s_fastapi.verifier.verifier`), and then the proof (`s2s_fastapi.proof.checked`). The
proof is remembered last, so that what is refused takes no place in the store.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import anyio

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import MANY_PROOFS, PROOF_USED, store_cure
from s2s_fastapi.proof.checked import Proof, check_proof
from s2s_fastapi.proof.replay import InProcessReplayStore, ReplayQuota, ReplayStore
from s2s_fastapi.verifier.bearer import token_in
from s2s_fastapi.verifier.public_url import PublicUrls, checked_urls
from s2s_fastapi.verifier.realms import RealmsVerifier
from s2s_fastapi.verifier.verdict import BoundVerdict, Verdict
from s2s_fastapi.verifier.verifier import Verifier

__all__ = ["BoundTokens", "DpopMode", "Proving", "ProvingOptions"]

DpopMode = Literal["accepted", "required"]

_STORE: Final = 0.6
"""Seconds for which a store may look for a proof, all in all."""
_RETRY_AFTER: Final = 1
_MODES: Final = ("accepted", "required")


@dataclass(frozen=True, slots=True)
class Proving:
    """What one request brings to prove that it comes from the owner of its token, and what the proof must name."""

    values: tuple[bytes, ...] = field(repr=False)
    """Of all its DPoP headers."""
    method: str
    """As on the wire; GET for a WebSocket."""
    urls: Collection[str]
    """Normalised; see `PublicUrls.of_request`."""

    @classmethod
    def of(cls, scope: Any, urls: PublicUrls, root_path: str | None = None) -> "Proving":
        """Read a request or the handshake of a WebSocket. What a header says of its host or its scheme is not looked at."""
        method = "GET" if scope["type"] == "websocket" else scope["method"]
        return cls(proofs_in(scope["headers"]), method, urls.of_request(scope, root_path))


class BoundTokens:
    """Decide about requests under the scheme DPoP. The verifier is the one of bearer tokens, and remembers these beside them."""

    def __init__(self, verifier: Verifier | RealmsVerifier, store: ReplayStore | None = None) -> None:
        """Take what verifies the tokens, and the store of proofs. Without one they are remembered in this process."""
        self._verifier = verifier
        self.store = InProcessReplayStore() if store is None else store
        self._quota = ReplayQuota()

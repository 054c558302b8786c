"""What the verifier says about one token."""

from dataclasses import replace
from functools import lru_cache
from typing import Protocol

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import NO_PROOF, WITHOUT_REQUEST, shown
from s2s_fastapi.principal import Principal
from s2s_fastapi.proof.checked import Proof
from s2s_fastapi.telemetry.metrics import DECISIONS, accepted_labels
from s2s_fastapi.verifier.client_certificate import MatchedCertificate

__all__ = ["BoundVerdict", "Judge", "Verdict"]


class Judge(Protocol):
    """Whatever can decide about a principal: a requirement."""

    @property
    def needs_credentials(self) -> bool:
        """Whether a request without credentials is refused on an optional path, too."""

    def judge(self, principal: Principal, client_id: str = "") -> Decision:
        """Decide; ``client_id`` is the receiving app's own."""

    def refusals(self, principal: Principal, client_id: str = "") -> tuple[Decision, ...]:
        """Return every reason to refuse that would have to be gone, the one to answer with among them."""


class Verdict:
    """What was decided about one token, and which caller it describes if its signature held. Nobody changes it."""

    __slots__ = ("_decisions", "_kid", "_labels", "accepted", "begins", "digest", "observed", "principal", "scopes")

    def __init__(
        self,
        decisions: tuple[Decision, ...],
        principal: Principal | None = None,
        digest: bytes = b"",
        kid: str = "",
        begins: float = 0,
    ) -> None:
        """Take one refusal, or several that are all only observed; none for a ``principal`` that is accepted.

        - ``digest`` stands for an accepted token: the token itself is not kept.
        - ``kid`` names the key of an accepted token.
        - ``begins`` is the moment, in seconds since the epoch, from which on an accepted token is old enough.
        """
        self._decisions = decisions
        self._kid = kid
        self._labels: dict[str, str] | None = None
        self.principal = principal
        self.digest = digest
        self.begins = begins
        self.accepted = principal is not None and (not decisions or decisions[0].accepted)
        self.observed = bool(decisions) and decisions[0].observed
        """Accepted although there is a reason to refuse."""
        self.scopes: tuple[str, ...] = () if principal is None else _in_order(principal.scopes)
        """The principal's, in order: sorted once for each token, not at each request."""

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """One decision, or several that are all only observed. For an accepted token it is made when somebody asks for it."""
        principal = self.principal
        if not self._decisions and principal is not None:
            allowed = Decision(
                reason=Reason.ALLOWED,
                kid=shown(self._kid),
                client_id=shown(principal.client_id),
                user=shown(principal.subject) if principal.kind == "user" else "",
                token_id=shown(principal.token_id),
                issuer=shown(principal.issuer),
                binding=principal.binding,
            )
            self._decisions = (allowed,)
        return self._decisions

    @property
    def decision(self) -> Decision:
        """The first of the decisions."""
        return self.decisions[0]

    def with_token(self, decision: Decision, receiver: str) -> Decision:
        """Return a requirement's decision with what is known of this token. ``receiver``: the client id of the service that was called."""
        known, principal = self.decision, self.principal
        return replace(
            decision,
            client_id=known.client_id,
            user=known.user,
            token_id=known.token_id,
            issuer=known.issuer,
            kid=known.kid,
            binding=known.binding,
            receiver="" if principal is None or principal.kind == "user" or principal.other_realm else receiver,
        )

    def __eq__(self, other: object) -> bool:
        """Return whether the other says the same of the same token."""
        if not isinstance(other, Verdict):
            return NotImplemented
        return (self.decisions, self.principal, self.digest) == (other.decisions, other.principal, other.digest)

    def __hash__(self) -> int:
        return hash((self.decisions, self.principal, self.digest))

    def count_acceptance(self) -> None:
        """Count one request that was accepted with this token."""
        labels = self._labels
        if labels is None:
            principal = self.principal
            client_id, issuer = ("", "") if principal is None else (shown(principal.client_id), shown(principal.issuer))
            self._labels = labels = accepted_labels(client_id, issuer)
        DECISIONS.add(1, labels)


class BoundVerdict(Verdict):
    """What was decided about a token that is bound to a key (RFC 7800 section 3.1). By itself it is a refusal: nothing shows that its owner sent it.

    So a token that is remembered, or a verdict that code takes for another one, lets nobody in. `proven` returns the acceptance, for one
    request, after the proof and the certificate of that request were checked.
    """

    __slots__ = ("certificate", "of_token", "receiver", "thumbprint")

    def __init__(self, of_token: Verdict, thumbprint: str, receiver: str = "", *, certificate: str = "") -> None:
        """Take what was decided about the token alone, what it is bound to, and who was called.

        - ``thumbprint`` is that of the key of its proofs (``cnf.jkt``, RFC 9449 section 6.1); empty if it needs no proof.
        - ``certificate`` is that of the client certificate (``cnf["x5t#S256"]``, RFC 8705 section 3.1); empty if it needs none.
        """
        self.of_token = of_token
        """What is remembered, and for how long, depends on it. It accepts no request."""
        self.thumbprint = thumbprint
        self.certificate = certificate
        self.receiver = receiver
        missing = (
            Decision(reason=Reason.PROOF_MISSING, cure=NO_PROOF)
            if thumbprint
            else Decision(reason=Reason.CERTIFICATE_MISSING, cure=WITHOUT_REQUEST)
        )
        super().__init__((self._refusal(missing),), begins=of_token.begins)

    @property
    def owner(self) -> Principal:
        """Who owns the token. Whether the owner sent it is not known yet."""
        principal = self.of_token.principal
        assert principal is not None  # noqa: S101 - only an accepted token becomes such a verdict
        return principal

    def refused(self, refusal: Decision) -> Verdict:
        """Return the refusal of one request, with what the token's signature vouches for."""
        return Verdict((self._refusal(refusal),))

    def proven(self, proof: Proof | None = None, certificate: MatchedCertificate | None = None) -> Verdict:
        """Return the acceptance of the one request whose proof was checked and is new, and whose certificate is the token's.

        Nobody gets an acceptance without all that the token is bound to: this refusal comes back.
        """
        if self.thumbprint and proof is None:
            return self
        if self.certificate and (certificate is None or certificate.thumbprint != self.certificate):
            return self
        return self.of_token if self.thumbprint or self.certificate else self

    def _refusal(self, refusal: Decision) -> Decision:
        return self.of_token.with_token(refusal, self.receiver)


@lru_cache(maxsize=256)
def _in_order(scopes: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(scopes))

"""What one service expects of every token: the checks of a payload whose signature held, all of them pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Self

from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.keycloak.cures import audience_cure, binding_cure, issuer_cure, shown, type_cure
from s2s_fastapi.principal import Principal, digest
from s2s_fastapi.text import named
from s2s_fastapi.verifier.claims import read_principal, seconds
from s2s_fastapi.verifier.refusal import Refused
from s2s_fastapi.verifier.verdict import Judge, Verdict

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Expectations"]

_LONGEST_LIFE: Final = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectations:
    """The issuer, the audiences, the kind of callers and the tolerance of one service."""

    issuer: str
    audiences: frozenset[str]
    """Empty only where the audience is skipped on purpose."""
    leeway: float
    """Seconds by which the clocks of Keycloak and this service may differ."""
    who: Judge | None = None
    """Which kind of callers is let in at all; None leaves that to whoever asks."""

    @classmethod
    def of(cls, settings: "KeycloakSettings", audiences: frozenset[str], who: Judge | None = None) -> Self:
        """Return what the settings say, with these audiences and this kind of callers."""
        return cls(issuer=settings.issuer, audiences=audiences, leeway=settings.leeway, who=who)

    def judge(
        self,
        claims: dict[str, Any],
        *,
        kid: str,
        not_before: int,
        now: float,
        observing: bool = False,
        token: bytes = b"",
    ) -> Verdict:
        """Decide about a payload whose signature held; ``now`` and the realm's ``not_before`` are seconds since the epoch.

        - While ``observing`` a wrong audience and a wrong kind of caller are told and let in.
        - ``token`` is the one that the payload came in: the verdict keeps its digest if it is let in.
        """
        principal: Principal | None = None
        observed, mark = False, b""
        try:
            _check_type(claims)
            principal = read_principal(claims)
            self._check_issuer(principal)
            self._check_life(principal, claims, now)
            self._check_time(principal, not_before, now)
            _check_order(principal)
        except Refused as refused:
            refusals = [(refused.reason, refused.cure)]
        else:
            refusals = list(self._misdirected(principal))
            observed = observing
            if token and (observed or not refusals):
                mark = digest(token)
            if not refusals:
                return Verdict((), principal, mark, kid)
        known = Decision(
            reason=Reason.ALLOWED,
            kid=shown(kid),
            client_id=shown(claims.get("azp", "")),
            token_id=shown(claims.get("jti", "")),
            issuer=shown(claims.get("iss", "")),
        )
        decisions = [replace(known, reason=reason, cure=cure, observed=observed) for reason, cure in refusals]
        if not observed:
            del decisions[1:]
        return Verdict(tuple(decisions), principal, mark)

    def begins(self, principal: Principal) -> float:
        """Return from when on, in seconds since the epoch, a token is old enough."""
        not_before = principal.claims.get("nbf") or 0
        return max(principal.issued_at, int(not_before)) - self.leeway

    def ends(self, principal: Principal) -> float:
        """Return from when on, in seconds since the epoch, a token has expired."""
        return principal.expires_at + self.leeway

    def _check_time(self, principal: Principal, not_before: int, now: float) -> None:
        """Refuse a token that time or a revocation has overtaken."""
        if now >= self.ends(principal):
            raise Refused(
                Reason.EXPIRED,
                f"token of {named(principal.client_id)} expired {now - principal.expires_at:.0f} s ago. Callers must request a new one "
                "before expires_in is over. If they do, compare the clocks of this host and of Keycloak (NTP).",
            )
        if principal.issued_at < not_before:
            raise Refused(
                Reason.REVOKED,
                f"token of {named(principal.client_id)} was issued before the realm's not-before (Sessions, Revocation). Callers "
                "must request a new one.",
            )

    def _check_issuer(self, principal: Principal) -> None:
        if principal.issuer != self.issuer:
            raise Refused(Reason.WRONG_ISSUER, issuer_cure(principal, self.issuer))

    def _check_life(self, principal: Principal, claims: dict[str, Any], now: float) -> None:
        latest = now + self.leeway
        not_before = claims.get("nbf", 0)
        # Old servers write nbf: 0; false equals it, but is no date.
        if (isinstance(not_before, bool) or not_before != 0) and seconds(claims, "nbf") > latest:
            raise Refused(Reason.NOT_YET_VALID, _too_early(principal, "nbf", claims["nbf"] - now))
        if principal.issued_at > latest:
            raise Refused(Reason.NOT_YET_VALID, _too_early(principal, "iat", principal.issued_at - now))
        if principal.expires_at - principal.issued_at > _LONGEST_LIFE:
            raise Refused(
                Reason.LIFETIME_TOO_LONG,
                f"token of {named(principal.client_id)} lives {(principal.expires_at - principal.issued_at) / 3600:.1f} h, longer than 24 h. "
                "Shorten “Access Token Lifespan” of the client (Advanced) or the realm (Realm settings, Tokens).",
            )

    def _misdirected(self, principal: Principal) -> Iterator[tuple[Reason, str]]:
        """Yield why a token that is good in itself is none for this service."""
        if self.audiences and self.audiences.isdisjoint(principal.audiences):
            yield Reason.WRONG_AUDIENCE, audience_cure(principal, self.audiences)
        if self.who is not None and (decision := self.who.judge(principal)).reason is not Reason.ALLOWED:
            yield decision.reason, decision.cure


def _check_type(claims: dict[str, Any]) -> None:
    if "cnf" in claims:
        raise Refused(Reason.SENDER_CONSTRAINED, binding_cure(claims))
    kind = claims.get("typ")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise Refused(Reason.WRONG_TYPE, type_cure(claims))


def _check_order(principal: Principal) -> None:
    """Refuse a token that never was valid: the tolerance for clocks must not give it a life."""
    if principal.expires_at <= principal.issued_at:
        raise Refused(
            Reason.MALFORMED_CLAIMS,
            f"token of {named(principal.client_id)} has an exp that is not after its iat. Raise “Access Token Lifespan” of the client "
            "(Advanced) or the realm (Realm settings, Tokens).",
        )


def _too_early(principal: Principal, claim: str, seconds_ahead: float) -> str:
    return (
        f"token of {named(principal.client_id)} has {claim} {seconds_ahead:.0f} s in the future. Compare the clocks of this host and of "
        "Keycloak (NTP)."
    )

"""What one service checks in every token whose signature held: an ordered table of pure functions."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Self

from s2s_fastapi.accepted import digest
from s2s_fastapi.backchannel.strict_json import json_object
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.keycloak.cures import (
    CLOCKS,
    audience_cure,
    bearer_cure,
    binding_cure,
    confirmation_cure,
    issuer_cure,
    not_bound_cure,
    shown,
    type_cure,
)
from s2s_fastapi.principal import Binding, Payload, Principal
from s2s_fastapi.text import named
from s2s_fastapi.verifier.bearer import is_dpop, token_in
from s2s_fastapi.verifier.claims import read_principal
from s2s_fastapi.verifier.jws import Jws
from s2s_fastapi.verifier.verdict import BoundVerdict, Judge, Verdict

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["CHECKS", "MAX_LIFETIME", "Checks"]

MAX_LIFETIME: Final = 24 * 3600
"""Seconds that a token may live, from ``iat`` to ``exp``, unless the service says otherwise."""
_LIFETIMES: Final = (60, 30 * MAX_LIFETIME)
"""What a service may say. A token that lives for longer than a month is a password that nobody can take back."""
_HOUR: Final = 3600
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
"""SHA-256 in base64url (RFC 7638 section 3)."""
_OTHER_BINDINGS: Final = frozenset({"jwk", "jwe", "kid", "jku"})
"""Further ways to bind a token (RFC 7800 section 3). Nobody here checks them, so they must not be taken for checked."""
_PREFIX: Final = "KEYCLOAK_"
_UNREAD: Final = Principal(client_id="", kind="unknown", issuer="", issued_at=0, expires_at=0)


class _Presented:
    """One token whose signature held, while the checks look at it."""

    __slots__ = ("claims", "dpop", "expected", "kid", "nbf", "not_before", "now", "payload", "principal")

    def __init__(
        self,
        expected: "Checks",
        jws: Jws,
        claims: dict[str, Any],
        not_before: int,
        now: float,
        *,
        dpop: bool = False,
    ) -> None:
        self.expected = expected
        self.claims = claims
        self.dpop = dpop
        self.payload = jws.payload
        self.kid = jws.kid
        self.not_before = not_before
        self.now = now
        self.principal = _UNREAD
        self.nbf = 0

    def refusal(self, reason: Reason, cure: str) -> Decision:
        """Return a refusal of this token, with the values that its signature vouches for."""
        claims = self.claims
        return Decision(
            reason=reason,
            cure=cure,
            kid=shown(self.kid),
            client_id=shown(claims.get("azp", "")),
            user=shown(self.principal.subject) if self.principal.kind == "user" else "",
            token_id=shown(claims.get("jti", "")),
            issuer=shown(self.expected.issuer),  # whose key signed it; what the token says stands in the cure
            binding=_bindings(claims).name,
            receiver=self.receiver,
        )

    @property
    def receiver(self) -> str:
        """The service that was called, as `Decision.receiver` has it."""
        expected = self.expected
        return min(expected.audiences, default="") if expected.first and self.principal.kind != "user" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The values that one service compares each token with: the issuer, the audiences, the kind of callers, the tolerance."""

    issuer: str
    audiences: frozenset[str]
    """Empty only if the audience is skipped on purpose."""
    leeway: float
    """Seconds by which the clocks of Keycloak and this service may differ."""
    accepts: Judge | None = None
    """Which kind of callers is accepted at all. If it is None, whoever asks decides that."""
    audience_setting: str = ""
    """The variable that names the audiences; empty if the code names them."""
    max_lifetime: float = MAX_LIFETIME
    """Seconds that a token may live, from ``iat`` to ``exp``."""
    prefix: str = _PREFIX
    """The beginning of the names of the variables from which the settings were read."""
    realm: str = ""
    """The name of the realm in this service: see `KeycloakSettings.name`."""
    first: bool = True
    """Whether it is the realm that requirements mean if they name none."""
    dpop: Literal["", "accepted", "required"] = ""
    """Whether the service accepts tokens under the scheme DPoP, beside those under Bearer or alone."""
    certificate: bool = False
    """Whether the service accepts tokens that are bound to a client certificate."""

    def __post_init__(self) -> None:
        value: object = self.max_lifetime
        least, most = _LIFETIMES
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise ConfigurationError(
                f"max_lifetime takes a number of seconds from {least} to {most} (30 days), not {value!r}. For 8 hours write"
                " max_lifetime=8 * 3600."
            )

    @classmethod
    def of(
        cls,
        settings: "KeycloakSettings",
        audiences: frozenset[str],
        accepts: Judge | None = None,
        *,
        first: bool = True,
        max_lifetime: float = MAX_LIFETIME,
        dpop: Literal["", "accepted", "required"] = "",
        certificate: bool = False,
    ) -> Self:
        """Return what the settings say, with these audiences, this kind of callers and this limit for a token's life.

        Raises:
            ConfigurationError: ``max_lifetime`` is not a number of seconds from 60 to 2,592,000 (30 days).
        """
        named_by_settings = audiences == settings.audiences
        return cls(
            issuer=settings.issuer,
            audiences=audiences,
            leeway=settings.leeway,
            accepts=accepts,
            audience_setting=("KEYCLOAK_AUDIENCE" if settings.audience else "KEYCLOAK_CLIENT_ID")
            if named_by_settings
            else "",
            max_lifetime=max_lifetime,
            prefix=settings.worded(_PREFIX),
            realm=settings.name,
            first=first,
            dpop=dpop,
            certificate=certificate,
        )

    def judge(
        self,
        jws: Jws,
        claims: dict[str, Any],
        *,
        not_before: int,
        now: float,
        credentials: bytes,
        observing: bool = False,
    ) -> Verdict:
        """Decide about a token whose signature held.

        - The key of this realm made the signature; whether the token names this realm is one of the checks.
        - ``now`` and the realm's ``not_before`` are in seconds since the epoch.
        - While ``observing`` a wrong audience and a wrong kind of caller are reported and accepted.
        - ``credentials`` are the scheme and the token: if it is accepted, the verdict keeps the token's digest.
        - What is good and bound is a `BoundVerdict`, which accepts no request by itself.
        """
        dpop = is_dpop(credentials)
        presented = _Presented(self, jws, claims, not_before, now, dpop=dpop)
        refusals: list[Decision] = []
        for reason, check in CHECKS:
            if cure := check(presented):
                refusals.append(presented.refusal(reason, cure))
                if not (observing and reason in _OBSERVED):
                    break
        else:
            accepts = self.accepts
            if accepts is not None and (found := accepts.judge(presented.principal)).reason is not Reason.ALLOWED:
                refusals.append(presented.refusal(found.reason, found.cure))
            if not refusals or observing:
                observed = tuple(replace(refusal, observed=True) for refusal in refusals)
                begins = max(presented.principal.issued_at, presented.nbf) - self.leeway
                if "cnf" not in claims:
                    return Verdict(observed, presented.principal, digest(token_in(credentials)), jws.kid, begins)
                bound = _bindings(claims)
                principal = replace(presented.principal, binding=bound.name)
                verdict = Verdict(observed, principal, digest(token_in(credentials)), jws.kid, begins)
                return BoundVerdict(verdict, bound.key, presented.receiver, certificate=bound.certificate)
        principal = presented.principal
        return Verdict((refusals[0],), None if principal is _UNREAD else principal)

    def refusals(
        self, jws: Jws, claims: dict[str, Any], *, not_before: int, now: float, dpop: bool = False
    ) -> tuple[tuple[Decision, ...], Principal | None]:
        """Return every check that a token does not pass, in their order, and the caller if it can be read.

        `judge` stops at the first, which is what a service answers. After a malformed claim the others are not looked at. With ``dpop`` the
        token is under the scheme DPoP.
        """
        presented = _Presented(self, jws, claims, not_before, now, dpop=dpop)
        refusals: list[Decision] = []
        for reason, check in CHECKS:
            if cure := check(presented):
                refusals.append(presented.refusal(reason, cure))
            if reason is Reason.MALFORMED_CLAIMS and presented.principal is _UNREAD:
                return tuple(refusals), None
        return tuple(refusals), presented.principal

    def worded(self, sentence: str) -> str:
        """Return a sentence with the prefix of the settings in the names of their variables."""
        return sentence if self.prefix == _PREFIX else sentence.replace(_PREFIX, self.prefix)

    def ends(self, principal: Principal) -> float:
        """Return the moment, in seconds since the epoch, from which on a token is expired."""
        return principal.expires_at + self.leeway


class _Bindings(NamedTuple):
    """What a token is bound to: the thumbprints that the request must match, each empty if it is not bound in that way."""

    key: str = ""
    """Of the key of its DPoP proofs (RFC 9449 section 6.1)."""
    certificate: str = ""
    """Of its client certificate (RFC 8705 section 3.1)."""

    @property
    def name(self) -> Binding:
        """The binding as `Principal.binding` has it."""
        return "dpop" if self.key else "certificate" if self.certificate else ""


_UNKNOWN: Final = _Bindings()


def _bindings(claims: dict[str, Any]) -> _Bindings:
    """Return what a token is bound to; nothing at all if one of its bindings is malformed, or of a kind that nobody here checks.

    ``cnf`` alone decides (RFC 9449 section 6.1). Members of it that nobody here knows are ignored, as RFC 7800 section 3.1 says.
    """
    bound = claims.get("cnf")
    if not isinstance(bound, dict) or not _OTHER_BINDINGS.isdisjoint(bound):
        return _UNKNOWN
    found = {name: bound[name] for name in ("jkt", "x5t#S256") if name in bound}
    if not all(isinstance(each, str) and _THUMBPRINT.fullmatch(each) for each in found.values()):
        return _UNKNOWN
    return _Bindings(found.get("jkt", ""), found.get("x5t#S256", ""))


def _bound_to_a_key(token: _Presented) -> str:
    """Refuse a bound token whose bindings this request cannot show: each one must be of a kind that the service checks.

    A token with a key is sent under the scheme DPoP (RFC 9449 section 7.2), one with a certificate alone under Bearer (RFC 8705 section 3).
    """
    if "cnf" not in token.claims:
        return ""
    bound, takes = _bindings(token.claims), token.expected.certificate
    if bound.name and bool(bound.key) == token.dpop and (takes or not bound.certificate):
        return ""
    if token.dpop:
        return confirmation_cure(token.claims, certificate=takes)
    return binding_cure(token.claims, dpop=token.expected.dpop, certificate=takes)


def _not_bound(token: _Presented) -> str:
    """Refuse a token under the scheme DPoP that is bound to no key: no proof says anything about who sent it."""
    return not_bound_cure(token.claims) if token.dpop and "cnf" not in token.claims else ""


def _not_an_access_token(token: _Presented) -> str:
    kind = token.claims.get("typ")
    # What is under DPoP here is bound: the check above. Keycloak also writes DPoP into a token that is bound to a certificate alone.
    accepted = ("bearer", "dpop") if token.dpop or "cnf" in token.claims else ("bearer",)
    return "" if isinstance(kind, str) and kind.lower() in accepted else type_cure(token.claims)


def _malformed(token: _Presented) -> str:
    """Read the principal and ``nbf``, which the checks below look at; return what is wrong with a claim."""
    expected = token.expected
    found = read_principal(
        token.claims,
        Payload(token.payload, json_object),
        realm=expected.realm,
        other_realm="" if expected.first else expected.realm or expected.issuer,
    )
    if isinstance(found, Decision):
        return found.cure
    token.principal, token.nbf = found
    return ""


def _of_another_issuer(token: _Presented) -> str:
    principal, expected = token.principal, token.expected
    return "" if principal.issuer == expected.issuer else expected.worded(issuer_cure(principal, expected.issuer))


def _not_yet_valid(token: _Presented) -> str:
    principal, now = token.principal, token.now
    latest = now + token.expected.leeway
    for claim, moment in (("nbf", token.nbf), ("iat", principal.issued_at)):
        if moment > latest:
            return f"token of {named(principal.client_id)} has {claim} {moment - now:.0f} s in the future. {CLOCKS}"
    return ""


def _too_long(token: _Presented) -> str:
    principal = token.principal
    life = principal.expires_at - principal.issued_at
    if life <= token.expected.max_lifetime:
        return ""
    longest = token.expected.max_lifetime
    lives = f"{life / _HOUR:.1f} h" if longest >= _HOUR else f"{life} s"
    limit = f"{longest / _HOUR:g} h" if longest >= _HOUR else f"{longest:g} s"
    said = limit if longest == MAX_LIFETIME else f"{limit}, the max_lifetime of this service"
    return (
        f"token of {named(principal.client_id)} lives {lives}, longer than {said}. Shorten “Access Token Lifespan” of the client "
        "(Advanced) or the realm (Realm settings, Tokens)."
    )


def _expired(token: _Presented) -> str:
    principal, now = token.principal, token.now
    if now < token.expected.ends(principal):
        return ""
    return (
        f"token of {named(principal.client_id)} expired {now - principal.expires_at:.0f} s ago. Callers must request a new one before "
        "expires_in is over. If they do, compare the clocks of this host and of Keycloak (NTP)."
    )


def _revoked(token: _Presented) -> str:
    principal = token.principal
    if principal.issued_at >= token.not_before:
        return ""
    return (
        f"token of {named(principal.client_id)} was issued before the realm's not-before (Sessions, Revocation). Callers must request a "
        "new one."
    )


def _without_a_life(token: _Presented) -> str:
    """Refuse a token that never was valid: the tolerance for clocks must not give it a life."""
    principal = token.principal
    if principal.expires_at > principal.issued_at:
        return ""
    return (
        f"token of {named(principal.client_id)} has an exp that is not after its iat. Raise “Access Token Lifespan” of the client "
        "(Advanced) or the realm (Realm settings, Tokens)."
    )


def _for_another_service(token: _Presented) -> str:
    principal, expected = token.principal, token.expected
    audiences = expected.audiences
    if not audiences or not audiences.isdisjoint(principal.audiences):
        return ""
    return audience_cure(principal, audiences, expected.worded(expected.audience_setting))


def _under_bearer(token: _Presented) -> str:
    """Refuse a bearer token, which is good in itself, if the service takes only bound ones."""
    return bearer_cure(token.principal) if token.expected.dpop == "required" and not token.dpop else ""


CHECKS: Final[tuple[tuple[Reason, Callable[[_Presented], str]], ...]] = (
    (Reason.SENDER_CONSTRAINED, _bound_to_a_key),
    (Reason.NOT_BOUND, _not_bound),
    (Reason.WRONG_TYPE, _not_an_access_token),
    (Reason.MALFORMED_CLAIMS, _malformed),
    (Reason.WRONG_ISSUER, _of_another_issuer),
    (Reason.NOT_YET_VALID, _not_yet_valid),
    (Reason.LIFETIME_TOO_LONG, _too_long),
    (Reason.EXPIRED, _expired),
    (Reason.REVOKED, _revoked),
    (Reason.MALFORMED_CLAIMS, _without_a_life),
    (Reason.WRONG_AUDIENCE, _for_another_service),
    (Reason.BEARER_NOT_ACCEPTED, _under_bearer),
)
"""All checks in their order. Each returns the cure if its reason holds, or nothing. The first reason is the answer.

The kind of caller comes after them: a requirement decides that.
"""

_OBSERVED: Final = frozenset({Reason.WRONG_AUDIENCE, Reason.BEARER_NOT_ACCEPTED})
"""Reasons that observe mode only reports: such a token is good in itself."""

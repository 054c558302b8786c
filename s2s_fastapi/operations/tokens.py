"""A service's own token, requested from its environment and judged as the service that it calls will judge it."""

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from s2s_fastapi.backchannel.channel import BackChannel
from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.granted import GrantedToken, claims_of
from s2s_fastapi.caller.token_endpoint import remarks
from s2s_fastapi.caller.token_request import TokenKey, TokenRequest
from s2s_fastapi.caller.wanted import Wanted
from s2s_fastapi.decision import Decision, Reason
from s2s_fastapi.engine.loaded import Loaded
from s2s_fastapi.errors import AudienceNotGranted, S2SError, TokenRequestError
from s2s_fastapi.keycloak.cures import kind_cure
from s2s_fastapi.principal import Principal
from s2s_fastapi.requirement.requirement import Caller
from s2s_fastapi.text import named
from s2s_fastapi.verifier.predicted import predicted_principal
from s2s_fastapi.verifier.token_verifier import TokenVerifier
from s2s_fastapi.verifier.verdict import BoundVerdict, Verdict

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = [
    "TIMEOUT",
    "TokenReport",
    "decision_on",
    "described",
    "described_by",
    "kind_because",
    "nearly_named",
    "refused_json",
    "requested",
    "requested_and_judged",
    "under_dpop",
    "verdict_on",
]

TIMEOUT: Final = 5.0
"""Seconds for one request to Keycloak, as for a service."""
_CLOSE: Final = 0.85
VERSION: Final = 1
"""The version of the JSON: docs/schemas/token.schema.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenReport:
    """One token, as far as a receiver will look at it. It never contains the token: `granted` does, and no ``repr`` shows it."""

    wanted: Wanted
    decision: Decision
    """What the called service decides, before its routes are asked."""
    principal: Principal | None
    """The caller that the token describes; None if its claims cannot be read."""
    claims: Mapping[str, Any]
    remarks: tuple[str, ...] = ()
    """What is unusual about the token but may be intended."""
    verified: bool = True
    """Whether the signature was checked. It is not if the token was not for the wanted audience: then the caller drops it unread."""
    granted: GrantedToken | None = field(default=None, repr=False)

    @property
    def accepted(self) -> bool:
        """Whether the called service accepts the token. A route may still ask for a caller, a scope or a role."""
        return self.decision.reason is Reason.ALLOWED

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON of ``docs/schemas/token.schema.json``."""
        return {
            "version": VERSION,
            "for": sorted(self.wanted.audiences),
            "requested_scopes": sorted(self.wanted.scopes),
            "accepted": self.accepted,
            "reason": str(self.decision.reason),
            "cure": self.decision.cure,
            "verified": self.verified,
            "remarks": list(self.remarks),
            **described(self.principal),
            "claims": dict(self.claims),
        }


def described(principal: Principal | None) -> dict[str, Any]:
    """Return what a receiver reads in a token, as JSON."""
    if principal is None:
        return {"token": None}
    return {
        "token": {
            "client_id": principal.client_id,
            "kind": principal.kind,
            "binding": principal.binding,
            "because": kind_because(principal),
            "issuer": principal.issuer,
            "subject": principal.subject,
            "token_id": principal.token_id,
            "audiences": sorted(principal.audiences),
            "scopes": sorted(principal.scopes),
            "realm_roles": sorted(principal.realm_roles),
            "client_roles": {client: sorted(roles) for client, roles in sorted(principal.client_roles.items())},
            "lifetime": principal.expires_at - principal.issued_at,
            "issued_at": principal.issued_at,
            "expires_at": principal.expires_at,
        }
    }


def kind_because(principal: Principal) -> str:
    """Say why a receiver takes the caller for a service or a user, or cannot tell."""
    if principal.kind == "service":
        return "client_id is there and equals azp: Keycloak writes it only for the grant client_credentials."
    if principal.kind == "user":
        return "It has the session of a user (sid), and no client_id."
    return kind_cure(principal)


def requested(settings: "KeycloakSettings", wanted: Wanted, *, dpop: bool | None = None) -> GrantedToken | S2SError:
    """Return a token, requested once and without any cache, or the error that says why there is none.

    With `dpop` it is bound to a key that is made for it. None: as the settings say.
    """
    try:
        key = TokenKey.of(settings, wanted)
        key = key if dpop is None else replace(key, dpop=dpop)
    except S2SError as error:
        return error.again()
    channel = BackChannel.shared(settings.ca_file, TIMEOUT, settings.proxy, ClientCertificate.of(settings))
    outcome = TokenRequest(key, settings, channel, time.monotonic)()
    return outcome.value if isinstance(outcome, Loaded) else outcome.error


def requested_and_judged(settings: "KeycloakSettings", wanted: Wanted) -> TokenReport:
    """Request a token, and judge it as a service of this realm does whose audience is one of the wanted ones.

    Raises:
        TokenRequestError: Keycloak gave no token; the error says what to change.
        ConfigurationError: Client id or secret is not set, or cannot be read.
    """
    found = requested(settings, wanted)
    if isinstance(found, AudienceNotGranted):
        principal = described_by(found.claims)
        cure = f"{_mistyped(wanted, principal)}{found}"
        decision = Decision(reason=Reason.WRONG_AUDIENCE, cure=cure)
        return TokenReport(wanted=wanted, decision=decision, principal=principal, claims=found.claims, verified=False)
    if isinstance(found, S2SError):
        raise found
    verdict = verdict_on(settings, found.value, wanted.audiences)
    claims = claims_of(found.value) or {}
    return TokenReport(
        wanted=wanted,
        decision=decision_on(verdict),
        principal=verdict.principal or described_by(claims),
        claims=claims,
        remarks=tuple(settings.worded(sentence) for sentence in remarks(found, wanted, settings)),
        verified=bool(verdict.decision.kid),
        granted=found,
    )


def _mistyped(wanted: Wanted, principal: Principal | None) -> str:
    """Ask whether a name was meant that the token has: its steps are done, and those for the mistyped name are no cure."""
    for name, close in nearly_named(wanted.audiences, principal):
        return f"The token is for {named(close)}: is {named(name)} mistyped? If not: "
    return ""


def nearly_named(audiences: Collection[str], principal: Principal | None) -> Iterator[tuple[str, str]]:
    """Yield each audience that a token lacks, with the one that it has of nearly the same name."""
    held = () if principal is None else sorted(principal.audiences)
    for name in sorted(set(audiences).difference(held)):
        if close := get_close_matches(name, held, 1, _CLOSE):
            yield name, close[0]


def verdict_on(settings: "KeycloakSettings", token: str, audiences: Collection[str]) -> Verdict:
    """Return what a service of this realm with one of these audiences decides about a token; without audiences, any service.

    A bound token is judged as by a service that accepts bound tokens, and as if the request had a good proof or the certificate.
    """
    verifier = TokenVerifier(
        settings,
        audience=sorted(audiences) or None,
        insecure_skip_audience=not audiences,
        client_certificate="tls",  # so that a token which is bound to a certificate is read: no request is decided here
    )
    claims = claims_of(token) or {}
    if "cnf" not in claims:
        return verifier.decide(token)
    scheme = "DPoP" if under_dpop(claims) else "Bearer"
    found = verifier.ready().decide(f"{scheme} {token}".encode("ascii", "replace"))
    return Verdict((), found.owner, kid=found.decision.kid) if isinstance(found, BoundVerdict) else found


def under_dpop(claims: Mapping[str, Any]) -> bool:
    """Return whether a token is sent under the scheme DPoP: each bound one, unless it is bound to a client certificate alone (RFC 8705)."""
    cnf = claims.get("cnf")
    by_certificate = isinstance(cnf, Mapping) and "x5t#S256" in cnf and "jkt" not in cnf
    return "cnf" in claims and not by_certificate


def decision_on(verdict: Verdict) -> Decision:
    """Return what a service decides that accepts services alone, as every `ServiceAuthMiddleware` without ``users=True`` does."""
    if verdict.principal is None or not verdict.accepted:
        return verdict.decision
    found = Caller("service").judge(verdict.principal)
    return (
        verdict.decision
        if found.reason is Reason.ALLOWED
        else replace(verdict.decision, reason=found.reason, cure=found.cure)
    )


def refused_json(wanted: Wanted, error: TokenRequestError) -> dict[str, Any]:
    """Return the report of a request to which Keycloak gave no token, as JSON of the same schema."""
    return {
        "version": VERSION,
        "for": sorted(wanted.audiences),
        "requested_scopes": sorted(wanted.scopes),
        "accepted": False,
        "reason": error.code,
        "cure": str(error),
        "verified": False,
        "remarks": [],
        "token": None,
        "claims": dict(error.claims),
    }


def described_by(claims: Mapping[str, Any]) -> Principal | None:
    """Return the caller that claims describe, verified or not; None if they cannot be read."""
    principal = predicted_principal(claims)
    return principal if isinstance(principal, Principal) else None

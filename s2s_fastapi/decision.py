"""What was decided about a request, and why: a value. The answer, the log and the tests only render it."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, Self

__all__ = ["Decision", "Outcome", "Reason"]

Outcome = Literal["allowed", "observed", "refused", "failed"]

_EXCHANGED: Final = re.compile(r"[a-z]{2}(?:rt|lt)te:")
"""How Keycloak marks the ``jti`` of an exchanged token since 26.2. It is not documented there."""
_UNTRUSTED = "The access token was not accepted."


class Reason(StrEnum):
    """Why a request was accepted or refused: a closed list of stable names.

    - Each reason carries its answer: ``status`` (HTTP), ``error`` (RFC 6750 section 3.1 and RFC 9449 section 7.1,
      empty if the challenge has none) and ``detail``
      (the one sentence that a caller sees).
    - All reasons that are found before the signature holds share one sentence, so that a forger learns nothing.
    """

    status: int
    error: str
    detail: str

    def __new__(cls, value: str, status: int, error: str, detail: str) -> Self:
        """Make a member whose value is the name alone."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.status, member.error, member.detail = status, error, detail
        return member

    ALLOWED = "allowed", 200, "", ""
    ANONYMOUS = "anonymous", 200, "", ""

    NO_CREDENTIALS = "no_credentials", 401, "", "This service needs a bearer access token."
    INVALID_REQUEST = (
        "invalid_request",
        400,
        "invalid_request",
        "The credentials of the request are malformed or given more than once.",
    )

    # Before the signature holds.
    MALFORMED_TOKEN = "malformed_token", 401, "invalid_token", _UNTRUSTED
    UNSUPPORTED_HEADER = "unsupported_header", 401, "invalid_token", _UNTRUSTED
    ALGORITHM_NOT_ALLOWED = "algorithm_not_allowed", 401, "invalid_token", _UNTRUSTED
    UNKNOWN_KEY = "unknown_key", 401, "invalid_token", _UNTRUSTED
    INVALID_SIGNATURE = "invalid_signature", 401, "invalid_token", _UNTRUSTED

    # The signature holds; the token is still not for us. In the order of the checks.
    SENDER_CONSTRAINED = (
        "sender_constrained",
        401,
        "invalid_token",
        "The access token is bound to a key or a client certificate, and this service does not accept it as it was sent.",
    )
    NOT_BOUND = (
        "not_bound",
        401,
        "invalid_token",
        "The access token is not bound, and this service needs one that is.",
    )
    WRONG_TYPE = "wrong_type", 401, "invalid_token", "The token is not an access token."
    MALFORMED_CLAIMS = "malformed_claims", 401, "invalid_token", "A claim of the access token is missing or malformed."
    WRONG_ISSUER = "wrong_issuer", 401, "invalid_token", "The access token is from another issuer."
    NOT_YET_VALID = "not_yet_valid", 401, "invalid_token", "The access token is not valid yet."
    LIFETIME_TOO_LONG = "lifetime_too_long", 401, "invalid_token", "The access token lives too long."
    EXPIRED = "expired", 401, "invalid_token", "The access token expired."
    REVOKED = "revoked", 401, "invalid_token", "The access token was revoked."
    WRONG_AUDIENCE = "wrong_audience", 401, "invalid_token", "The access token is not for this service."
    AUDIENCE_NOT_ONLY = "audience_not_only", 401, "invalid_token", "The access token is for other services too."
    BEARER_NOT_ACCEPTED = (
        "bearer_not_accepted",
        401,
        "invalid_token",
        "This service accepts only access tokens that are bound to a key (DPoP).",
    )

    # The token is good and bound to a key; the request does not prove that its sender has the key (RFC 9449 section 7.1).
    PROOF_MISSING = "proof_missing", 401, "invalid_dpop_proof", "The DPoP proof of the request is missing."
    INVALID_PROOF = "invalid_proof", 401, "invalid_dpop_proof", "The DPoP proof of the request was not accepted."
    PROOF_REPLAYED = "proof_replayed", 401, "invalid_dpop_proof", "The DPoP proof was used before."

    # The token is good and bound to a client certificate (RFC 8705 section 3).
    CERTIFICATE_MISSING = (
        "certificate_missing",
        401,
        "invalid_token",
        "The request came without the client certificate that the access token is bound to.",
    )
    WRONG_CERTIFICATE = (
        "wrong_certificate",
        401,
        "invalid_token",
        "The access token is bound to another client certificate.",
    )

    # The token is good; its caller may not do this.
    OTHER_REALM = "other_realm", 403, "insufficient_scope", "Callers of this realm may not call this."
    NOT_A_SERVICE = "not_a_service", 403, "insufficient_scope", "Only services may call this."
    NOT_A_USER = "not_a_user", 403, "insufficient_scope", "Only users may call this."
    UNKNOWN_KIND = (
        "unknown_kind",
        403,
        "insufficient_scope",
        "The access token does not say whether a service or a user is calling.",
    )
    CALLER_NOT_ALLOWED = "caller_not_allowed", 403, "insufficient_scope", "This caller may not call this."
    SCOPE_MISSING = "scope_missing", 403, "insufficient_scope", "The access token lacks a scope."
    ROLE_MISSING = "role_missing", 403, "insufficient_scope", "The access token lacks a role."
    CLAIM_MISSING = "claim_missing", 403, "insufficient_scope", "The access token lacks a claim, or its value."
    CONDITION_NOT_MET = "condition_not_met", 403, "insufficient_scope", "The caller does not meet a condition."

    # The fault is ours or Keycloak's.
    KEYS_UNAVAILABLE = "keys_unavailable", 503, "", "The service cannot check tokens at the moment."
    REPLAY_STORE_UNAVAILABLE = (
        "replay_store_unavailable",
        503,
        "",
        "The service cannot check DPoP proofs at the moment.",
    )
    NOT_STARTED = "not_started", 500, "", "Internal Server Error"
    CONDITION_FAILED = "condition_failed", 500, "", "Internal Server Error"

    @property
    def observable(self) -> bool:
        """Whether observe mode accepts the request and only logs the reason. Every reason that is not in the closed list refuses."""
        return self in _OBSERVABLE


_OBSERVABLE: Final = frozenset(
    {
        # The audience.
        Reason.WRONG_AUDIENCE,
        Reason.AUDIENCE_NOT_ONLY,
        # The scheme of an app that goes from accepted to required. What is wrong with a binding or a proof is never observed.
        Reason.BEARER_NOT_ACCEPTED,
        # The kind of the caller.
        Reason.NOT_A_SERVICE,
        Reason.NOT_A_USER,
        Reason.UNKNOWN_KIND,
        # The caller, its scopes and its roles.
        Reason.CALLER_NOT_ALLOWED,
        Reason.SCOPE_MISSING,
        Reason.ROLE_MISSING,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One decision about one request, with or without a token.

    - ``cure`` is the sentence for the operator: what was wrong, and what to change in Keycloak or here.
    - Values from a token (``client_id``, ``token_id``, ``cure``) are there only if its signature held. Without a valid signature there is
      at most ``unverified_kid``, escaped.
    """

    reason: Reason
    observed: bool = False
    """Accepted although there is a reason to refuse: until the day that ``insecure_observe_until`` names, it is only logged."""
    cure: str = ""
    scope: str = ""
    """For ``insufficient_scope``: the scopes that would be enough, for the challenge."""
    client_id: str = ""
    user: str = ""
    """If a user called, its ``sub``: the user in Keycloak. ``client_id`` is then the client through which it called."""
    token_id: str = ""
    issuer: str = ""
    kid: str = ""
    binding: str = ""
    """To what the token is bound, as in `Principal.binding`; empty if it is not bound, or if no signature held."""
    unverified_kid: str = ""
    receiver: str = ""
    """The service that was called, as ``s2s-fastapi explain --to`` takes it; empty if no signature held, or if a user or a caller of another
    realm than the first one called."""
    method: str = ""
    route: str = ""
    routed: bool = True
    """Whether the app declared ``route``; otherwise it is the path, which the caller chose."""
    retry_after: int = 0
    trace_id: str = ""
    """The trace that the request belongs to, 32 hexadecimal digits (W3C Trace Context); empty without tracing."""

    @property
    def exchanged(self) -> bool:
        """Whether the token seems to be exchanged for another one: ``client_id`` is then the service that exchanged it.

        It is a hint for people, by the mark that Keycloak writes into ``jti``. No decision looks at it.
        """
        return _EXCHANGED.match(self.token_id) is not None

    @property
    def outcome(self) -> Outcome:
        """Allowed; observed (accepted, will be refused later); refused (400, 401, 403: the request's fault); failed (500, 503: ours)."""
        if self.reason in (Reason.ALLOWED, Reason.ANONYMOUS):
            return "allowed"
        if self.observed:
            return "observed"
        return "refused" if self.reason.status < 500 else "failed"  # noqa: PLR2004 - HTTP's own border

    @property
    def accepted(self) -> bool:
        """Whether the request goes on: allowed, or only observed."""
        return self.outcome in ("allowed", "observed")

    @property
    def status(self) -> int:
        """The HTTP status of the answer to this decision; for an observed one, the status that it will have."""
        return self.reason.status

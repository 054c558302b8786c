"""The names of attributes in spans and metrics."""

from typing import Final

from s2s_fastapi.decision import Decision
from s2s_fastapi.text import printable

__all__ = [
    "AUDIENCE",
    "BINDING",
    "CALLER",
    "CAUSE",
    "CLIENT_ID",
    "ERROR_TYPE",
    "ISSUER",
    "KID",
    "OUTCOME",
    "REASON",
    "RESULT",
    "SCOPE",
    "TOKEN_ID",
    "UNVERIFIED_KID",
    "of_decision",
]

CALLER: Final = "s2s_fastapi.caller"
"""Who called: the client of a token whose signature held."""
CLIENT_ID: Final = "s2s_fastapi.client_id"
"""Who asks Keycloak for a token: this service."""
AUDIENCE: Final = "s2s_fastapi.audience"
SCOPE: Final = "s2s_fastapi.scope"
ISSUER: Final = "s2s_fastapi.issuer"
KID: Final = "s2s_fastapi.kid"
UNVERIFIED_KID: Final = "s2s_fastapi.unverified_kid"
TOKEN_ID: Final = "s2s_fastapi.token_id"
"""``jti``; Keycloak's own spans have it as ``kc.token.id``, its events as ``token_id``."""
BINDING: Final = "s2s_fastapi.binding"
"""``dpop`` if the token is bound to a key; there is none for a bearer token."""
OUTCOME: Final = "s2s_fastapi.outcome"
REASON: Final = "s2s_fastapi.reason"
CAUSE: Final = "s2s_fastapi.cause"
RESULT: Final = "s2s_fastapi.result"
ERROR_TYPE: Final = "error.type"  # of the semantic conventions

_LONGEST: Final = 256


def of_decision(decision: Decision) -> dict[str, str]:
    """Return the attributes of a decision for a span. They are printable and bounded. Values of a token need a valid signature."""
    values = {
        OUTCOME: decision.outcome,
        REASON: str(decision.reason),
        CALLER: decision.client_id,
        TOKEN_ID: decision.token_id,
        KID: decision.kid,
        BINDING: decision.binding,
        ISSUER: decision.issuer,
        UNVERIFIED_KID: decision.unverified_kid,
    }
    return {name: printable(value, _LONGEST) for name, value in values.items() if value}

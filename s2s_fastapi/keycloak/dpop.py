"""Keycloak's bound tokens (DPoP, RFC 9449): its names, its first version, its windows, and what to change if a token is not bound.

The operator's tools use these words. The calling side takes from here what to do if Keycloak binds no token.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from s2s_fastapi.text import listed, named

__all__ = [
    "ABOUT_PROOFS",
    "ANY_THUMBPRINT",
    "ATTRIBUTE",
    "CONSOLE",
    "KEYCLOAK_AHEAD",
    "KEYCLOAK_OLDEST",
    "ORDER",
    "SINCE",
    "SUPPORTED",
    "TOO_OLD",
    "accept_first",
    "bind_first",
    "bind_or_switch_off",
    "no_bound_tokens",
]

ANY_THUMBPRINT: Final = "A" * 43
"""For predictions, in the place of the thumbprint of a caller's key, which is another one in each process."""
ATTRIBUTE: Final = "dpop.bound.access.tokens"
"""The attribute of a client that gets bound tokens only: Keycloak refuses its requests without a proof."""
SINCE: Final = (26, 4)
"""The version from which on Keycloak binds tokens without a feature being switched on."""
SUPPORTED: Final = "dpop_signing_alg_values_supported"
"""The member of the discovery document that is there if Keycloak binds tokens (RFC 9449 section 5.1)."""
KEYCLOAK_OLDEST: Final = 25.0
"""Seconds that a proof for the token endpoint may be old: 10 s of life and 15 s of tolerance, by Keycloak's clock."""
KEYCLOAK_AHEAD: Final = 15.0
"""Seconds that such a proof may be ahead of Keycloak's clock."""
CONSOLE: Final = "Settings, Capability config, Require DPoP bound tokens"
"""Where the switch is, on the page of the client."""
TOO_OLD: Final = (
    f"Bound tokens need Keycloak {'.'.join(map(str, SINCE))} or newer, with the feature dpop (on by default). An older Keycloak ignores the proof and"
    " answers with a bearer token, which the caller refuses."
)
ORDER: Final = 'First dpop="accepted" on receivers, then dpop=True (KEYCLOAK_DPOP=true) on callers, then dpop="required" on receivers.'
"""In which order bound tokens are adopted."""

ABOUT_PROOFS: Final[Mapping[str, str]] = {
    "proof_missing": (
        "The request has a bound token and no header DPoP. A caller with this package sends both. Look for a proxy that drops the header DPoP, and for"
        " code that takes Authorization alone from headers_for(...)."
    ),
    "invalid_proof": (
        "The cure says which part of the proof is wrong. If it is iat, compare the clocks: s2s-fastapi doctor shows the seconds between them. If it is"
        " htu, public_url of the called service is not the URL that the caller calls. If it is htm, something on the way changes the method. If it is ath"
        " or the key, the proof was made for another token."
    ),
    "proof_replayed": (
        "The same proof came twice. Each request and each retry needs a proof of its own: look for a proxy or a client that repeats requests, and for"
        " code that keeps headers. If there is none, somebody copied a request: its copy was refused."
    ),
    "not_bound": (
        "The caller sent a bearer token where the called service requires a bound one: write dpop=True in its call, or set its KEYCLOAK_DPOP=true."
    ),
    "bearer_not_accepted": (
        "The called service accepts bound tokens only: write dpop=True in the call of the caller, or set its KEYCLOAK_DPOP=true."
    ),
    "replay_store_unavailable": (
        "The token is good. The replay store of the called service does not answer or is full, or this caller has used up its share of it: the cure"
        " says which. Until that ends, requests with bound tokens are answered 503, so that no proof counts twice. Bearer tokens do not need the store."
    ),
}
"""What the reasons about bound tokens mean beyond the token itself, for people. No realm explains them."""


def accept_first(receivers: Iterable[str], caller: str) -> str:
    """Return the cure if a caller binds its tokens, and a receiver refuses bound tokens."""
    return (
        f'Write dpop="accepted" and public_url=... in ServiceAuthMiddleware of {listed(receivers)}, and deploy that before {named(caller)} binds its'
        " tokens (KEYCLOAK_DPOP)."
    )


def bind_first(receivers: Iterable[str], caller: str) -> str:
    """Return the cure if a receiver requires bound tokens, and a caller sends others."""
    return (
        f"Write dpop=True in the call of {named(caller)}, or set its KEYCLOAK_DPOP=true, and deploy that before {listed(receivers)} requires bound"
        " tokens."
    )


def bind_or_switch_off(client: str) -> str:
    """Return the cure if Keycloak gives a client bound tokens only, and its service requests others."""
    return (
        f'Set KEYCLOAK_DPOP=true for the service {named(client)}, or switch "Require DPoP bound tokens" off for its client in Keycloak (Settings,'
        f" Capability config; attribute {ATTRIBUTE})."
    )


def no_bound_tokens(client: str) -> str:
    """Return the cure if Keycloak binds no tokens, and a service wants bound ones."""
    return f"{TOO_OLD} Until Keycloak is newer, write KEYCLOAK_DPOP=false for {named(client)}."

"""The sentences that tell an operator what to change in Keycloak. Both sides say the same thing with the same words."""

from collections.abc import Iterable
from typing import Final

from s2s_fastapi.principal import Principal

__all__ = ["audience_cure", "audience_steps", "shown", "wrong_audience"]

_LONGEST: Final = 200
_MOST: Final = 20


def audience_cure(principal: Principal, expected: Iterable[str]) -> str:
    """Say what to do about a token that reached a service it is not for.

    A service that called needs the four steps. Where somebody else may have sent the token on, refusing it is the point, and giving
    it the audience would open the door.
    """
    who, wanted = principal.client_id, sorted(expected)
    said = wrong_audience(who, principal.audiences, wanted)
    if principal.kind == "user":
        return (
            f"{said}: it is a user's token; a service that calls for a user must ask for a token of its own (client_credentials), "
            f"and only a front end that calls {_or(wanted)} itself needs an Audience mapper for it"
        )
    steps = audience_steps(who, wanted)
    others = [shown(name) for name in sorted(principal.audiences - {"account"})[:_MOST]]
    if not others:
        return f"{said}: {steps}"
    return f"{said}: if {_or(others)} sent it on, it was refused rightly; if {who} itself called, {steps}"


def wrong_audience(client_id: str, granted: Iterable[str], expected: Iterable[str]) -> str:
    """Say whom a client's token is for, and whom it should be for."""
    names = [shown(name) for name in sorted(granted)[:_MOST]]
    aud = f"aud [{', '.join(names)}]" if names else "no aud"
    return f"token of {client_id} has {aud}, expected {_or(expected)}"


def audience_steps(client_id: str, audiences: Iterable[str]) -> str:
    """Say the four steps after which Keycloak puts ``audiences`` into a client's token."""
    target = _or(audiences)
    # A custom audience, a URL, needs no client of that name.
    exists = "no client for a custom audience" if "://" in target else f"a client {target}"
    return (
        f"Keycloak needs (A) the client {client_id} with service accounts on, (B) {exists}, "
        f"(C) a client scope with an Audience mapper for {target}, "
        f"(D) that scope assigned to {client_id}, as default, or as optional and asked for"
    )


def shown(value: object) -> str:
    """Return a claim's value for a log: bounded, on one line, with nothing a terminal would act on."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= _LONGEST and text.isprintable():
        return text
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[:_LONGEST])
    return clean + "..." * (len(text) > _LONGEST)


def _or(names: Iterable[str]) -> str:
    return " or ".join(sorted(names))

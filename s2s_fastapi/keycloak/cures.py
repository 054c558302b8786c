"""The sentences that tell an operator what to change in Keycloak. Both sides say the same thing with the same words."""

from collections.abc import Iterable

__all__ = ["missing_audience"]


def missing_audience(client_id: str, granted: Iterable[str], expected: Iterable[str]) -> str:
    """Say that a client's token is not for ``expected``, and the four steps that make it so."""
    wanted = sorted(expected)
    target = " or ".join(wanted)
    return (
        f"token of {client_id} has {_aud(granted)}, expected {target}: "
        f"(A) client {client_id} has service accounts on, (B) client {target} exists, "
        f"(C) a client scope has an Audience mapper for {target}, "
        f"(D) that scope is assigned to {client_id}, as a default scope or as an optional one that is asked for"
    )


def _aud(granted: Iterable[str]) -> str:
    names = sorted(granted)
    return f"aud [{', '.join(names)}]" if names else "no aud"

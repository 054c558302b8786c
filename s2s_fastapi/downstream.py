"""Whom this service calls: what a token is asked for, as a value that can be read from the app."""

from dataclasses import dataclass

__all__ = ["Downstream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """One service that is called: its origins, and the audience and scope its token is asked for."""

    origins: tuple[str, ...]
    """``scheme://host:port`` of every place the token may go to; empty where any origin was allowed on purpose."""
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()

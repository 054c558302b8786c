"""A name of an audience, a scope, a role or a client, as developers write it and tokens carry it."""

import json
import logging
from collections.abc import Collection
from functools import lru_cache
from typing import Any, Final, TypeGuard

from s2s_fastapi.errors import ConfigurationError

__all__ = ["EVERYBODYS_AUDIENCE", "NO_AUDIENCE", "audience_names", "is_name", "listed_names"]

_log = logging.getLogger("s2s_fastapi")

EVERYBODYS_AUDIENCE: Final = "account"
"""Keycloak's own client for users' accounts: nearly every token of a realm is for it, by its default roles."""
NO_AUDIENCE: Final = "Set KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE: which tokens are meant for this service?"
"""The sentence for a receiver that nobody told whom it is."""


def is_name(text: object) -> TypeGuard[str]:
    """Tell whether ``text`` is one name: printable, not empty, and without a space, which joins several (RFC 6749 section 3.3)."""
    return isinstance(text, str) and text.isprintable() and text != "" and " " not in text


def audience_names(audience: str | Collection[str] | None) -> frozenset[str]:
    """Return the audiences a developer named, or none.

    Raises:
        ConfigurationError: There is no name among them that is one, or one that every token has.
    """
    if audience is None:
        return frozenset()
    names: Any = (audience,) if isinstance(audience, str) else audience
    if not isinstance(names, Collection) or not names or not all(map(is_name, names)):
        raise ConfigurationError("audience must be a name or several, none of them empty.")
    if EVERYBODYS_AUDIENCE in names:
        raise ConfigurationError(
            f'audience cannot be "{EVERYBODYS_AUDIENCE}": nearly every token of a realm carries it.'
        )
    return frozenset(names)


def listed_names(text: str) -> list[Any]:
    """Return the names in the value of a variable: separated by commas, or a JSON list, for names with a comma in them.

    A space beside a comma logs a WARNING: ``Acme, Inc`` would be two names, each of which lets tokens in.
    """
    if text.startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):  # the latter for thousands of brackets
            found = None
        return found if isinstance(found, list) else []
    parts = text.split(",")
    names = [part.strip() for part in parts]
    if any('"' in name for name in names):  # a JSON list without its brackets, or quotes that a file left in place
        return []
    if parts != names:
        _warn_of_spaces(text.strip())
    return list(names)


@lru_cache(maxsize=64)
def _warn_of_spaces(text: str) -> None:
    """Warn once for each text: settings are made for every client."""
    _log.warning(
        "KEYCLOAK_AUDIENCE has a space beside a comma. It is read as several names: %s. If the comma belongs to a name, write a JSON"
        " list: %s. Otherwise leave the space out.",
        ", ".join(repr(part.strip()) for part in text.split(",")),
        json.dumps([text], ensure_ascii=False),
    )

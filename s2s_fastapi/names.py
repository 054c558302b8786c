"""The rules for names of audiences, scopes, roles and clients, in code and in tokens, and for URLs."""

import json
import logging
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote, urlsplit

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.text import printable

__all__ = [
    "EVERYBODYS_AUDIENCE",
    "NO_AUDIENCE",
    "NO_URL_CHARACTER",
    "audience_names",
    "checked_names",
    "listed_names",
    "name_problem",
    "names_given",
    "realm_segment",
    "scope_problem",
    "url_problem",
]

_log = logging.getLogger("s2s_fastapi")

EVERYBODYS_AUDIENCE: Final = "account"
"""Keycloak's client for user accounts: because of its default roles nearly every token of a realm has this audience."""
NO_AUDIENCE: Final = "Set KEYCLOAK_CLIENT_ID or KEYCLOAK_AUDIENCE: which tokens are meant for this service?"
"""The sentence for a service without an audience."""

NO_URL_CHARACTER: Final = "it has a character no URL can have"

_LONGEST: Final = 255  # the length of the columns in which Keycloak stores names
_SHOWN: Final = 80
_SUB_DELIMS: Final = "!$&'()*+,;=:@"
"""Characters allowed in a path segment besides letters, digits and ``-._~`` (RFC 3986 section 3.3)."""


def name_problem(text: object) -> str:
    """Return why ``text`` is not a name, such as "it is empty"; return "" if it is one.

    A name is printable text without blanks at its ends: "Ticket Writer" is the name of a role. The only printable blank is
    the space; line breaks, no-break spaces and marks that change the direction of writing are not printable.
    """
    if not isinstance(text, str):
        return "it is not text"
    if not text:
        return "it is empty"
    odd = next((character for character in text if not character.isprintable()), "")
    if odd:
        return f"it has the character U+{ord(odd):04X}, which cannot be printed"
    if text[0] == " " or text[-1] == " ":
        return "it has a blank at one end"
    if len(text) > _LONGEST:
        return f"it is longer than {_LONGEST} characters"
    return ""


def scope_problem(text: object) -> str:
    """Return why ``text`` is not the name of a scope, or "" if it is one. A space separates scopes (RFC 6749 section 3.3)."""
    problem = name_problem(text)
    return problem or ("it has a space in it, which separates scopes" if " " in str(text) else "")


def url_problem(url: str, schemes: Collection[str] = ("http", "https")) -> str:
    """Return why `url` is not the address of a server, such as "it has no host"; return "" if it is one.

    It is absolute, and has no user name, query or fragment.
    """
    if not url.isprintable() or set(url) & set(' \\"<>'):
        return NO_URL_CHARACTER
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its host or port cannot be read"
    if parts.scheme not in schemes:
        return "it does not start with http:// or https://"
    if "@" in parts.netloc:
        return "a user name or password does not belong in it"
    if not parts.hostname or port == 0:
        return "it has no host"
    if "?" in url or "#" in url:
        return "a query or fragment does not belong in it"
    return ""


def checked_names(what: str, names: Collection[str], problem: Callable[[object], str] = name_problem) -> frozenset[str]:
    """Return the names that a developer wrote for ``what``.

    Raises:
        ConfigurationError: ``problem`` rejects one of the names.
    """
    for name in names:
        if found := problem(name):
            raise ConfigurationError(f"{what}: {printable(repr(name), _SHOWN)} is not a name: {found}.")
    return frozenset(names)


def names_given(what: str, given: object, problem: Callable[[object], str] = name_problem) -> frozenset[str]:
    """Return the names in the argument ``what``: one name, several, or None for none.

    Raises:
        ConfigurationError: It is neither, it is an empty list, or ``problem`` rejects one of the names.
    """
    if given is None:
        return frozenset()
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Collection):
        raise ConfigurationError(f'{what}= must be a name or several, such as {what}="a" or {what}=("a", "b").')
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise ConfigurationError(f"{what}= is an empty list: name at least one, or leave {what}= out.")
    return checked_names(f"{what}=", names, problem)


def audience_names(audience: str | Collection[str] | None) -> frozenset[str]:
    """Return the audiences that a developer named for a service; none if ``audience`` is None.

    Raises:
        ConfigurationError: A name is invalid, none is given, or one is ``account``.
    """
    names = names_given("audience", audience)
    if EVERYBODYS_AUDIENCE in names:
        raise ConfigurationError(
            f'audience cannot be "{EVERYBODYS_AUDIENCE}": nearly every token of a realm carries it. Use the client id of this service.'
        )
    return names


def realm_segment(realm: str) -> str:
    """Return the name of a realm as Keycloak writes it into ``iss``: sub-delims, ``:`` and ``@`` are not escaped (RFC 3986 section 3.3)."""
    return quote(realm, safe=_SUB_DELIMS)


def listed_names(text: str) -> list[Any]:
    """Return the names in the value of a variable: separated by commas, or a JSON list if a name has a comma.

    A space next to a comma logs a WARNING: ``Acme, Inc`` would be two names, and tokens for each would be accepted.
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
    if len(parts) > 1 and parts != names:
        _warn_of_spaces(text.strip())
    return list(names)


@lru_cache(maxsize=64)
def _warn_of_spaces(text: str) -> None:
    """Warn once for each text: settings are made for every client."""
    _log.warning(
        "The list of audiences (KEYCLOAK_AUDIENCE, or the variable with your prefix) has a space beside a comma. It is read as several names: %s. If the comma belongs to a name, write a JSON"
        " list: %s. Otherwise leave the space out.",
        ", ".join(repr(part.strip()) for part in text.split(",")),
        json.dumps([text], ensure_ascii=False),
    )

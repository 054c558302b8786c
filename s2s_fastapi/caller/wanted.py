"""What a developer wants of a token (RFC 6749 section 4.4), and the arguments that only code may give."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.fastapi_internals import not_a_dependency
from s2s_fastapi.names import names_given, scope_problem

__all__ = ["BaseUrl", "Names", "Wanted", "seconds", "written_in_code"]

# Depends(service_auth) without a call would let the sender of a request choose origins and audience.
written_in_code: Final = not_a_dependency(
    "audience, scope and settings are written in code, not taken from requests:"
    " call it, Depends(service_auth(...)) or Depends(service_client(...))"
)

Names: TypeAlias = str | Collection[str] | None
"""One name, or several; None means none."""

BaseUrl: TypeAlias = str | Callable[[], str]
"""A URL, or a function that returns it."""


def seconds(given: Any) -> float:
    """Return the number that a developer wrote as ``min_validity``.

    Raises:
        ConfigurationError: It is not a number of seconds.
    """
    number = not isinstance(given, bool) and isinstance(given, int | float)
    if not number or not math.isfinite(given) or given < 0:
        raise ConfigurationError(
            "min_validity= must be a number of seconds, zero or more: how long the token must still live."
        )
    return float(given)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The audiences and scopes of a token. Values with the same names are equal, in any order and with any repetition."""

    audiences: frozenset[str] = frozenset()
    """The names that ``aud`` must contain. Keycloak ignores ``audience=``, so they are not sent but compared with the token."""
    scopes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, audience: Names, scope: Names) -> "Wanted":
        """Return the value for the arguments of a developer.

        Raises:
            ConfigurationError: A name is invalid, a scope has a space in it, or a list is empty.
        """
        return cls(names_given("audience", audience), names_given("scope", scope, scope_problem))

    def form(self, grant_type: str = "client_credentials") -> dict[str, str]:
        """Return the fields of the token request: scopes in one fixed order, single spaces (Keycloak refuses double ones)."""
        form = {"grant_type": grant_type}
        if self.scopes:
            form["scope"] = " ".join(sorted(self.scopes))
        return form

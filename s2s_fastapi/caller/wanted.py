"""What a developer wants of a token (RFC 6749 section 4.4), and the arguments that only code may give."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.names import names_given, scope_problem

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["BaseUrl", "GivenSettings", "Names", "Wanted", "seconds"]


class _WrittenInCode:
    """Make FastAPI refuse to fill a parameter from the request."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> NoReturn:
        # Depends(service_auth) without a call would let the sender of a request choose origins and audience.
        raise TypeError(
            "audience, scope and settings are written in code, not taken from requests:"
            " call it, Depends(service_auth(...)) or Depends(service_client(...))"
        )


Names: TypeAlias = Annotated[str | Collection[str] | None, _WrittenInCode]
"""One name, or several; None means none."""

BaseUrl: TypeAlias = Annotated[str | Callable[[], str], _WrittenInCode]
"""A URL, or a function that returns it."""

GivenSettings: TypeAlias = Annotated["KeycloakSettings | None", _WrittenInCode]
"""Settings as an argument; None means the environment, read at the first use."""


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

    def form(self) -> dict[str, str]:
        """Return the fields of the token request: scopes in one fixed order, single spaces (Keycloak refuses double ones)."""
        form = {"grant_type": "client_credentials"}
        if self.scopes:
            form["scope"] = " ".join(sorted(self.scopes))
        return form

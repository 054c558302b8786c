"""What a token is asked for (RFC 6749 section 4.4)."""

from dataclasses import dataclass

from s2s_fastapi.caller.given import Names
from s2s_fastapi.names import names_given, scope_problem

__all__ = ["Asked"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a token is asked for. Two that ask for the same are equal, in whatever order and however often a name was written."""

    audiences: frozenset[str] = frozenset()
    """Who must stand in ``aud``. Keycloak ignores ``audience=``, so this is not sent but compared with what came."""
    scopes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, audience: Names, scope: Names) -> "Asked":
        """Return the value for what a developer wrote.

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

"""What a token is asked for (RFC 6749 section 4.4)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from s2s_fastapi.caller.given import Names
from s2s_fastapi.errors import ConfigurationError

__all__ = ["Asked"]

_MAX_NAME = 255


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
            ConfigurationError: A name is empty, no text or holds a space; or there is an empty list.
        """
        return cls(_names("audience", audience), _names("scope", scope))

    def form(self) -> dict[str, str]:
        """Return the fields of the token request: scopes in one fixed order, single spaces (Keycloak refuses double ones)."""
        form = {"grant_type": "client_credentials"}
        if self.scopes:
            form["scope"] = " ".join(sorted(self.scopes))
        return form


def _names(what: str, given: object) -> frozenset[str]:
    if given is None:
        return frozenset()
    if isinstance(given, (bytes, Mapping)) or not isinstance(given, Collection):
        raise ConfigurationError(f'{what}= must be a name or several, such as {what}="a" or {what}=("a", "b").')
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names:
        raise ConfigurationError(f"{what}= is an empty list: name at least one, or leave {what}= out.")
    for name in names:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"{what}= must hold names only, none of them empty.")
        if not name.isprintable() or any(character.isspace() for character in name):
            raise ConfigurationError(
                f'{what}= holds a name with a space in it: write several names as {what}=("a", "b").'
            )
        if len(name) > _MAX_NAME:
            raise ConfigurationError(f"{what}= holds a name of more than {_MAX_NAME} characters.")
    return frozenset(names)

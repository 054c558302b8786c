"""A service that this service calls, and the token that is requested for it: a value that can be read from the app."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from s2s_fastapi.text import listed

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ACTS_FOR_USER", "Downstream"]

ACTS_FOR_USER: Final = "acts_for_user"
"""The attribute of a dependency's type that is true if the dependency calls on behalf of the user who sent the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downstream:
    """One service that is called: its origins, and the audiences and scopes that are requested for its token."""

    origins: tuple[str, ...]
    """``scheme://host:port`` of each place to which the token may be sent; empty if code allows any origin (``insecure_any_origin``)."""
    audiences: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    on_behalf: bool = False
    """Whether the token is a user's: exchanged for the one that the user showed to this service (RFC 8693)."""
    dpop: bool = False
    """Whether the token is bound to a key of this service, so that each call carries a proof (RFC 9449)."""
    settings: "KeycloakSettings | None" = field(default=None, repr=False)
    """The settings that code gives for this call: of which realm and client the token is. None: those of the environment."""

    @property
    def target(self) -> str:
        """What is called, as a sentence names it."""
        return listed(self.audiences, " and ") or "a service without an audience"

    def is_of(self, client_id: str, issuer: str = "") -> bool:
        """Return whether this client of this realm requests the token. Without an issuer, the client of this name in any realm."""
        own = self.settings
        return own is None or (own.client_id == client_id and issuer in ("", own.issuer))

"""What makes a token another token."""

from dataclasses import dataclass, field
from pathlib import Path

from s2s_fastapi.caller.credentials import ClientAuthentication, client_authentication
from s2s_fastapi.caller.wanted import Asked
from s2s_fastapi.keycloak.endpoints import Endpoints
from s2s_fastapi.settings import KeycloakSettings, ProxyUrl

__all__ = ["TokenKey"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """All that makes a token another token. Compared field by field, so no crafted name can imitate another key."""

    issuer: str
    token_url: str
    ca_file: Path | None
    proxy: ProxyUrl | None
    authentication: ClientAuthentication = field(repr=False)
    """Client, method, and the secret or where it stands."""
    asked: Asked

    @classmethod
    def of(cls, settings: KeycloakSettings, asked: Asked) -> "TokenKey":
        """Return the key for `asked` as the client of `settings`.

        Raises:
            ConfigurationError: Client id or secret is not set.
        """
        return cls(
            issuer=settings.issuer,
            token_url=Endpoints.of(settings).token,
            ca_file=settings.ca_file,
            proxy=settings.proxy,
            authentication=client_authentication(settings),
            asked=asked,
        )

"""Every URL of a realm that this package requests, or names in a document."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from s2s_fastapi.names import realm_segment

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = ["Endpoints", "PublicEndpoints"]


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of one realm, built from the settings and never taken from a token or from discovery.

    So nothing that comes over the network can send us to another host. (OpenID Connect Discovery 1.0 section 3 gives the names.)
    """

    realm: str
    """The public realm page, with ``tokens-not-before``."""
    jwks: str
    token: str

    @classmethod
    def of(cls, settings: "KeycloakSettings") -> Self:
        """Return the URLs on which this process reaches the realm of ``settings``."""
        realm = f"{settings.server}/realms/{quote(settings.realm, safe='')}"
        return cls(
            realm=realm, jwks=f"{realm}/protocol/openid-connect/certs", token=f"{realm}/protocol/openid-connect/token"
        )


@dataclass(frozen=True, slots=True)
class PublicEndpoints:
    """The public URLs of one realm: for documents. This process never requests them."""

    token: str
    authorization: str

    @classmethod
    def of(cls, settings: "KeycloakSettings") -> Self:
        """Return the URLs below the issuer, or below the public address if the issuer is not a URL of a realm."""
        name = realm_segment(settings.realm)
        realm = settings.issuer.rstrip("/")
        if not realm.endswith(f"/realms/{name}"):
            realm = f"{settings.public_url or settings.url}{settings.auth_path}/realms/{name}"
        return cls(
            token=f"{realm}/protocol/openid-connect/token", authorization=f"{realm}/protocol/openid-connect/auth"
        )

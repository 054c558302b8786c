"""How this service proves to Keycloak who it is (RFC 6749 section 2.3), as values."""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from s2s_fastapi.errors import ConfigurationError
from s2s_fastapi.settings import KeycloakSettings

__all__ = ["ClientAuthentication", "ClientSecretBasic", "ClientSecretPost", "Proof", "client_authentication"]


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What one token request carries to prove who is asking. Nothing of it is in the ``repr``."""

    headers: Mapping[str, str] = field(default_factory=_nothing, repr=False)  # a factory: unhashable before 3.12
    form: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    material: str = field(repr=False)
    """The secret itself: tells whether a file changed, and what no message may echo."""

    def echoed_in(self, text: str) -> bool:
        """Return whether `text` repeats the secret, plain or in a form in which we send it."""
        forms = {
            self.material,
            *(coded(self.material, safe="", errors="surrogateescape") for coded in (quote, quote_plus)),
        }
        forms.update(value.rpartition(" ")[2] for value in self.headers.values())
        return any(form and form in text for form in forms)


class ClientAuthentication(Protocol):
    """One way to prove who is asking.

    Implementations are frozen and hashable: equal values prove the same client in the same way, so their tokens may be shared.
    ``private_key_jwt`` is one more of them: its `prove` signs a fresh assertion, its ``material`` is the key.
    """

    @property
    def client_id(self) -> str:
        """The client that asks."""

    def prove(self) -> Proof:
        """Return the proof for one request; reads the secret or key anew where it is in a file.

        Raises:
            ConfigurationError: There is none, or its file cannot be read.
        """

    def stamp(self) -> object:
        """Return something that differs after the file of the secret was replaced; constant where there is no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientSecret:
    client_id: str
    secret: SecretStr | Path = field(repr=False)
    """The identity of the secret: its value, or where it stands."""
    read: Callable[[], str] = field(repr=False, compare=False)
    """Returns the secret as it is now."""

    def stamp(self) -> object:
        """Return what `ClientAuthentication.stamp` promises; one ``stat``, no read."""
        if not isinstance(self.secret, Path):
            return None
        try:
            seen = self.secret.stat()  # follows the link by which Kubernetes replaces a mounted secret
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns, seen.st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretBasic(_ClientSecret):
    """Send id and secret in the Authorization header (RFC 6749 section 2.3.1).

    Both are percent-encoded before they are joined: Keycloak decodes them, so a raw ``%``, ``+`` or ``:`` would be another secret.
    """

    def prove(self) -> Proof:
        """Return an ``Authorization: Basic`` header."""
        secret = self.read()
        # surrogateescape: a secret from the environment may hold bytes that are not UTF-8, and an encoding error would show it.
        pair = ":".join(quote(part, safe="", errors="surrogateescape") for part in (self.client_id, secret))
        return Proof(
            headers={"Authorization": f"Basic {b64encode(pair.encode('ascii')).decode('ascii')}"}, material=secret
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretPost(_ClientSecret):
    """Send id and secret as form fields (RFC 6749 section 2.3.1)."""

    def prove(self) -> Proof:
        """Return the fields ``client_id`` and ``client_secret``."""
        secret = self.read()
        return Proof(form={"client_id": self.client_id, "client_secret": secret}, material=secret)


_METHODS: Mapping[str, type[ClientSecretBasic | ClientSecretPost]] = {
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
}


def client_authentication(settings: KeycloakSettings) -> ClientAuthentication:
    """Return the way of authentication that `settings` name; reads no file yet.

    Raises:
        ConfigurationError: Client id or secret is not set.
    """
    if not settings.client_id:
        raise ConfigurationError(
            "Set KEYCLOAK_CLIENT_ID: calling other services needs a client of the realm to call as."
        )
    secret = settings.client_secret or settings.client_secret_file
    if secret is None:
        raise ConfigurationError(
            "Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE: calling other services needs it."
        )
    return _METHODS[settings.client_auth](client_id=settings.client_id, secret=secret, read=settings.secret)

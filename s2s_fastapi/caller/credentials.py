"""How this service proves to Keycloak who it is (RFC 6749 section 2.3, RFC 7523), as values."""

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote, quote_plus

from pydantic import SecretStr

from s2s_fastapi.backchannel.client_certificate import ClientCertificate
from s2s_fastapi.caller.assertion_file import Assertion
from s2s_fastapi.caller.client_key import ClientKey
from s2s_fastapi.errors import ConfigurationError

if TYPE_CHECKING:  # loaded when settings are first made
    from s2s_fastapi.settings import KeycloakSettings

__all__ = [
    "BY_OTHERS",
    "ClientAuthentication",
    "ClientSecretBasic",
    "ClientSecretPost",
    "FederatedJwt",
    "PrivateKeyJwt",
    "Proof",
    "TlsClientAuth",
    "client_authentication",
]

BY_OTHERS: Final = frozenset({"federated_jwt", "tls_client_auth"})
"""The values of ``client_auth`` for which somebody else says who this is. The file may be that of another client (its ``azp`` shows it)."""

_PIECE: Final = 16
"""Characters of a signature by which it is recognised: no other text has them, and so few are of no use."""
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What one token request carries to prove who sends it. Its ``repr`` shows nothing of it."""

    headers: Mapping[str, str] = field(default_factory=_nothing, repr=False)  # a factory: unhashable before 3.12
    form: Mapping[str, str] = field(default_factory=_nothing, repr=False)
    material: str = field(repr=False)
    """The secret or key itself: to see whether its file changed, and to keep it out of messages."""
    kid: str = ""
    """The id of the key that signed; empty if none did. Not a secret."""
    algorithm: str = ""
    assertion: Assertion | None = None
    """The token of another issuer, if that proves the client: we signed nothing."""

    def echoed_in(self, text: str) -> bool:
        """Return whether `text` repeats the secret, plain or in a form in which we send it, or a piece of what `signed_in` looks for."""
        forms = {
            self.material,
            *(coded(self.material, safe="", errors="surrogateescape") for coded in (quote, quote_plus)),
        }
        forms.update(value.rpartition(" ")[2] for value in self.headers.values())
        forms.update(self.form.get(name, "").rpartition(".")[2] for name in ("client_assertion", "subject_token"))
        return any(form and form in text for form in forms) or self.signed_in(text)

    def signed_in(self, text: str) -> bool:
        """Return whether `text` repeats 16 characters of the signature of an assertion or a token that is sent, with blanks in between or not."""
        joined = "".join(text.split())
        for name in ("client_assertion", "subject_token"):
            signature = self.form.get(name, "").rpartition(".")[2]
            if any(signature[at : at + _PIECE] in joined for at in range(len(signature) - _PIECE + 1)):
                return True
        return False


class ClientAuthentication(Protocol):
    """One way to prove who sends a token request.

    Implementations are frozen and hashable: equal values prove the same client in the same way, so their tokens may be shared.
    """

    @property
    def client_id(self) -> str:
        """The client that asks."""

    def prove(self) -> Proof:
        """Return the proof for one request; reads the secret or key again if it is in a file.

        Raises:
            ConfigurationError: There is none, or its file cannot be read.
        """

    def stamp(self) -> object:
        """Return a value that changes if the file of the secret is replaced; constant if there is no file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClientSecret:
    client_id: str
    secret: SecretStr | Path = field(repr=False)
    """The identity of the secret: its value, or its file."""
    read: Callable[[], str] = field(repr=False, compare=False)
    """Returns the secret as it is now."""

    def stamp(self) -> object:
        """Return a value that changes if the file is replaced. It needs one ``stat`` and does not read the file."""
        return _stamp(self.secret) if isinstance(self.secret, Path) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSecretBasic(_ClientSecret):
    """Send id and secret in the Authorization header (RFC 6749 section 2.3.1).

    Both are percent-encoded before they are joined. Keycloak decodes them, so a raw ``%``, ``+`` or ``:`` would give another secret.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeyJwt:
    """Sign an assertion with the private key in `file` (RFC 7523 section 2.2, ``private_key_jwt``).

    Each proof has its own assertion, because Keycloak accepts none twice. It lives 60 s, and its ``aud`` is only the issuer.
    """

    client_id: str
    file: Path
    issuer: str
    now: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def prove(self) -> Proof:
        """Return the fields ``client_id``, ``client_assertion_type`` and ``client_assertion``."""
        key = ClientKey.read(self.file, said="KEYCLOAK_CLIENT_KEY_FILE")
        return Proof(
            form={
                # Optional in RFC 7521. With it Keycloak says whether the client is unknown or uses another method.
                "client_id": self.client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": key.assertion(self.client_id, self.issuer, self.now),
            },
            material=key.text,
            kid=key.kid,
            algorithm=key.algorithm,
        )

    def stamp(self) -> object:
        """Return a value that changes if the file is replaced. It needs one ``stat`` and does not read the file."""
        return _stamp(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsClientAuth:
    """Show the client certificate in TLS (RFC 8705 section 2, ``tls_client_auth``). The back channel does that; the form only says who asks."""

    client_id: str
    certificate: ClientCertificate

    def prove(self) -> Proof:
        """Return the field ``client_id`` (RFC 8705 section 2): the certificate does not say which client it is."""
        return Proof(form={"client_id": self.client_id}, material="")

    def stamp(self) -> object:
        """Return None: the token endpoint looks at the files of the certificate, which may stand beside any other proof too."""
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedJwt:
    """Send the token of another issuer that is in `file`, such as that of a Kubernetes service account (RFC 7521 section 6.1, RFC 7523).

    The file is read for each proof: whoever writes it replaces the token before it expires. A token that is not for `issuer` alone is
    not sent.
    """

    client_id: str
    file: Path
    issuer: str
    now: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def prove(self) -> Proof:
        """Return the fields ``client_id``, ``client_assertion_type`` and ``client_assertion``.

        Raises:
            TokenRequestError: Keycloak would refuse the token, or it is for somebody else.
        """
        assertion = Assertion.read(self.file, said="KEYCLOAK_CLIENT_ASSERTION_FILE", audience=self.issuer, now=self.now)
        return Proof(
            form={
                # Optional for Keycloak. Without it, a wrong file would log us in as somebody else.
                "client_id": self.client_id,
                "client_assertion_type": assertion.type,
                "client_assertion": assertion.text,
            },
            material=assertion.text,
            kid=assertion.kid,
            assertion=assertion,
        )

    def stamp(self) -> object:
        """Return a value that changes if the file is replaced. It needs one ``stat`` and does not read the file."""
        return _stamp(self.file)


def _stamp(file: Path) -> object:
    try:
        seen = file.stat()  # follows the link by which Kubernetes replaces a mounted secret
    except OSError:
        return None
    return seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_size  # ctime: copies may keep size and mtime


_METHODS: Mapping[str, type[ClientSecretBasic | ClientSecretPost]] = {
    "client_secret_basic": ClientSecretBasic,
    "client_secret_post": ClientSecretPost,
}


def client_authentication(settings: "KeycloakSettings") -> ClientAuthentication:
    """Return the client authentication of `settings`; reads no file yet.

    Raises:
        ConfigurationError: Client id, or secret or key, is not set.
    """
    if not settings.client_id:
        raise ConfigurationError(
            settings.missing("Set KEYCLOAK_CLIENT_ID: calling other services needs a client of the realm to call as.")
        )
    if settings.client_key_file is not None:  # the settings ensure that this is private_key_jwt
        return PrivateKeyJwt(client_id=settings.client_id, file=settings.client_key_file, issuer=settings.issuer)
    certificate = ClientCertificate.of(settings)
    if settings.client_auth == "tls_client_auth" and certificate is not None:  # the settings ensure that there is one
        return TlsClientAuth(client_id=settings.client_id, certificate=certificate)
    if settings.client_assertion_file is not None:  # and that this is federated_jwt
        return FederatedJwt(client_id=settings.client_id, file=settings.client_assertion_file, issuer=settings.issuer)
    secret = settings.client_secret or settings.client_secret_file
    if secret is None:
        raise ConfigurationError(
            settings.missing(
                "Set KEYCLOAK_CLIENT_SECRET or KEYCLOAK_CLIENT_SECRET_FILE: calling other services needs it."
            )
        )
    return _METHODS[settings.client_auth](client_id=settings.client_id, secret=secret, read=settings.secret)

"""Client certificates as Keycloak judges them, measured on 26.0.8 and 26.7.3 (RFC 8705 sections 2.1 and 3.1)."""

import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s2s_fastapi.keycloak.client_authentication import dn_parts
from s2s_fastapi.realm.model import Denied
from s2s_fastapi.text import base64url

__all__ = ["ClientCertificate", "first_certificate", "made_up"]

_LONGEST_NAME: Final = 64
_UNKNOWN_CLIENT: Final = Denied(
    status=401, error="invalid_client", description="Invalid client or Invalid client credentials"
)
_FAILED: Final = Denied(
    status=400, error="unauthorized_client", description="Unexpected error when authenticating client"
)
_SPECIAL: Final = re.compile(r'[,+"\\<>;=]|^[ #]| $')


_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\s*", re.DOTALL)


def first_certificate(file: Path) -> bytes:
    """Return the first certificate of a PEM file, without its key; nothing if the file cannot be read or has none."""
    try:
        found = _PEM.search(file.read_bytes())
    except OSError:
        return b""
    return found[0] if found else b""


@lru_cache(256)
def made_up(name: str) -> str:
    """Return a certificate (PEM) that is made for a caller of this name; always the same one in a process. Nobody has its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_NAME] or "nobody")])
    day = timedelta(days=1)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(datetime.now(UTC) - day).not_valid_after(datetime.now(UTC) + day)
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A client certificate that the server's truststore has verified; empty bytes if the connection has none."""

    der: bytes = b""

    @classmethod
    def read(cls, pem: str) -> Self:
        """Return the certificate in a text in PEM."""
        return cls(ssl.PEM_cert_to_DER_cert(pem))

    @property
    def thumbprint(self) -> str:
        """The SHA-256 of the certificate as ``x5t#S256`` has it; empty without a certificate."""
        return base64url(hashlib.sha256(self.der).digest()) if self.der else ""

    def refusal(self, attributes: Mapping[str, str], *, authorities: bool) -> Denied | None:
        """Return why it does not prove the client with these attributes, or None.

        ``authorities``: whether this release compares who issued it, too. 26.0 does not.
        """
        subject = attributes.get("x509.subjectdn", "")
        if not self.der or not subject:
            return _UNKNOWN_CLIENT
        certificate = x509.load_der_x509_certificate(self.der)
        try:
            if attributes.get("x509.allow.regex.pattern.comparison", "true") == "true":
                named = re.fullmatch(subject, _shown(certificate.subject)) is not None
            else:
                named = dn_parts(subject) == dn_parts(certificate.subject.rfc4514_string())
            issuer = attributes.get("x509.casubjectdn", "") if authorities else ""
            issued = not issuer or dn_parts(issuer) == dn_parts(certificate.issuer.rfc4514_string())
        except (ValueError, re.error):
            return _FAILED
        return None if named and issued else _UNKNOWN_CLIENT


def _shown(name: x509.Name) -> str:
    """Return the name as Java shows it, with which a pattern is compared: a space after each comma, and quotes in the place of escapes."""
    return ", ".join(
        f'{key}="{value}"' if _SPECIAL.search(value) else f"{key}={value}"
        for key, value in dn_parts(name.rfc4514_string())
    )

"""Certificates of a small authority, with any name: for questions about `client-x509` clients and certificate-bound tokens."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

__all__ = ["Authority", "Issued"]

# Python 3.13 does not trust an authority without it.
_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate as TLS carries it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """The certificate as a file has it."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, authority: "Authority") -> ssl.SSLContext:
        """Return what a client needs that shows this certificate to a server of `authority`."""
        context = authority.context()
        with NamedTemporaryFile() as file:  # OpenSSL reads a pair from files only
            file.write(self.key_pem + self.pem)
            file.flush()
            context.load_cert_chain(file.name)
        return context

    @property
    def key_pem(self) -> bytes:
        """The key as a file has it."""
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


class Authority:
    """Issues certificates for names as RFC 4514 writes them: most specific part first."""

    def __init__(self, issued: Issued) -> None:
        self.issued = issued

    @classmethod
    def new(cls, name: str) -> Self:
        """Return a new authority, which certifies itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name.from_rfc4514_string(name)
        extensions: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=True, path_length=0),
            _SIGNS,
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        ]
        return cls(Issued(_certificate(subject, key, subject, key, extensions), key))

    @classmethod
    def read(cls, certificate: Path, key: Path) -> Self:
        """Return the authority whose certificate and key (P-256) are in these files."""
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(Issued(x509.load_pem_x509_certificate(certificate.read_bytes()), private))

    def issue(self, name: str, *, address: str = "") -> Issued:
        """Return a new certificate for a name; that of a server if it has an address."""
        key = ec.generate_private_key(ec.SECP256R1())
        own = self.issued
        extensions: list[x509.ExtensionType] = [
            x509.BasicConstraints(ca=False, path_length=None),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(own.key.public_key()),
        ]
        if address:
            extensions.append(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]))
        subject = x509.Name.from_rfc4514_string(name)
        return Issued(_certificate(subject, key, own.certificate.subject, own.key, extensions), key)

    def context(self) -> ssl.SSLContext:
        """Return what a client needs in order to trust a server of this authority."""
        return ssl.create_default_context(cadata=self.issued.pem.decode())


def _certificate(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signs: ec.EllipticCurvePrivateKey,
    extensions: list[x509.ExtensionType],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=12))
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    return builder.sign(signs, hashes.SHA256())

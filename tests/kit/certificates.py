"""Client certificates of an authority of our own, as files, and in each form in which a proxy passes one on."""

import ssl
from base64 import b64encode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Certificate", "client_context", "tiny"]


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def thumbprint(self) -> str:
        """`x5t#S256` (RFC 8705 section 3.1)."""
        return urlsafe_b64encode(sha256(self.der).digest()).rstrip(b"=").decode()

    @property
    def cnf(self) -> dict[str, str]:
        """What Keycloak writes into a token of a request with this certificate."""
        return {"x5t#S256": self.thumbprint}

    @property
    def rfc9440(self) -> str:
        return f":{b64encode(self.der).decode()}:"

    @property
    def nginx(self) -> str:
        return quote(self.pem, safe="")

    @property
    def traefik(self) -> str:
        return b64encode(self.der).decode()

    @property
    def envoy(self) -> str:
        digest = sha256(self.der).hexdigest()
        return f'By=spiffe://acme/crm;Hash={digest};Cert="{quote(self.pem, safe="")}";Subject="CN=chat, app,O=\\"A\\"";URI='

    def form(self, form: str) -> str:
        """Return what a proxy with this form sends."""
        return str(getattr(self, form))

    def files(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Write both to files, and return where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        encoding, clear = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / f"{name}.pem").write_text(self.pem)
        (folder / f"{name}.key").write_bytes(self.key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, clear))
        return folder / f"{name}.pem", folder / f"{name}.key"


def tiny(name: str) -> Certificate:
    """Return a certificate of less than 256 bytes: Ed25519, no extension. Nobody has signed it but itself."""
    key = ed25519.Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), 1, now, now + timedelta(hours=1))
    return Certificate(made.sign(key, None), key)


class Authority:
    """An authority, and what it signs."""

    def __init__(self, name: str = "Acme CA") -> None:
        self.own = self._made(name, None)

    def client(self, name: str) -> Certificate:
        return self._made(name, self.own)

    def _made(self, name: str, signed_by: Certificate | None) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer, signer = (subject, key) if signed_by is None else (signed_by.certificate.subject, signed_by.key)
        extensions = (
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            x509.BasicConstraints(ca=signed_by is None, path_length=None),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=signed_by is None,
                crl_sign=signed_by is None,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            ),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return Certificate(builder.sign(signer, hashes.SHA256()), key)


def client_context(authority: Path, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return what a client needs that trusts the authority and shows a certificate."""
    context = ssl.create_default_context(cafile=authority)
    if files is not None:
        context.load_cert_chain(*files)
    return context

"""A certificate authority for loopback, which is its own server."""

import ssl
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["issue", "make_authority", "server_context", "thumbprint"]


def make_authority(folder: Path) -> Path:
    """Return the certificate of a new authority, for 127.0.0.1; its key lies beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a company's own")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir(parents=True, exist_ok=True)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    (folder / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "ca.pem"


def server_context(authority: Path) -> ssl.SSLContext:
    """Return what a server needs to show that certificate; its key lies beside it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    beside = authority.with_suffix(".key")
    context.load_cert_chain(authority, beside if beside.exists() else authority.parent / "key.pem")
    return context


def issue(
    authority: Path, folder: Path, name: str = "chat-app-service", *, hours: float = 1, together: bool = False
) -> Path:
    """Return the file of a new client certificate of `authority`; its key lies beside it as ``.key``, or is in the same file.

    Its subject is ``CN=name,OU=svc,O=Acme``. With negative `hours` it has expired.
    """
    issuer = x509.load_pem_x509_certificate(authority.read_bytes())
    signing = serialization.load_pem_private_key((authority.parent / "key.pem").read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = [
        (NameOID.ORGANIZATION_NAME, "Acme"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "svc"),
        (NameOID.COMMON_NAME, name),
    ]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(*part) for part in subject]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(hours=48))
        .not_valid_after(datetime.now(UTC) + timedelta(hours=hours))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + (pem if together else b""))
    if not together:
        file.with_suffix(".key").write_bytes(pem)
    return file


def thumbprint(file: Path) -> str:
    """Return the ``x5t#S256`` of the first certificate of a file (RFC 8705 section 3.1)."""
    der = x509.load_pem_x509_certificate(file.read_bytes()).public_bytes(serialization.Encoding.DER)
    return urlsafe_b64encode(sha256(der).digest()).decode().rstrip("=")

"""What signs tokens for the services that run on it, as a Kubernetes cluster does. Here it is a key of this process.

A cluster publishes its keys, and Keycloak fetches them. So that the story needs no network, the realm file has the public key in it:
``${CLUSTER_KEY}``.
"""

import base64
import json
import time
import uuid
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["ISSUER", "public_key", "service_account_token", "write"]

ISSUER: Final = "https://kubernetes.default.svc.cluster.local"
_KEY: Final = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_key() -> str:
    """Return the public key as an identity provider in a realm file has it."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(_KEY.public_key().public_bytes(serialization.Encoding.DER, form)).decode()


def service_account_token(name: str, audience: str) -> str:
    """Return a token of a service account, for one audience and ten minutes."""
    now = int(time.time())
    subject = f"system:serviceaccount:vault:{name}"
    claims = {"iss": ISSUER, "sub": subject, "aud": [audience], "iat": now, "exp": now + 600, "jti": str(uuid.uuid4())}
    signed = f"{_part({'alg': 'RS256', 'typ': 'JWT'})}.{_part(claims)}"
    signature = _KEY.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    return f"{signed}.{_base64url(signature)}"


def write(folder: str, name: str, audience: str) -> Path:
    """Put a token into a file, as the kubelet does for a pod with a projected token."""
    path = Path(folder, "token")
    path.write_text(service_account_token(name, audience), encoding="ascii")
    path.chmod(0o600)
    return path


def _part(members: object) -> str:
    return _base64url(json.dumps(members).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

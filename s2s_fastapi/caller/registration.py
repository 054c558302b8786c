"""What Keycloak has to be told of a client that signs who it is: its public keys, as the Admin REST and an import take them."""

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final

from s2s_fastapi.caller.client_key import ClientKey

__all__ = ["KeyType", "new_private_key", "registration"]

_RSA_BITS: Final = 3072  # good beyond 2030 (NIST SP 800-57), and still signed with in 2 ms


class KeyType(StrEnum):
    """The kinds of keys that are made (``kty``, RFC 7518 section 6.1, RFC 8037)."""

    EC = "EC"
    RSA = "RSA"
    OKP = "OKP"


def new_private_key(kty: KeyType) -> bytes:
    """Return a new private key in PEM (PKCS #8), without a password: P-256, RSA of 3072 bits, or Ed25519."""
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415

    if kty is KeyType.RSA:
        return RSAKey.generate_key(_RSA_BITS).as_pem(private=True)
    return (ECKey.generate_key("P-256") if kty is KeyType.EC else OKPKey.generate_key("Ed25519")).as_pem(private=True)


def registration(client_id: str, keys: Sequence[ClientKey]) -> dict[str, Any]:
    """Return the client with these public keys, any of which may sign; nothing of it is secret.

    It makes a client, and put over one that exists it changes what stands in it and nothing else.
    """
    algorithms = {key.algorithm for key in keys}
    key_set = {"keys": [key.public_jwk() for key in keys]}
    return {
        "clientId": client_id,
        "protocol": "openid-connect",
        "publicClient": False,
        "standardFlowEnabled": False,
        "serviceAccountsEnabled": True,
        "clientAuthenticatorType": "client-jwt",
        "attributes": {
            "use.jwks.url": "false",
            "use.jwks.string": "true",
            "jwks.string": json.dumps(key_set, separators=(",", ":")),
            # Empty is any: while one key follows another of a different kind, both have to be taken.
            "token.endpoint.auth.signing.alg": algorithms.pop() if len(algorithms) == 1 else "",
        },
    }

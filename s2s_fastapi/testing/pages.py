"""The public pages of a realm: its keys, its metadata, and what the realm says of itself."""

from typing import Any, Final

from s2s_fastapi.realm.exchange import GRANT_TYPE
from s2s_fastapi.testing.answers import json_response
from s2s_fastapi.testing.proofs import PROOF_ALGORITHMS
from s2s_fastapi.testing.realm import IssuerRealm
from s2s_fastapi.testing.wire import Response

__all__ = ["certs_page", "discovery_page", "realm_page"]

_NO_CACHE: Final = (("Cache-Control", "no-cache"),)
_DISCOVERY_CACHE: Final = (("Cache-Control", "no-cache, must-revalidate, no-transform, no-store"),)
_REALM_HEADERS: Final = (("Content-Type", "application/json;charset=UTF-8"), *_NO_CACHE)
_ALGORITHMS: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512"),
)


def certs_page(realm: IssuerRealm) -> Response:
    """Return the JWKS (RFC 7517 section 5)."""
    return json_response(200, {"keys": realm.keys.published()}, _NO_CACHE)


def discovery_page(issuer: str, internal: str, *, exchanges: bool, binds: bool) -> Response:
    """Return the metadata (OpenID Connect Discovery 1.0 section 3): only what is answered here.

    `issuer` is the realm's public URL; `internal` is the address at which the request arrived, and discovery sends services there.
    ``exchanges``: whether this release exchanges tokens. ``binds``: whether it looks at DPoP proofs.
    """
    endpoints = f"{internal}/protocol/openid-connect"
    members: dict[str, Any] = {
        "issuer": issuer,
        "token_endpoint": f"{endpoints}/token",
        "jwks_uri": f"{endpoints}/certs",
        "grant_types_supported": ["client_credentials", "password", *[GRANT_TYPE] * exchanges],
        "response_types_supported": ["none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(_ALGORITHMS),
        "token_endpoint_auth_methods_supported": [
            *("private_key_jwt", "client_secret_basic", "client_secret_post", "tls_client_auth"),
        ],
        "tls_client_certificate_bound_access_tokens": True,
        "mtls_endpoint_aliases": {"token_endpoint": f"{endpoints}/token"},
        "token_endpoint_auth_signing_alg_values_supported": list(_ALGORITHMS),
        "claim_types_supported": ["normal"],
        **({"dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS)} if binds else {}),
    }
    return json_response(200, members, _DISCOVERY_CACHE)


def realm_page(realm: IssuerRealm, issuer: str) -> Response:
    """Return the public page of the realm, with ``tokens-not-before``."""
    members = {
        "realm": realm.name,
        "public_key": realm.keys.public_key(),
        "token-service": f"{issuer}/protocol/openid-connect",
        "account-service": f"{issuer}/account",
        "tokens-not-before": realm.not_before,
    }
    return json_response(200, members, _REALM_HEADERS)

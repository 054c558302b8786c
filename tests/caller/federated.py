"""Tokens of another issuer, as a Kubernetes cluster makes them for its service accounts."""

import json
from pathlib import Path
from typing import Any

from s2s_fastapi.settings import KeycloakSettings
from tests.caller.fakes import b64, settings

ISSUER = "http://keycloak:8080/realms/corp"
CLUSTER = "https://kubernetes.default.svc.cluster.local"
SUBJECT = "system:serviceaccount:prod:chat"
NOW = 1_800_000_000


def token(
    *, kid: str | None = "k1", drop: str = "", signature: str = "the-signature-of-the-cluster", **claims: Any
) -> str:
    """Return a token that lives for an hour from `NOW` on, with `claims` in place of its own and without `drop`."""
    all_claims = {"iss": CLUSTER, "sub": SUBJECT, "aud": [ISSUER], "iat": NOW, "nbf": NOW, "exp": NOW + 3600, **claims}
    all_claims.pop(drop, None)
    header = {"alg": "RS256"} if kid is None else {"alg": "RS256", "kid": kid}
    return f"{b64(json.dumps(header))}.{b64(json.dumps(all_claims))}.{b64(signature)}"


def federated(file: Path, **changes: Any) -> KeycloakSettings:
    return settings(client_secret=None, client_auth="federated_jwt", client_assertion_file=file, **changes)

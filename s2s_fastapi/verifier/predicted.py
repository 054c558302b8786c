"""The caller of a token that somebody predicts or explains. Nothing is verified here: never use it for a request."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from s2s_fastapi.decision import Decision
from s2s_fastapi.principal import Principal
from s2s_fastapi.verifier.claims import read_principal

__all__ = ["predicted_principal"]

_MADE_UP: Final = {"iss": "https://keycloak.invalid/realms/predicted", "iat": 1, "exp": 2}


def predicted_principal(claims: Mapping[str, Any]) -> Principal | Decision:
    """Return the caller that these claims describe, or why no receiver could read them.

    Issuer and dates are made up if they are missing. The caller of a bound token is taken for one that proves to have its key or certificate.
    """
    whole = {**_MADE_UP, **claims}
    found = read_principal(whole, MappingProxyType(whole))
    if isinstance(found, Decision):
        return found
    cnf = claims.get("cnf")
    if not isinstance(cnf, Mapping):
        return found[0]
    return replace(found[0], binding="dpop" if "jkt" in cnf else "certificate" if "x5t#S256" in cnf else "")

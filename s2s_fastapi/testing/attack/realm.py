"""The realm of an attack: one service, one user, and tokens whose claims the suite changes and signs again."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from s2s_fastapi.testing.attack.keyring import Keyring
from s2s_fastapi.testing.attack.recipe import forged
from s2s_fastapi.testing.faults import Fault, answering, disconnecting, html, typed
from s2s_fastapi.testing.issuer import EmbeddedIssuer
from s2s_fastapi.testing.keys import once_in_a_process

__all__ = ["REALM", "AttackedRealm", "attacking_issuer", "document", "foreign_keys"]

REALM: Final = "attacked"
_ATTACKER: Final = "attacker"
"""The realm of another server: it publishes the foreign keys."""
_NOWHERE: Final = "https://attacker.example/jwks.json"
_SERVICE: Final = "calling-service"
_FRONT_END: Final = "front-end"
_USER: Final = "ann"
_GOOD: Final = {"algorithm": "RS256", "claims": "${claims}"}
_KEPT: Final = 120
"""Seconds for which a token is given again. A cache that mixes up tokens shows only if the good token is the one that it has seen."""
_OFF: Final[Mapping[str, Callable[[], Fault]]] = {
    "unavailable": lambda: answering(503),
    "page": html,
    "closed": disconnecting,
    "missing": lambda: answering(404),
    "none": lambda: answering(200, '{"keys": []}') & typed("application/json"),
}


def document() -> dict[str, Any]:
    """Return the realm, as Keycloak would import it."""
    client = {"protocol": "openid-connect", "enabled": True, "secret": "of-the-suite"}
    return {
        "realm": REALM,
        "enabled": True,
        "clients": [
            {**client, "clientId": _SERVICE, "serviceAccountsEnabled": True},
            {**client, "clientId": _FRONT_END, "directAccessGrantsEnabled": True},
        ],
        "users": [
            {
                "username": _USER,
                "enabled": True,
                "email": "ann@example.com",
                "firstName": "Ann",
                "lastName": "Example",
                "credentials": [{"type": "password", "value": "of-the-suite"}],
            }
        ],
    }


def attacking_issuer() -> EmbeddedIssuer:
    """Return a new issuer with the realm of the attack. Its keys are made once in the process: they take 100 ms."""
    return EmbeddedIssuer.standing_in(document(), new_keys=lambda realm: once_in_a_process(f"attacked {realm}"))


@contextmanager
def foreign_keys() -> Iterator[str]:
    """Serve the foreign keys, as an attacker's own server does, and return their address."""
    attacker = EmbeddedIssuer({"realm": _ATTACKER, "enabled": True}, new_keys=once_in_a_process)
    attacker.keys(_ATTACKER).kid("RS256")
    with attacker.serving():
        yield f"{attacker.issuer(_ATTACKER)}/protocol/openid-connect/certs"


class AttackedRealm:
    """One realm of an issuer, and the good tokens that the attacks begin with."""

    def __init__(self, issuer: EmbeddedIssuer, realm: str = REALM, *, jwks_foreign: str = _NOWHERE) -> None:
        self._jwks_foreign = jwks_foreign
        self._issuer = issuer
        self._realm = realm
        self._keys = issuer.keys(realm)
        self.keyring = Keyring(self._keys)
        self._tokens: dict[str, tuple[str, int]] = {}
        for algorithm in ("RS256", "ES256"):  # made before the app reads the published keys
            self._keys.kid(algorithm)

    @property
    def name(self) -> str:
        """The name of the realm."""
        return self._realm

    @property
    def issuer(self) -> str:
        """The claim ``iss``."""
        return self._issuer.issuer(self._realm)

    def token(self, claims: Mapping[str, Any], *, user: bool, now: int) -> str:
        """Return a good token of a service or a user with these claims: the same one for two minutes, as callers keep theirs."""
        name = json.dumps([claims, user], sort_keys=True)
        token, made = self._tokens.get(name, ("", 0))
        if not token or not 0 <= now - made < _KEPT:
            # As a variable: a role of the app may be called ${x}.
            variables = {"claims": {**claims, "iat": now, "exp": now + 300, "iss": self.issuer}}
            token = forged(self._base(user=user), _GOOD, self.keyring, variables)
            self._tokens[name] = token, now
        return token

    def _base(self, *, user: bool) -> str:
        if user:
            return self._issuer.user_token(self._realm, _USER, via=_FRONT_END)
        return self._issuer.service_token(self._realm, _SERVICE)

    def keyring_with(self, further: str) -> Keyring:
        """Return the keys, with those of a further realm of the issuer if there is one."""
        return Keyring(self._keys, self._issuer.keys(further)) if further else self.keyring

    def variables(self, now: int) -> dict[str, Any]:
        """Return what a recipe can name of the realm and of the attacker."""
        keys = self.keyring
        return {
            "issuer": self.issuer,
            "now": now,
            "kid": keys.kid("trusted", "RS256"),
            "kid_es256": keys.kid("trusted", "ES256"),
            "kid_foreign": keys.kid("foreign", "RS256"),
            "jwks_foreign": self._jwks_foreign,
            "jwk_foreign": dict(keys.jwk("foreign", "RS256")),
        }

    def hide_keys(self, how: str) -> None:
        """Let every fetch of the keys fail."""
        self._issuer.faults.add("certs", _OFF[how](), times=None)

    def withdraw_keys(self) -> None:
        """Publish a new key and none of the older ones."""
        self._issuer.rotate_keys(self._realm, keep=False)
        self._tokens.clear()

    def revoke(self, at: int) -> None:
        """Revoke all tokens that were issued before."""
        self._issuer.set_not_before(self._realm, at)

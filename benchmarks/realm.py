"""The realm of the benchmarks: the embedded issuer with real keys, and tokens that outlive the run."""

from collections.abc import Sequence
from pathlib import Path

from s2s_fastapi import KeycloakSettings
from s2s_fastapi.testing import EmbeddedIssuer, read_documents

ROOT = Path(__file__).parents[1]
REALM, RECEIVER, CALLER = "corp", "crm-api-gateway", "chat-app-service"
SECOND = "partners"
UNASSIGNED, USER = "chat-app-unassigned", "alice"
"""A client whose tokens are for nobody, and a user who logs in through `CALLER`."""
_HALF_A_DAY = 12 * 3600


def issuer(
    algorithm: str = "RS256", *, life: int = _HALF_A_DAY, scopes: Sequence[str] = (), beside: Sequence[str] = ()
) -> EmbeddedIssuer:
    """Return the realm with tokens that live for `life` seconds; each client may ask for each of `scopes`.

    `beside`: the names of further realms that have the same in them.
    """
    (document,) = read_documents([ROOT / "example_app/realms/corp.json"], {}).realms
    more = [{"name": scope, "protocol": "openid-connect"} for scope in scopes]
    realm = {
        **document,
        "accessTokenLifespan": life,
        "defaultSignatureAlgorithm": algorithm,
        "clientScopes": [*document["clientScopes"], *more],
        "clients": [
            {
                **client,
                "optionalClientScopes": list(scopes),
                "directAccessGrantsEnabled": client["clientId"] == CALLER,
                # As in a client that was made at the console: the token holds the default roles of its account.
                "fullScopeAllowed": client["clientId"] in (CALLER, UNASSIGNED),
            }
            for client in document["clients"]
        ],
        "users": [{"username": USER, "enabled": True, "firstName": "A", "lastName": "B", "email": "a@b.test"}],
    }
    return EmbeddedIssuer(realm, *({**realm, "realm": name} for name in beside))


def two_realms(of: EmbeddedIssuer) -> list[KeycloakSettings]:
    """Return the settings of an app that accepts tokens of both realms."""
    return [settings(of), settings(of, SECOND)]


def settings(of: EmbeddedIssuer, realm: str = REALM) -> KeycloakSettings:
    return KeycloakSettings(url=of.url, realm=realm, client_id=RECEIVER)


def token(of: EmbeddedIssuer, realm: str = REALM) -> str:
    """Return another token of the same caller, as Keycloak would sign it."""
    return of.service_token(realm, CALLER)

"""The settings of an example service, as its environment would give them."""

from typing import Any

from example_app.realm import Realm
from s2s_fastapi import KeycloakSettings


def settings_of(there: Realm, client_id: str, /, **changes: Any) -> KeycloakSettings:
    """Return the settings of one client of a realm; a change to None leaves the setting out."""
    given = {name.removeprefix("KEYCLOAK_").lower(): value for name, value in there.environment(client_id).items()}
    return KeycloakSettings(**{name: value for name, value in {**given, **changes}.items() if value is not None})

"""Three services and their realm, as small as they can be, for the tests of this room."""

import json
from collections.abc import Sequence
from typing import Any

from s2s_fastapi.declared.access_file import AccessFile
from s2s_fastapi.realm import builtins
from s2s_fastapi.realm.model import RealmModel

SHOP, STOCK, MAIL = "shop", "stock", "mail"
ANY_SERVICE: dict[str, Any] = {"service": "any"}


def app(client_id: str, *routes: dict[str, Any], calls: Sequence[dict[str, Any]] = (), receives: bool = True) -> Any:
    requires = {"and": [{"audience": [client_id]}, ANY_SERVICE]} if receives else None
    return {
        "client_id": client_id,
        "requires": requires,
        "public_paths": [],
        "routes": list(routes),
        "calls": list(calls),
    }


def route(path: str, requires: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"path": path, "methods": ["GET"], **({"requires": requires} if requires else {}), **more}


def call(audience: str, *scopes: str) -> dict[str, Any]:
    return {"audiences": [audience], "scopes": list(scopes), "origins": [f"http://{audience}"]}


def file(*apps: Any) -> AccessFile:
    return AccessFile.parse(json.dumps({"version": 1, "apps": apps}).encode())


def client(client_id: str, *audiences: str, optional: Sequence[str] = (), accounts: bool = True) -> dict[str, Any]:
    return {
        "clientId": client_id,
        "serviceAccountsEnabled": accounts,
        "defaultClientScopes": ["basic", "service_account"],
        "optionalClientScopes": list(optional),
        "protocolMappers": [mapper(audience) for audience in audiences],
    }


def mapper(audience: str) -> dict[str, Any]:
    return {
        "name": f"audience {audience}",
        "protocol": "openid-connect",
        "protocolMapper": "oidc-audience-mapper",
        "config": {"included.custom.audience": audience, "access.token.claim": "true"},
    }


def realm(*clients: dict[str, Any], scopes: Sequence[tuple[str, str]] = ()) -> RealmModel:
    """Return a realm; `scopes` are client scopes, each with the audience that it brings."""
    more = [{"name": name, "protocol": "openid-connect", "protocolMappers": [mapper(each)]} for name, each in scopes]
    return RealmModel.read(
        {
            "realm": "test",
            "enabled": True,
            "clients": list(clients),
            "clientScopes": [*builtins.scopes(service_account=True)[0], *more],
        }
    )

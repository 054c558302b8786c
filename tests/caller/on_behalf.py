"""An app that users call and that calls another service on their behalf: its realm, its users, and its Keycloak."""

from typing import Any

from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from s2s_fastapi import ServiceAuthMiddleware, require_service, require_user
from tests.caller.exchange.fakes import CLIENT, ISSUER, read
from tests.caller.fakes import Receiver
from tests.kit.realm import Realm

ANYONE = require_service() | require_user()


def user_token(realm: Realm, name: str = "ann", **changes: Any) -> str:
    """Return the token that a user of the realm shows to the app."""
    return realm.user_token(
        **{
            "iss": ISSUER,
            "aud": CLIENT,
            "sub": f"id-of-{name}",
            "sid": f"session-of-{name}",
            "azp": "front-end",
            **changes,
        }
    )


def as_user(realm: Realm, name: str = "ann", **changes: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {user_token(realm, name, **changes)}"}


def as_service(realm: Realm) -> dict[str, str]:
    return {"Authorization": f"Bearer {realm.token(iss=ISSUER, aud=CLIENT)}"}


def users_app(**options: Any) -> FastAPI:
    """Return an app that users and services may call."""
    return FastAPI(openapi_url=None, dependencies=[Depends(ANYONE)], **options)


def guarded(app: Any, realm: Realm, **options: Any) -> Any:
    """Put the middleware in front of an app that reads its settings from the environment."""
    app.add_middleware(ServiceAuthMiddleware, **{"users": True, "transport": realm.transport, **options})
    return app


def browser(app: Any) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def callers(receiver: Receiver) -> list[tuple[str, str]]:
    """Return whose token each request carried: the user, and the client that exchanged it."""
    seen = [read(str(token).removeprefix("Bearer ")) for token in receiver.tokens]
    return [(claims.get("sub", ""), claims["azp"]) for claims in seen]

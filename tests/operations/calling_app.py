"""An app that calls the receiver of the mistakes, and requests a scope for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from os import environ
from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI

from s2s_fastapi import (
    KeycloakSettings,
    ServiceAuthMiddleware,
    ServiceTokenAuth,
    require_caller,
    require_user,
    service_client,
    service_lifespan,
)
from tests.kit.console import RECEIVER, SCOPE

crm = service_client("http://crm.example", audience=RECEIVER)
scoped = service_client("http://crm.example", audience=RECEIVER, scope=SCOPE)


def calling(client: Any, *, users: bool = False) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, users=users)

    @app.get("/call", dependencies=[Depends(require_user())] if users else [])
    async def call(crm: Annotated[httpx.AsyncClient, Depends(client)]) -> str:
        return str(crm.base_url)

    return app


app = calling(crm)
scoped_app = calling(scoped)
on_behalf_app = calling(crm.on_behalf, users=True)
anybody = calling(service_client("http://crm.example"))


def of_two_realms(client: Any = None) -> FastAPI:
    """Return an app whose second realm is that of a partner. It calls with a token of its first realm, or calls nobody."""

    def nobody() -> None: ...

    partners = KeycloakSettings(url=environ["KEYCLOAK_URL"], realm="techstore", client_id="notification-service")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=[KeycloakSettings(), partners])

    @app.get("/call", dependencies=[Depends(require_caller("shop-api", realm="techstore"))])
    async def call(_: Annotated[Any, Depends(client or nobody)]) -> None: ...

    return app


def of_dead_partner() -> FastAPI:
    """Return an app whose second realm is not there."""
    dead = KeycloakSettings(url=environ["KEYCLOAK_URL"], realm="nobody", client_id="notification-service")
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware, settings=[KeycloakSettings(), dead])
    app.get("/call", dependencies=[Depends(require_caller("shop-api"))])(lambda: None)
    return app


def calling_partner(*own: Any) -> FastAPI:
    """Return an app that calls as a client of another realm, and has no middleware."""
    partners = KeycloakSettings.from_environment(prefix="PARTNERS_")
    called = service_client("http://partner.example", audience=RECEIVER, settings=partners)
    return FastAPI(openapi_url=None, lifespan=service_lifespan(called, *own))


def calling_both() -> FastAPI:
    return calling_partner(crm)


def caller_of_two_realms() -> FastAPI:
    return of_two_realms(crm)


def calling_somebody() -> FastAPI:
    return calling(service_client(lambda: environ["URL_OF_NOBODY_KNOWS_WHAT"], audience=RECEIVER))


def asking_by_itself() -> FastAPI:
    """Return an app that calls with its own client and an auth object: nothing declares that."""
    auth = ServiceTokenAuth("http://crm.example", audience=RECEIVER)
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)

    @app.get("/call")
    async def call() -> None:
        async with httpx.AsyncClient(auth=auth) as client:
            await client.get("http://crm.example")

    return app


def opened_in_a_route() -> FastAPI:
    """Return an app that opens its client in the body of a route: nothing declares that."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(ServiceAuthMiddleware)

    @app.get("/call")
    async def call() -> None:
        async with crm as client:
            await client.get("/")

    return app


def made_at_the_start() -> FastAPI:
    """Return an app that makes its client in a lifespan of its own: nothing declares that."""

    @asynccontextmanager
    async def opened(app: FastAPI) -> AsyncIterator[None]:
        async with service_client("http://crm.example", audience=RECEIVER) as client:
            app.state.crm = client
            yield

    app = FastAPI(openapi_url=None, lifespan=opened)
    app.add_middleware(ServiceAuthMiddleware)
    return app


open_app = FastAPI()
unprotected = FastAPI()
unprotected.get("/tickets", dependencies=[Depends(require_caller("chat"))])(lambda: None)


def broken() -> FastAPI:
    secret = "hunter2-in-the-message"
    raise RuntimeError(secret)


def mistaken() -> FastAPI:
    KeycloakSettings(url="sso.example.com", realm="corp")
    return FastAPI()


def made() -> FastAPI:
    return calling(crm)


def made_for(client: Any) -> FastAPI:
    return calling(client)

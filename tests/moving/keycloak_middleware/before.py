import os

from fastapi import Depends, FastAPI
from fastapi_keycloak_middleware import (
    AuthContext,
    AuthorizationMethod,
    CheckPermissions,
    KeycloakConfiguration,
    get_auth_context,
    get_service_principal,
    get_user,
    setup_keycloak_middleware,
)

app = FastAPI()


def is_service(claims: dict) -> bool:
    return "client_id" in claims


async def user_of(claims: dict) -> str:
    return claims["preferred_username"]


async def service_of(claims: dict) -> str:
    return claims["azp"]


async def permissions_of(roles: list[str]) -> list[str]:
    granted = {"clerk": ["orders:read"], "manager": ["orders:read", "orders:write"]}
    return [permission for role in roles for permission in granted.get(role, [])]


setup_keycloak_middleware(
    app,
    keycloak_configuration=KeycloakConfiguration(
        url=os.environ["KEYCLOAK_URL"],
        realm=os.environ["KEYCLOAK_REALM"],
        client_id=os.environ["KEYCLOAK_CLIENT_ID"],
        authorization_method=AuthorizationMethod.CLAIM,
        authorization_claim="realm_access.roles",
    ),
    exclude_patterns=["/healthz", "/docs", "/openapi.json"],
    user_mapper=user_of,
    service_mapper=service_of,
    service_detector=is_service,
    scope_mapper=permissions_of,
)


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/me")
async def me(user: str = Depends(get_user)) -> str:
    return user


@app.get("/orders", dependencies=[Depends(CheckPermissions("orders:read"))])
async def orders(auth: AuthContext = Depends(get_auth_context)) -> str:
    return auth.principal_type


@app.post("/orders", dependencies=[Depends(CheckPermissions("orders:write"))])
async def order() -> str:
    return "ordered"


@app.post("/nightly")
async def nightly(service: str = Depends(get_service_principal)) -> str:
    return service

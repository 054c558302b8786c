import os

from fastapi import Depends, FastAPI, HTTPException
from keycloak_guard import KeycloakAuthConfig, Principal, TokenValidator
from keycloak_guard.contrib.fastapi import KeycloakAuth, require_roles

issuer = os.environ["KEYCLOAK_ISSUER"]
certs = f"{os.environ['KEYCLOAK_URL']}/realms/{os.environ['KEYCLOAK_REALM']}/protocol/openid-connect/certs"
config = KeycloakAuthConfig(issuer=issuer, audience="orders-api", jwks_url=certs, leeway_seconds=30)
auth = KeycloakAuth(TokenValidator(config))
app = FastAPI()


def service(principal: Principal = Depends(auth)) -> Principal:
    if not principal.is_service:
        raise HTTPException(403)
    return principal


def writer(principal: Principal = Depends(auth)) -> Principal:
    if not principal.has_scope("orders:write"):
        raise HTTPException(403)
    return principal


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/me")
async def me(principal: Principal = Depends(auth)) -> str:
    return principal.subject


@app.get("/admin", dependencies=[Depends(require_roles(auth, "admin", "operator"))])
async def admin() -> str:
    return "everything"


@app.post("/orders", dependencies=[Depends(writer)])
async def order() -> str:
    return "ordered"


@app.post("/nightly")
async def nightly(principal: Principal = Depends(service)) -> str | None:
    return principal.client_id

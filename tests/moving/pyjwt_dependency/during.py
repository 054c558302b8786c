import os
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from s2s_fastapi import (
    DOCS,
    ServiceAuthMiddleware,
    require_claim,
    require_realm_role,
    require_service,
    require_user,
)

ISSUER = os.environ["KEYCLOAK_ISSUER"]
CERTS = f"{os.environ['KEYCLOAK_URL']}/realms/{os.environ['KEYCLOAK_REALM']}/protocol/openid-connect/certs"
TENANTS = ("acme", "umbrella")

keys = jwt.PyJWKClient(CERTS)
bearer = HTTPBearer(auto_error=False)
app = FastAPI()
app.add_middleware(
    ServiceAuthMiddleware,
    users=True,
    public_paths=["/healthz", *DOCS],
    optional_paths=["/products"],
    insecure_observe_until=str((datetime.now(UTC) + timedelta(days=60)).date()),  # in your code a day: "2027-01-31"
)

anybody = require_user() | require_service()
of_a_tenant = anybody & require_claim("tenant", "acme", "umbrella")

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


def optional_caller(credentials: Credentials) -> dict[str, Any] | None:
    if credentials is None:
        return None
    try:
        key = keys.get_signing_key_from_jwt(credentials.credentials).key
        return jwt.decode(
            credentials.credentials,
            key,
            algorithms=["RS256"],
            issuer=ISSUER,
            options={"verify_aud": False},
            leeway=30,
        )
    except jwt.PyJWTError:
        raise HTTPException(401, "invalid token", {"WWW-Authenticate": "Bearer"}) from None


def caller(claims: Annotated[dict[str, Any] | None, Depends(optional_caller)]) -> dict[str, Any]:
    if claims is None:
        raise HTTPException(401, "no token", {"WWW-Authenticate": "Bearer"})
    return claims


def tenant(claims: Annotated[dict[str, Any], Depends(caller)]) -> str:
    if claims.get("tenant") not in TENANTS:
        raise HTTPException(403, "no tenant")
    return claims["tenant"]


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/products", dependencies=[Depends(anybody.optional())])
async def products(claims: Annotated[dict[str, Any] | None, Depends(optional_caller)]) -> list[str]:
    return ["for all"] if claims is None else ["for all", "for partners"]


@app.get("/invoices", dependencies=[Depends(of_a_tenant)])
async def invoices(tenant: Annotated[str, Depends(tenant)]) -> str:
    return tenant


@app.delete("/invoices/{owner}", dependencies=[Depends(of_a_tenant & require_realm_role("accountant"))])
async def delete(owner: str, claims: Annotated[dict[str, Any], Depends(caller)]) -> str:
    if claims.get("tenant") != owner or "accountant" not in claims.get("realm_access", {}).get("roles", []):
        raise HTTPException(403, "not yours")
    return "deleted"

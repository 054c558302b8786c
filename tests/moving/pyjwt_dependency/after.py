from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException

from s2s_fastapi import (
    DOCS,
    Principal,
    ServiceAuthMiddleware,
    require_claim,
    require_realm_role,
    require_service,
    require_user,
)

app = FastAPI()
app.add_middleware(
    ServiceAuthMiddleware,
    users=True,
    public_paths=["/healthz", *DOCS],
    optional_paths=["/products"],
)

anybody = require_user() | require_service()
of_a_tenant = anybody & require_claim("tenant", "acme", "umbrella")


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/products")
async def products(caller: Annotated[Principal | None, Depends(anybody.optional())]) -> list[str]:
    return ["for all"] if caller is None else ["for all", "for partners"]


@app.get("/invoices")
async def invoices(caller: Annotated[Principal, Depends(of_a_tenant)]) -> str:
    return str(caller.claims["tenant"])


@app.delete("/invoices/{owner}")
async def delete(
    owner: str, caller: Annotated[Principal, Depends(of_a_tenant & require_realm_role("accountant"))]
) -> str:
    if caller.claims["tenant"] != owner:
        raise HTTPException(403, "not yours")
    return "deleted"

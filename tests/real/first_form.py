"""Story 2 as its article first wrote it: signature, issuer, expiry, a service, and the caller's name, but no audience."""

from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import DOCS, Principal, ServiceAuthMiddleware, require_caller

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, public_paths=["/healthz", *DOCS], insecure_skip_audience=True)


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.post("/notifications", status_code=202)
async def send(caller: Annotated[Principal, Depends(require_caller("shop-api"))]) -> str:
    return caller.client_id

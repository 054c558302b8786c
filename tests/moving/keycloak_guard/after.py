from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import (
    DOCS,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_role,
    require_scope,
    require_service,
    require_user,
)

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/healthz", *DOCS])

anybody = require_user() | require_service()


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/me")
async def me(caller: Annotated[Principal, Depends(anybody)]) -> str:
    return caller.subject


@app.get("/admin", dependencies=[Depends(anybody & (require_role("admin") | require_role("operator")))])
async def admin() -> str:
    return "everything"


@app.post("/orders", dependencies=[Depends(anybody & require_scope("orders:write"))])
async def order() -> str:
    return "ordered"


@app.post("/nightly")
async def nightly(caller: Annotated[Principal, Depends(require_caller("scheduler"))]) -> str:
    return caller.client_id

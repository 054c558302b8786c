from typing import Annotated

from fastapi import Depends, FastAPI

from s2s_fastapi import (
    DOCS,
    Principal,
    ServiceAuthMiddleware,
    require_caller,
    require_realm_role,
    require_service,
    require_user,
)

app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, users=True, public_paths=["/healthz", *DOCS])

anybody = require_user() | require_service()
may_read = anybody & (require_realm_role("clerk") | require_realm_role("manager"))
may_write = anybody & require_realm_role("manager")


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/me")
async def me(user: Annotated[Principal, Depends(require_user())]) -> str:
    return user.username or user.subject


@app.get("/orders")
async def orders(caller: Annotated[Principal, Depends(may_read)]) -> str:
    return caller.kind


@app.post("/orders", dependencies=[Depends(may_write)])
async def order() -> str:
    return "ordered"


@app.post("/nightly")
async def nightly(service: Annotated[Principal, Depends(require_caller("scheduler"))]) -> str:
    return service.client_id

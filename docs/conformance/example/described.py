"""The routes of orders.mjs, and who may call them, for the attack suite. This app never serves a request."""

from fastapi import Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_caller

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, audience="orders-api", public_paths=["/health"])


@app.get("/health")
def health() -> None: ...


@app.get("/orders/{number}", dependencies=[Depends(require_caller("shop"))])
def order(number: str) -> None: ...

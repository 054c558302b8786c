"""An app for a server in a process of its own. Its settings come from the environment."""

from fastapi import Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_caller

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, audience="orders")


async def runs() -> str:
    return "ok"


for method in ("GET", "DELETE"):
    app.add_api_route("/orders", runs, methods=[method], dependencies=[Depends(require_caller("shop"))])

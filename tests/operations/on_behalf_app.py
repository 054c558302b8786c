"""An app that calls on behalf of its users: with clients that it only uses for that, and with one that it uses for both."""

from typing import Annotated, Any

import httpx
from fastapi import Depends, FastAPI, Request

from s2s_fastapi import ServiceAuthMiddleware, require_user, service_auth, service_client, service_lifespan

crm = service_client("http://crm.example", audience="crm")
tools = service_auth("https://tools.example.com", audience="https://tools.example.com/mcp")
stock = service_client("http://stock.example", audience="stock")

app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, users=True)


@app.get("/customers", dependencies=[Depends(require_user("web"))])
async def customers(
    of_crm: Annotated[Any, Depends(crm.on_behalf)],
    of_tools: Annotated[Any, Depends(tools.on_behalf)],
    of_stock: Annotated[Any, Depends(stock.on_behalf)],
    own: Annotated[Any, Depends(stock)],
) -> None: ...


@app.get("/sync", dependencies=[Depends(require_user("web"))])
def sync(of_crm: Annotated[Any, Depends(crm.on_behalf.sync)]) -> None: ...


# Calls in the code only: the lifespan, or a name of the module, says that they are on behalf of users.
tools_for_users = tools.on_behalf
http = httpx.AsyncClient()
in_the_code = FastAPI(openapi_url=None, lifespan=service_lifespan(crm.on_behalf))
in_the_code.add_middleware(ServiceAuthMiddleware, users=True)


@in_the_code.get("/customers", dependencies=[Depends(require_user("web"))])
async def by_hand(request: Request) -> str:
    return (await http.get("http://crm.example/customers", auth=crm.auth.on_behalf_of(request))).text

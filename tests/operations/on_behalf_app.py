"""An app that calls on behalf of its users: with clients that it only uses for that, and with one that it uses for both."""

from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request

from s2s_fastapi import ServiceAuthMiddleware, require_user, service_auth, service_client, service_lifespan

crm = service_client("http://crm.example", audience="crm")
tools = service_auth("https://tools.example.com", audience="https://tools.example.com/mcp")
stock = service_client("http://stock.example", audience="stock")

mail = service_client("http://mail.example", audience="mail")
bank = service_client("http://bank.example", audience="bank")

app = FastAPI(openapi_url=None, lifespan=service_lifespan(mail.on_behalf, bank, bank.on_behalf))
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


@app.post("/letters", dependencies=[Depends(require_user("web"))])
async def letters(request: Request) -> None:
    mail.auth.on_behalf_of(request)

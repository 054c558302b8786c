"""Apps that call on behalf of their users: with a client that they only use for that, and with one that they use for both."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, FastAPI

from s2s_fastapi import ServiceAuthMiddleware, require_user, service_auth, service_client
from s2s_fastapi.downstream import Downstream

URL = "https://tools.example.com/mcp"
crm = service_client("http://crm.example", audience="crm")
tools = service_auth("https://tools.example.com", audience=URL)
stock = service_client("http://stock.example", audience="stock")


@dataclass(frozen=True)
class OnBehalf:
    """What a route depends on to call on behalf of its user."""

    client: Any = None
    auth: Any = None

    @property
    def downstream(self) -> Downstream:
        own: Downstream = (self.client or self.auth).downstream
        return replace(own, on_behalf=True)

    async def __call__(self) -> None: ...


app = FastAPI(openapi_url=None)
app.add_middleware(ServiceAuthMiddleware, users=True)


@app.get("/customers", dependencies=[Depends(require_user("web"))])
async def customers(
    of_crm: Annotated[None, Depends(OnBehalf(client=crm))],
    of_tools: Annotated[None, Depends(OnBehalf(auth=tools.auth))],
    of_stock: Annotated[None, Depends(OnBehalf(client=stock))],
    own: Annotated[Any, Depends(stock)],
) -> None: ...

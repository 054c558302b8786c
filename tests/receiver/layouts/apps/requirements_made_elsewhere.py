"""Requirements that helpers, tables, enums and settings make, and that FastAPI asks because a ``Depends`` holds them."""

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Security
from pydantic import BaseModel

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller, require_scope
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST, Ask

CHAT = require_caller("chat-app-service")
DEPENDS = {"read": Depends(CHAT), "write": Security(CHAT, scopes=["tickets:write"])}
BY_NAME = [Depends(require_caller(name)) for name in ("chat-app-service",)]


class Policy(Enum):
    READ = CHAT
    WRITE = CHAT & require_scope("tickets:write")

    @property
    def depends(self) -> Any:
        return Depends(self.value)


def needs(*names: str) -> Any:
    return Depends(require_caller(*names))


def protected(policies: Sequence[Policy]) -> list[Any]:
    return [policy.depends for policy in policies]


class Order(BaseModel):
    """A model with a field that has the type and the name of something of ours."""

    caller: str
    principal: dict[str, Any] = {}
    scopes: list[str] = []


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/table", dependencies=[DEPENDS["read"]])
def table() -> str:
    return "table"


@app.get("/table-write")
def table_write(caller: Principal = DEPENDS["write"]) -> str:
    return caller.client_id


@app.get("/enum", dependencies=protected([Policy.READ, Policy.WRITE]))
def by_enum() -> str:
    return "enum"


@app.get("/helper")
def helper(caller: Annotated[Principal, needs("chat-app-service", "shop-api")]) -> str:
    return caller.client_id


@app.get("/by-name", dependencies=BY_NAME)
def by_name() -> str:
    return "names"


@app.post("/order", dependencies=[DEPENDS["read"]])
def order(order: Order) -> str:
    return order.caller


@app.get("/optional")
def optional(caller: CurrentPrincipal, principal: str = "none") -> str:
    return principal


@app.api_route("/all/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
def proxy(path: str, caller: Annotated[Principal, needs("chat-app-service")]) -> str:
    return path


ANSWERS = [
    *((f"GET /{name}", FOR_CHAT) for name in ("table", "table-write", "enum", "helper", "by-name", "all/a/b")),
    (Ask("POST /order", {"json": {"caller": "x"}}), FOR_CHAT),
    ("DELETE /all/a", FOR_CHAT),
    ("GET /optional", FOR_SERVICES),
]

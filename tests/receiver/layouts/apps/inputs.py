"""Models for query, headers and cookies beside a requirement, with every kind of annotation that FastAPI takes."""

import datetime as dt
import uuid
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Optional, Union

from fastapi import Body, Cookie, Depends, FastAPI, Header, Query, Request, Response
from fastapi.security import SecurityScopes
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.requests import HTTPConnection

from s2s_fastapi import Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, TRUST, Ask

Chat = Annotated[Principal, Depends(require_caller("chat-app-service"))]
Even = Annotated[int, AfterValidator(lambda value: value - value % 2)]


class Filters(BaseModel):
    model_config = ConfigDict(extra="forbid")
    limit: Annotated[int, Field(le=100)] = 10
    order: Literal["up", "down"] = "up"
    even: Even = 2


class Headers(BaseModel):
    x_trace: str | None = None


class Node(BaseModel):
    name: str
    children: "list[Node]" = []


class Point(NamedTuple):
    x: int
    y: int


def common(caller: Chat, skip: int = 0) -> dict[str, Any]:
    return {"skip": skip, "by": caller.client_id}


app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


@app.get("/models")
def models(
    caller: Chat,
    filters: Annotated[Filters, Query()],
    headers: Annotated[Headers, Header()],
    session: Annotated[str | None, Cookie()] = None,
) -> int:
    return filters.limit


@app.post("/kinds/{number}")
def kinds(  # noqa: PLR0917 - each kind once
    number: Union[int, "str"],  # the old form, with text inside
    request: Request,
    connection: HTTPConnection,
    response: Response,
    scopes: SecurityScopes,
    common: Annotated[dict[str, Any], Depends(common)],
    day: Optional[dt.date] = None,  # noqa: UP045 - the old form
    key: uuid.UUID | None = None,
    price: "Decimal | None" = None,
    tags: "Annotated[list[str], Query()]" = [],  # noqa: B006 - FastAPI copies it
    node: Annotated[Node | None, Body()] = None,
    *args: Any,
    **kwargs: Any,
) -> str:
    return f"{common['by']} {number} {day} {key} {price} {tags} {node}"


ANSWERS = [
    ("GET /models?limit=5", FOR_CHAT),
    (Ask("POST /kinds/1?args=1&kwargs=2", {"json": {"name": "a", "children": [{"name": "b"}]}}), FOR_CHAT),
]

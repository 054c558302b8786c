"""A request that passes validation, from the OpenAPI document of any FastAPI app."""

import uuid
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from fastapi import Body, Cookie, FastAPI, File, Form, Header, Path, Query, UploadFile
from pydantic import BaseModel, Field

from s2s_fastapi.testing.attack.asgi import AsgiSender, Outgoing
from s2s_fastapi.testing.attack.routes import routes_of
from s2s_fastapi.testing.attack.samples import value_of, with_every_parameter, with_path_parameters


class Colour(Enum):
    RED = "red"


class Line(BaseModel):
    sku: Annotated[str, Field(min_length=3, max_length=5)]
    count: Annotated[int, Field(gt=0)]
    price: Annotated[Decimal, Field(ge=Decimal("0.5"))]


class Tree(BaseModel):
    name: str
    children: "list[Tree]" = []
    parent: "Tree | None"


class Order(BaseModel):
    id: uuid.UUID
    day: date
    at: datetime
    colour: Colour
    kind: Literal["new", "old"]
    lines: Annotated[list[Line], Field(min_length=1)]
    note: str | None
    flags: dict[str, bool]
    code: Annotated[str, Field(pattern="^[A-Z]{3}$")]
    step: Annotated[int, Field(multiple_of=5, ge=7)]
    least: Annotated[int, Field(lt=0)]


app = FastAPI()


@app.post("/orders")
async def order(order: Order) -> str:
    return "ok"


@app.post("/trees")
async def tree(tree: Tree) -> str:
    return "ok"


@app.post("/two")
async def two(order: Order, line: Line) -> str:
    return "ok"


@app.post("/number")
async def number(number: Annotated[int, Body()]) -> str:
    return "ok"


@app.post("/form")
async def form(name: Annotated[str, Form()], count: Annotated[int, Form()]) -> str:
    return "ok"


@app.post("/file")
async def file(file: UploadFile, more: Annotated[list[bytes], File()], name: Annotated[str, Form()]) -> str:
    return "ok"


@app.get("/orders/{number}/{part:path}")
async def part(number: Annotated[int, Path(ge=10)], part: str) -> str:
    return "ok"


@app.get("/search")
async def search(
    q: str,
    limit: Annotated[int, Query(ge=1, le=9)],
    x_tenant: Annotated[str, Header()],
    session: Annotated[str, Cookie()],
    page: int = 1,
) -> str:
    return "ok"


@pytest.mark.parametrize("route", list(routes_of(app)), ids=lambda route: f"{route.method} {route.path}")
def test_a_sample_passes_the_validation_of_fastapi(route: Any) -> None:
    sample = route.sample

    with AsgiSender(app) as sender:
        answer = sender.send(
            Outgoing(
                method=route.method, path=sample.path, query=sample.query, headers=sample.headers, body=sample.body
            )
        )

    assert answer.status == 200


def test_every_route_of_the_app_is_found_but_its_documentation() -> None:
    assert {route.path for route in routes_of(app)} == {
        "/orders", "/trees", "/two", "/number", "/form", "/file", "/orders/{number}/{part:path}", "/search",
    }  # fmt: skip


def test_a_path_gets_a_value_for_each_parameter() -> None:
    assert with_path_parameters("/a/{n:int}/{id:uuid}/{rest:path}/{x}") == (
        "/a/1/00000000-0000-4000-8000-000000000000/x/1"
    )
    assert with_every_parameter("/a/{n:int}/{x}", "health") == "/a/health/health"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "x"),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["string", "null"]}, "x"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 7}, 7),
        ({"type": "integer", "example": 9}, 9),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {}]}, [1, "x"]),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]}, {"a": "x", "b": "x"}),
        ({"$ref": "#/nowhere"}, "x"),
        ({"type": "unheard-of"}, None),
    ],
)  # fmt: skip
def test_the_smallest_value_of_a_schema(schema: dict[str, Any], value: Any) -> None:
    assert value_of(schema, {}) == value

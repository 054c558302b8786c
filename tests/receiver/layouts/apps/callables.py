"""Dependencies and endpoints that are no plain functions: partials, objects, classes, dataclasses, wrapped functions, lambdas."""

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, FastAPI, Query

from s2s_fastapi import CurrentPrincipal, Principal, ServiceAuthMiddleware, require_caller
from tests.receiver.layouts.layout import FOR_CHAT, FOR_SERVICES, TRUST

P = ParamSpec("P")
R = TypeVar("R")
CHAT = require_caller("chat-app-service")
Chat = Annotated[Principal, Depends(CHAT)]


def counted(function: Callable[P, R]) -> Callable[P, R]:
    """Count calls, as metrics decorators do."""
    calls, lock = [0], threading.Lock()

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock:
            calls[0] += 1
        return function(*args, **kwargs)

    return wrapper


def named(prefix: str, caller: Chat) -> str:
    return f"{prefix} {caller.client_id}"


@counted
@counted
def wrapped(caller: Chat) -> str:
    return caller.client_id


class Prefixed:
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    async def __call__(self, caller: Chat) -> str:
        return f"{self.prefix} {caller.client_id}"

    def method(self, caller: Chat) -> str:
        return f"{self.prefix}: {caller.client_id}"


@dataclass
class Page:
    caller: Chat
    limit: Annotated[int, Query(le=100)] = 10


class Client:
    def __init__(self, page: Annotated[Page, Depends()]) -> None:
        self.name = f"{page.caller.client_id} {page.limit}"


prefixed = Prefixed("p")
app = FastAPI()
app.add_middleware(ServiceAuthMiddleware, **TRUST)


def show(value: Any) -> Any:
    return getattr(value, "name", value)


DEPENDENCIES: dict[str, Any] = {
    "partial": functools.partial(named, "partial"),
    "wrapped": wrapped,
    "object": prefixed,
    "method": prefixed.method,
    "dataclass": Page,
    "class": Client,
    "partial-method": functools.partial(Prefixed.method, prefixed),
    "by-lambda": lambda caller=Depends(CHAT): caller.client_id,
}
for name, dependency in DEPENDENCIES.items():
    app.get(f"/{name}", dependencies=[Depends(dependency)])(functools.partial(show, name))


@app.get("/decorated")
@counted
def decorated(caller: Chat) -> str:
    return caller.client_id


app.get("/endpoint-partial")(functools.partial(named, "endpoint"))
app.get("/endpoint-object")(prefixed)


@app.get("/uncached")
def uncached(
    first: Annotated[Principal, Depends(CHAT, use_cache=False)], second: CurrentPrincipal, third: Chat
) -> bool:
    return first == second == third


@app.get("/services")
@counted
def services() -> str:
    return "in"


ANSWERS = [
    *((f"GET /{name}", FOR_CHAT) for name in DEPENDENCIES),
    *((f"GET /{name}", FOR_CHAT) for name in ("decorated", "endpoint-partial", "endpoint-object", "uncached")),
    ("GET /services", FOR_SERVICES),
]
